//! The end of a command that nobody waits for any more: asked, then insisted upon.
//!
//! A signal request (RFC 4254, section 6.9) reaches the process group of the login shell, has no
//! reply, and where it is not honoured it is ignored in silence. Three cases need more than that;
//! `errand.rs` has the scripts for them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::hub::{ConnectionId, Hub};
use crate::inbox::End;
use crate::lanes::Lanes;
use crate::transport::{Channel, Link, Signals, Unsent};

mod batch;
mod errand;

pub(crate) use batch::Batch;
pub(crate) use errand::Mark;

/// For a signal to get there, and for a sweep. Only an errand takes long, on a server that is busy.
const REACH: Duration = Duration::from_secs(5);
/// Between `SIGKILL` and closing the channel, for the server to say that it worked. Only one whose
/// processors are taken needs that long.
const SETTLE: Duration = Duration::from_secs(3);
/// For a channel to be closed from this end. Only a connection that takes nothing takes long.
const CLOSE: Duration = Duration::from_secs(1);
/// How often processes that go on starting others are looked for.
const SWEEPS: u32 = 5;
/// Before something that found nothing is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a running command is searched for, to be signalled.
const LOOKS: u32 = 5;

/// What is needed to end a command, apart from those who wait for it.
pub(crate) struct Remote {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) channel: Channel,
    /// Its connection.
    pub(crate) on: ConnectionId,
    pub(crate) link: Option<Arc<dyn Link>>,
    pub(crate) mark: Option<Mark>,
    pub(crate) grace: Duration,
    /// Until this is dropped, errands are run for it, also while the pool is being closed.
    pub(crate) _ending: Option<TaskTrackerToken>,
}

/// What is known of a command that was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has ended: the server has said so, or its processes have been looked for and are gone.
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
    /// The script that does it has not run, as far as is known.
    Failed,
    /// There is no way to do it.
    Impossible,
}

impl Remote {
    /// `SIGTERM`, a grace, `SIGKILL`, and if nothing helps the channel is closed. Output that is
    /// still to come is thrown away. The inbox has ended when this returns, whether or not the
    /// connection takes anything: what waits for it waits no longer.
    ///
    /// [`Outcome::Killed`] if the server has said that the command has ended; of a server that says
    /// it while processes live on, only if it was seen that they are gone.
    pub(crate) async fn terminate(&self) -> Outcome {
        let Channel { wire, inbox } = &self.channel;
        // By itself.
        let mut gone = inbox.has_ended() && !inbox.is_cancelled();
        let shell_alone = wire.server().signals == Signals::Shell;
        inbox.cancel();
        let ladder = async {
            for (signal, wait) in [("TERM", self.grace), ("KILL", SETTLE)] {
                if inbox.has_ended() {
                    break;
                }
                let insist = tokio::time::timeout(REACH, self.insist(signal));
                // What the first signal did not reach in time, the second may.
                if insist.await.is_err() {
                    tracing::debug!(signal, "a command has not been reached");
                }
                tokio::time::timeout(wait, inbox.ended()).await.ok();
            }
        };
        let begun = tokio::time::Instant::now();
        tokio::select! {
            // Where that proves nothing, a script goes on: it sees what no later one finds.
            () = inbox.ended(), if !shell_alone => {}
            () = ladder => {}
            () = self.unresponsive() => tracing::debug!("its connection does not answer"),
        }
        if inbox.has_ended() {
            let grace_over = begun + self.grace;
            let sweep = self.sweep(grace_over);
            let most = grace_over.max(tokio::time::Instant::now()) + REACH;
            match tokio::time::timeout_at(most, sweep).await {
                Ok(swept) => gone |= swept,
                Err(_) => tracing::warn!(
                    host = %self.lanes.shared().name(),
                    "processes of a cancelled command may be left: the server does not answer"
                ),
            }
        }
        if !inbox.has_ended() {
            tracing::warn!(
                host = %self.lanes.shared().name(),
                "a cancelled command did not end: closing its channel"
            );
            // No EOF before this: a shell that reads a script would run what it has of its last
            // line.
            let (wire, leaking) = (wire.clone(), inbox.clone());
            let closing = tokio::spawn(async move {
                wire.close().await;
                leaking.leak(begun.elapsed());
            });
            if tokio::time::timeout(CLOSE, closing).await.is_err() {
                tracing::debug!("its connection takes nothing: the channel is closed when it does");
                inbox.end_here();
            }
        }
        match shell_alone && !gone {
            true => Outcome::Unknown,
            false => self.outcome(),
        }
    }

