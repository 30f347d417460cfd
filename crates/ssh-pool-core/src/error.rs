//! The one error type: split by what a caller can do about it, clonable because a failed dial is
//! shared by everyone who waited for it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where on its way a command was when it failed.
///
/// Roughly in the order in which a command meets them. Whether it may have run is not a question of
/// order: ask [`Error::command_state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Checking what the caller passed in.
    Input,
    /// Waiting for a free session channel.
    Queue,
    /// Looking the host name up.
    Resolve,
    /// Connecting TCP.
    Connect,
    /// Waiting for the server's identification line (RFC 4253, section 4.2).
    Banner,
    /// Key exchange (RFC 4253, section 7).
    KeyExchange,
    /// Checking the server's host key.
    HostKey,
    /// Authenticating (RFC 4252).
    Auth,
    /// Opening a session channel (RFC 4254, section 6.1).
    Channel,
    /// The exec request has been sent, its reply has not been seen (RFC 4254, section 6.5).
    Exec,
    /// The server accepted the command.
    Running,
    /// The pool is closed.
    Closed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Input => "input",
            Phase::Queue => "queue",
            Phase::Resolve => "resolve",
            Phase::Connect => "connect",
            Phase::Banner => "banner",
            Phase::KeyExchange => "key exchange",
            Phase::HostKey => "host key",
            Phase::Auth => "authentication",
            Phase::Channel => "channel",
            Phase::Exec => "exec",
            Phase::Running => "running",
            Phase::Closed => "closed",
        })
    }
}

/// What is known about the remote command after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandState {
    /// The command did not start: it was never sent, or the server refused to execute it. Running
    /// it again cannot run it twice.
    NotStarted,
    /// The command line was sent. It may have run, in whole or in part, or not at all.
    Unknown,
}

/// The cause of an [`Error`]: opaque, so that no dependency's type is part of this API, and
/// shared, because one failed dial answers many waiters.
///
/// Read it through [`std::error::Error::source`].
#[derive(Clone)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync + 'static>);

impl Cause {
    /// Wraps any error.
    pub(crate) fn new(
        error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl Cause {
    /// The kind of the I/O error underneath, if there is one.
    #[must_use]
    pub fn io_error_kind(&self) -> Option<std::io::ErrorKind> {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(&*self.0);
        while let Some(current) = error {
            if let Some(io) = current.downcast_ref::<std::io::Error>() {
                return Some(io.kind());
            }
            error = current.source();
        }
        None
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Which output stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error (SSH extended data type 1).
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// Everything that can go wrong.
///
/// Match on the variant to decide what to do, on [`phase`](Error::phase) to say where it
/// happened, and on [`command_state`](Error::command_state) to know whether running the command
/// again could run it twice. `Display` names the target and what to do, never a secret, and
/// leaves the cause to [`source`](std::error::Error::source).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's input cannot be used: a NUL byte in an argument, a malformed target, an
    /// option out of range.
    #[error("invalid {what}: {reason}")]
    InvalidInput {
        /// Which input.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },

    /// The host name did not resolve.
    #[error("{target}: the host name does not resolve; check its spelling and the resolver")]
    Resolve {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The resolver's error.
        source: Cause,
    },

    /// TCP did not connect, or was lost before the server had identified itself.
    #[error("{target}: cannot connect; check that the server is up, and the port and firewalls")]
    Connect {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The operating system's error.
        source: Cause,
    },

    /// Something answered that does not speak SSH.
    #[error("{target}: not an SSH server, it said \"{received}\"; check the port")]
    NotSsh {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The first bytes received, escaped.
        received: String,
        /// What the parser made of it.
        source: Cause,
    },

    /// The server turned the connection away because there are too many of them: sshd's
    /// `MaxStartups` or `PerSourcePenalties`, or a limit of unauthenticated connections per
    /// address.
    #[error("{target}: the server is throttling connections (\"{message}\"); try again later")]
    Throttled {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The server's words, escaped.
        message: String,
        /// How the connection ended.
        source: Cause,
    },

    /// Key exchange failed or the connection was lost during it.
    #[error(
        "{target}: key exchange failed; the connection was lost, or the two sides have no algorithm \
         in common"
    )]
    KeyExchange {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The connection was lost, which may pass. If not, the two sides have nothing in common.
        lost: bool,
        /// What the protocol said.
        source: Cause,
    },

    /// The server's host key is not trusted under the chosen `HostKeyPolicy`.
    #[error("{target}: {reason}")]
    HostKey {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// Why, with both fingerprints.
        reason: HostKeyProblem,
    },

    /// An identity could not be loaded: a missing or unreadable key file, a wrong passphrase, an
    /// agent that does not answer.
    #[error("{target}: cannot use the identity {identity}")]
    Identity {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// Which identity, without its secret.
        identity: String,
        /// What went wrong with it.
        source: Cause,
    },

    /// The server accepted none of the identities.
    ///
    /// The failure is remembered for the cool-down of `Timeouts::auth_cooldown`; until then it is
    /// returned without another login attempt.
    #[error(
        "{target}: login refused after offering {}; the server allows {allowed}; check the user \
         name and the account's authorized keys{}",
        display_list(tried),
        cooldown_note(*cooldown)
    )]
    AuthRejected {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What was offered, in order: key fingerprints and method names, never secrets.
        tried: Vec<String>,
        /// The methods that the server said could continue.
        allowed: String,
        /// How long the pool will not try again.
        cooldown: Duration,
    },

