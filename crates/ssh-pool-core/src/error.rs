//! The one error type: split by what a caller can do about it, clonable because a failed dial is
//! shared by everyone who waited for it.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::address::Address;
use crate::output::ExitStatus;
use crate::runtime;

mod attempts;
mod cause;
mod host_key;
mod into_io;
mod message;
mod origin;
mod partial;
mod phase;
mod refusal;
mod text;

pub use cause::Cause;
pub(crate) use cause::{NoneUsable, NotUtf8, Unfit, Unidentified, no_descriptors, words_of};
pub use host_key::HostKeyProblem;
pub(crate) use message::not_used;
pub use message::{MessageKind, ServerMessage};
pub use origin::Origin;
pub use partial::PartialOutput;
pub use phase::{CommandState, Phase};
pub use refusal::{Refusal, Stream};

/// Everything that can go wrong.
///
/// Match on the variant to decide what to do, on [`phase`](Error::phase) to say where it
/// happened, and on [`command_state`](Error::command_state) to know whether running the command
/// again could run it twice. `Display` names the target, the reason and what to do on one line, and
/// never a secret. [`source`](std::error::Error::source) is the operating system's [`io::Error`](std::io::Error), for
/// its kind and code, where there is one; the words of every other cause are in `Display` already.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::{CommandState, Error};
///
/// match host.command("./migrate").arg("--up").output().await {
///     Ok(output) => println!("it ran: {}", output.status),
///     Err(error) if error.command_state() == CommandState::Unknown => {
///         println!("it may have run; look before you run it again: {error}");
///     }
///     Err(error @ Error::AuthRejected { .. }) => println!("the wrong key: {error}"),
///     Err(error) if error.is_transient() => println!("not started; try again later: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The caller's input cannot be used: a NUL byte in an argument, a malformed target, an
    /// option out of range, a string that is longer than the server takes. Nothing was sent.
    InvalidInput {
        /// Which input.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },

    /// The host name did not resolve.
    Resolve {
        /// The target as `user@host:port`.
        target: Origin,
        /// The resolver's error.
        source: Cause,
    },

    /// TCP did not connect, or was lost before the server had identified itself.
    Connect {
        /// The target as `user@host:port`.
        target: Origin,
        /// The operating system's error, for each address that was tried.
        source: Cause,
    },

    /// Something answered that does not speak SSH, or not version 2.0 of it, or more before it than ssh
    /// would read: 1023 lines, and 8192 bytes a line.
    NotSsh {
        /// The target as `user@host:port`.
        target: Origin,
        /// The first bytes received, escaped.
        received: String,
        /// What the parser made of it.
        source: Cause,
    },

    /// The server turned the connection away because there are too many of them: sshd's
    /// `MaxStartups` or `PerSourcePenalties`, or a limit of unauthenticated connections per
    /// address.
    Throttled {
        /// The target as `user@host:port`.
        target: Origin,
        /// The server's words, escaped.
        message: String,
        /// How the connection ended.
        source: Cause,
    },

    /// Key exchange failed or the connection was lost during it.
    KeyExchange {
        /// The target as `user@host:port`.
        target: Origin,
        /// The connection was lost, which may pass. If not, the two sides have no algorithm in common, or
        /// the server breaks the protocol.
        lost: bool,
        /// What the protocol said.
        source: Cause,
    },

    /// The server's host key is not trusted under the chosen `HostKeyPolicy`.
    HostKey {
        /// The target as `user@host:port`.
        target: Origin,
        /// Why, with both fingerprints.
        reason: HostKeyProblem,
    },

    /// An identity could not be loaded: a missing or unreadable key file, a wrong passphrase, an
    /// agent that does not answer.
    Identity {
        /// The target as `user@host:port`.
        target: Origin,
        /// Which identity, without its secret; of several, the first. `Display` names them all.
        identity: String,
        /// What went wrong with it.
        source: Cause,
    },

    /// The server accepted none of the identities.
    ///
    /// The failure is remembered for the cool-down of `Timeouts::auth_cooldown`; until then it is
    /// returned without another login attempt.
    AuthRejected {
        /// The target as `user@host:port`.
        target: Origin,
        /// What was offered, in order: key fingerprints and method names, never secrets. With them
        /// what could not be: `key file /k (not used: ...)`, at most eight files and the number of others.
        tried: Vec<String>,
        /// Of those, what the server has accepted as a part of the login (RFC 4252, section 5.1;
        /// sshd's `AuthenticationMethods`).
        accepted: Box<[String]>,
        /// The methods that the server said could continue.
        allowed: Box<str>,
        /// What the server said to people.
        messages: Box<[ServerMessage]>,
        /// How long the pool will not try again.
        cooldown: Duration,
    },

    /// The connection was lost while authenticating, or the server said what cannot be read.
    AuthLost {
        /// The target as `user@host:port`.
        target: Origin,
        /// The connection was lost, which may pass. If not, the server sent a text that is not UTF-8
        /// (RFC 4252, section 5.4), and will at the next login: its banner, a question, its reason to
        /// disconnect. The SSH library ends the session at such a text.
        lost: bool,
        /// What the server said to people.
        messages: Box<[ServerMessage]>,
        /// How it was lost.
        source: Cause,
    },

    /// The server logged us in, and closed the connection before it granted a session, a stream or a
    /// listener. It counts as a failed dial, so pauses between attempts grow: from 100 ms up to 30 s.
    ///
    /// sshd does that where `ChrootDirectory` names a folder that is not root's alone; its log says so.
    /// Nothing has been sent. Where PAM refuses to open a session, a command is
    /// [`Unproven`](Self::Unproven).
    ClosedAfterLogin {
        /// The target as `user@host:port`.
        target: Origin,
        /// The server closed it, which may pass. If not, the server sent a text that is not UTF-8, and will
        /// on the next connection: why it refuses a channel (RFC 4254, section 5.1), or why it disconnects.
        /// The SSH library ends the session at such a text.
        lost: bool,
        /// Attempts in a row that have failed, since the server last granted something.
        attempts: u32,
        /// No other attempt is made before this has passed.
        retry_in: Duration,
        /// How the connection ended: the server's words, escaped, if it said any.
        reason: String,
    },

    /// A deadline passed.
    Timeout {
        /// The target as `user@host:port`.
        target: Origin,
        /// What was being waited for.
        phase: Phase,
        /// The deadline that passed.
        after: Duration,
        /// Whether the command line had been sent.
        state: CommandState,
        /// The command was ended for it, and the server has said that it has ended.
        killed: bool,
        /// The last failure on the way, if there was one.
        source: Option<Cause>,
    },

    /// The server refuses every session: `MaxSessions 0`, or an account without a shell.
    SessionRefused {
        /// The target as `user@host:port`.
        target: Origin,
        /// The reason of the server's open failure (RFC 4254, section 5.1).
        reason: String,
    },

    /// The server refused the exec request; the command did not start.
    ExecRefused {
        /// The target as `user@host:port`.
        target: Origin,
    },

    /// The server refused a terminal; the command did not start. sshd: `PermitTTY`.
    PtyRefused {
        /// The target as `user@host:port`.
        target: Origin,
    },

    /// The server refused the subsystem.
    SubsystemRefused {
        /// The target as `user@host:port`.
        target: Origin,
        /// The subsystem.
        name: String,
    },

    /// The server did not open a stream to an address.
    StreamRefused {
        /// The target as `user@host:port`.
        target: Origin,
        /// Where the stream was to go.
        to: Address,
        /// Why not, as far as the server says.
        refusal: Refusal,
        /// The server's words, escaped.
        message: String,
    },

    /// The server does not listen for us. It gives no reason (RFC 4254, section 4): forwarding is
    /// off for this account (`AllowTcpForwarding`, `AllowStreamLocalForwarding`, `PermitListen`),
    /// or the address cannot be bound.
    ForwardRefused {
        /// The target as `user@host:port`.
        target: Origin,
        /// Where it was to listen.
        on: Address,
    },

    /// We cannot listen on this machine.
    Listen {
        /// The target as `user@host:port`.
        target: Origin,
        /// Where.
        on: Address,
        /// The operating system's error.
        source: Cause,
    },

    /// The command was asked and then forced to end, and the server has not said that it did: it
    /// passes no signals on (a forced command, or a process of another user), or it does not
    /// answer. Its channel has been closed.
    NotKilled {
        /// The target as `user@host:port`.
        target: Origin,
        /// How long it had to end before it was forced to.
        after: Duration,
    },

    /// The connection was lost while the command was on its way or running. Or it is the second one
    /// that ended under a request before that was sent, which may have been why.
    ///
    /// It may pass. Not so where the second one, or the last attempt of an
    /// [`idempotent`](crate::Command::idempotent) command, ended at a text of the server that is not UTF-8,
    /// such as how a command ended (RFC 4254, section 6.10): the SSH library ends the session at it, with
    /// all commands of the connection. The first time it may have been a goodbye.
    ConnectionLost {
        /// The target as `user@host:port`.
        target: Origin,
        /// [`Phase::Exec`] or [`Phase::Running`]; [`Phase::Channel`] if the request was not sent:
        /// two connections have ended while it was prepared, and it is tried on no other.
        phase: Phase,
        /// Why it was lost.
        source: Cause,
    },

    /// The server closed the channel without an exit status, as sshd's `ChannelTimeout` does.
    /// The command may still be running.
    ClosedWithoutStatus {
        /// The target as `user@host:port`.
        target: Origin,
    },

    /// The command ended without a sign that its line ran, so the status is that of something else:
    /// a login shell that did not understand the line or refused it (`nologin`, `git-shell`, a
    /// restricted shell), or a forced command (sshd(8), `command=`; sshd_config(5),
    /// `ForceCommand`). sshd's session that PAM has not opened ends with 254, and so does one while logins are
    /// closed (nologin(5)). For an account that runs only its forced command, or has no shell, use
    /// [`Command::verbatim`](crate::Command::verbatim), which asks for no sign.
    Unproven {
        /// The target as `user@host:port`.
        target: Origin,
        /// How that ended. Not the status of the command.
        status: ExitStatus,
        /// The first 200 bytes of its standard error, or of its standard output if that was empty;
        /// escaped.
        said: String,
    },

    /// An [`idempotent`](crate::Command::idempotent) command was lost with its connection, was tried
    /// again, and has failed in the end. It may have run, whatever the last attempt failed with: an
    /// earlier one had been sent.
    Repeated {
        /// The target as `user@host:port`.
        target: Origin,
        /// How often it was tried, the last attempt included, which may not have been sent.
        attempts: u32,
        /// What the last attempt failed with.
        source: Box<Error>,
    },

    /// More output came than may be kept, and the command was cut off: more than
    /// `Limits::output_bytes` for `output()`; more than `Limits::stream_bytes` that its reader
    /// had not read, on a shared connection; or more than `Limits::buffered_bytes` of all commands
    /// and shared streams of the pool together.
    OutputLimit {
        /// The target as `user@host:port`.
        target: Origin,
        /// Which stream.
        stream: Stream,
        /// The cap, in bytes.
        limit: usize,
    },

    /// As many callers wait in the pool as `Limits::queued_commands` allows; this one was not let
    /// in, and nothing has begun.
    QueueFull {
        /// The target as `user@host:port`.
        target: Origin,
        /// `Limits::queued_commands`.
        limit: usize,
    },

    /// Streams fill a limit of this host: spawned commands, streams to addresses and subsystems, each
    /// of which ends when its holder ends it. Nothing has begun.
    ///
    /// The call has waited for one of them to end; not so that of a
    /// [`StreamGroup`](crate::StreamGroup) that has streams, which gets this at once.
    StreamLimit {
        /// The target as `user@host:port`.
        target: Origin,
        /// How many streams fill it.
        open: u32,
        /// Which of [`Limits`](crate::Limits) it is, by its name.
        limit: &'static str,
        /// The deadline that passed while none of them ended. `None`: it was not waited for.
        after: Option<Duration>,
    },

    /// This process, or this machine, had no file descriptor left to make a connection with until the
    /// caller's deadline. Idle connections of the pool were closed to make room, and the caller waited
    /// for others to end.
    Descriptors {
        /// The target as `user@host:port`.
        target: Origin,
        /// What could not be opened, or the operating system's error.
        source: Cause,
    },

    /// The pool has been closed.
    Closed {
        /// The target as `user@host:port`.
        target: Origin,
    },

    /// The tokio runtime has ended that the pool was told to run in:
    /// [`PoolBuilder::in_current_runtime`](crate::PoolBuilder::in_current_runtime). Nothing has begun.
    RuntimeEnded {
        /// The target as `user@host:port`.
        target: Origin,
    },
}

