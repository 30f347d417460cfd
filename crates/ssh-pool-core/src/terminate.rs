//! The end of a command that nobody waits for any more: asked, then insisted upon.
//!
//! A signal request (RFC 4254, section 6.9) reaches the process group, has no reply, and where it
//! is not honoured it is ignored in silence. OpenSSH before 10.0 ignores it when the session runs
//! as root, dropbear signals the login shell alone. There the command line begins with a mark, a
//! variable that every process of the command inherits, and an errand on another connection finds
//! the process group by it. Without the mark nothing is signalled: a number could by then belong to
//! somebody else, and behind one name there may be several machines.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::inbox::{End, Sink};
use crate::lanes::Lanes;
use crate::process::Job;
use crate::run::{self, Call};
use crate::transport::{Channel, Request, Wire};

/// Between `SIGKILL` and closing the channel, for the server to say that it worked.
const SETTLE: Duration = Duration::from_secs(1);
/// Before an errand that found nothing is run again: the command may not have begun.
const PAUSE: Duration = Duration::from_millis(100);

/// By which the processes of one command are known.
#[derive(Debug, Clone)]
pub(crate) struct Mark(Arc<str>);

impl Mark {
    /// A new one, if the server needs it to end this command.
    pub(crate) fn needed(wire: &dyn Wire, job: &Job) -> Option<Self> {
        let command = matches!(job.request, Request::Exec(_)) && !job.detached;
        (command && !wire.passes_signals())
            .then(|| Self(format!("{:032x}", fastrand::u128(..)).into()))
    }

    /// How much longer it makes a command line.
    pub(crate) const LENGTH: usize = 96;

    /// `$$` is the process group: sshd and dropbear make the login shell its leader.
    pub(crate) fn push_to(&self, line: &mut Vec<u8>) {
        let mark = format!("SSH_POOL_MARK={}.$$.; export SSH_POOL_MARK; ", self.0);
        line.extend_from_slice(mark.as_bytes());
    }

    /// A script that signals the process group of every process with this mark that is still in
    /// the group it began in. Exits with 3 if there is none, with 4 where it cannot look.
    ///
    /// A shell that has not executed anything shows the mark in its command line, everything below
    /// it in its environment. The brackets keep the pattern from matching its own command line.
    fn errand(&self, signal: &str) -> String {
        let (first, rest) = self.0.split_at(1);
        format!(
            "test -r /proc/self/stat || exit 4
m='[{first}]{rest}'; n=3
for p in $(grep -ls \"$m\" /proc/[0-9]*/environ /proc/[0-9]*/cmdline); do
  s=$(cat \"${{p%/*}}/stat\" 2>/dev/null) || continue
  set -- ${{s##*) }}
  case $p in */environ) grep -qs \"$m\\.$3\\.\" \"$p\" || continue ;; esac
  kill -s {signal} -- \"-$3\" 2>/dev/null && n=0
done
exit $n"
        )
    }
}

/// What is needed to end a command, apart from those who wait for it.
pub(crate) struct Remote {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) channel: Channel,
    pub(crate) mark: Option<Mark>,
    pub(crate) grace: Duration,
}

impl Remote {
    /// `SIGTERM`, a grace, `SIGKILL`, and if nothing helps the channel is closed. Output that is
    /// still to come is thrown away.
    ///
    /// [`Outcome::Killed`] if the server has said that the command has ended.
    pub(crate) async fn terminate(&self) -> Outcome {
        let Channel { wire, inbox } = &self.channel;
        inbox.stop();
        for (signal, wait) in [("TERM", self.grace), ("KILL", SETTLE)] {
            if inbox.has_ended() {
                break;
            }
            let insist = async {
                self.insist(signal).await;
                std::future::pending::<()>().await;
            };
            let ended = async {
                tokio::select! {
                    () = inbox.ended() => {}
                    () = insist => {}
                }
            };
            if tokio::time::timeout(wait, ended).await.is_ok() {
                break;
            }
        }
        if !inbox.has_ended() {
            tracing::warn!(
                host = %self.lanes.shared().name(),
                "a cancelled command did not end: closing its channel"
            );
            // No EOF before this: a shell that reads a script would run what it has of its last
            // line.
            wire.close().await;
        }
        self.state()
    }

    fn state(&self) -> Outcome {
        let said = self.channel.inbox.transcript();
        match said.end {
            Some(End::Closed) if said.sent => Outcome::Killed,
            Some(End::Closed | End::Lost(_)) if said.exit.is_some() => Outcome::Killed,
            _ => Outcome::Unknown,
        }
    }

    /// Has the process group signalled. Returns when that has been asked for, or done.
    pub(crate) async fn signal(&self, name: &str) -> Sent {
        match &self.mark {
            Some(mark) => errand(&self.lanes, mark.errand(name)).await,
            // A connection that does not take it has ended, and the channel with it.
            None => match self.channel.wire.signal(name.to_owned()).await {
                Ok(()) => Sent::Asked,
                Err(_) => Sent::NotFound,
            },
        }
    }

    async fn insist(&self, signal: &str) {
        while matches!(self.signal(signal).await, Sent::NotFound) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What is known of a command that was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has ended: the server has said so.
    Killed,
    /// The server would not say.
    Unknown,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The server has been asked to pass it on; it does not say whether it does.
    Asked,
    /// The process group has been signalled.
    Delivered,
    /// There is no such process, or not yet.
    NotFound,
    /// There is no way to do it.
    Impossible,
}

/// A command of our own, for which nobody sends an errand if it has to end.
fn errand(lanes: &Arc<Lanes>, script: String) -> BoxFuture<'static, Sent> {
    let call = Call {
        job: Job {
            request: Request::Exec(script.into_bytes()),
            env: Vec::new(),
            pty: None,
            stdout: Sink::Discard,
            stderr: Sink::Discard,
            detached: true,
        },
        stdin: bytes::Bytes::new(),
        timeout: None,
        exit_grace: None,
        limit: 0,
    };
    let lanes = lanes.clone();
    async move {
        match run::run(&lanes, lanes.errands(), call).await {
            Ok(output) => match output.status.code() {
                Some(0) => Sent::Delivered,
                Some(3) => Sent::NotFound,
                _ => Sent::Impossible,
            },
            Err(error) => {
                tracing::debug!(%error, "an errand failed");
                Sent::NotFound
            }
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_does_not_match_the_errand_that_looks_for_it() {
        let mark = Mark("abcdef".into());
        let mut line = Vec::new();
        mark.push_to(&mut line);
        let line = String::from_utf8(line).expect("text");
        assert!(line.contains("abcdef"), "{line}");
        assert!(!mark.errand("TERM").contains("abcdef"));
        let long = Mark(format!("{:032x}", u128::MAX).into());
        let mut line = Vec::new();
        long.push_to(&mut line);
        assert!(line.len() <= Mark::LENGTH, "{}", line.len());
    }
}
