//! SFTP servers of other makers than OpenSSH.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{Gid, Group};

use crate::client;
use crate::daemon::Daemon;
use crate::keys::{self, KeyFormat, KeyPair};
use crate::log::Log;
use crate::ports;
use crate::run::run;
use crate::temp::{self, TempDir};
use crate::trixie;
use crate::user::TestUser;
use crate::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
const ATTEMPTS: usize = 10;
const ASYNCSSH: &str = include_str!("asyncssh_server.py");
/// The server of ProFTPD and its module for SFTP.
const PROFTPD: &str = "proftpd-core proftpd-mod-crypto";

/// Who has made a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Asyncssh,
    ProFtpd,
}

/// An SSH server on loopback that has SFTP and nothing else, with keys and a folder of its own. It
/// works as [`TestUser::plain`].
#[derive(Debug)]
pub struct SftpServer {
    // Before the folder: the processes must be gone when that is removed.
    daemon: Daemon,
    dir: TempDir,
    addr: SocketAddr,
    user: TestUser,
    client_key: KeyPair,
    log: Log,
}

impl SftpServer {
    /// One of asyncssh (Python), whose handles are four binary bytes. scripts/test puts it into
    /// `asyncssh`, beside the Debian trixie.
    ///
    /// # Panics
    ///
    /// When it is not there, or does not start.
    #[must_use]
    pub fn asyncssh() -> Self {
        Self::start(Maker::Asyncssh)
    }

    /// ProFTPD with mod_sftp, which follows symbolic links when it renames.
    ///
    /// # Panics
    ///
    /// When it is not installed, or does not start.
    #[must_use]
    pub fn proftpd() -> Self {
        Self::start(Maker::ProFtpd)
    }

    fn start(maker: Maker) -> Self {
        let dir = TempDir::new();
        let key = |name| keys::generate(dir.path(), name, "ed25519", None, KeyFormat::OpenSsh);
        let (client_key, host_key) = (key("client"), key("host"));
        let mut server = Self {
            daemon: Daemon::new(dir.path()),
            addr: ports::free(),
            user: TestUser::plain(),
            client_key,
            log: Log::new(dir.path().join("log")),
            dir,
        };
        for _ in 0..ATTEMPTS {
            match server.launch(maker, &host_key) {
                Ok(()) => {
                    let line = client::known_hosts_line(server.addr, &host_key.public_line());
                    temp::write(&server.known_hosts(), &line, 0o644);
                    return server;
                }
                Err(report) if report.to_lowercase().contains("address already in use") => {
                    server.addr = ports::free();
                }
                Err(report) => panic!("{maker:?} does not start: {report}"),
            }
        }
        panic!("{maker:?} found no free port in {ATTEMPTS} attempts");
    }

    /// The private key (OpenSSH format, Ed25519, no passphrase) that may log in.
    #[must_use]
    pub fn client_key(&self) -> &Path {
        self.client_key.private()
    }

    /// `user@127.0.0.1:port`
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}@{}", self.user.name(), self.addr)
    }

    /// A known_hosts file with its host key.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// Its processes.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut processes = self.daemon.processes();
        processes.extend(self.daemon.pid());
        processes
    }

    /// Starts the process; the error is what it said before it ended.
    fn launch(&self, maker: Maker, host_key: &KeyPair) -> Result<(), String> {
        let log = File::create(self.dir.path().join("log")).expect("make a log file");
        let (mut command, package, ready) = match maker {
            Maker::Asyncssh => (self.asyncssh_command(host_key), "python3-venv", "listening"),
            Maker::ProFtpd => (self.proftpd_command(host_key), PROFTPD, "STARTUP"),
        };
        self.daemon.start(command.stderr(log), package);
        let mut exited = None;
        let settled = eventually(PATIENCE, || {
            exited = self.daemon.exited();
            exited.is_some() || self.log.text().contains(ready)
        });
        match exited {
            None if settled => Ok(()),
            None => Err(format!(
                "no sign of life in {PATIENCE:?}\n{}",
                self.log.text()
            )),
            Some(status) => Err(format!("{status}\n{}", self.log.text())),
        }
    }

    fn asyncssh_command(&self, host_key: &KeyPair) -> Command {
        let python = trixie::beside("asyncssh").join("bin/python3");
        assert!(
            python.is_file(),
            "there is no asyncssh at {}; this test needs it: run scripts/test, or python3 -m venv, \
             and its pip install asyncssh",
            python.display()
        );
        let (uid, gid) = self.user.ids();
        let mut command = Command::new(python);
        command
            .args(["-I", "-c", ASYNCSSH])
            .args([self.addr.ip().to_string(), self.addr.port().to_string()])
            .args([host_key.private(), &self.client_key.public()])
            .args([uid.to_string(), gid.to_string()]);
        command
    }

    fn proftpd_command(&self, host_key: &KeyPair) -> Command {
        let dir = self.dir.path();
        // RFC 4716, which it wants keys in.
        let mut export = Command::new("ssh-keygen");
        export.arg("-e").arg("-f").arg(self.client_key.public());
        let authorized = run(&mut export, "openssh-client");
        temp::write(&dir.join("authorized"), &authorized, 0o644);
        let ((uid, gid), name) = (self.user.ids(), self.user.name());
        let group = Group::from_gid(Gid::from_raw(gid)).expect("look up a group");
        let group = group.expect("the user has a group").name;
        let passwd = format!("{name}:*:{uid}:{gid}::{}:/bin/sh\n", dir.display());
        temp::write(&dir.join("passwd"), &passwd, 0o600);
        let config = format!(
            "ModulePath /usr/lib/proftpd\nLoadModule mod_sftp.c\nServerName test\n\
             ServerType standalone\nDefaultAddress {}\nPort {}\nUseIPv6 off\nUseReverseDNS off\n\
             User {name}\nGroup {group}\nScoreboardFile none\nPidFile {dir}/pid\nTransferLog none\n\
             WtmpLog off\nDelayEngine off\nControlsEngine off\nAuthPAM off\n\
             AuthOrder mod_auth_file.c\nAuthUserFile {dir}/passwd\nRequireValidShell off\n\
             SystemLog none\nAllowOverwrite on\nAllowStoreRestart on\nSFTPEngine on\n\
             SFTPLog {dir}/sftp.log\nSFTPHostKey {}\nSFTPAuthMethods publickey\n\
             SFTPAuthorizedUserKeys file:{dir}/authorized\n",
            self.addr.ip(),
            self.addr.port(),
            host_key.private().display(),
            dir = dir.display(),
        );
        temp::write(&dir.join("conf"), &config, 0o644);
        let mut command = Command::new("/usr/sbin/proftpd");
        command.arg("-n").arg("-c").arg(dir.join("conf"));
        fs::remove_file(dir.join("pid")).ok();
        command
    }
}
