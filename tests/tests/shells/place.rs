//! A server with an account of one login shell, and a pool for it.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Timeouts};
use ssh_pool_tests::{Dropbear, Release, Sshd, TempDir, TestUser, eventually_async};

use crate::SOON;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    OpenSsh(Release),
    Dropbear,
}

impl Server {
    pub(crate) const ALL: [Self; 3] = [
        Self::OpenSsh(Release::Installed),
        Self::OpenSsh(Release::Trixie),
        Self::Dropbear,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    Sh,
    Dash,
    Bash,
    Zsh,
    Ksh93,
    Mksh,
    Ash,
    Fish,
    Tcsh,
    Csh,
    Rbash,
    Git,
    Nologin,
    /// No shell at all, and a success.
    True,
}

impl Shell {
    /// Those that run commands.
    pub(crate) const RUNNING: [Self; 10] = [
        Self::Sh,
        Self::Dash,
        Self::Bash,
        Self::Zsh,
        Self::Ksh93,
        Self::Mksh,
        Self::Ash,
        Self::Fish,
        Self::Tcsh,
        Self::Csh,
    ];
    pub(crate) const REFUSING: [Self; 3] = [Self::Git, Self::Nologin, Self::True];

    pub(crate) fn is_posix(self) -> bool {
        !matches!(self, Self::Fish | Self::Tcsh | Self::Csh)
    }

    /// Where it is on that server. `links` holds what is not installed under the name it is used by.
    fn path(self, server: Server, links: &TempDir) -> PathBuf {
        let installed = match self {
            Self::Sh => "/bin/sh",
            Self::Dash => "/bin/dash",
            Self::Bash => "/bin/bash",
            Self::Zsh => "/usr/bin/zsh",
            Self::Ksh93 => "/usr/bin/ksh93",
            Self::Mksh => "/usr/bin/mksh",
            Self::Ash => {
                let link = links.path().join("ash");
                symlink("/usr/bin/busybox", &link).unwrap();
                return link;
            }
            Self::Fish => "/usr/bin/fish",
            Self::Tcsh => "/usr/bin/tcsh",
            Self::Csh => "/usr/bin/bsd-csh",
            Self::Rbash => "/bin/rbash",
            Self::Git if server == Server::OpenSsh(Release::Trixie) => "/usr/bin/git-shell",
            Self::Git => return on_path("git-shell"),
            Self::Nologin => "/usr/sbin/nologin",
            Self::True => "/bin/true",
        };
        installed.into()
    }
}

fn on_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(program));
    let found = candidates.find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{program} is missing: apt-get install git"))
}

enum Running {
    Sshd(Sshd),
    Dropbear(Dropbear),
}

pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) pool: Pool,
    pub(crate) host: Host,
    running: Running,
    _links: TempDir,
}

impl Place {
    pub(crate) fn new(server: Server, shell: Shell, root: bool) -> Self {
        Self::with(server, shell, root, |_| {})
    }

    /// `prepare` may put start-up files into the home.
    pub(crate) fn with(
        server: Server,
        shell: Shell,
        root: bool,
        prepare: impl FnOnce(&std::path::Path),
    ) -> Self {
        let user = match root {
            true => TestUser::root_or_current(),
            false => TestUser::plain(),
        };
        let links = TempDir::new();
        let path = shell.path(server, &links);
        let running = match server {
            Server::OpenSsh(release) => Running::Sshd(
                (Sshd::builder().release(release).user(user))
                    .login_shell(path)
                    .start(),
            ),
            Server::Dropbear => {
                Running::Dropbear(Dropbear::builder().login_shell(user, path).start())
            }
        };
        let (target, known, key, home) = match &running {
            Running::Sshd(s) => (s.target(), s.known_hosts(), s.client_key(), s.home()),
            Running::Dropbear(d) => (d.target(), d.known_hosts(), d.client_key(), d.home()),
        };
        prepare(home);
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known))
            .identity(Identity::key_file(key))
            .timeouts(Timeouts::default().kill_grace(std::time::Duration::from_secs(1)))
            .build()
            .unwrap();
        let who = if root { "root" } else { "user" };
        Self {
            name: format!("{server:?} {shell:?} {who}"),
            host: pool.host(target.as_str()).unwrap(),
            pool,
            running,
            _links: links,
        }
    }

    /// The stock client.
    pub(crate) fn ssh(&self) -> Command {
        match &self.running {
            Running::Sshd(sshd) => sshd.ssh(),
            Running::Dropbear(dropbear) => dropbear.ssh(),
        }
    }

    /// Command lines of the processes below the server.
    pub(crate) fn processes(&self) -> Vec<String> {
        let all = match &self.running {
            Running::Sshd(sshd) => sshd.session_processes(),
            Running::Dropbear(dropbear) => dropbear.session_processes(),
        };
        all.into_iter().map(|(_, line)| line).collect()
    }

    /// Waits until a process with exactly this command line runs, or does not run any more.
    pub(crate) async fn until_runs(&self, line: &str, runs: bool) {
        let is = || self.processes().iter().any(|other| other == line) == runs;
        let reached = eventually_async(SOON, is).await;
        assert!(
            reached,
            "{}: {line} {runs}: {:?}",
            self.name,
            self.processes()
        );
    }
}
