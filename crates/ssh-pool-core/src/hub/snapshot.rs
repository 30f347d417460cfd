//! What the status shows of a hub. Looking at it asks nobody anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::sessions::View;
use super::{Hub, Tally, now};
use crate::error::Error;
use crate::status::Breaker;

pub(crate) struct Snapshot {
    pub(crate) name: Arc<str>,
    pub(crate) tally: Tally,
    pub(crate) learned: u32,
    pub(crate) dialling: u32,
    pub(crate) waiting: usize,
    pub(crate) connections: Vec<Sight>,
    pub(crate) last_error: Option<Error>,
    pub(crate) breaker: Breaker,
}

/// One connection.
pub(crate) struct Sight {
    pub(crate) view: View,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) age: Duration,
    pub(crate) quiet_for: Duration,
    /// It is being asked whether it is still there.
    pub(crate) checking: bool,
}

impl Hub {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let waiting = self.channels.waiting();
        let now = now();
        let (mut snapshot, links) = {
            let books = self.books();
            let sight = |view: View| Sight {
                view,
                peer_addr: None,
                age: now.saturating_duration_since(view.since),
                quiet_for: Duration::ZERO,
                checking: books.checks.is_under_way(view.id),
            };
            let connections: Vec<_> = books.slots.views().map(sight).collect();
            let link = |sight: &Sight| books.link(sight.view.id);
            let links: Vec<_> = connections.iter().map(link).collect();
            let snapshot = Snapshot {
                name: self.endpoint.name.clone(),
                tally: books.slots.tally(),
                learned: books.slots.learned(),
                dialling: books.slots.dialling(),
                waiting: waiting.max(books.slots.waiting()),
                connections,
                last_error: None,
                breaker: Breaker::Closed,
            };
            (snapshot, links)
        };
        for (sight, link) in snapshot.connections.iter_mut().zip(links) {
            if let Some(link) = link {
                sight.peer_addr = link.peer_addr();
                sight.quiet_for = link.quiet_for();
            }
        }
        snapshot.last_error = self.dials.last_error();
        snapshot.breaker = self.dials.breaker();
        snapshot
    }
}
