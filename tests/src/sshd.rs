//! A private OpenSSH server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::account::Account;
use crate::client;
use crate::daemon::Daemon;
use crate::keys::{self, KeyFormat, KeyPair};
use crate::log::{Log, auth_failures};
use crate::pam::PamService;
use crate::ports;
use crate::procs;
use crate::release::Release;
use crate::temp::{self, TempDir};
use crate::trixie;
use crate::user::TestUser;
use crate::wait::eventually;

const PACKAGE: &str = "openssh-server";
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 10;
/// What stands before it in the configuration was added by [`Sshd::restart_with`].
const OVERRIDES_END: &str = "# end of overrides\n";

/// An sshd on loopback with keys, log and folder of its own, and stock limits.
///
/// Dropping it ends it with all its connections and their processes.
#[derive(Debug)]
pub struct Sshd {
    // Before the folder: the processes must be gone when that is removed.
    daemon: Daemon,
    dir: TempDir,
    addr: SocketAddr,
    user: TestUser,
    account: Option<Account>,
    pam: Option<PamService>,
    client_key: KeyPair,
    host_keys: Vec<(String, KeyPair)>,
    log: Log,
    release: Release,
}

/// What an [`Sshd`] is started with.
#[derive(Clone, Debug)]
pub struct SshdBuilder {
    options: Vec<String>,
    host_keys: Vec<String>,
    user: Option<TestUser>,
    login_shell: Option<PathBuf>,
    pam: Option<String>,
    release: Release,
    addr: Option<SocketAddr>,
}

impl SshdBuilder {
    /// Adds a line to the configuration, such as `MaxSessions 2`. sshd takes the first value of an
    /// option, so this one wins over whatever the fixture sets.
    #[must_use]
    pub fn option(mut self, line: impl Into<String>) -> Self {
        self.options.push(line.into());
        self
    }

    /// The types of its host keys (`ed25519`, `ecdsa`, `rsa`); `ed25519` alone by default.
    #[must_use]
    pub fn host_keys(mut self, kinds: &[&str]) -> Self {
        self.host_keys = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        self
    }

    /// Who the client key logs in as; [`TestUser::plain`] by default.
    #[must_use]
    pub fn user(mut self, user: TestUser) -> Self {
        self.user = Some(user);
        self
    }

    /// The login shell of the user, who then has an empty home as well; on this server alone. Needs
    /// root.
    #[must_use]
    pub fn login_shell(mut self, shell: impl Into<PathBuf>) -> Self {
        self.login_shell = Some(shell.into());
        self
    }

    /// Uses PAM, with these rules: the text of a file in `/etc/pam.d`. Needs root, and the installed
    /// release.
    #[must_use]
    pub fn pam(mut self, rules: impl Into<String>) -> Self {
        self.pam = Some(rules.into());
        self.option("UsePAM yes")
    }

    /// Which OpenSSH it is; [`Release::Installed`] by default.
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// Where it listens; a free port of 127.0.0.1 by default.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.addr = Some(addr);
        self
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Panics
    ///
    /// When sshd is not there, or does not start; the message holds its log.
    #[must_use]
    pub fn start(self) -> Sshd {
        let user = self.user.clone().unwrap_or_else(TestUser::plain);
        let dir = TempDir::new();
        let key = |name: &str, kind: &str| {
            keys::generate(dir.path(), name, kind, None, KeyFormat::OpenSsh)
        };
        let client_key = key("client", "ed25519");
        let authorized = format!("{}\n", client_key.public_line());
        temp::write(&dir.path().join("authorized_keys"), &authorized, 0o644);
        let host_keys = self
            .host_keys
            .iter()
            .map(|kind| (kind.clone(), key(&format!("host_{kind}"), kind)))
            .collect();
        if Uid::effective().is_root() {
            fs::create_dir_all("/run/sshd").expect("make /run/sshd, which sshd locks itself into");
        }
        let mut sshd = Sshd {
            daemon: Daemon::new(dir.path()),
            addr: self.addr.unwrap_or_else(ports::free),
            account: (self.login_shell.as_ref())
                .map(|shell| Account::new(dir.path(), &user, shell)),
            pam: (self.pam.as_ref())
                .map(|rules| PamService::new(dir.path(), Path::new(&installed()), rules)),
            user,
            client_key,
            host_keys,
            log: Log::new(dir.path().join("log")),
            release: self.release,
            dir,
        };
        for _ in 0..ATTEMPTS {
            self.configure(&sshd);
            match sshd.launch() {
                Ok(()) => return sshd,
                Err(report) if self.addr.is_none() && report.contains("Address already in use") => {
                    sshd.addr = ports::free();
                }
                Err(report) => panic!("sshd does not start: {report}"),
            }
        }
        panic!("sshd found no free port in {ATTEMPTS} attempts");
    }

