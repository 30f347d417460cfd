//! The end of a group: its commands are waited for, idle handles are not.
//!
//! A command ends by itself. A stream, an SFTP session or a process that was detached may be held for
//! as long as the program runs, so what is quiet is disconnected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{ConnectionGroup, now};

/// Streams that have been quiet for so long are not waited for. A server on the other side of the
/// world answers sooner.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks whether they are.
const LOOK: Duration = Duration::from_millis(100);

/// Sessions that no command is waited for on.
#[derive(Debug, Default)]
pub(super) struct Unattended {
    detached: AtomicU32,
    streams: AtomicU32,
}

/// What a session is used for that is no command to be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnattendedUse {
    /// A command that lives on by itself.
    Detached,
    /// A subsystem, or a stream that has its connection to itself.
    Stream,
}

/// Counts a session for as long as it exists.
pub(super) struct UnattendedGuard {
    group: Arc<ConnectionGroup>,
    usage: UnattendedUse,
}

impl Unattended {
    fn count(&self, usage: UnattendedUse) -> &AtomicU32 {
        match usage {
            UnattendedUse::Detached => &self.detached,
            UnattendedUse::Stream => &self.streams,
        }
    }
}

impl UnattendedGuard {
    pub(super) fn new(group: &Arc<ConnectionGroup>, usage: UnattendedUse) -> Self {
        group
            .unattended
            .count(usage)
            .fetch_add(1, Ordering::Relaxed);
        Self {
            group: group.clone(),
            usage,
        }
    }
}

impl Drop for UnattendedGuard {
    fn drop(&mut self) {
        let count = self.group.unattended.count(self.usage);
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionGroup {
    /// Of a group that is closed: waits until its commands have ended and its streams are quiet,
    /// and disconnects what is left. Cancel safe.
    pub(crate) async fn drained(&self) {
        let mut idle_since: Option<Instant> = None;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.state().host.is_empty() {
                return;
            }
            let idle = self.is_idle();
            let now = now();
            let since = *idle_since.get_or_insert(now);
            if !idle {
                idle_since = None;
            } else if now.saturating_duration_since(since) >= QUIET {
                self.disconnect_all().await;
            }
            // What is quiet tells nothing.
            tokio::time::timeout(LOOK, ended).await.ok();
        }
    }

    /// No command runs, and what else there is has been quiet for a while.
    fn is_idle(&self) -> bool {
        let state = self.state();
        let (mut sessions, mut streams, mut quiet) = (0, 0, true);
        for counts in state.host.session_counts() {
            sessions += counts.in_use + counts.opening;
            streams += counts.streams;
            quiet &= (counts.in_use + counts.streams == 0)
                || (state.connection(counts.id))
                    .is_none_or(|connection| connection.quiet_for() >= QUIET);
        }
        let count = |usage| self.unattended.count(usage).load(Ordering::Relaxed);
        let attended = sessions > count(UnattendedUse::Detached) + count(UnattendedUse::Stream);
        // What a detached process writes is thrown away.
        !attended && (quiet || streams + count(UnattendedUse::Stream) == 0)
    }
}
