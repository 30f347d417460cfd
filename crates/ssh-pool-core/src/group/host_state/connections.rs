//! The connections of a host, by their numbers.

use super::super::connection_state::ConnectionState;
use super::ConnectionId;

/// A list: there are a few of them at most, and it is one small block of memory for each host,
/// where a tree's first node has room for eleven. Sorted by number.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<(ConnectionId, ConnectionState)>);

impl Connections {
    pub(super) fn insert(&mut self, id: ConnectionId, sessions: ConnectionState) {
        let index = self.0.partition_point(|(other, _)| *other < id);
        self.0.insert(index, (id, sessions));
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<ConnectionState> {
        let index = self.position(id)?;
        Some(self.0.remove(index).1)
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&ConnectionState> {
        let index = self.position(id)?;
        self.0.get(index).map(|(_, sessions)| sessions)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut ConnectionState> {
        let index = self.position(id)?;
        self.0.get_mut(index).map(|(_, sessions)| sessions)
    }

    fn position(&self, id: ConnectionId) -> Option<usize> {
        self.0.binary_search_by_key(&id, |(other, _)| *other).ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &ConnectionState)> {
        self.0.iter().map(|(id, sessions)| (*id, sessions))
    }

    pub(super) fn iter_mut(
        &mut self,
    ) -> impl Iterator<Item = (ConnectionId, &mut ConnectionState)> {
        self.0.iter_mut().map(|(id, sessions)| (*id, sessions))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &ConnectionState> {
        self.0.iter().map(|(_, sessions)| sessions)
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.0.iter().map(|(id, _)| *id).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