    fn configure(&self, sshd: &Sshd) {
        let mut config: String = self
            .options
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        config += &format!(
            "ListenAddress {}\nPidFile none\nUsePAM no\nLogLevel VERBOSE\nAuthorizedKeysFile {}\n",
            sshd.addr,
            sshd.authorized_keys().display(),
        );
        // Its folder lies below /tmp, which anybody may write to.
        config += "StrictModes no\n";
        // With SHLVL bash does not take itself for one that sshd has started, and reads no start-up
        // file of a user of this machine: those are slow, and some take locks, which is no good
        // place to be killed in.
        let level = if self.login_shell.is_none() {
            " SHLVL=1"
        } else {
            ""
        };
        config += &format!("SetEnv {}{level}\n", sshd.daemon.mark().entry());
        // A subsystem, unlike the rest, must not be named twice.
        let starts = |line: &String| line.to_lowercase().starts_with("subsystem");
        if !self.options.iter().any(starts) {
            config += "Subsystem sftp internal-sftp\n";
        }
        for (_, key) in &sshd.host_keys {
            config += &format!("HostKey {}\n", key.private().display());
        }
        temp::write(&sshd.config(), &config, 0o644);
        let known_hosts: String = sshd
            .host_keys
            .iter()
            .map(|(_, key)| client::known_hosts_line(sshd.addr, &key.public_line()))
            .collect();
        temp::write(&sshd.known_hosts(), &known_hosts, 0o644);
    }
}

