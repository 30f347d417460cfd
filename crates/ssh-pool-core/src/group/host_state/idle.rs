//! Unused connections: they make room for others.

use std::time::Instant;

use super::{ConnectionId, HostState};
use crate::event::Retirement;

impl<W> HostState<W> {
    /// The connections that run nothing and have no waiters, with the time since when.
    pub(crate) fn idle(&self) -> impl Iterator<Item = (Instant, ConnectionId)> + '_ {
        let no_waiters = self.waiters.is_empty();
        (self.connections.iter())
            .filter(move |(_, c)| no_waiters && !c.retiring && c.is_unused() && c.opening == 0)
            .map(|(id, c)| (c.idle_since, id))
    }

    /// Connections whose goodbye is on its way.
    pub(crate) fn leaving(&self) -> usize {
        self.connections.values().filter(|c| c.leaving).count()
    }

    /// Whether the next dial waits for its time.
    pub(crate) fn pauses(&self, now: Instant) -> bool {
        self.connect_not_before.is_some_and(|at| now < at)
    }

    /// What that pause was for may be there now.
    pub(crate) fn end_pause(&mut self, now: Instant) {
        if self.pauses(now) {
            self.connect_not_before = Some(now);
            self.schedule(now);
        }
    }

    /// Another connection needs the room of this one, if it is still idle.
    pub(crate) fn make_room(&mut self, id: ConnectionId, now: Instant) {
        if self.idle().any(|(_, idle)| idle == id) {
            self.retire(id, Retirement::MadeRoom, now);
        }
    }
}
