//! The connections of a host, by their numbers.

use super::super::sessions::Sessions;
use super::ConnectionId;

/// A list: there are a few of them at most, and it is one small block of memory for each host,
/// where a tree's first node has room for eleven. Sorted by number.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<(ConnectionId, Sessions)>);

impl Connections {
    pub(super) fn insert(&mut self, id: ConnectionId, sessions: Sessions) {
        let place = self.0.partition_point(|(other, _)| *other < id);
        self.0.insert(place, (id, sessions));
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Sessions> {
        let place = self.place(id)?;
        Some(self.0.remove(place).1)
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Sessions> {
        let place = self.place(id)?;
        self.0.get(place).map(|(_, sessions)| sessions)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Sessions> {
        let place = self.place(id)?;
        self.0.get_mut(place).map(|(_, sessions)| sessions)
    }

    fn place(&self, id: ConnectionId) -> Option<usize> {
        self.0.binary_search_by_key(&id, |(other, _)| *other).ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Sessions)> {
        self.0.iter().map(|(id, sessions)| (*id, sessions))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Sessions)> {
        self.0.iter_mut().map(|(id, sessions)| (*id, sessions))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Sessions> {
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
