//! A private dropbear server.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::account::Account;
use crate::client;
use crate::daemon::Daemon;
use crate::keys::{self, KeyFormat, KeyPair};
use crate::log::Log;
use crate::ports;
use crate::procs;
use crate::release::Release;
use crate::run::run;
use crate::temp::{self, TempDir};
use crate::trixie;
use crate::user::{self, TestUser};
use crate::wait::eventually;

const PACKAGE: &str = "dropbear-bin";
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 10;

/// A dropbear on loopback with keys and a log of its own, and stock limits.
///
/// dropbear reads `~/.ssh/authorized_keys` and nothing else, so the key of each fixture is a line
/// in that of the test user, taken out again when the fixture is dropped.
#[derive(Debug)]
pub struct Dropbear {
    // Before the folder: the processes must be gone when that is removed.
    daemon: Daemon,
    dir: TempDir,
    addr: SocketAddr,
    user: TestUser,
    account: Option<Account>,
    client_key: KeyPair,
    host_public_key: String,
    log: Log,
}

/// What a [`Dropbear`] is started with.
#[derive(Clone, Debug)]
pub struct DropbearBuilder {
    args: Vec<String>,
    host_key: String,
    release: Release,
    login_shell: Option<(TestUser, PathBuf)>,
}

impl DropbearBuilder {
    /// Adds an argument to its command line, such as `-T` or `3`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The type of its host key (`ed25519`, `ecdsa` or `rsa`); `ed25519` by default.
    #[must_use]
    pub fn host_key(mut self, kind: &str) -> Self {
        kind.clone_into(&mut self.host_key);
        self
    }

    /// Which dropbear it is; the installed one by default.
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// Who logs in, and with which login shell. The user has an empty home as well; on this server
    /// alone.
    #[must_use]
    pub fn login_shell(mut self, user: TestUser, shell: impl Into<PathBuf>) -> Self {
        self.login_shell = Some((user, shell.into()));
        self
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Panics
    ///
    /// When dropbear is not installed or does not start; and when the tests do not run as root,
    /// because then the only user to log in is the one who runs them, whose own
    /// `authorized_keys` is not for tests to write to.
    #[must_use]
    pub fn start(self) -> Dropbear {
        let user = match &self.login_shell {
            Some((user, _)) => user.clone(),
            None => TestUser::plain(),
        };
        assert!(
            self.login_shell.is_some() || !user.is_current(),
            "tests with dropbear need a user of their own to log in, and root to make one"
        );
        let dir = TempDir::new();
        let client_key = keys::generate(dir.path(), "client", "ed25519", None, KeyFormat::OpenSsh);
        let host_public_key = make_host_key(&dir.path().join("host"), &self.host_key);
        let mut dropbear = Dropbear {
            daemon: Daemon::new(dir.path()),
            addr: ports::free(),
            account: (self.login_shell.as_ref())
                .map(|(user, shell)| Account::new(dir.path(), user, shell)),
            user,
            client_key,
            host_public_key,
            log: Log::new(dir.path().join("log")),
            dir,
        };
        dropbear.authorize(&dropbear.client_key.public_line());
        for _ in 0..ATTEMPTS {
            match dropbear.launch(&self) {
                Ok(()) => {
                    let line = client::known_hosts_line(dropbear.addr, &dropbear.host_public_key);
                    temp::write(&dropbear.known_hosts(), &line, 0o644);
                    return dropbear;
                }
                Err(report) if report.contains("Address already in use") => {
                    dropbear.addr = ports::free();
                }
                Err(report) => panic!("dropbear does not start: {report}"),
            }
        }
        panic!("dropbear found no free port in {ATTEMPTS} attempts");
    }
}

impl Dropbear {
    /// A server with stock settings; change them before [`start`](DropbearBuilder::start).
    #[must_use]
    pub fn builder() -> DropbearBuilder {
        DropbearBuilder {
            args: Vec::new(),
            host_key: "ed25519".to_owned(),
            release: Release::default(),
            login_shell: None,
        }
    }

    /// Starts one with nothing changed.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The private key (OpenSSH format, Ed25519, no passphrase) that may log in.
    #[must_use]
    pub fn client_key(&self) -> &Path {
        self.client_key.private()
    }

    /// The name to log in with.
    #[must_use]
    pub fn user(&self) -> &str {
        self.user.name()
    }

