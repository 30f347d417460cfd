//! The end of a command that no caller waits for any more: signals, then closing the channel.
//!
//! A signal request (RFC 4254, section 6.9) reaches the process group of the login shell, has no
//! reply, and where it is not honoured it is ignored in silence. Three cases need more than that;
//! `helper_command.rs` has the scripts for them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::group::{ConnectionGroup, ConnectionId};
use crate::host_pools::HostPools;
use crate::receiver::ChannelEnd;
use crate::transport::{Channel, Connection, Signals, Unsent};

mod batch;
mod helper_command;

pub(crate) use batch::Batch;
pub(crate) use helper_command::ProcessTag;

/// For a signal to get there, and for signalling remaining processes. Only a helper command takes
/// long, on a server that is busy.
const REACH: Duration = Duration::from_secs(5);
/// Between `SIGKILL` and closing the channel, for the server to say that it worked. Only one whose
/// processors are taken needs that long.
const SETTLE: Duration = Duration::from_secs(3);
/// For a channel to be closed from this end. Only a connection that takes nothing takes long.
const CLOSE: Duration = Duration::from_secs(1);
/// How often processes that go on starting others are looked for.
const SIGNAL_ROUNDS: u32 = 5;
/// Before something that found nothing is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a running command is searched for, to be signalled.
const SEARCHES: u32 = 5;

/// What is needed to end a command, apart from those who wait for it.
pub(crate) struct Terminator {
    pub(crate) pools: Arc<HostPools>,
    pub(crate) group: Arc<ConnectionGroup>,
    pub(crate) channel: Channel,
    /// Its connection.
    pub(crate) on: ConnectionId,
    pub(crate) connection: Option<Arc<dyn Connection>>,
    pub(crate) process_tag: Option<ProcessTag>,
    pub(crate) grace: Duration,
    /// Until this is dropped, helper commands are run for it, also while the pool is being closed.
    pub(crate) _ending: Option<TaskTrackerToken>,
}

