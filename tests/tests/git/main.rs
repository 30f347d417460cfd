//! The stock git over the pool, on a real sshd: what it does, what it says when it cannot, and what
//! it cannot be led to do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::path::Path;

use ssh_pool::git::{Command, Git};
use ssh_pool::{Limits, Pool};
use ssh_pool_tests::{Repos, Sshd, TempDir, TestUser, git_env};

mod everyday;
mod hooks;
mod hostile;
mod lfs;
mod losses;
#[path = "../support/mod.rs"]
mod support;

pub(crate) use support::{SOON, builder, known};

/// A server with repositories, and git with a pool for it.
pub(crate) struct Place {
    pub(crate) sshd: Sshd,
    pub(crate) repos: Repos,
    pub(crate) pool: Pool,
    pub(crate) git: Git,
    /// For clones.
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::on(Sshd::start())
    }

    pub(crate) fn on(sshd: Sshd) -> Self {
        Self::limited(sshd, Limits::default())
    }

    pub(crate) fn limited(sshd: Sshd, limits: Limits) -> Self {
        let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
        let git = with_shim(&pool).allow(sshd.target()).unwrap();
        Self {
            repos: Repos::new(&TestUser::plain()),
            pool,
            git,
            sshd,
            dir: TempDir::new(),
        }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        self.repos.url(&self.sshd.target(), name)
    }

    /// git without anybody's configuration.
    pub(crate) fn command(&self) -> Command {
        plain(&self.git)
    }

    /// git in a clone.
    pub(crate) fn inside(&self, clone: &str) -> Command {
        let mut command = self.command();
        command.current_dir(self.dir.path().join(clone));
        command
    }

    /// Clones, and says where to.
    pub(crate) async fn clone(&self, name: &str, options: &[&str]) -> std::path::PathBuf {
        let into = self.dir.path().join(name);
        let mut command = self.command();
        command
            .arg("clone")
            .args(options)
            .arg(self.url(name))
            .arg(&into);
        succeeds(command).await;
        into
    }
}

/// git whose ssh is the shim of these tests, and that may reach no host yet.
pub(crate) fn with_shim(pool: &Pool) -> Git {
    Git::new(pool).shim(Path::new(env!("CARGO_BIN_EXE_ssh-pool-test-shim")))
}

pub(crate) fn plain(git: &Git) -> Command {
    let mut command = git.command();
    for (name, value) in git_env() {
        command.env(name, value);
    }
    command
}

/// Runs it to its end, which is a good one, and gives what it printed.
pub(crate) async fn succeeds(mut command: Command) -> String {
    let output = tokio::time::timeout(SOON * 3, command.output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{command:?} hangs"))
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {told} {:?}",
        output.status,
        output.troubles
    );
    assert!(output.troubles.is_empty(), "{:?}", output.troubles);
    String::from_utf8(output.stdout).unwrap()
}
