//! The one error type: split by what a caller can do about it, clonable because a failed dial is
//! shared by everyone who waited for it.

use std::time::Duration;

use crate::address::Address;
use crate::output::ExitStatus;

mod attempts;
mod cause;
mod host_key;
mod origin;
mod phase;
mod refusal;

pub use cause::Cause;
pub(crate) use cause::no_descriptors;
pub use host_key::HostKeyProblem;
pub use origin::Origin;
pub use phase::{CommandState, Phase};
pub use refusal::{Refusal, Stream};

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
    /// option out of range, a string that is longer than the server takes. Nothing was sent.
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
        target: Origin,
        /// The resolver's error.
        source: Cause,
    },

    /// TCP did not connect, or was lost before the server had identified itself.
    #[error("{target}: cannot connect; check that the server is up, and the port and firewalls")]
    Connect {
        /// The target as `user@host:port`.
        target: Origin,
        /// The operating system's error, for each address that was tried.
        source: Cause,
    },

    /// Something answered that does not speak SSH.
    #[error("{target}: not an SSH server, it said \"{received}\"; check the port")]
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
    #[error("{target}: the server is throttling connections (\"{message}\"); try again later")]
    Throttled {
        /// The target as `user@host:port`.
        target: Origin,
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
        target: Origin,
        /// The connection was lost, which may pass. If not, the two sides have nothing in common.
        lost: bool,
        /// What the protocol said.
        source: Cause,
    },

    /// The server's host key is not trusted under the chosen `HostKeyPolicy`.
    #[error("{target}: {reason}")]
    HostKey {
        /// The target as `user@host:port`.
        target: Origin,
        /// Why, with both fingerprints.
        reason: HostKeyProblem,
    },

    /// An identity could not be loaded: a missing or unreadable key file, a wrong passphrase, an
    /// agent that does not answer.
    #[error("{target}: cannot use the identity {identity}")]
    Identity {
        /// The target as `user@host:port`.
        target: Origin,
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
        target: Origin,
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
        target: Origin,
        /// How it was lost.
        source: Cause,
    },

    /// The server logged us in, and closed the connection before it granted a session, a stream or a
    /// listener. It counts as a failed dial, so pauses between attempts grow: from 100 ms up to 30 s.
    ///
    /// sshd does that where `ChrootDirectory` names a folder that is not root's alone, and where PAM
    /// refuses to open a session; its log says which. Nothing has been sent.
    #[error(
        "{target}: connected, but the server closed the connection before it started a session \
         ({reason}); {attempts} attempts, the next in {retry_in:?}; the server's log says why: a \
         ChrootDirectory with wrong owner or modes, PAM, a limit of the account, or its own end"
    )]
    ClosedAfterLogin {
        /// The target as `user@host:port`.
        target: Origin,
        /// Attempts in a row that have failed, since the server last granted something.
        attempts: u32,
        /// No other attempt is made before this has passed.
        retry_in: Duration,
        /// How the connection ended: the server's words, escaped, if it said any.
        reason: String,
    },

    /// A deadline passed.
    #[error("{target}: no result after {after:?} (phase: {phase}){}", timeout_hint(*phase, *killed))]
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
    #[error(
        "{target}: the server refuses every session on a fresh connection ({reason}); check \
         MaxSessions and the account"
    )]
    SessionRefused {
        /// The target as `user@host:port`.
        target: Origin,
        /// The reason of the server's open failure (RFC 4254, section 5.1).
        reason: String,
    },

    /// The server refused the exec request; the command did not start.
    #[error("{target}: the server refused to execute the command; check what the account may run")]
    ExecRefused {
        /// The target as `user@host:port`.
        target: Origin,
    },

    /// The server refused a terminal; the command did not start. sshd: `PermitTTY`.
    #[error("{target}: the server refused a terminal; check PermitTTY, or run without one")]
    PtyRefused {
        /// The target as `user@host:port`.
        target: Origin,
    },

    /// The server refused the subsystem.
    #[error("{target}: the server has no subsystem \"{name}\", or refuses it to this account")]
    SubsystemRefused {
        /// The target as `user@host:port`.
        target: Origin,
        /// The subsystem.
        name: String,
    },

    /// The server did not open a stream to an address.
    #[error("{target}: no stream to {to}: {refusal} ({message})")]
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
    #[error(
        "{target}: the server does not listen on {on}; check that forwarding is allowed and the \
         address is free"
    )]
    ForwardRefused {
        /// The target as `user@host:port`.
        target: Origin,
        /// Where it was to listen.
        on: Address,
    },

    /// We cannot listen on this machine.
    #[error("{target}: cannot listen on {on} on this machine")]
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
    #[error(
        "{target}: the server did not confirm within {after:?} that the command has ended; it may \
         still be running"
    )]
    NotKilled {
        /// The target as `user@host:port`.
        target: Origin,
        /// How long it had to end before it was forced to.
        after: Duration,
    },

    /// The connection was lost while the command was on its way or running. Or it is the second one
    /// that ended under a request before that was sent, which may have been why.
    #[error("{target}: the connection was lost (phase: {phase}){}", lost_hint(*phase))]
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
    #[error(
        "{target}: the server closed the channel without an exit status; the command may still be \
         running"
    )]
    ClosedWithoutStatus {
        /// The target as `user@host:port`.
        target: Origin,
    },

    /// The command ended without a sign that its line ran, so the status is that of something else:
    /// a login shell that did not understand the line or refused it (`nologin`, `git-shell`, a
    /// restricted shell), or a forced command (sshd(8), `command=`; sshd_config(5),
    /// `ForceCommand`). For an account that runs only its forced command, or has no shell, use
    /// [`Command::verbatim`](crate::Command::verbatim), which asks for no sign.
    #[error(
        "{target}: no sign that the command ran: the account's login shell or a forced command ended \
         in its place ({status}{}); check the login shell, or use Command::verbatim",
        said_note(said)
    )]
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
    #[error(
        "{target}: no result after {attempts} attempts; the command may have run up to \
        {attempts} times"
    )]
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
    #[error(
        "{target}: more than {limit} bytes would have had to be kept, and {stream} was cut off; \
         raise Limits::output_bytes or Limits::stream_bytes (of the whole pool: \
         Limits::buffered_bytes), read faster, or do not share"
    )]
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
    #[error(
        "{target}: {limit} callers of the pool are waiting already; run fewer commands at once, or \
         raise Limits::queued_commands"
    )]
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
    #[error(
        "{target}: {open} streams are open on this host, as many as Limits::{limit} allows{}; end \
         some, raise the limit, share connections (`shared()`), or put streams that need one another \
         into a StreamGroup",
        ended_note(*after)
    )]
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
    #[error(
        "{target}: no file descriptors are left for another connection; raise the limit (ulimit \
         -n), or run fewer commands at once"
    )]
    Descriptors {
        /// The target as `user@host:port`.
        target: Origin,
        /// What could not be opened, or the operating system's error.
        source: Cause,
    },

    /// The pool has been closed.
    #[error("{target}: the pool is closed; build another one for new work")]
    Closed {
        /// The target as `user@host:port`.
        target: Origin,
    },
}

