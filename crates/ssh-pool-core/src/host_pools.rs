//! The connections to one host as one caller may use it, apart by what they are for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::group::{self, ConnectionGroup, GroupKind};
use crate::limits::Limits;
use crate::terminate::Batch;
use crate::timeouts::Timeouts;

mod streams;

/// Makes the connection group of a kind, when it is needed first.
type Make = Box<dyn Fn(GroupKind) -> Arc<ConnectionGroup> + Send + Sync>;

/// The connection groups of one host. They share a budget of handshakes and the breaker; each has a
/// queue and connections of its own.
pub(crate) struct HostPools {
    shared: Arc<ConnectionGroup>,
    isolated: Later,
    grouped: Later,
    control: Later,
    batch: Batch,
    make: Make,
    /// `Limits::grouped_per_host`.
    excess: Arc<Semaphore>,
    limits: Arc<Limits>,
    timeouts: Arc<Timeouts>,
    /// Commands that are being ended, for which helper commands may have to be run.
    endings: TaskTracker,
}

impl HostPools {
    pub(crate) fn new(
        limits: Arc<Limits>,
        timeouts: Arc<Timeouts>,
        make: impl Fn(GroupKind) -> Arc<ConnectionGroup> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: make(GroupKind::Shared),
            isolated: Later::default(),
            grouped: Later::default(),
            control: Later::default(),
            batch: Batch::default(),
            make: Box::new(make),
            excess: Arc::new(Semaphore::new(group::size(limits.grouped_per_host))),
            limits,
            timeouts,
            endings: TaskTracker::new(),
        }
    }

    /// Those of this host.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Those of this host.
    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// For commands whose output the library drains.
    pub(crate) fn shared(&self) -> &Arc<ConnectionGroup> {
        &self.shared
    }

    /// One stream a connection: a reader that does not read holds up no other stream.
    pub(crate) fn isolated(&self) -> &Arc<ConnectionGroup> {
        self.isolated.get(|| (self.make)(GroupKind::Isolated))
    }

    pub(crate) fn isolated_if_used(&self) -> Option<&Arc<ConnectionGroup>> {
        self.isolated.if_used()
    }

    /// The same, for callers whose stream group has a stream already, beyond the limit of the others.
    pub(crate) fn grouped(&self) -> &Arc<ConnectionGroup> {
        self.grouped.get(|| (self.make)(GroupKind::Grouped))
    }

    pub(crate) fn grouped_if_used(&self) -> Option<&Arc<ConnectionGroup>> {
        self.grouped.if_used()
    }

    /// For commands of the pool's own, which must not queue behind those they are to end.
    pub(crate) fn control(&self) -> &Arc<ConnectionGroup> {
        self.control.get(|| (self.make)(GroupKind::Control))
    }

    /// The signals that wait for a script there.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    pub(crate) fn control_if_used(&self) -> Option<&Arc<ConnectionGroup>> {
        self.control.if_used()
    }

    /// Whether it is the one for helper commands.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_for_control(&self, group: &Arc<ConnectionGroup>) -> bool {
        let control = self.control.if_used();
        control.is_some_and(|control| Arc::ptr_eq(control, group))
    }

    /// The group for a stream.
    pub(crate) fn of_stream(&self, shared: bool) -> &Arc<ConnectionGroup> {
        if shared {
            &self.shared
        } else {
            self.isolated()
        }
    }

    /// Those that have been needed so far, the shared one first.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<ConnectionGroup>> {
        std::iter::once(&self.shared)
            .chain(self.isolated.if_used())
            .chain(self.grouped.if_used())
            .chain(self.control.if_used())
    }

    /// A command is about to be ended: helper commands are run until the token is dropped.
    pub(crate) fn ending(&self) -> TaskTrackerToken {
        self.endings.token()
    }

    /// No new work from now on, and queued work fails. Helper commands are still run.
    pub(crate) fn close(&self) {
        self.shared.close();
        self.isolated.close();
        self.grouped.close();
    }

    /// After [`close`](Self::close), of all hosts: ends what is no longer needed.
    pub(crate) fn stop(&self) {
        self.shared.stop();
        self.isolated.stop();
        self.grouped.stop();
    }

    /// Waits until everything has ended. Cancel safe.
    pub(crate) async fn drained(&self) {
        self.shared.drained().await;
        for group in [&self.isolated, &self.grouped] {
            if let Some(group) = group.if_used() {
                group.drained().await;
            }
        }
        self.endings.close();
        self.endings.wait().await;
        self.close_control();
        self.stop_control();
        if let Some(group) = self.control.if_used() {
            group.drained().await;
        }
    }

    /// Nothing is run any more, not even to end what runs.
    pub(crate) fn close_control(&self) {
        self.control.close();
    }

    /// After [`close_control`](Self::close_control).
    pub(crate) fn stop_control(&self) {
        self.control.stop();
    }

    /// Disconnects whatever is left.
    pub(crate) async fn disconnect_all(&self) {
        futures_util::future::join_all(self.groups().map(|group| group.disconnect_all())).await;
    }

    /// Replaces every connection.
    pub(crate) fn evict(&self) {
        self.shared.evict_and_forget();
        self.groups().skip(1).for_each(ConnectionGroup::evict);
    }

    /// Nothing is connected, under way, waited for or worth remembering.
    pub(crate) fn is_unused(&self) -> bool {
        self.groups().all(|group| group.is_unused())
    }
}

/// A group that is made when it is needed first, which may be while its pool is being closed.
#[derive(Default)]
struct Later {
    group: OnceLock<Arc<ConnectionGroup>>,
    closed: AtomicBool,
    stopped: AtomicBool,
}

impl Later {
    fn get(&self, make: impl FnOnce() -> Arc<ConnectionGroup>) -> &Arc<ConnectionGroup> {
        let group = self.group.get_or_init(make);
        // `close` may have run just before it was there.
        if self.closed.load(Ordering::SeqCst) {
            group.close();
        }
        if self.stopped.load(Ordering::SeqCst) {
            group.stop();
        }
        group
    }

    fn if_used(&self) -> Option<&Arc<ConnectionGroup>> {
        self.group.get()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(group) = self.if_used() {
            group.close();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(group) = self.if_used() {
            group.stop();
        }
    }
}
