//! A private ssh-agent.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::run::run;
use crate::temp::{self, TempDir};
use crate::wait::eventually;

const PACKAGE: &str = "openssh-client";
const PATIENCE: Duration = Duration::from_secs(10);

/// An `ssh-agent` with a socket of its own, empty at first. Dropping it ends it.
#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
    dir: TempDir,
}

impl Agent {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    ///
    /// When ssh-agent is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        let dir = TempDir::new();
        let agent = Self {
            daemon: Daemon::new(dir.path()),
            dir,
        };
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(agent.socket());
        agent.daemon.start(command.stderr(Stdio::null()), PACKAGE);
        // The socket is there before anybody listens on it.
        let ready = eventually(PATIENCE, || UnixStream::connect(agent.socket()).is_ok());
        assert!(
            ready,
            "ssh-agent does not listen: {:?}",
            agent.daemon.exited()
        );
        agent
    }

    /// Its socket, as for `SSH_AUTH_SOCK`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid().expect("ssh-agent is running")
    }

    /// Gives it a private key without passphrase, and the certificate that lies beside it.
    pub fn add(&self, private_key: &Path) {
        self.ssh_add(|command| command.arg("-q").arg(private_key));
    }

    /// Takes all keys away.
    pub fn remove_all(&self) {
        self.ssh_add(|command| command.args(["-q", "-D"]));
    }

    /// Locks it with a password. It shows no key then.
    ///
    /// # Panics
    ///
    /// When it does not take the password.
    pub fn lock(&self) {
        let asks = self.dir.path().join("password");
        temp::write(&asks, "#!/bin/sh\necho a password\n", 0o755);
        self.ssh_add(|command| {
            let command = command.env("SSH_ASKPASS_REQUIRE", "force");
            command.env("SSH_ASKPASS", &asks).arg("-x")
        });
    }

    fn ssh_add(&self, args: impl FnOnce(&mut Command) -> &mut Command) {
        let mut command = Command::new("ssh-add");
        args(command.env("SSH_AUTH_SOCK", self.socket()));
        run(&mut command, PACKAGE);
    }
}