fn display_list(items: &[String]) -> String {
    if items.is_empty() {
        "nothing".into()
    } else {
        items.join(", ")
    }
}

fn said_note(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(", it said \"{said}\"")
    }
}

fn cooldown_note(cooldown: Duration) -> String {
    if cooldown.is_zero() {
        String::new()
    } else {
        format!("; no new attempt for {cooldown:?}")
    }
}

fn ended_note(after: Option<Duration>) -> String {
    after.map_or_else(String::new, |after| {
        format!(", and none of them ended within {after:?}")
    })
}

fn timeout_hint(phase: Phase, killed: bool) -> &'static str {
    match phase {
        _ if killed => "; the command was ended",
        Phase::Queue => "; its turn has not come: raise the limits or run fewer commands at once",
        Phase::Resolve => "; check the resolver",
        Phase::Connect | Phase::Banner | Phase::KeyExchange => "; check the network path",
        Phase::Auth => "; the server is slow to decide: raise Timeouts::connect or see its log",
        Phase::Channel => "; the server has not answered: check its load and the network path",
        Phase::Exec | Phase::Running => "; the command was told to end and may still be running",
        _ => "",
    }
}

fn lost_hint(phase: Phase) -> &'static str {
    if phase >= Phase::Exec {
        "; the command may have run"
    } else {
        "; it is the second that ended under this request, which was not sent and is tried on no \
         other: see the server's log"
    }
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
            Error::Closed { .. } => Phase::Closed,
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

    /// Whether the same call may succeed later without anybody changing anything.
    ///
    /// This says nothing about whether repeating the command is safe: for that, see
    /// [`command_state`](Error::command_state).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connect { .. }
            | Error::Throttled { .. }
            | Error::KeyExchange { lost: true, .. }
            | Error::AuthLost { .. }
            | Error::ClosedAfterLogin { .. }
            | Error::Timeout { .. }
            | Error::QueueFull { .. }
            | Error::StreamLimit { .. }
            | Error::Descriptors { .. }
            | Error::ConnectionLost { .. } => true,
            Error::Repeated { source, .. } => source.is_transient(),
            _ => false,
        }
    }

    /// Whether the pool has ended the command, and the server has said that it has ended. What it
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

    /// What the last of so many attempts failed with is what all of them have failed with.
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

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests;
