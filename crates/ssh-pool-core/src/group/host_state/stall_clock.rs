//! How long there was nothing to wait for but a connection.

use std::time::{Duration, Instant};

use super::HostState;

/// Why waiters are not served, when no command that ends could change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StallKind {
    /// A connection is being made.
    Connecting,
    /// The next dial is not allowed yet.
    BackingOff,
}

/// How long a host has been stalled so far, by kind. What passed between two readings is their
/// difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StallTotals {
    pub(crate) connecting: Duration,
    pub(crate) backing_off: Duration,
}

impl StallTotals {
    /// What has passed since an earlier one.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            connecting: self.connecting.saturating_sub(earlier.connecting),
            backing_off: self.backing_off.saturating_sub(earlier.backing_off),
        }
    }

    fn add(&mut self, why: StallKind, time: Duration) {
        match why {
            StallKind::Connecting => self.connecting += time,
            StallKind::BackingOff => self.backing_off += time,
        }
    }
}

/// Adds up the time that a host has been stalled, independent of the waiters: a wait costs two
/// readings, and nothing is stored per waiter.
#[derive(Debug, Default)]
pub(super) struct StallClock {
    so_far: StallTotals,
    now: Option<(StallKind, Instant)>,
}

impl StallClock {
    /// This is how it is from now on.
    pub(super) fn enter(&mut self, state: Option<StallKind>, now: Instant) {
        if state == self.now.map(|(why, _)| why) {
            return;
        }
        self.so_far = self.read(now);
        self.now = state.map(|why| (why, now));
    }

    pub(super) fn read(&self, now: Instant) -> StallTotals {
        let mut totals = self.so_far;
        if let Some((why, since)) = self.now {
            totals.add(why, now.saturating_duration_since(since));
        }
        totals
    }
}

impl<W> HostState<W> {
    /// How long, so far, there was nothing to wait for but a connection.
    pub(crate) fn stall_totals(&self, now: Instant) -> StallTotals {
        self.stall_clock.read(now)
    }

    /// Something may have changed.
    pub(super) fn update_stall_clock(&mut self, now: Instant) {
        self.stall_clock.enter(self.state(now), now);
    }

    /// Whether those who wait do so for a connection.
    fn state(&self, now: Instant) -> Option<StallKind> {
        if self.connecting == 0 && self.connect_not_before.is_none() {
            return None; // usually
        }
        let live = self.live();
        // Where a connection is one session, those that are live are in use.
        if live > 0 && !self.config.idle_each {
            None
        } else if self.connecting > 0 {
            Some(StallKind::Connecting)
        } else {
            let held = self.connect_not_before.is_some_and(|t| now < t);
            (held && live < self.config.connections).then_some(StallKind::BackingOff)
        }
    }
}

#[cfg(test)]
mod tests;
