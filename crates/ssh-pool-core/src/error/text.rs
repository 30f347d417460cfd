//! The words of errors, on one line: what failed, the reason, what to do.

use std::fmt;
use std::time::Duration;

use super::message::{last_words, refused};
use super::{Cause, Error, Phase, Refusal};
use crate::address::Address;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = self.target() {
            write!(f, "{target}: ")?;
        }
        Words(self).fmt(f)
    }
}

/// What sshd's session ends with where PAM has not opened one, or `/etc/nologin` is there (session.c,
/// `do_child` and `do_nologin`).
const NO_SESSION: i32 = 254;

/// An error without its target, for where that has been named.
pub(super) struct Words<'a>(pub(super) &'a Error);

impl fmt::Display for Words<'_> {
    #[allow(clippy::too_many_lines, reason = "one arm for each error")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::InvalidInput { what, reason } => write!(f, "invalid {what}: {reason}"),
            Error::Resolve { source, .. } => write!(
                f,
                "the host name does not resolve: {}; check its spelling and the resolver",
                source.reason()
            ),
            Error::Connect { source, .. } => match source.unidentified() {
                Some(closed) => write!(
                    f,
                    "{closed}; look at its log: an sshd that cannot start, a proxy without a server, too \
                     many connections"
                ),
                None => write!(
                    f,
                    "cannot connect: {}; check that the server is up, and the port and firewalls",
                    source.reason()
                ),
            },
            Error::NotSsh { received, source, .. } if source.is_unfit() => write!(
                f,
                "no SSH server that can be talked to, it has {} (\"{received}\"); check the port, or \
                 update the server",
                source.reason()
            ),
            Error::NotSsh { received, .. } => write!(
                f,
                "not an SSH server, it said \"{received}\"; check the port"
            ),
            Error::Throttled { message, .. } => write!(
                f,
                "the server is throttling connections (\"{message}\"); try again later"
            ),
            Error::KeyExchange {
                lost: true, source, ..
            } => write!(
                f,
                "the connection was lost during the key exchange: {}; the server's log says why",
                source.reason()
            ),
            Error::KeyExchange {
                lost: false,
                source,
                ..
            } => write!(
                f,
                "the key exchange failed: {}; if the two sides have no algorithm in common, \
                 Target::algorithms may allow one",
                source.reason()
            ),
            Error::HostKey { reason, .. } => reason.fmt(f),
            Error::Identity {
                identity, source, ..
            } => {
                if let Some(each) = source.none_usable() {
                    return write!(f, "no identity can be used: {each}");
                }
                let reason = source.reason();
                write!(f, "cannot use the identity {identity}: {reason}")?;
                // Most reasons say themselves what to do.
                if reason.contains(';') {
                    return Ok(());
                }
                f.write_str("; mend it, or log in with another identity")
            }
            Error::AuthRejected {
                tried,
                accepted,
                allowed,
                messages,
                cooldown,
                ..
            } => {
                f.write_str(&refused(tried, accepted, allowed))?;
                f.write_str(&last_words(messages))?;
                if cooldown.is_zero() {
                    return Ok(());
                }
                write!(f, "; no new attempt for {cooldown:?}")
            }
            Error::AuthLost {
                lost: false,
                messages,
                source,
                ..
            } => write!(
                f,
                "the login cannot go on: {}{}; write that text in UTF-8 on the server (sshd: the file that \
                 Banner names, what PAM modules say)",
                source.reason(),
                last_words(messages)
            ),
            Error::AuthLost {
                lost: true,
                messages,
                source,
                ..
            } => write!(
                f,
                "the connection was lost during authentication: {}{}; the server's log says why: the account \
                 may be locked, expired or closed to logins (PAM, nologin), or the server is restarting",
                source.reason(),
                last_words(messages)
            ),
            Error::ClosedAfterLogin {
                lost: false,
                retry_in,
                reason,
                ..
            } => write!(
                f,
                "connected, but the connection ended before a session started: {reason}; write that text in \
                 UTF-8 on the server; no new attempt for {retry_in:?}"
            ),
            Error::ClosedAfterLogin {
                lost: true,
                attempts,
                retry_in,
                reason,
                ..
            } => write!(
                f,
                "connected, but the server closed the connection before it started a session \
                 ({reason}); {attempts} attempts, the next in {retry_in:?}; the server's log says \
                 why: a ChrootDirectory with wrong owner or modes, PAM, a limit of the account, or \
                 its own end"
            ),
            Error::Timeout {
                phase,
                after,
                killed,
                source,
                ..
            } => timeout(f, *phase, *after, *killed, source.as_ref()),
            Error::SessionRefused { reason, .. } => write!(
                f,
                "the server refuses every session on a fresh connection ({reason}); check \
                 MaxSessions and the account"
            ),
            Error::ExecRefused { .. } => f.write_str(
                "the server refused to execute the command; check what the account may run",
            ),
            Error::PtyRefused { .. } => {
                f.write_str("the server refused a terminal; check PermitTTY, or run without one")
            }
            Error::SubsystemRefused { name, .. } => write!(
                f,
                "the server has no subsystem \"{name}\", or refuses it to this account; check \
                 Subsystem and ForceCommand in its sshd_config"
            ),
            Error::StreamRefused {
                to,
                refusal,
                message,
                ..
            } => {
                let advice = stream_advice(*refusal, to);
                write!(f, "no stream to {to}: {refusal} ({message}); {advice}")
            }
            Error::ForwardRefused { on, .. } => {
                let options = match on {
                    Address::Tcp { .. } => "AllowTcpForwarding and PermitListen",
                    Address::Unix(_) => "AllowStreamLocalForwarding",
                };
                write!(
                    f,
                    "the server does not listen on {on}, and gives no reason; check {options} in its \
                     sshd_config, and that the address is free"
                )
            }
            Error::Listen { on, source, .. } => write!(
                f,
                "cannot listen on {on} on this machine: {}; choose another address, or free this one",
                source.reason()
            ),
            Error::NotKilled { after, .. } => write!(
                f,
                "the server did not confirm within {after:?} that the command has ended; it may \
                 still be running: look for its process there"
            ),
            Error::ConnectionLost { phase, source, .. } => {
                let (reason, hint) = (source.reason(), lost_hint(*phase));
                write!(
                    f,
                    "the connection was lost (phase: {phase}): {reason}; {hint}"
                )?;
                match source.is_not_utf8() {
                    true => f.write_str("; write that text in UTF-8 on the server"),
                    false => Ok(()),
                }
            }
            Error::ClosedWithoutStatus { .. } => f.write_str(
                "the server closed the channel without an exit status; the command may still be \
                 running: look for its process there, and see ChannelTimeout in sshd_config",
            ),
            Error::Unproven { status, said, .. } if status.code() == Some(NO_SESSION) => {
                write!(
                    f,
                    "the server refused the session after the login ({status}, which is sshd's where PAM \
                     opens none, and while nologin(5) closes the machine"
                )?;
                if !said.is_empty() {
                    write!(f, "; it said \"{said}\"")?;
                }
                f.write_str(
                    "); see the server's log and the session rules of its PAM service, else check the login \
                     shell or the forced command",
                )
            }
            Error::Unproven { status, said, .. } => {
                write!(
                    f,
                    "no sign that the command ran: the account's login shell or a forced command \
                     ended in its place ({status}"
                )?;
                if !said.is_empty() {
                    write!(f, ", it said \"{said}\"")?;
                }
                f.write_str("); check the login shell, or use Command::verbatim")
            }
            Error::Repeated {
                attempts, source, ..
            } => write!(
                f,
                "no result after {attempts} attempts; the command may have run up to {attempts} \
                 times; the last one: {}",
                Words(source)
            ),
            Error::OutputLimit { stream, limit, .. } => write!(
                f,
                "more than {limit} bytes would have had to be kept, and {stream} was cut off; raise \
                 Limits::output_bytes or Limits::stream_bytes (of the whole pool: \
                 Limits::buffered_bytes), read faster, or do not share"
            ),
            Error::QueueFull { limit, .. } => write!(
                f,
                "{limit} callers of the pool are waiting already; run fewer commands at once, or \
                 raise Limits::queued_commands"
            ),
            Error::StreamLimit {
                open, limit, after, ..
            } => {
                write!(
                    f,
                    "{open} streams are open on this host, as many as Limits::{limit} allows"
                )?;
                if let Some(after) = after {
                    write!(f, ", and none of them ended within {after:?}")?;
                }
                f.write_str(
                    "; end some, raise the limit, share connections (`shared()`), or put streams that \
                     need one another into a StreamGroup",
                )
            }
            Error::Descriptors { source, .. } => write!(
                f,
                "no file descriptors are left for another connection: {}; raise the limit (ulimit \
                 -n), or run fewer commands at once",
                source.reason()
            ),
            Error::Closed { .. } => {
                f.write_str("the pool is closed; build another one for new work")
            }
            Error::RuntimeEnded { .. } => f.write_str(
                "the tokio runtime has ended that the pool was told to run in; build the pool without \
                 in_current_runtime, or use it only while that runtime is there",
            ),
        }
    }
}

