//! Streams on a hub's connections: they are no sessions to the server, and keep their connection.

use std::sync::Arc;
use std::time::Duration;

use super::slots::ConnectionId;
use super::{Deadline, Entry, Hub, Idler, Lane, Lease, Reached, StreamHold};
use crate::error::Error;
use crate::event::Witness;
use crate::inbox::End;
use crate::transport::Link;
use crate::waited::Waited;

/// Before a place is looked for again where there was none.
const PAUSE: Duration = Duration::from_millis(20);

/// A stream's place on a connection. Dropped, it is free.
pub(crate) struct Berth {
    hub: Arc<Hub>,
    link: Arc<dyn Link>,
    id: ConnectionId,
    /// On an isolated connection the stream takes the place of its one session, so that nobody
    /// else does.
    lease: Option<Lease>,
    _hold: StreamHold,
    /// We closed its channel before the peer did.
    closed_here: bool,
}

impl Hub {
    /// A place for a stream, on a connection that may first have to be dialled. What it had to wait
    /// for is added to `waited`. Cancel safe.
    pub(crate) async fn berth(
        self: &Arc<Self>,
        lane: Lane,
        entry: &mut Entry,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<Berth, Error> {
        self.begin(entry);
        loop {
            let berth = self.any_berth(lane, entry, deadline, waited).await?;
            entry.let_in();
            let (id, link) = (berth.id, &berth.link);
            let there = match entry.is_wary() {
                true => self.answers(id, link, deadline, waited).await?,
                false => self.is_there(id, link, deadline, waited).await?,
            };
            if there {
                return Ok(berth);
            }
            self.lost_under(entry, id, Some(link), Reached::Not)?;
        }
    }

    /// The same, whether or not the other side of that connection is still there.
    async fn any_berth(
        self: &Arc<Self>,
        lane: Lane,
        entry: &mut Entry,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<Berth, Error> {
        if lane != Lane::Isolated
            && let Some(berth) = self.board(|slots| slots.begin_stream())
        {
            return Ok(berth);
        }
        loop {
            // Whoever gets a session has a connection.
            let mut lease = self.checkout(entry, deadline, waited).await?;
            let id = lease.on();
            let berth = self.board(|slots| slots.begin_stream_on(id).then_some(id));
            let Some(mut berth) = berth else {
                // It has ended, or is on its way out, or has no room for another stream.
                drop(lease);
                self.check_streams(entry, deadline)?;
                if deadline.is_over() {
                    return Err(self.overdue(deadline.after));
                }
                self.take_place(entry)?;
                tokio::time::sleep(PAUSE).await;
                waited.queue += PAUSE;
                continue;
            };
            if lane == Lane::Isolated {
                lease.leave_unattended(Idler::Stream);
                berth.lease = Some(lease);
            }
            return Ok(berth);
        }
    }

    fn board(
        self: &Arc<Self>,
        begin: impl FnOnce(&mut super::Slots<super::Waiter>) -> Option<ConnectionId>,
    ) -> Option<Berth> {
        self.transition(|books, now| {
            let id = begin(&mut books.slots)?;
            let Some(link) = books.link(id) else {
                books.slots.end_stream(id, false, now);
                return None;
            };
            Some(Berth {
                hub: self.clone(),
                link,
                id,
                lease: None,
                _hold: StreamHold::default(),
                closed_here: false,
            })
        })
    }
}

impl Berth {
    pub(crate) fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }

    pub(crate) fn on(&self) -> ConnectionId {
        self.id
    }

    /// The server has granted a stream or a listener: the connection is of use.
    pub(crate) fn granted(&self) {
        self.hub.granted(self.id);
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What its stream holds from now on.
    pub(crate) fn hold(&mut self, hold: StreamHold) {
        self._hold = hold;
    }

    /// For what happens on the stream's channel.
    pub(crate) fn witness(&self) -> Witness {
        self.hub.witness(self.id, self.link.peer_addr())
    }

    /// The stream's channel has ended.
    pub(crate) fn leave(mut self, end: &End) {
        self.closed_here = matches!(end, End::ClosedHere { .. });
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.hub.transition(|books, now| {
            books.slots.end_stream(self.id, self.closed_here, now);
        });
        drop(self.lease.take());
    }
}