    /// The connection was lost while authenticating.
    #[error("{target}: the connection was lost during authentication; the server's log says why")]
    AuthLost {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// How it was lost.
        source: Cause,
    },

    /// A deadline passed.
    #[error("{target}: no result after {after:?} (phase: {phase}){}", timeout_hint(*phase))]
    Timeout {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What was being waited for.
        phase: Phase,
        /// The deadline that passed.
        after: Duration,
        /// Whether the command line had been sent.
        state: CommandState,
        /// The last failure on the way, if there was one.
        source: Option<Cause>,
    },

    /// The server refuses every session: `MaxSessions 0`, or an account without a shell.
    #[error(
        "{target}: the server refuses every session on a fresh connection ({reason}); check \
         MaxSessions and the account"
    )]
    SessionRefused {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The reason of the server's open failure (RFC 4254, section 5.1).
        reason: String,
    },

    /// The server refused the exec request; the command did not start.
    #[error("{target}: the server refused to execute the command; check what the account may run")]
    ExecRefused {
        /// The target as `user@host:port`.
        target: Arc<str>,
    },

    /// The connection was lost while the command was on its way or running.
    #[error("{target}: the connection was lost (phase: {phase}){}", lost_hint(*phase))]
    ConnectionLost {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// [`Phase::Channel`], [`Phase::Exec`] or [`Phase::Running`].
        phase: Phase,
        /// Why it was lost.
        source: Cause,
    },

    /// The server closed the channel without an exit status, as sshd's `ChannelTimeout` does.
    /// The command may still be running.
    #[error(
        "{target}: the server closed the channel without an exit status; the command may still be \
         running"
    )]
    ClosedWithoutStatus {
        /// The target as `user@host:port`.
        target: Arc<str>,
    },

    /// The command wrote more than the cap of `Limits::output_bytes`; its channel was closed.
    #[error(
        "{target}: the command wrote more than {limit} bytes to {stream} and was cut off; raise \
         Limits::output_bytes or write to a file"
    )]
    OutputLimit {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// Which stream.
        stream: Stream,
        /// The cap, in bytes.
        limit: usize,
    },

    /// The pool has been closed.
    #[error("{target}: the pool is closed; build another one for new work")]
    Closed {
        /// The target as `user@host:port`.
        target: Arc<str>,
    },
}

