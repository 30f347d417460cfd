//! The storm through OpenSSH's multiplexing, as the deploy platform Coolify drives it.
//!
//! What is replayed, from its public sources (`SshMultiplexingHelper`, `SshRetryable`,
//! `ExecuteRemoteCommand`, `remoteProcess.php`, `config/constants.php`), at two [releases](Release):
//! before a command `ssh -O check`, and a health check through the master, `timeout 5`; without a
//! master `ssh -fN` with `ControlMaster=auto` and `ControlPersist=3600`; with one that is not well a
//! new one in its place; then `timeout N ssh … 'bash -se'` with the script on standard input; and up
//! to two more tries, 2 and 4 seconds later, if the error text looks like one of a connection. Each
//! of these is a process, and each command has a worker of its own.
//!
//! As there, `-O` and the health check get neither key nor host-key options. So where the
//! master has no session left for a health check, ssh's own login in its place fails, and the
//! master counts as ill.
//!
//! What differs is in its favour, or for the sake of this machine. `ServerAliveInterval` is 1 and
//! `ServerAliveCountMax` 2, not 20 and 3: a dead network is found as fast as by ssh-pool. Where
//! nothing else is said, a process may run for 60 s there, and a command for an hour: here both have
//! the limit of a command. A lock that comes free goes to the next at once and not up to 250 ms
//! later. Nobody's configuration, agent or known hosts are used. The maximal age of a master (30
//! min), the hourly job that looks for processes left behind, and tunnels are not replayed.

use std::ffi::OsString;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use ssh_pool_tests::eventually_async;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::ledger::{Id, answers};
use crate::masters::Masters;
use crate::side::{Answer, Asked, Left};
use crate::test_host::TestHost;

const HEALTH_LIMIT: Duration = Duration::from_secs(5);
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const TRIES: usize = 3;
/// How much longer than `timeout` this side waits for it.
const GRACE: Duration = Duration::from_secs(5);
/// How long an ended process's output may stay open.
const CLOSING: Duration = Duration::from_millis(500);

/// What its texts are searched for, in lower case. Those that hold a shorter one of the list are
/// left out, and so are those that look like regular expressions: they are compared as they stand,
/// and never match.
const RETRIED: [&str; 25] = [
    "kex_exchange_identification",
    "ssh_exchange_identification",
    "connection reset by",
    "connection refused",
    "connection timed out",
    "connection closed by remote host",
    "connection closed unexpectedly",
    "remote host closed connection",
    "lost connection",
    "broken pipe",
    "bad file descriptor",
    "no route to host",
    "network is unreachable",
    "network is down",
    "host is down",
    "no buffer space available",
    "cannot assign requested address",
    "operation timed out",
    "timeout, server not responding",
    "received disconnect from",
    "disconnected from",
    "host key verification failed",
    "too many authentication failures",
    "authentication failed",
    "permission denied, please try again",
];

/// Which Coolify.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Release {
    /// 4.1.0, the last one whose workers have no lock between them. A master that is not well is
    /// told to exit, with whatever runs on it.
    #[value(name = "4.1.0")]
    NoLock,
    /// 4.4: a lock for each server, and a master that is not well finishes what runs on it.
    #[default]
    #[value(name = "4.4")]
    Locked,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLock => "4.1.0",
            Self::Locked => "4.4",
        })
    }
}

/// A process ran into its limit, which is an exception there.
struct TimedOut;

/// What a process left.
struct Ended {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

pub(crate) struct Coolify {
    // Before the server: its clients end first.
    pub(crate) masters: Masters,
    pub(crate) test_host: TestHost,
    release: Release,
    lock: Mutex<()>,
    limit: Duration,
}

impl Coolify {
    pub(crate) fn start(release: Release, limit: Duration) -> anyhow::Result<Self> {
        for (program, package) in [("ssh", "openssh-client"), ("timeout", "coreutils")] {
            (std::process::Command::new(program).stdout(Stdio::null()))
                .stderr(Stdio::null())
                .status()
                .with_context(|| format!("cannot run {program}; install {package}"))?;
        }
        Ok(Self {
            masters: Masters::new(),
            test_host: TestHost::start()?,
            release,
            lock: Mutex::default(),
            limit,
        })
    }

