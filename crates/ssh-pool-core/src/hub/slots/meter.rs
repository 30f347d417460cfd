//! How long there was nothing to wait for but a connection.

use std::time::{Duration, Instant};

use super::Slots;

/// Why nobody is served, when no command that ends could change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standstill {
    /// A connection is being made.
    Dialling,
    /// The next dial is not allowed yet.
    BackingOff,
}

/// The hands of the meter. What passed between two readings is their difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) dialling: Duration,
    pub(crate) backing_off: Duration,
}

impl Reading {
    /// What has passed since an earlier one.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            dialling: self.dialling.saturating_sub(earlier.dialling),
            backing_off: self.backing_off.saturating_sub(earlier.backing_off),
        }
    }

    fn add(&mut self, why: Standstill, time: Duration) {
        match why {
            Standstill::Dialling => self.dialling += time,
            Standstill::BackingOff => self.backing_off += time,
        }
    }
}

/// Adds up all the time that a host has stood still, whoever waits: so a wait costs two readings,
/// and nothing has to be kept for each waiter.
#[derive(Debug, Default)]
pub(super) struct Meter {
    so_far: Reading,
    now: Option<(Standstill, Instant)>,
}

impl Meter {
    /// This is how it is from now on.
    pub(super) fn enter(&mut self, state: Option<Standstill>, now: Instant) {
        if state == self.now.map(|(why, _)| why) {
            return;
        }
        self.so_far = self.read(now);
        self.now = state.map(|why| (why, now));
    }

    pub(super) fn read(&self, now: Instant) -> Reading {
        let mut reading = self.so_far;
        if let Some((why, since)) = self.now {
            reading.add(why, now.saturating_duration_since(since));
        }
        reading
    }
}

impl<W> Slots<W> {
    /// How long, so far, there was nothing to wait for but a connection.
    pub(crate) fn standstill(&self, now: Instant) -> Reading {
        self.meter.read(now)
    }

    /// Something may have changed.
    pub(super) fn set_meter(&mut self, now: Instant) {
        self.meter.enter(self.state(now), now);
    }

    /// Whether those who wait do so for a connection.
    fn state(&self, now: Instant) -> Option<Standstill> {
        if self.dialling == 0 && self.dial_not_before.is_none() {
            return None; // as a rule
        }
        let live = self.live();
        // Where a connection is one session, those that are live are in use.
        if live > 0 && !self.rules.ready_each {
            None
        } else if self.dialling > 0 {
            Some(Standstill::Dialling)
        } else {
            let held = self.dial_not_before.is_some_and(|t| now < t);
            (held && live < self.rules.connections).then_some(Standstill::BackingOff)
        }
    }
}

#[cfg(test)]
mod tests;
