//! What follows from the end of a connection.

use std::time::Instant;

use super::{ConnectionId, Effect, HostState};

impl<W> HostState<W> {
    /// A connection is gone, with everything on it. `None`: it had been told to go.
    pub(crate) fn died(&mut self, id: ConnectionId, now: Instant) -> Option<u32> {
        let lost = self.remove(id);
        if self.live() == 0 {
            // Its waiters get the outcome of a connect now, not after the pause.
            self.connect_not_before = None;
        }
        self.schedule(now);
        lost
    }

    /// The same, of one that the server ended before it had granted anything: a failed dial, see
    /// [`connect_failed`](Self::connect_failed). Returns the waiters to tell, too.
    pub(crate) fn died_unverified(
        &mut self,
        id: ConnectionId,
        now: Instant,
        not_before: Instant,
        try_again: bool,
    ) -> (Option<u32>, Vec<W>) {
        let lost = self.remove(id);
        self.counters.failed_dials += 1;
        (lost, self.pause_connects(now, not_before, try_again))
    }

    fn remove(&mut self, id: ConnectionId) -> Option<u32> {
        let gone = self.connections.remove(id)?;
        if gone.idle > 0 {
            self.effects.push(Effect::DropStaleIdle);
        }
        (!gone.leaving).then_some(gone.in_use + gone.streams)
    }

    /// It has been told to go.
    pub(crate) fn is_leaving(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_none_or(|c| c.leaving)
    }
}
