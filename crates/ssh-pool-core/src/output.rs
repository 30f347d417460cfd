//! What a command leaves behind.

use std::fmt;
use std::net::SocketAddr;

use crate::printable;
use crate::waited::Waited;

/// What RFC 4250, section 4.6.1 allows a name.
const SIGNAL_NAME: usize = 64;

/// How a remote command ended: with an exit code, or by a signal.
///
/// RFC 4254, section 6.10: a server sends `exit-status` or `exit-signal`, and OpenSSH's client
/// shows the second as code 255. Here they stay apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExitStatus(Inner);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Inner {
    Code(u32),
    Signal(String),
}

impl ExitStatus {
    pub(crate) fn from_code(code: u32) -> Self {
        Self(Inner::Code(code))
    }

    pub(crate) fn from_signal(name: impl Into<String>) -> Self {
        let name: String = name.into();
        let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
        let usual = name.len() <= SIGNAL_NAME && name.as_bytes().iter().all(plain);
        Self(Inner::Signal(if usual { name } else { printable(name) }))
    }

    /// Whether the command exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code() == Some(0)
    }

    /// The exit code, or `None` if a signal ended the command. Servers send what their system has:
    /// 0 to 255 on Unix.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match &self.0 {
            Inner::Code(code) => Some(code.cast_signed()),
            Inner::Signal(_) => None,
        }
    }

    /// The name of the signal that ended the command, without `SIG`: `"KILL"`, `"TERM"`. A signal
    /// that RFC 4254 has no name for comes as the server spells it, such as `"XCPU@openssh.com"`;
    /// [printable](crate::printable()), if no signal has such a name.
    #[must_use]
    pub fn signal(&self) -> Option<&str> {
        match &self.0 {
            Inner::Code(_) => None,
            Inner::Signal(name) => Some(name),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Code(code) => write!(f, "exit status: {code}"),
            Inner::Signal(name) => write!(f, "signal: {name}"),
        }
    }
}

/// The result of a finished command. The command may have failed: look at
/// [`status`](Output::status).
///
/// `Debug` shows the streams as text, as far as they are. Two are equal if the commands did the
/// same, wherever they ran and however long they had waited.
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
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("status", &self.status)
            .field("stdout", &String::from_utf8_lossy(&self.stdout))
            .field("stderr", &String::from_utf8_lossy(&self.stderr))
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