impl Sshd {
    /// A server with stock settings; change them before [`start`](SshdBuilder::start).
    #[must_use]
    pub fn builder() -> SshdBuilder {
        SshdBuilder {
            options: Vec::new(),
            host_keys: vec!["ed25519".to_owned()],
            user: None,
            login_shell: None,
            pam: None,
            release: Release::default(),
            addr: None,
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

    /// `user@address:port`
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

    /// A known_hosts file with all its host keys.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.dir().join("known_hosts")
    }

    /// Which OpenSSH it is.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// Its public host key of that type: `ssh-ed25519 AAAA… comment`.
    ///
    /// # Panics
    ///
    /// When it has none of that type.
    #[must_use]
    pub fn host_public_key(&self, kind: &str) -> String {
        self.host_key(kind).public_line()
    }

    /// Its folder: configuration, keys and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lets one more public key log in.
    pub fn authorize(&self, public_key_line: &str) {
        let lines = fs::read_to_string(self.authorized_keys()).expect("read authorized_keys");
        self.replace_authorized(&format!("{lines}{}\n", public_key_line.trim_end()));
    }

    /// Lets this public key log in, and no other one any more.
    pub fn authorize_only(&self, public_key_line: &str) {
        self.replace_authorized(&format!("{}\n", public_key_line.trim_end()));
    }

    /// No login sees half of it.
    fn replace_authorized(&self, lines: &str) {
        let next = self.dir().join("authorized_keys.next");
        temp::write(&next, lines, 0o644);
        fs::rename(&next, self.authorized_keys()).expect("replace authorized_keys");
    }

    /// Gives it another host key in the place of the one of that type, from the next
    /// [`restart`](Self::restart) on. Its known_hosts file lists both.
    ///
    /// # Panics
    ///
    /// When it has none of that type.
    pub fn rotate_host_key(&self, kind: &str) {
        let fresh = TempDir::new();
        let key = keys::generate(fresh.path(), kind, kind, None, KeyFormat::OpenSsh);
        let old = self.host_key(kind);
        for (from, to) in [
            (key.private().to_owned(), old.private().to_owned()),
            (key.public(), old.public()),
        ] {
            fs::copy(from, to).expect("replace a host key");
        }
        let mut known = fs::read_to_string(self.known_hosts()).expect("read known_hosts");
        known += &client::known_hosts_line(self.addr, &key.public_line());
        temp::write(&self.known_hosts(), &known, 0o644);
    }

    fn host_key(&self, kind: &str) -> &KeyPair {
        let found = self.host_keys.iter().find(|(of, _)| of == kind);
        &(found.unwrap_or_else(|| panic!("this sshd has no {kind} host key"))).1
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

    /// Everything it has logged (LogLevel VERBOSE).
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// How many TCP connections it has taken.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.log.count(|line| line.starts_with("Connection from "))
    }

    /// How many of them have logged in.
    #[must_use]
    pub fn accepted(&self) -> usize {
        // At VERBOSE there is also "Accepted key … found at …", for every key that would do.
        self.log
            .count(|line| line.starts_with("Accepted ") && line.contains(" ssh2"))
    }

    /// How many connections offered a key or a password and have not logged in: failed attempts
    /// as a human counts them, whatever the number of keys.
    #[must_use]
    pub fn auth_failures(&self) -> usize {
        auth_failures(&self.log())
    }

    /// How many keys and passwords it has turned down, over all connections. MaxAuthTries counts
    /// these.
    #[must_use]
    pub fn refused_credentials(&self) -> usize {
        self.log
            .count(|line| line.starts_with("Failed ") && !line.starts_with("Failed none "))
    }

    /// What it has logged of penalties (PerSourcePenalties, OpenSSH 9.8 and later): the first one of
    /// an address even where it is below the minimum and has no effect yet, each one that takes
    /// effect, and every connection that was turned away for one.
    #[must_use]
    pub fn penalties(&self) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("penalty"));
        lines.map(str::to_owned).collect()
    }

    /// Nobody has been punished, nor come near to it. Older releases do not punish.
    ///
    /// # Panics
    ///
    /// When somebody has, with the lines of the log.
    pub fn assert_no_penalty(&self) {
        let penalties = self.penalties();
        assert!(penalties.is_empty(), "punished: {penalties:#?}");
    }

    /// Nobody has been shut out, though penalties may have been counted.
    ///
    /// # Panics
    ///
    /// When somebody has, with the lines of the log.
    pub fn assert_not_banned(&self) {
        let mut penalties = self.penalties();
        // Below the minimum (15 s by default) a penalty is deferred.
        penalties.retain(|line| !line.contains(" deferred penalty "));
        assert!(penalties.is_empty(), "banned: {penalties:#?}");
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
        self.daemon.pid().expect("sshd is running")
    }

    /// Its processes for connections: one or two for each, and none that runs a command.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let mut found = self.daemon.processes();
        found.retain(|pid| procs::name(*pid).is_some_and(|name| name.starts_with("sshd")));
        found
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.daemon.children().len()
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

    /// Stops the process that listens and waits for its end. Open connections live on, as they do
    /// when a service manager restarts sshd; see [`kill_connections`](Self::kill_connections).
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Kills (SIGKILL) its processes for connections and waits for their end. Commands lose their
    /// pipes and may live on.
    pub fn kill_connections(&self) {
        let gone = eventually(PATIENCE, || {
            let left = self.children();
            for pid in &left {
                procs::send_signal(*pid, Signal::SIGKILL);
            }
            left.is_empty()
        });
        assert!(gone, "sshd's children survive: {:?}", self.children());
    }

    /// Stops it if it runs, and starts it on the same port with the same keys.
    pub fn restart(&self) {
        self.stop();
        if let Err(report) = self.launch() {
            panic!("sshd does not start again: {report}");
        }
    }

    /// Restarts it with these lines before its configuration, until the next call: sshd takes the
    /// first value of an option. Open connections live on.
    pub fn restart_with(&self, lines: &[&str]) {
        let config = fs::read_to_string(self.config()).expect("read sshd_config");
        let stock = config
            .split_once(OVERRIDES_END)
            .map_or(&*config, |(_, stock)| stock);
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        text += OVERRIDES_END;
        text += stock;
        temp::write(&self.config(), &text, 0o644);
        self.restart();
    }

    fn config(&self) -> PathBuf {
        self.dir().join("sshd_config")
    }

    fn authorized_keys(&self) -> PathBuf {
        self.dir().join("authorized_keys")
    }

    /// Starts the process; the error is what it said before it ended.
    fn launch(&self) -> Result<(), String> {
        let (mut command, package) = match self.release {
            Release::Installed => {
                let command = match &self.pam {
                    Some(pam) => Command::new(pam.program()),
                    None => Command::new(installed()),
                };
                (command, PACKAGE)
            }
            Release::Trixie => (trixie::server(trixie::SSHD, self.home()), trixie::PACKAGE),
        };
        let stderr = fs::File::create(self.dir().join("stderr")).expect("make a file for stderr");
        if let Some(account) = &self.account {
            command = account.enter(&command);
        }
        command
            .args(["-D", "-f"])
            .arg(self.config())
            .arg("-E")
            .arg(self.dir().join("log"))
            .stderr(stderr);
        // A connection as a probe would be counted, and be punished by newer servers.
        let listening = format!(
            "Server listening on {} port {}.",
            self.addr.ip(),
            self.port()
        );
        let times = |line: &str| line.contains(&listening);
        let before = self.log.count(times);
        self.daemon.start(&mut command, package);
        let mut exited = None;
        let settled = eventually(PATIENCE, || {
            exited = self.daemon.exited();
            exited.is_some() || self.log.count(times) > before
        });
        match exited {
            None if settled => Ok(()),
            None => Err(format!(
                "no sign of listening in {PATIENCE:?}\n{}",
                self.report()
            )),
            Some(status) => Err(format!("{status}\n{}", self.report())),
        }
    }

    fn report(&self) -> String {
        let stderr = fs::read_to_string(self.dir().join("stderr")).unwrap_or_default();
        format!("{stderr}{}", self.log())
    }
}

/// The installed sshd.
fn installed() -> String {
    std::env::var("SSH_POOL_TEST_SSHD").unwrap_or_else(|_| "/usr/sbin/sshd".to_owned())
}