/// What is known of a command that was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminationOutcome {
    /// It has ended: the server has said so, or its processes have been looked for and are gone.
    Killed,
    /// The server would not say.
    Unknown,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalResult {
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

impl Terminator {
    /// `SIGTERM`, a grace, `SIGKILL`, and if nothing helps the channel is closed. Output that is
    /// still to come is thrown away. The receiver has ended when this returns, whether or not the
    /// connection takes anything: what waits for it waits no longer.
    ///
    /// [`TerminationOutcome::Killed`] if the server has said that the command has ended; of a server
    /// that says it while processes live on, only if it was seen that they are gone.
    pub(crate) async fn terminate(&self) -> TerminationOutcome {
        let Channel { sender, receiver } = &self.channel;
        // By itself.
        let mut gone = receiver.has_ended() && !receiver.is_cancelled();
        let shell_alone = sender.server().signals == Signals::Shell;
        receiver.cancel();
        let signals = async {
            for (signal, wait) in [("TERM", self.grace), ("KILL", SETTLE)] {
                if receiver.has_ended() {
                    break;
                }
                let signal_until_delivered =
                    tokio::time::timeout(REACH, self.signal_until_delivered(signal));
                // What the first signal did not reach in time, the second may.
                if signal_until_delivered.await.is_err() {
                    tracing::debug!(signal, "a command has not been reached");
                }
                tokio::time::timeout(wait, receiver.ended()).await.ok();
            }
        };
        let begun = tokio::time::Instant::now();
        tokio::select! {
            // Where that proves nothing, a script goes on: it sees what no later one finds.
            () = receiver.ended(), if !shell_alone => {}
            () = signals => {}
            () = self.unresponsive() => tracing::debug!("its connection does not answer"),
        }
        if receiver.has_ended() {
            let grace_over = begun + self.grace;
            let signal_remaining = self.signal_remaining(grace_over);
            let most = grace_over.max(tokio::time::Instant::now()) + REACH;
            match tokio::time::timeout_at(most, signal_remaining).await {
                Ok(signalled) => gone |= signalled,
                Err(_) => tracing::warn!(
                    host = %self.pools.shared().name(),
                    "processes of a cancelled command may be left: the server does not answer"
                ),
            }
        }
        if !receiver.has_ended() {
            tracing::warn!(
                host = %self.pools.shared().name(),
                "a cancelled command did not end: closing its channel"
            );
            // No EOF before this: a shell that reads a script would run what it has of its last
            // line.
            let (sender, leaking) = (sender.clone(), receiver.clone());
            let closing = tokio::spawn(async move {
                sender.close().await;
                leaking.leak(begun.elapsed());
            });
            if tokio::time::timeout(CLOSE, closing).await.is_err() {
                tracing::debug!("its connection takes nothing: the channel is closed when it does");
                receiver.end_here();
            }
        }
        match shell_alone && !gone {
            true => TerminationOutcome::Unknown,
            false => self.outcome(),
        }
    }

    /// Completes when signals cannot arrive, because the connection does not answer. A script goes
    /// over another connection, which may still reach the server.
    async fn unresponsive(&self) {
        match &self.connection {
            Some(connection) if self.process_tag.is_none() => {
                self.group.unresponsive(self.on, connection).await
            }
            _ => std::future::pending().await,
        }
    }

    /// The channel of a tagged command has ended. Remaining processes hold nothing of the channel,
    /// or the server closes it when the login shell ends. `true`: none are left.
    async fn signal_remaining(&self, grace_over: tokio::time::Instant) -> bool {
        let Some(process_tag) = &self.process_tag else {
            return false;
        };
        if !self.channel.receiver.tag_seen().await {
            return false;
        }
        for _ in 0..SIGNAL_ROUNDS {
            match helper_command::by_process_tag(self, process_tag, "0").await {
                SignalResult::Delivered => {}
                sent => return sent == SignalResult::NotFound && !process_tag.has_untagged(),
            }
            tokio::time::sleep_until(grace_over).await;
            helper_command::by_process_tag(self, process_tag, "KILL").await;
        }
        false
    }

    fn outcome(&self) -> TerminationOutcome {
        let said = self.channel.receiver.outcome();
        match said.end {
            Some(ChannelEnd::Closed) if said.sent => TerminationOutcome::Killed,
            Some(ChannelEnd::Closed | ChannelEnd::Lost(_)) if said.exit.is_some() => {
                TerminationOutcome::Killed
            }
            _ => TerminationOutcome::Unknown,
        }
    }

    async fn signal_until_delivered(&self, signal: &str) -> SignalResult {
        // sshd answers when it has forked; before that there is no group to signal.
        self.channel.receiver.answered().await;
        loop {
            match self.signal(signal).await {
                SignalResult::NotFound | SignalResult::Failed
                    if !self.channel.receiver.has_ended() =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                sent => return sent,
            }
        }
    }

    /// Signals the process group of a running command. A process in the middle of execve(2) shows no
    /// tag, so the search is repeated.
    pub(crate) async fn signal_running(&self, name: &str) -> SignalResult {
        for _ in 1..SEARCHES {
            match self.signal(name).await {
                SignalResult::NotFound | SignalResult::Failed
                    if !self.channel.receiver.has_ended() =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                sent => return sent,
            }
        }
        self.signal(name).await
    }

    /// Has the process group signalled. Returns when that has been asked for, or done.
    pub(crate) async fn signal(&self, name: &str) -> SignalResult {
        let Channel { sender, receiver } = &self.channel;
        if let Some(process_tag) = &self.process_tag {
            // Only a command that has said its tag is one that a helper command may be run for:
            // where a forced command takes the place of ours, it would take that of the helper
            // command too.
            if !receiver.tag_seen().await {
                return SignalResult::Impossible;
            }
            return helper_command::by_process_tag(self, process_tag, name).await;
        }
        let said = receiver.outcome();
        if said.end.is_none() && said.exit.is_some() {
            // The login shell has ended and others of its group have not. The server signals no
            // group without its leader.
            return match &self.connection {
                Some(connection) => {
                    helper_command::signal_leaderless(
                        connection.clone(),
                        self.channel.clone(),
                        name,
                    )
                    .await
                }
                None => SignalResult::Impossible,
            };
        }
        // A connection that does not take it has ended, and the channel with it.
        match sender.signal(name.to_owned()).await {
            Ok(()) => SignalResult::Asked,
            Err(Unsent::Gone) => SignalResult::NotFound,
            Err(Unsent::TooLong(_)) => SignalResult::Impossible,
        }
    }
}