    /// Completes when signals cannot arrive, because the connection does not answer. A script goes
    /// over another connection, which may still reach the server.
    async fn unresponsive(&self) {
        match &self.link {
            Some(link) if self.mark.is_none() => self.hub.unresponsive(self.on, link).await,
            _ => std::future::pending().await,
        }
    }

    /// The channel of a marked command has ended. Whoever is left of it holds nothing of the
    /// channel, or the server closes it when the login shell ends. `true`: nobody is left.
    async fn sweep(&self, grace_over: tokio::time::Instant) -> bool {
        let Some(mark) = &self.mark else { return false };
        if !self.channel.inbox.announced().await {
            return false;
        }
        for _ in 0..SWEEPS {
            match errand::by_mark(self, mark, "0").await {
                Sent::Delivered => {}
                sent => return sent == Sent::NotFound && !mark.has_strays(),
            }
            tokio::time::sleep_until(grace_over).await;
            errand::by_mark(self, mark, "KILL").await;
        }
        false
    }

    fn outcome(&self) -> Outcome {
        let said = self.channel.inbox.transcript();
        match said.end {
            Some(End::Closed) if said.sent => Outcome::Killed,
            Some(End::Closed | End::Lost(_)) if said.exit.is_some() => Outcome::Killed,
            _ => Outcome::Unknown,
        }
    }

    async fn insist(&self, signal: &str) -> Sent {
        // sshd answers when it has forked; before that there is no group to signal.
        self.channel.inbox.answered().await;
        loop {
            match self.signal(signal).await {
                Sent::NotFound | Sent::Failed if !self.channel.inbox.has_ended() => {
                    tokio::time::sleep(PAUSE).await;
                }
                sent => return sent,
            }
        }
    }

    /// Signals the process group of a running command. A process in the middle of execve(2) shows no
    /// mark, so the search is repeated.
    pub(crate) async fn signal_running(&self, name: &str) -> Sent {
        for _ in 1..LOOKS {
            match self.signal(name).await {
                Sent::NotFound | Sent::Failed if !self.channel.inbox.has_ended() => {
                    tokio::time::sleep(PAUSE).await;
                }
                sent => return sent,
            }
        }
        self.signal(name).await
    }

    /// Has the process group signalled. Returns when that has been asked for, or done.
    pub(crate) async fn signal(&self, name: &str) -> Sent {
        let Channel { wire, inbox } = &self.channel;
        if let Some(mark) = &self.mark {
            // Only a command that has said its mark is one that an errand may be run for: where a
            // forced command takes the place of ours, it would take that of the errand too.
            if !inbox.announced().await {
                return Sent::Impossible;
            }
            return errand::by_mark(self, mark, name).await;
        }
        let said = inbox.transcript();
        if said.end.is_none() && said.exit.is_some() {
            // The login shell has ended and others of its group have not. The server signals no
            // group without its leader.
            return match &self.link {
                Some(link) => errand::to_orphans(link.clone(), self.channel.clone(), name).await,
                None => Sent::Impossible,
            };
        }
        // A connection that does not take it has ended, and the channel with it.
        match wire.signal(name.to_owned()).await {
            Ok(()) => Sent::Asked,
            Err(Unsent::Gone) => Sent::NotFound,
            Err(Unsent::TooLong(_)) => Sent::Impossible,
        }
    }
}
