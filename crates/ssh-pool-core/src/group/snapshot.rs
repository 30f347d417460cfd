//! What the status shows of a group. Reading it sends nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connection_state::SessionCounts;
use super::{ConnectionGroup, Counters, now};
use crate::error::Error;
use crate::status::Breaker;

pub(crate) struct GroupSnapshot {
    pub(crate) name: Arc<str>,
    pub(crate) counters: Counters,
    pub(crate) learned: u32,
    pub(crate) connecting: u32,
    pub(crate) waiting: usize,
    pub(crate) connections: Vec<ConnectionSnapshot>,
    pub(crate) last_error: Option<Error>,
    pub(crate) breaker: Breaker,
}

/// One connection.
pub(crate) struct ConnectionSnapshot {
    pub(crate) counts: SessionCounts,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) age: Duration,
    pub(crate) quiet_for: Duration,
    /// It is being asked whether it is still there.
    pub(crate) checking: bool,
}

impl ConnectionGroup {
    pub(crate) fn snapshot(&self) -> GroupSnapshot {
        let waiting = self.channels.waiting();
        let now = now();
        let (mut snapshot, live) = {
            let state = self.state();
            let connection = |counts: SessionCounts| ConnectionSnapshot {
                counts,
                peer_addr: None,
                age: now.saturating_duration_since(counts.since),
                quiet_for: Duration::ZERO,
                checking: state.checks.is_under_way(counts.id),
            };
            let connections: Vec<_> = state.host.session_counts().map(connection).collect();
            let find = |connection: &ConnectionSnapshot| state.connection(connection.counts.id);
            let live: Vec<_> = connections.iter().map(find).collect();
            let snapshot = GroupSnapshot {
                name: self.endpoint.name.clone(),
                counters: state.host.counters(),
                learned: state.host.learned(),
                connecting: state.host.connecting(),
                waiting: waiting.max(state.host.waiting()),
                connections,
                last_error: None,
                breaker: Breaker::Closed,
            };
            (snapshot, live)
        };
        for (connection, live) in snapshot.connections.iter_mut().zip(live) {
            if let Some(live) = live {
                connection.peer_addr = live.peer_addr();
                connection.quiet_for = live.quiet_for();
            }
        }
        snapshot.last_error = self.breaker.last_error();
        snapshot.breaker = self.breaker.breaker();
        snapshot
    }
}
