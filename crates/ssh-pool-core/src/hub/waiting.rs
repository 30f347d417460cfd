//! What the wait for a channel was for.

use std::time::Instant;

use super::slots::{Reading, Ticket};
use super::{Hub, now};
use crate::waited::Waited;

/// When a wait began.
pub(super) struct Begun {
    at: Instant,
    standstill: Reading,
}

/// When a channel was asked for, and when it was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl Hub {
    /// Somebody has to wait from now on, and gets the next place in the queue.
    pub(super) fn begin_waiting(&self) -> (Ticket, Begun) {
        let at = now();
        let mut books = self.books();
        let standstill = books.slots.standstill(at);
        (books.slots.next_ticket(), Begun { at, standstill })
    }

    /// The wait is over: with a channel, which took so long to be opened, or without one.
    pub(super) fn end_waiting(&self, begun: &Begun, opening: Option<Opening>) -> Waited {
        let end = now();
        let standstill = (self.books().slots.standstill(end)).since(begun.standstill);
        let channel = opening.map(|opening| {
            // One that lay ready was opened before.
            let since = opening.since.max(begun.at);
            opening.until.saturating_duration_since(since)
        });
        Waited::split(
            end.saturating_duration_since(begun.at),
            standstill.dialling,
            standstill.backing_off,
            channel.unwrap_or_default(),
        )
    }
}