    /// `user@127.0.0.1:port`
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}@{}", self.user(), self.addr)
    }

    /// The home of the user on this server.
    #[must_use]
    pub fn home(&self) -> &Path {
        match &self.account {
            Some(account) => account.home(),
            None => self.user.home(),
        }
    }

    /// A known_hosts file with its host key.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.dir().join("known_hosts")
    }

    /// Its public host key: `ssh-ed25519 AAAA… comment`.
    #[must_use]
    pub fn host_public_key(&self) -> &str {
        &self.host_public_key
    }

    /// Its folder: keys and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lets one more public key log in, here and on every other dropbear fixture that runs.
    pub fn authorize(&self, public_key_line: &str) {
        let folder = self.home().join(".ssh");
        self.edit_authorized(|lines| {
            // The comment ties the line to this fixture. A key line is type, key, comment.
            let key: Vec<_> = public_key_line.split_whitespace().take(2).collect();
            lines.push(format!("{} {}", key.join(" "), self.mark()));
        });
        self.user.own(&folder);
    }

    /// The stock client, about to log in here: add a command.
    #[must_use]
    pub fn ssh(&self) -> Command {
        client::ssh(
            self.addr,
            self.user(),
            self.client_key(),
            &self.known_hosts(),
        )
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// How many TCP connections it has taken.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.log
            .count(|line| line.contains("Child connection from "))
    }

    /// How many of them have logged in.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.log.count(|line| line.contains(" auth succeeded for "))
    }

    /// How many connections tried to log in and gave up, or were cut off.
    #[must_use]
    pub fn auth_failures(&self) -> usize {
        self.log
            .count(|line| line.contains("Exit before auth") && line.contains(" fails)"))
    }

    /// Waits until `count` lines of the log hold `pattern`; `false` when that takes too long.
    #[must_use]
    pub fn wait_for_log(&self, pattern: &str, count: usize, timeout: Duration) -> bool {
        self.log.wait_for(pattern, count, timeout)
    }

    /// The process that listens.
    ///
    /// # Panics
    ///
    /// While it is stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid().expect("dropbear is running")
    }

    /// Its processes for connections, one for each.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        self.daemon.children()
    }

    /// Everything that runs below it, or was left by a connection that has gone: process id and
    /// command line.
    #[must_use]
    pub fn session_processes(&self) -> Vec<(u32, String)> {
        self.daemon
            .processes()
            .into_iter()
            .filter_map(|pid| Some((pid, procs::command_line(pid)?)))
            .collect()
    }

    /// Stops the process that listens and waits for its end. Open connections live on.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Kills (SIGKILL) its processes for connections and waits for their end. Commands lose their
    /// pipes and may live on.
    pub fn kill_connections(&self) {
        let gone = eventually(PATIENCE, || {
            let left = self.children();
            left.iter().copied().for_each(procs::kill);
            left.is_empty()
        });
        assert!(gone, "dropbear's children survive: {:?}", self.children());
    }

    /// Starts the process; the error is what it said before it ended.
    fn launch(&self, settings: &DropbearBuilder) -> Result<(), String> {
        let log = File::create(self.dir().join("log")).expect("make a log file");
        let (mut command, package) = match settings.release {
            Release::Installed => (Command::new("/usr/sbin/dropbear"), PACKAGE),
            Release::Trixie => (
                trixie::server(trixie::DROPBEAR, self.home()),
                trixie::PACKAGE,
            ),
        };
        command
            // -e hands the environment on, and with it the mark that its end is found by.
            .args(["-F", "-E", "-e", "-m", "-p", &self.addr.to_string(), "-r"])
            .arg(self.dir().join("host"))
            .arg("-P")
            .arg(self.dir().join("pid"))
            .args(&settings.args);
        if let Some(account) = &self.account {
            command = account.enter(&command);
        }
        command.stderr(log);
        self.daemon.start(&mut command, package);
        let mut exited = None;
        let settled = eventually(PATIENCE, || {
            exited = self.daemon.exited();
            // Said after its sockets listen.
            exited.is_some() || self.log().contains("Not backgrounding")
        });
        match exited {
            None if settled => Ok(()),
            None => Err(format!("no sign of life in {PATIENCE:?}\n{}", self.log())),
            Some(status) => Err(format!("{status}\n{}", self.log())),
        }
    }

    /// The comment of this fixture's lines in `authorized_keys`.
    fn mark(&self) -> String {
        self.dir().display().to_string()
    }

    /// Changes the user's `authorized_keys` while no other fixture does.
    fn edit_authorized(&self, edit: impl FnOnce(&mut Vec<String>)) {
        let _lock = user::lock();
        let folder = self.home().join(".ssh");
        fs::create_dir_all(&folder).expect("make ~/.ssh of the test user");
        temp::set_mode(&folder, 0o700);
        let path = folder.join("authorized_keys");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines().map(str::to_owned).collect();
        edit(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        // Written aside and moved: a login at the same time reads the old file or the new one.
        let aside = folder.join("authorized_keys.new");
        temp::write(&aside, &text, 0o600);
        self.user.own(&aside);
        fs::rename(&aside, &path).expect("replace authorized_keys of the test user");
    }
}

impl Drop for Dropbear {
    fn drop(&mut self) {
        let mark = self.mark();
        self.edit_authorized(|lines| lines.retain(|line| !line.ends_with(&mark)));
    }
}

fn make_host_key(path: &Path, kind: &str) -> String {
    let mut command = Command::new("dropbearkey");
    command.args(["-t", kind, "-f"]).arg(path);
    run(&mut command, PACKAGE);
    let printed = run(
        Command::new("dropbearkey").arg("-y").arg("-f").arg(path),
        PACKAGE,
    );
    printed
        .lines()
        .find(|line| line.starts_with("ssh-") || line.starts_with("ecdsa-"))
        .expect("dropbearkey -y prints the public key")
        .to_owned()
}
