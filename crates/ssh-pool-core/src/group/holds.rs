//! What an open stream holds, and how those that hold a stream get past a limit that streams fill.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::{Admission, ConnectionGroup, Deadline, GroupState};
use crate::error::Error;
use crate::stream_group::{Membership, StreamGroup};

/// What a stream holds for as long as its channel is open. Dropped, it is given back.
#[derive(Default)]
pub(crate) struct StreamHold {
    /// Its stream group counts it.
    _membership: Option<Membership>,
    /// Its place in `Limits::grouped_per_host`.
    _excess_permit: Option<OwnedSemaphorePermit>,
    _session: Option<HeldSession>,
}

impl StreamHold {
    pub(crate) fn of(stream_group: Option<&StreamGroup>) -> Self {
        Self {
            _membership: stream_group.map(StreamGroup::join),
            ..Self::default()
        }
    }

    /// A session of a shared connection, too.
    pub(crate) fn with_session(self, session: HeldSession) -> Self {
        Self {
            _session: Some(session),
            ..self
        }
    }

    /// A place beyond the limit, too.
    pub(crate) fn with_excess_permit(self, permit: OwnedSemaphorePermit) -> Self {
        Self {
            _excess_permit: Some(permit),
            ..self
        }
    }
}

/// A session that a stream holds on a shared connection. Commands do not wait for its end: such
/// sessions come on top of `Limits::connections_per_host`.
pub(crate) struct HeldSession(Arc<ConnectionGroup>);

impl Drop for HeldSession {
    fn drop(&mut self) {
        self.0.transition(|state, now| state.host.end_hold(now));
    }
}

/// A caller waits here whose stream group has streams: dials do not wait for room in the pool.
struct Urgent<'a>(&'a ConnectionGroup);

impl<'a> Urgent<'a> {
    fn new(group: &'a Arc<ConnectionGroup>) -> Self {
        group.transition(|state, now| state.host.begin_urgent(now));
        // A dial may be waiting for room already.
        group.breaker.wake();
        Self(group)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.state().host.end_urgent();
    }
}

impl ConnectionGroup {
    /// One more session is a stream's, until the guard is dropped.
    pub(crate) fn hold_session(self: &Arc<Self>) -> HeldSession {
        self.transition(|state, now| state.host.begin_hold(now));
        HeldSession(self.clone())
    }

    /// Whether a channel lies ready, as far as can be said.
    pub(crate) fn has_idle(&self) -> bool {
        self.channels.has_idle()
    }

    /// Sessions that streams hold.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u32 {
        self.state().host.held()
    }

    /// Whether a caller waits for a dial that may itself hold the room that the dial needs.
    pub(super) fn is_urgent(&self) -> bool {
        self.state().host.is_urgent()
    }

    /// Marks the wait of a caller of that stream group as urgent from the moment the stream group has a
    /// stream. Polled beside the wait, and dropped with it.
    pub(super) async fn urgent_once_open(
        self: &Arc<Self>,
        stream_group: StreamGroup,
    ) -> Infallible {
        stream_group.opened().await;
        let _urgent = Urgent::new(self);
        std::future::pending().await
    }

    /// The error if callers are not served before a deadline because streams fill a limit.
    pub(super) fn stream_limit(&self, state: &GroupState, after: Duration) -> Option<Error> {
        let limit = match self.endpoint.isolated {
            true => "isolated_per_host",
            false => "connections_per_host",
        };
        let open = state.host.filled_by_streams(false)?;
        Some(self.too_many(open, limit, Some(after)))
    }

    /// Streams fill even what is left for those who hold some: they would wait for each other.
    pub(super) fn check_ceiling(&self, admission: &Admission) -> Result<(), Error> {
        if !admission.holds_streams() || self.endpoint.isolated {
            return Ok(());
        }
        match self.state().host.filled_by_streams(true) {
            Some(open) => Err(self.too_many(open, "grouped_per_host", None)),
            None => Ok(()),
        }
    }

    /// Shared streams fill every connection: those who hold some would wait for each other, and the
    /// time of the others may be over.
    pub(super) fn check_streams(
        &self,
        admission: &Admission,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let after = match (admission.holds_streams(), deadline.is_over()) {
            (true, _) => None,
            (false, true) => Some(deadline.after),
            (false, false) => return Ok(()),
        };
        match self.state().host.full_of_streams() {
            Some(open) => Err(self.too_many(open, "streams_per_connection", after)),
            None => Ok(()),
        }
    }

    fn too_many(&self, open: u32, limit: &'static str, after: Option<Duration>) -> Error {
        Error::StreamLimit {
            target: self.name().into(),
            open,
            limit,
            after,
        }
    }
}
