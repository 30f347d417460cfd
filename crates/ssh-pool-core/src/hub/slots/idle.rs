//! Connections that nobody uses just now: they make room for others.

use std::time::Instant;

use super::{ConnectionId, Slots};
use crate::event::Retirement;

impl<W> Slots<W> {
    /// The connections that run nothing, and that nobody waits for; with since when.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (Instant, ConnectionId)> + '_ {
        let nobody_waits = self.waiters.is_empty();
        (self.connections.iter())
            .filter(move |(_, c)| nobody_waits && !c.retiring && c.is_unused() && c.opening == 0)
            .map(|(id, c)| (c.idle_since, id))
    }

    /// Connections whose goodbye is on its way.
    pub(crate) fn leaving(&self) -> usize {
        self.connections.values().filter(|c| c.leaving).count()
    }

    /// Whether the next dial waits for its time.
    pub(crate) fn pauses(&self, now: Instant) -> bool {
        self.dial_not_before.is_some_and(|at| now < at)
    }

    /// What that pause was for may be there now.
    pub(crate) fn end_pause(&mut self, now: Instant) {
        if self.pauses(now) {
            self.dial_not_before = Some(now);
            self.pump(now);
        }
    }

    /// Another connection needs the room of this one, if it is still idle.
    pub(crate) fn make_room(&mut self, id: ConnectionId, now: Instant) {
        if self.idle().any(|(_, idle)| idle == id) {
            self.retire(id, Retirement::MadeRoom, now);
        }
    }
}
