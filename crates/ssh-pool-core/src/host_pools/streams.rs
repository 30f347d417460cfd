//! Which connection group serves a stream, and what the stream holds from then on.
//!
//! The first stream of a [`StreamGroup`] queues as any other. Once the stream group has one, those of
//! its others that would have to wait go to the `grouped` connections: no caller waits there for
//! streams to end, and at `Limits::grouped_per_host` the answer is an error at once.

use std::sync::Arc;

use super::HostPools;
use crate::error::Error;
use crate::group::{
    self, Admission, ChannelGuard, ConnectionGroup, Deadline, DeferredEffects, GroupKind,
    StreamHold, StreamPermit,
};
use crate::stream_group::StreamGroup;
use crate::waited::Waited;

impl HostPools {
    /// A channel for a command whose streams are the caller's, or for a subsystem: as
    /// [`ConnectionGroup::checkout_before`]. Cancel safe.
    pub(crate) async fn stream_channel(
        &self,
        group: &Arc<ConnectionGroup>,
        admission: &mut Admission,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(ChannelGuard, Option<DeferredEffects>), Error> {
        let begun = group::now();
        let stream_group = admission.stream_group().cloned();
        if self.may_serve(group, stream_group.as_ref()) {
            let served = tokio::select! {
                biased;
                served = group.checkout_before(admission, deadline, waited) => Some(served),
                () = self.group_opened(group, stream_group.as_ref()) => None,
            };
            if let Some(served) = served {
                let (mut guard, deferred) = served?;
                guard.hold(self.hold(group, stream_group.as_ref()));
                return Ok((guard, deferred));
            }
        }
        waited.queue += group::now().saturating_duration_since(begun);
        let excess = self.excess(stream_group.as_ref())?;
        let grouped = self.grouped();
        grouped.begin(admission);
        let served = grouped.checkout_before(admission, deadline, waited).await;
        let (mut guard, deferred) = served?;
        guard.hold(excess);
        Ok((guard, deferred))
    }

    /// A place for a stream to an address: as [`ConnectionGroup::stream_permit`]. Cancel safe.
    pub(crate) async fn acquire_stream_permit(
        &self,
        kind: GroupKind,
        admission: &mut Admission,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<StreamPermit, Error> {
        let begun = group::now();
        let group = self.of_stream(kind == GroupKind::Shared);
        let stream_group = admission.stream_group().cloned();
        if self.may_serve(group, stream_group.as_ref()) {
            let served = tokio::select! {
                biased;
                served = group.stream_permit(kind, admission, deadline, waited) => Some(served),
                () = self.group_opened(group, stream_group.as_ref()) => None,
            };
            if let Some(served) = served {
                let mut stream_permit = served?;
                stream_permit.hold(StreamHold::of(stream_group.as_ref()));
                return Ok(stream_permit);
            }
        }
        waited.queue += group::now().saturating_duration_since(begun);
        let excess = self.excess(stream_group.as_ref())?;
        let served = (self.grouped())
            .stream_permit(GroupKind::Isolated, admission, deadline, waited)
            .await;
        let mut stream_permit = served?;
        stream_permit.hold(excess);
        Ok(stream_permit)
    }

    /// Sessions that streams hold on shared connections.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u32 {
        self.shared.held()
    }

    /// Whether it is worth asking that connection group: a stream group that has a stream only takes
    /// what lies ready.
    fn may_serve(&self, group: &Arc<ConnectionGroup>, stream_group: Option<&StreamGroup>) -> bool {
        !self.is_isolated(group)
            || !stream_group.is_some_and(StreamGroup::is_open)
            || group.has_idle()
    }

    /// Waits until the stream group may go past the limit of this connection group. That is never in
    /// the shared one: streams do not fill it.
    async fn group_opened(&self, group: &Arc<ConnectionGroup>, stream_group: Option<&StreamGroup>) {
        match stream_group {
            Some(stream_group) if self.is_isolated(group) => stream_group.opened().await,
            _ => std::future::pending().await,
        }
    }

    fn is_isolated(&self, group: &Arc<ConnectionGroup>) -> bool {
        let isolated = self.isolated_if_used();
        isolated.is_some_and(|isolated| Arc::ptr_eq(isolated, group))
    }

    /// What a stream that is a session holds in this connection group.
    fn hold(&self, group: &Arc<ConnectionGroup>, stream_group: Option<&StreamGroup>) -> StreamHold {
        let hold = StreamHold::of(stream_group);
        match self.is_isolated(group) {
            true => hold,
            false => hold.with_session(group.hold_session()),
        }
    }

    /// A permit for one more stream on the `grouped` connections, if there is one.
    fn excess(&self, stream_group: Option<&StreamGroup>) -> Result<StreamHold, Error> {
        match self.excess.clone().try_acquire_owned() {
            Ok(permit) => Ok(StreamHold::of(stream_group).with_excess_permit(permit)),
            Err(_) => Err(Error::StreamLimit {
                target: self.shared.name().into(),
                open: self.limits.grouped_per_host,
                limit: "grouped_per_host",
                after: None,
            }),
        }
    }
}