    /// A worker.
    pub(crate) async fn ask(&self, id: Id) -> Asked {
        let mut asked = Asked::default();
        loop {
            let text = match self.attempt(id, &mut asked).await {
                Ok(answer) => {
                    asked.answer = answer;
                    return asked;
                }
                Err(text) => text,
            };
            asked.answer = Answer::Failed(text.clone());
            if asked.retries + 1 >= TRIES || !self.is_retried(&text) {
                return asked;
            }
            sleep(Duration::from_secs(2 << asked.retries)).await;
            asked.retries += 1;
        }
    }

    /// One try. The error is the text that decides whether there is another.
    async fn attempt(&self, id: Id, asked: &mut Asked) -> Result<Answer, String> {
        let shared = self.ensure().await.unwrap_or_else(|TimedOut| {
            asked.hung = true;
            false
        });
        let mut command = Command::new("timeout");
        command.arg(self.limit.as_secs().to_string()).arg("ssh");
        self.isolate(&mut command);
        if shared {
            command.args(self.multiplexing());
        }
        self.log_in(&mut command);
        command.arg(self.destination()).arg("bash -se");
        let script = self.test_host.ledger.script(id);
        let Ok(ended) = run(command, Some(&script), self.limit + GRACE).await else {
            asked.hung = true;
            return Ok(Answer::Nothing);
        };
        asked.noise += ended.stderr.lines().count();
        match ended.code {
            Some(0) if answers(&ended.stdout, id) => return Ok(Answer::Done),
            Some(0) => return Ok(Answer::Wrong),
            // What `timeout` exits with when it had to end the command.
            Some(124) => asked.hung = true,
            _ => {}
        }
        let code = ended.code.unwrap_or(255);
        let told = ended.stderr.trim();
        Err(match (told.is_empty(), id.is_git()) {
            // The steps of a deploy log what the command wrote; other calls name the exit code.
            (false, _) => told.to_owned(),
            (true, true) => String::from_utf8_lossy(&ended.stdout).into_owned(),
            (true, false) => format!("SSH command failed with exit code: {code}"),
        })
    }

    fn is_retried(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let bare = self.release == Release::Locked
            && text.contains("ssh command failed with exit code: 255");
        bare || RETRIED.iter().any(|known| text.contains(known))
    }

    /// Sees to a master; `false` when the command has to log in by itself.
    async fn ensure(&self) -> Result<bool, TimedOut> {
        if self.release == Release::NoLock {
            return if !self.check().await? {
                self.establish().await
            } else if self.is_healthy().await? {
                Ok(true)
            } else {
                self.control("exit").await?;
                self.establish().await
            };
        }
        if self.is_reusable().await? {
            return Ok(true);
        }
        let Ok(_lock) = timeout(LOCK_LIMIT, self.lock.lock()).await else {
            return Ok(false);
        };
        if self.is_reusable().await? {
            return Ok(true);
        }
        if self.check().await? {
            // Once more, to learn the process id for those who clean up.
            self.check().await?;
            self.control("stop").await?;
        }
        self.establish().await
    }

    async fn is_reusable(&self) -> Result<bool, TimedOut> {
        Ok(self.check().await? && self.is_healthy().await?)
    }

    async fn check(&self) -> Result<bool, TimedOut> {
        self.control("check").await
    }

    async fn control(&self, operation: &str) -> Result<bool, TimedOut> {
        let mut command = Command::new("ssh");
        command.args(["-O", operation]);
        self.isolate(&mut command);
        command.args([self.control_path()]).arg(self.destination());
        Ok(run(command, None, self.limit).await?.code == Some(0))
    }

    async fn is_healthy(&self) -> Result<bool, TimedOut> {
        let mut command = Command::new("timeout");
        command.arg(HEALTH_LIMIT.as_secs().to_string()).arg("ssh");
        self.isolate(&mut command);
        command
            .args(["-o", "ControlMaster=auto"])
            .arg(self.control_path())
            // There the port is 22, which needs no option.
            .args(["-p", &self.test_host.proxy.port().to_string()])
            .arg(self.destination())
            .arg("echo health_check_ok");
        let ended = run(command, None, self.limit).await?;
        Ok(ended.code == Some(0) && ended.stdout.starts_with(b"health_check_ok"))
    }

