//! Servers of its own: their folders, and how one of them can be made to fail.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use ssh_pool_tests::{Sshd, TempDir, TestUser, eventually_async};

/// Where a deploy is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Harm {
    /// The server is down.
    Connect,
    /// There is a file where a folder should be.
    Upload,
    /// The configuration is wrong.
    Install,
    /// There is a folder where the symlink should be.
    Switch,
    /// The program says that it is not well.
    Check,
    /// The connection is lost while the script runs.
    Lost,
}

/// A folder for each server, which whoever logs in may write to.
pub(crate) fn folders(count: usize) -> Vec<TempDir> {
    let user = TestUser::plain();
    let folder = |_| {
        let folder = TempDir::new();
        user.own(folder.path());
        folder
    };
    (0..count).map(folder).collect()
}

impl Harm {
    /// Prepares a server and its folder to fail.
    pub(crate) fn prepare(self, server: &Sshd, folder: &TempDir) -> anyhow::Result<()> {
        let dir = folder.path();
        match self {
            Harm::Connect => server.stop(),
            Harm::Upload => std::fs::write(dir.join("releases"), "")?,
            Harm::Install => std::fs::write(dir.join("config"), "port=eighty\n")?,
            Harm::Switch => std::fs::create_dir_all(dir.join("current/old"))?,
            Harm::Check => std::fs::write(dir.join("maintenance"), "")?,
            Harm::Lost => hang(dir)?,
        }
        Ok(())
    }
}

/// Whoever reads this configuration waits for good: it is a pipe that nobody writes to.
pub(crate) fn hang(dir: &Path) -> anyhow::Result<()> {
    let status = std::process::Command::new("mkfifo")
        .args(["-m", "644"])
        .arg(dir.join("config"))
        .status()?;
    ensure!(status.success(), "mkfifo: {status}");
    Ok(())
}

/// Whether a process of that server waits for its configuration.
pub(crate) fn hangs(server: &Sshd) -> bool {
    (server.session_processes().iter())
        .any(|(_, line)| line.starts_with("sed ") && line.ends_with("/config"))
}

/// What has to be done to the server while the deploy runs. It never comes back by itself.
pub(crate) async fn strike(harm: Option<Harm>, server: Option<&Sshd>) -> Infallible {
    if let (Some(Harm::Lost), Some(server)) = (harm, server) {
        let bound = Duration::from_secs(60);
        if eventually_async(bound, || hangs(server)).await {
            tokio::task::block_in_place(|| server.kill_connections());
        }
    }
    std::future::pending().await
}
