//! What the wait for a channel was for.

use std::time::Instant;

use super::host_state::{StallTotals, WaiterId};
use super::{ConnectionGroup, now};
use crate::waited::Waited;

/// When a wait began.
pub(super) struct WaitStart {
    at: Instant,
    stall_totals: StallTotals,
}

/// When a channel was asked for, and when it was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl ConnectionGroup {
    /// A caller has to wait from now on, and gets the next position in the queue.
    pub(super) fn begin_waiting(&self) -> (WaiterId, WaitStart) {
        let at = now();
        let mut state = self.state();
        let stall_totals = state.host.stall_totals(at);
        (state.host.next_waiter_id(), WaitStart { at, stall_totals })
    }

    /// The wait is over: with a channel, which took so long to be opened, or without one.
    pub(super) fn end_waiting(&self, begun: &WaitStart, opening: Option<Opening>) -> Waited {
        let end = now();
        let stall_totals = (self.state().host.stall_totals(end)).since(begun.stall_totals);
        let channel = opening.map(|opening| {
            // One that lay ready was opened before.
            let since = opening.since.max(begun.at);
            opening.until.saturating_duration_since(since)
        });
        Waited::split(
            end.saturating_duration_since(begun.at),
            stall_totals.connecting,
            stall_totals.backing_off,
            channel.unwrap_or_default(),
        )
    }
}
