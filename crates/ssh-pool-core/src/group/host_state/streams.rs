//! Streams that need no session: as many as a connection may have, beside its sessions.

use std::time::Instant;

use super::{ConnectionId, HostState};

impl<W> HostState<W> {
    /// A stream that needs no session goes to the connection with the fewest of them. `None`:
    /// there is no connection with room.
    pub(crate) fn begin_stream(&mut self) -> Option<ConnectionId> {
        let most = self.config.streams;
        let (id, connection) = (self.connections.iter_mut())
            .filter(|(_, c)| !c.retiring && c.streams < most)
            .min_by_key(|(_, c)| c.streams)?;
        connection.streams += 1;
        Some(id)
    }

    /// How many streams there are, if every connection has as many as it may.
    pub(crate) fn full_of_streams(&self) -> Option<u32> {
        let alive = || self.connections.values().filter(|c| !c.retiring);
        let full = alive().all(|c| c.streams >= self.config.streams);
        let open = alive().map(|c| c.streams).sum();
        (full && open > 0).then_some(open)
    }

    /// A stream on this connection; `false` if it takes none.
    #[must_use]
    pub(crate) fn begin_stream_on(&mut self, id: ConnectionId) -> bool {
        let most = self.config.streams;
        let connection = self.connections.get_mut(id);
        connection.is_some_and(|c| {
            let room = !c.retiring && c.streams < most;
            c.streams += u32::from(room);
            room
        })
    }

    /// A stream has ended, closed by us or by the peer.
    pub(crate) fn end_stream(&mut self, id: ConnectionId, here: bool, now: Instant) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.streams = connection.streams.saturating_sub(1);
            connection.set_idle(now);
        }
        if here && self.wear(id) {
            self.wear_out(id);
        }
        self.leave_if_unused(id);
        if self.has_expired() {
            self.schedule(now);
        }
    }
}