pub(super) fn display_list(items: &[String]) -> String {
    if items.is_empty() {
        "nothing".into()
    } else {
        items.join(", ")
    }
}

/// What began within less has had no time at all.
const SHORTEST: Duration = Duration::from_millis(1);

fn timeout(
    f: &mut fmt::Formatter<'_>,
    phase: Phase,
    after: Duration,
    killed: bool,
    source: Option<&Cause>,
) -> fmt::Result {
    if after.is_zero() {
        // Where it was then, and what had failed before, is no reason.
        let hint = match phase >= Phase::Exec {
            true => timeout_hint(phase, killed),
            false => "give the call more time",
        };
        return write!(
            f,
            "the time-out is zero, so it was over when the call began (phase: {phase}); {hint}"
        );
    }
    if after < SHORTEST && phase < Phase::Exec {
        return write!(
            f,
            "the time-out of {after:?} is too short for anything (phase: {phase}); give the call more time"
        );
    }
    write!(f, "no result after {after:?} (phase: {phase})")?;
    if let Some(source) = source {
        write!(f, ": {}", source.reason())?;
        // A failure of the pool's own says itself what to do.
        if source.failure().is_some() {
            return Ok(());
        }
    }
    write!(f, "; {}", timeout_hint(phase, killed))
}

fn timeout_hint(phase: Phase, killed: bool) -> &'static str {
    match phase {
        _ if killed => "the command was ended; give it more time, or find out what holds it up",
        Phase::Input | Phase::Queue => {
            "its turn has not come: raise the limits or run fewer commands at once"
        }
        Phase::Files => "give it more time, or check the disk that holds the keys and known_hosts",
        Phase::Decryption => {
            "decrypting the key takes long: raise the time-outs, or hold it in an agent"
        }
        Phase::Resolve => "check the resolver",
        Phase::Connect => "check that the server is up, the network path and firewalls",
        Phase::Banner => {
            "it accepted the connection and has not identified itself: check its load and the port"
        }
        Phase::KeyExchange => "it has identified itself: check its load, and the MTU of the path",
        Phase::HostKey => "storing the host key takes long: check the disk of the known_hosts file",
        Phase::Agent => "unlock the agent or approve its request, or raise the time-outs",
        Phase::Auth => "the server is slow to decide: raise Timeouts::connect or see its log",
        Phase::Channel => "the server has not answered: check its load and the network path",
        Phase::Exec | Phase::Running => "the command was told to end and may still be running",
        Phase::Closed => "build another pool for new work",
    }
}

fn lost_hint(phase: Phase) -> &'static str {
    if phase >= Phase::Exec {
        "the command may have run: find out before it is run again"
    } else {
        "it is the second that ended under this request, which was not sent and is tried on no \
         other: see the server's log"
    }
}

fn stream_advice(refusal: Refusal, to: &Address) -> &'static str {
    match (refusal, to) {
        (Refusal::Denied, Address::Tcp { .. }) => {
            "check AllowTcpForwarding and PermitOpen in its sshd_config"
        }
        (Refusal::Denied, Address::Unix(_)) => {
            "check AllowStreamLocalForwarding in its sshd_config"
        }
        (Refusal::Unreachable, Address::Tcp { .. }) => "check that something listens there",
        (Refusal::Unreachable, Address::Unix(_)) => {
            "check that something listens there and lets this user in, and \
             AllowStreamLocalForwarding in its sshd_config"
        }
        (Refusal::Unsupported, _) => "use another way to reach it",
        (Refusal::Overloaded, _) => "open fewer streams at once",
    }
}
