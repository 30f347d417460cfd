//! What a command leaves behind.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::printable;
use crate::waited::Waited;

mod exit_error;
#[cfg(unix)]
mod std_process;

pub use exit_error::ExitError;

/// What RFC 4250, section 4.6.1 allows a name.
const SIGNAL_NAME: usize = 64;

/// How a remote command ended: with an exit code, or by a signal.
///
/// RFC 4254, section 6.10: a server sends `exit-status` or `exit-signal`, and OpenSSH's client
/// shows the second as code 255. Here they stay apart.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::ExitStatus;
///
/// let status = ExitStatus::from_code(3);
/// assert_eq!((status.success(), status.code(), status.signal()), (false, Some(3), None));
/// let status = ExitStatus::from_signal("KILL");
/// assert_eq!((status.code(), status.signal()), (None, Some("KILL")));
/// assert_eq!(status.to_string(), "signal: KILL");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExitStatus(StatusKind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum StatusKind {
    Code(u32),
    Signal(String),
}

impl ExitStatus {
    /// The status of a command that exited with this code: for tests of code that runs commands.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        Self(StatusKind::Code(code))
    }

    /// The status of a command that was ended by the signal of this name, without `SIG`: for tests of
    /// code that runs commands.
    #[must_use]
    pub fn from_signal(name: impl Into<String>) -> Self {
        let name: String = name.into();
        let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
        let usual = name.len() <= SIGNAL_NAME && name.as_bytes().iter().all(plain);
        Self(StatusKind::Signal(if usual {
            name
        } else {
            printable(name)
        }))
    }

    /// Whether the command exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code() == Some(0)
    }

    /// `Ok` if the command exited with code 0.
    ///
    /// # Errors
    ///
    /// [`ExitError`] with this status. That of [`Output::exit_ok`] also shows what the command said.
    pub fn exit_ok(&self) -> Result<(), ExitError> {
        match self.success() {
            true => Ok(()),
            false => Err(ExitError::new(Output::new(self.clone(), "", ""))),
        }
    }

    /// The exit code, or `None` if a signal ended the command. Servers send what their system has:
    /// 0 to 255 on Unix.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match &self.0 {
            StatusKind::Code(code) => Some(code.cast_signed()),
            StatusKind::Signal(_) => None,
        }
    }

    /// The name of the signal that ended the command, without `SIG`: `"KILL"`, `"TERM"`. A signal
    /// that RFC 4254 has no name for comes as the server spells it, such as `"XCPU@openssh.com"`;
    /// [printable](crate::printable()), if no signal has such a name.
    #[must_use]
    pub fn signal(&self) -> Option<&str> {
        match &self.0 {
            StatusKind::Code(_) => None,
            StatusKind::Signal(name) => Some(name),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            StatusKind::Code(code) => write!(f, "exit status: {code}"),
            StatusKind::Signal(name) => write!(f, "signal: {name}"),
        }
    }
}

/// The result of a finished command. The command may have failed: look at
/// [`status`](Output::status).
///
/// `Debug` shows the streams as text, as far as they are. Two are equal if the commands did the
/// same, wherever they ran and however long they had waited.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
/// let output = host.command("id").arg("-un").output().await?.exit_ok()?;
/// println!("{} on {:?}", output.stdout_lossy().trim(), output.peer_addr);
///
/// // Where the types of the standard library are wanted (on Unix):
/// let output: std::process::Output = output.into();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Output {
    /// How the command ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How often the command was tried: 1, unless it is
    /// [idempotent](crate::Command::idempotent) and was lost with its connection. Status and
    /// streams are those of the last attempt alone.
    pub attempts: u32,
    /// What it waited for before it was sent, over all attempts.
    pub waited: Waited,
    /// The address of the machine that it ran on, in the last attempt. A name may have several
    /// addresses; the pool uses one of them at a time: see [`EventKind::AddressChanged`]. `None`: the
    /// connection was no TCP connection of its own.
    ///
    /// [`EventKind::AddressChanged`]: crate::EventKind::AddressChanged
    pub peer_addr: Option<SocketAddr>,
    /// `user@host:port`, for errors.
    pub(crate) target: Option<Arc<str>>,
}

impl Output {
    /// An output that no command left behind: for tests of code that runs commands. It has been tried
    /// once, has waited for nothing, and has no address.
    #[must_use]
    pub fn new(status: ExitStatus, stdout: impl Into<Vec<u8>>, stderr: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            stdout: stdout.into(),
            stderr: stderr.into(),
            attempts: 1,
            waited: Waited::default(),
            peer_addr: None,
            target: None,
        }
    }

    /// The output, if the command exited with code 0.
    ///
    /// # Errors
    ///
    /// [`ExitError`], which names the target, the status and the end of standard error, and has this
    /// output.
    pub fn exit_ok(self) -> Result<Self, ExitError> {
        match self.status.success() {
            true => Ok(self),
            false => Err(ExitError::new(self)),
        }
    }

    /// Standard output as text; bytes that are not UTF-8 become U+FFFD. It is the command's own text:
    /// [`printable`](crate::printable()) makes it safe to show on a terminal.
    #[must_use]
    pub fn stdout_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text; as [`stdout_lossy`](Output::stdout_lossy).
    #[must_use]
    pub fn stderr_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("status", &self.status)
            .field("stdout", &self.stdout_lossy())
            .field("stderr", &self.stderr_lossy())
            .field("attempts", &self.attempts)
            .field("waited", &self.waited)
            .field("peer_addr", &self.peer_addr)
            .finish()
    }
}

impl PartialEq for Output {
    fn eq(&self, other: &Self) -> bool {
        self.status == other.status
            && self.stdout == other.stdout
            && self.stderr == other.stderr
            && self.attempts == other.attempts
    }
}

impl Eq for Output {}