/// Why a host key is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyProblem {
    /// No line matches the host.
    #[error(
        "the host key is unknown ({algorithm} {fingerprint}, looked in {}); verify the \
         fingerprint out of band, then add the key, which ssh-keyscan prints",
        display_list(searched)
    )]
    Unknown {
        /// The key's algorithm, such as `ssh-ed25519`.
        algorithm: String,
        /// The key's SHA-256 fingerprint.
        fingerprint: String,
        /// The files that were searched.
        searched: Vec<String>,
    },
    /// Lines match the host, none of them this key.
    #[error(
        "THE HOST KEY HAS CHANGED: expected {}, got {algorithm} {fingerprint}; someone may be in \
         between, or the server was reinstalled: find out which before you trust the new key",
        display_list(expected)
    )]
    Changed {
        /// The offered key's algorithm.
        algorithm: String,
        /// The offered key's SHA-256 fingerprint.
        fingerprint: String,
        /// Fingerprints that were expected, each with its `file:line`.
        expected: Vec<String>,
    },
    /// A `@revoked` line lists this key.
    #[error("the host key {fingerprint} is revoked ({location}); do not connect")]
    Revoked {
        /// The key's SHA-256 fingerprint.
        fingerprint: String,
        /// The `file:line` that revokes it.
        location: String,
    },
    /// A known_hosts file exists and cannot be read. What it would have said is not known, so
    /// nothing is trusted.
    #[error("cannot read {}: {reason}; it may revoke keys, so none is trusted", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// The accepted key could not be stored, so it was not accepted.
    #[error(
        "cannot store the new host key {fingerprint} in {}: {reason}; it is not trusted until it \
         can be stored",
        path.display()
    )]
    NotStored {
        /// The key's SHA-256 fingerprint.
        fingerprint: String,
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
}

fn display_list(items: &[String]) -> String {
    if items.is_empty() {
        "nothing".into()
    } else {
        items.join(", ")
    }
}

fn cooldown_note(cooldown: Duration) -> String {
    if cooldown.is_zero() {
        String::new()
    } else {
        format!("; no new attempt for {cooldown:?}")
    }
}

fn timeout_hint(phase: Phase) -> &'static str {
    match phase {
        Phase::Queue => "; every session is busy: raise the limits or run fewer commands at once",
        Phase::Resolve => "; check the resolver",
        Phase::Connect | Phase::Banner | Phase::KeyExchange => "; check the network path",
        Phase::Auth => "; the server is slow to decide: raise Timeouts::connect or see its log",
        Phase::Exec | Phase::Running => {
            "; the command was asked to terminate and may still be running"
        }
        _ => "",
    }
}

fn lost_hint(phase: Phase) -> &'static str {
    if phase >= Phase::Exec {
        "; the command may have run"
    } else {
        "; the command was not sent"
    }
}

impl Error {
    /// Where it happened.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Error::InvalidInput { .. } => Phase::Input,
            Error::Resolve { .. } => Phase::Resolve,
            Error::Connect { .. } => Phase::Connect,
            Error::NotSsh { .. } | Error::Throttled { .. } => Phase::Banner,
            Error::KeyExchange { .. } => Phase::KeyExchange,
            Error::HostKey { .. } => Phase::HostKey,
            Error::Identity { .. } | Error::AuthRejected { .. } | Error::AuthLost { .. } => {
                Phase::Auth
            }
            Error::Timeout { phase, .. } | Error::ConnectionLost { phase, .. } => *phase,
            Error::SessionRefused { .. } => Phase::Channel,
            Error::ExecRefused { .. } => Phase::Exec,
            Error::ClosedWithoutStatus { .. } | Error::OutputLimit { .. } => Phase::Running,
            Error::Closed { .. } => Phase::Closed,
        }
    }

    /// Whether the command may have run. By protocol phase, never by matching text.
    #[must_use]
    pub fn command_state(&self) -> CommandState {
        match self {
            Error::Timeout { state, .. } => *state,
            Error::ConnectionLost { phase, .. } if *phase >= Phase::Exec => CommandState::Unknown,
            Error::ClosedWithoutStatus { .. } | Error::OutputLimit { .. } => CommandState::Unknown,
            _ => CommandState::NotStarted,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    ///
    /// This says nothing about whether repeating the command is safe: for that, see
    /// [`command_state`](Error::command_state).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Connect { .. }
                | Error::Throttled { .. }
                | Error::KeyExchange { lost: true, .. }
                | Error::AuthLost { .. }
                | Error::Timeout { .. }
                | Error::ConnectionLost { .. }
        )
    }

    /// Whether a deadline passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
