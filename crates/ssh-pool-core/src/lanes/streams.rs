//! Which hub serves a stream, and what the stream holds from then on.
//!
//! The first stream of a group queues as any other. When the group has one, those of its others that
//! would have to wait go to the hub for groups: nothing there is filled by streams, but for a ceiling
//! at which the answer comes at once.

use std::sync::Arc;

use super::Lanes;
use crate::error::Error;
use crate::hub::{self, Berth, Deadline, Entry, Hub, Lane, Lease, Next, StreamHold};
use crate::stream_group::StreamGroup;
use crate::waited::Waited;

impl Lanes {
    /// A channel for a command whose streams are the caller's, or for a subsystem: as
    /// [`Hub::checkout_before`]. Cancel safe.
    pub(crate) async fn stream_channel(
        &self,
        hub: &Arc<Hub>,
        entry: &mut Entry,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(Lease, Option<Next>), Error> {
        let begun = hub::now();
        let group = entry.group().cloned();
        if self.may_serve(hub, group.as_ref()) {
            let served = tokio::select! {
                biased;
                served = hub.checkout_before(entry, deadline, waited) => Some(served),
                () = self.group_opened(hub, group.as_ref()) => None,
            };
            if let Some(served) = served {
                let (mut lease, next) = served?;
                lease.hold(self.hold(hub, group.as_ref()));
                return Ok((lease, next));
            }
        }
        waited.queue += hub::now().saturating_duration_since(begun);
        let excess = self.excess(group.as_ref())?;
        let grouped = self.grouped();
        grouped.begin(entry);
        let served = grouped.checkout_before(entry, deadline, waited).await;
        let (mut lease, next) = served?;
        lease.hold(excess);
        Ok((lease, next))
    }

    /// A place for a stream to an address: as [`Hub::berth`]. Cancel safe.
    pub(crate) async fn stream_berth(
        &self,
        lane: Lane,
        entry: &mut Entry,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<Berth, Error> {
        let begun = hub::now();
        let hub = self.of_stream(lane == Lane::Shared);
        let group = entry.group().cloned();
        if self.may_serve(hub, group.as_ref()) {
            let served = tokio::select! {
                biased;
                served = hub.berth(lane, entry, deadline, waited) => Some(served),
                () = self.group_opened(hub, group.as_ref()) => None,
            };
            if let Some(served) = served {
                let mut berth = served?;
                berth.hold(StreamHold::of(group.as_ref()));
                return Ok(berth);
            }
        }
        waited.queue += hub::now().saturating_duration_since(begun);
        let excess = self.excess(group.as_ref())?;
        let served = (self.grouped())
            .berth(Lane::Isolated, entry, deadline, waited)
            .await;
        let mut berth = served?;
        berth.hold(excess);
        Ok(berth)
    }

    /// Sessions that streams hold on shared connections.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u32 {
        self.shared.held()
    }

    /// Whether it is worth asking there: a group that has a stream only takes what lies ready.
    fn may_serve(&self, hub: &Arc<Hub>, group: Option<&StreamGroup>) -> bool {
        !self.is_isolated(hub) || !group.is_some_and(StreamGroup::is_open) || hub.has_idle()
    }

    /// Waits until the group may go past the limit of this hub. On a shared one it never does: what
    /// streams hold there fills nothing.
    async fn group_opened(&self, hub: &Arc<Hub>, group: Option<&StreamGroup>) {
        match group {
            Some(group) if self.is_isolated(hub) => group.opened().await,
            _ => std::future::pending().await,
        }
    }

    fn is_isolated(&self, hub: &Arc<Hub>) -> bool {
        let isolated = self.isolated_if_used();
        isolated.is_some_and(|isolated| Arc::ptr_eq(isolated, hub))
    }

    /// What a stream that is a session holds on this hub.
    fn hold(&self, hub: &Arc<Hub>, group: Option<&StreamGroup>) -> StreamHold {
        let hold = StreamHold::of(group);
        match self.is_isolated(hub) {
            true => hold,
            false => hold.with_session(hub.hold_session()),
        }
    }

    /// One more stream on the hub for groups, if there is a place for it.
    fn excess(&self, group: Option<&StreamGroup>) -> Result<StreamHold, Error> {
        match self.excess.clone().try_acquire_owned() {
            Ok(place) => Ok(StreamHold::of(group).with_place(place)),
            Err(_) => Err(Error::StreamLimit {
                target: self.shared.name().into(),
                open: self.limits.grouped_per_host,
                limit: "grouped_per_host",
                after: None,
            }),
        }
    }
}