impl Error {
    /// Where it happened; of several attempts, where the last one failed.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Error::InvalidInput { .. } => Phase::Input,
            Error::QueueFull { .. } | Error::StreamLimit { .. } => Phase::Queue,
            Error::Resolve { .. } => Phase::Resolve,
            Error::Connect { .. } | Error::Descriptors { .. } => Phase::Connect,
            Error::NotSsh { .. } | Error::Throttled { .. } => Phase::Banner,
            Error::KeyExchange { .. } => Phase::KeyExchange,
            Error::HostKey { .. } => Phase::HostKey,
            Error::Identity { .. } | Error::AuthRejected { .. } | Error::AuthLost { .. } => {
                Phase::Auth
            }
            Error::Timeout { phase, .. } | Error::ConnectionLost { phase, .. } => *phase,
            Error::SessionRefused { .. }
            | Error::PtyRefused { .. }
            | Error::StreamRefused { .. }
            | Error::ForwardRefused { .. }
            | Error::ClosedAfterLogin { .. }
            | Error::Listen { .. } => Phase::Channel,
            Error::ExecRefused { .. } | Error::SubsystemRefused { .. } => Phase::Exec,
            Error::ClosedWithoutStatus { .. }
            | Error::OutputLimit { .. }
            | Error::Unproven { .. }
            | Error::NotKilled { .. } => Phase::Running,
            Error::Repeated { source, .. } => source.phase(),
            Error::Closed { .. } | Error::RuntimeEnded { .. } => Phase::Closed,
        }
    }

    /// Whether the command may have run. By protocol phase, never by matching text.
    #[must_use]
    pub fn command_state(&self) -> CommandState {
        match self {
            Error::Timeout { state, .. } => *state,
            Error::ConnectionLost { phase, .. } if *phase >= Phase::Exec => CommandState::Unknown,
            Error::ClosedWithoutStatus { .. }
            | Error::OutputLimit { .. }
            | Error::Unproven { .. }
            | Error::NotKilled { .. }
            | Error::Repeated { .. } => CommandState::Unknown,
            _ => CommandState::NotStarted,
        }
    }

    /// Whether the same call may succeed later although nothing is changed.
    ///
    /// This says nothing about whether repeating the command is safe: for that, see
    /// [`command_state`](Error::command_state).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connect { .. }
            | Error::Throttled { .. }
            | Error::KeyExchange { lost: true, .. }
            | Error::AuthLost { lost: true, .. }
            | Error::ClosedAfterLogin { lost: true, .. }
            | Error::Timeout { .. }
            | Error::QueueFull { .. }
            | Error::StreamLimit { .. }
            | Error::Descriptors { .. } => true,
            // Of a text that is not UTF-8 the first may be a goodbye; the second comes each time.
            Error::ConnectionLost { phase, source, .. } => {
                *phase >= Phase::Exec || !source.is_not_utf8()
            }
            Error::Repeated { source, .. } => source.is_transient() && !source.is_not_utf8(),
            _ => false,
        }
    }

    /// Whether a connection was lost at a text that is not UTF-8.
    fn is_not_utf8(&self) -> bool {
        matches!(self, Error::ConnectionLost { source, .. } if source.is_not_utf8())
    }

    /// Whether the pool has ended the command, and the server has said that it has ended; of dropbear,
    /// which says so while processes live on, whether they were seen to be gone. What it
    /// did before that is done: its [`command_state`](Error::command_state) is `Unknown`. Not after
    /// several attempts, of which earlier ones may have left something running.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        matches!(self, Error::Timeout { killed: true, .. })
    }

    /// Whether a deadline passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Error::Timeout { .. } => true,
            Error::StreamLimit { after, .. } => after.is_some(),
            Error::Repeated { source, .. } => source.is_timeout(),
            _ => false,
        }
    }

    /// How often the pool has tried to run the command: 1, unless it is
    /// [`idempotent`](crate::Command::idempotent) and was lost with its connection. What a try does
    /// before the command is sent (waiting, dialling again, another channel) is part of it.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        match self {
            Error::Repeated { attempts, .. } => *attempts,
            _ => 1,
        }
    }

    /// What a pool answers that takes no work any more.
    pub(crate) fn closed(target: impl Into<Origin>, runtime: &Handle) -> Self {
        let target = target.into();
        match runtime::has_ended(runtime) {
            true => Error::RuntimeEnded { target },
            false => Error::Closed { target },
        }
    }

    /// Adds the number of attempts; this error, of the last one, stands for all of them.
    pub(crate) fn after(self, target: impl Into<Origin>, attempts: u32) -> Self {
        if attempts == 1 {
            return self;
        }
        Error::Repeated {
            target: target.into(),
            attempts,
            source: Box::new(self),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Resolve { source, .. }
            | Error::Connect { source, .. }
            | Error::NotSsh { source, .. }
            | Error::Throttled { source, .. }
            | Error::KeyExchange { source, .. }
            | Error::Identity { source, .. }
            | Error::AuthLost { source, .. }
            | Error::Listen { source, .. }
            | Error::ConnectionLost { source, .. }
            | Error::Descriptors { source, .. } => source.below(),
            Error::Timeout { source, .. } => source.as_ref().and_then(Cause::below),
            Error::Repeated { source, .. } => source.source(),
            _ => None,
        }
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests;