    async fn establish(&self) -> Result<bool, TimedOut> {
        let mut command = Command::new("ssh");
        command.arg(match self.release {
            Release::NoLock => "-fNM",
            Release::Locked => "-fN",
        });
        self.isolate(&mut command);
        command.args(self.multiplexing());
        self.log_in(&mut command);
        command.arg(self.destination());
        Ok(run(command, None, self.limit).await?.code == Some(0))
    }

    /// Nobody's configuration, agent or known hosts, and no questions.
    fn isolate(&self, command: &mut Command) {
        command.args([
            "-F",
            "none",
            "-o",
            "IdentityAgent=none",
            "-o",
            "BatchMode=yes",
        ]);
        command.args(["-o", "GlobalKnownHostsFile=/dev/null"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null"]);
    }

    fn control_path(&self) -> OsString {
        let mut option = OsString::from("-oControlPath=");
        option.push(self.masters.control_path());
        option
    }

    fn multiplexing(&self) -> [OsString; 3] {
        [
            "-oControlMaster=auto".into(),
            self.control_path(),
            "-oControlPersist=3600".into(),
        ]
    }

    fn log_in(&self, command: &mut Command) {
        command
            .arg("-i")
            .arg(self.test_host.sshd.client_key())
            .args(["-o", "StrictHostKeyChecking=no"])
            .args(["-o", "PasswordAuthentication=no"])
            .args(["-o", "ConnectTimeout=10"])
            .args(["-o", "ServerAliveInterval=1"])
            .args(["-o", "ServerAliveCountMax=2"])
            .args(["-o", "RequestTTY=no"])
            .args(["-o", "LogLevel=ERROR"])
            .args(["-p", &self.test_host.proxy.port().to_string()]);
    }

    fn destination(&self) -> String {
        format!(
            "{}@{}",
            self.test_host.sshd.user(),
            self.test_host.proxy.addr().ip()
        )
    }

    /// The next commands find no master.
    pub(crate) async fn chill(&self) {
        // One that does not do as it is told is replaced by none, and found among what is left.
        if let Ok(true) = self.check().await {
            let _stopped = self.control("exit").await;
        }
        let gone = || !self.masters.control_path().exists();
        eventually_async(GRACE, gone).await;
    }

    /// The masters would outlive us by an hour.
    pub(crate) async fn end(&self) -> Left {
        self.test_host.proxy.thaw();
        self.chill().await;
        let left = self.masters.left().await;
        tokio::task::block_in_place(|| self.masters.end());
        self.test_host.open().await;
        left
    }
}

/// Runs a process, with a limit of its own.
async fn run(
    mut command: Command,
    input: Option<&str>,
    limit: Duration,
) -> Result<Ended, TimedOut> {
    let stdin = input.map_or_else(Stdio::null, |_| Stdio::piped());
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let work = async {
        let mut child = command.spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // ssh may have ended before it read anything; its exit code says so.
            let _written = stdin.write_all(input.as_bytes()).await;
        }
        // What is written here is little, and a pipe holds it meanwhile.
        let status = child.wait().await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) {
            let (out, err) = (out.read_to_end(&mut stdout), err.read_to_end(&mut stderr));
            // A master has these descriptors too, and a stopped one never closes them: what has
            // come by then is what there is.
            let _closed = timeout(CLOSING, async { tokio::join!(out, err) }).await;
        }
        std::io::Result::Ok((status, stdout, stderr))
    };
    match timeout(limit, work).await {
        Ok(Ok((status, stdout, stderr))) => Ok(Ended {
            code: status.code(),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }),
        Ok(Err(error)) => Ok(Ended {
            code: None,
            stdout: Vec::new(),
            stderr: format!("cannot start a process: {error}"),
        }),
        Err(_) => Err(TimedOut),
    }
}
