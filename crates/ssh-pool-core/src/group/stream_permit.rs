//! Streams on a group's connections: they are no sessions to the server, and keep their connection.

use std::sync::Arc;
use std::time::Duration;

use super::host_state::ConnectionId;
use super::{
    Admission, ChannelGuard, ConnectionGroup, Deadline, GroupKind, Reached, StreamHold,
    UnattendedUse,
};
use crate::error::Error;
use crate::event::EventScope;
use crate::receiver::ChannelEnd;
use crate::transport::Connection;
use crate::waited::Waited;

/// Before a place is looked for again where there was none.
const PAUSE: Duration = Duration::from_millis(20);

/// A stream's place on a connection. Dropped, it is free.
pub(crate) struct StreamPermit {
    group: Arc<ConnectionGroup>,
    connection: Arc<dyn Connection>,
    id: ConnectionId,
    /// On an isolated connection the stream occupies its one session, so that no other caller gets
    /// it.
    guard: Option<ChannelGuard>,
    _hold: StreamHold,
    /// We closed its channel before the peer did.
    closed_here: bool,
}

impl ConnectionGroup {
    /// A place for a stream, on a connection that may first have to be dialled. What it had to wait
    /// for is added to `waited`. Cancel safe.
    pub(crate) async fn stream_permit(
        self: &Arc<Self>,
        kind: GroupKind,
        admission: &mut Admission,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<StreamPermit, Error> {
        self.begin(admission);
        loop {
            let stream_permit = self
                .any_stream_permit(kind, admission, deadline, waited)
                .await?;
            admission.admitted();
            let (id, connection) = (stream_permit.id, &stream_permit.connection);
            let there = match admission.is_wary() {
                true => self.answers(id, connection, deadline, waited).await?,
                false => self.is_there(id, connection, deadline, waited).await?,
            };
            if there {
                return Ok(stream_permit);
            }
            self.lost_under(admission, id, Some(connection), Reached::Not)?;
        }
    }

    /// The same, whether or not the other side of that connection is still there.
    async fn any_stream_permit(
        self: &Arc<Self>,
        kind: GroupKind,
        admission: &mut Admission,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<StreamPermit, Error> {
        if kind != GroupKind::Isolated
            && let Some(stream_permit) = self.reserve(|host| host.begin_stream())
        {
            return Ok(stream_permit);
        }
        loop {
            // A session implies a connection.
            let mut guard = self.checkout(admission, deadline, waited).await?;
            let id = guard.on();
            let stream_permit = self.reserve(|host| host.begin_stream_on(id).then_some(id));
            let Some(mut stream_permit) = stream_permit else {
                // It has ended, or is on its way out, or has no room for another stream.
                drop(guard);
                self.check_streams(admission, deadline)?;
                if deadline.is_over() {
                    return Err(self.timeout_error(deadline.after));
                }
                self.take_queue_permit(admission)?;
                tokio::time::sleep(PAUSE).await;
                waited.queue += PAUSE;
                continue;
            };
            if kind == GroupKind::Isolated {
                guard.leave_unattended(UnattendedUse::Stream);
                stream_permit.guard = Some(guard);
            }
            return Ok(stream_permit);
        }
    }

    fn reserve(
        self: &Arc<Self>,
        begin: impl FnOnce(&mut super::HostState<super::WaiterSender>) -> Option<ConnectionId>,
    ) -> Option<StreamPermit> {
        self.transition(|state, now| {
            let id = begin(&mut state.host)?;
            let Some(connection) = state.connection(id) else {
                state.host.end_stream(id, false, now);
                return None;
            };
            Some(StreamPermit {
                group: self.clone(),
                connection,
                id,
                guard: None,
                _hold: StreamHold::default(),
                closed_here: false,
            })
        })
    }
}

impl StreamPermit {
    pub(crate) fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    pub(crate) fn on(&self) -> ConnectionId {
        self.id
    }

    /// The server has granted a stream or a listener: the connection is usable.
    pub(crate) fn granted(&self) {
        self.group.granted(self.id);
    }

    pub(crate) fn group(&self) -> &Arc<ConnectionGroup> {
        &self.group
    }

    /// What its stream holds from now on.
    pub(crate) fn hold(&mut self, hold: StreamHold) {
        self._hold = hold;
    }

    /// For what happens on the stream's channel.
    pub(crate) fn event_scope(&self) -> EventScope {
        self.group.event_scope(self.id, self.connection.peer_addr())
    }

    /// The stream's channel has ended.
    pub(crate) fn leave(mut self, end: &ChannelEnd) {
        self.closed_here = matches!(end, ChannelEnd::ClosedHere { .. });
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.group.transition(|state, now| {
            state.host.end_stream(self.id, self.closed_here, now);
        });
        drop(self.guard.take());
    }
}
