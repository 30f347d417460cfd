//! The connections to one host as one caller may use it, apart by what they are for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::hub::{self, Hub, Lane};
use crate::limits::Limits;
use crate::terminate::Batch;
use crate::timeouts::Timeouts;

mod streams;

/// Makes the hub of a lane, when it is needed first.
type Make = Box<dyn Fn(Lane) -> Arc<Hub> + Send + Sync>;

/// The hubs of one host. They share a budget of handshakes and the memory of past dials; each has
/// a queue and connections of its own.
pub(crate) struct Lanes {
    shared: Arc<Hub>,
    isolated: Later,
    grouped: Later,
    errands: Later,
    batch: Batch,
    make: Make,
    /// Places on the hub for groups.
    excess: Arc<Semaphore>,
    limits: Arc<Limits>,
    timeouts: Arc<Timeouts>,
    /// Commands that are being ended, for which errands may have to be run.
    endings: TaskTracker,
}

impl Lanes {
    pub(crate) fn new(
        limits: Arc<Limits>,
        timeouts: Arc<Timeouts>,
        make: impl Fn(Lane) -> Arc<Hub> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: make(Lane::Shared),
            isolated: Later::default(),
            grouped: Later::default(),
            errands: Later::default(),
            batch: Batch::default(),
            make: Box::new(make),
            excess: Arc::new(Semaphore::new(hub::size(limits.grouped_per_host))),
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
    pub(crate) fn shared(&self) -> &Arc<Hub> {
        &self.shared
    }

    /// One stream a connection: a reader that does not read holds up nobody else.
    pub(crate) fn isolated(&self) -> &Arc<Hub> {
        self.isolated.get(|| (self.make)(Lane::Isolated))
    }

    pub(crate) fn isolated_if_used(&self) -> Option<&Arc<Hub>> {
        self.isolated.if_used()
    }

    /// The same, for groups that have a stream already, beyond the limit of the others.
    pub(crate) fn grouped(&self) -> &Arc<Hub> {
        self.grouped.get(|| (self.make)(Lane::Grouped))
    }

    pub(crate) fn grouped_if_used(&self) -> Option<&Arc<Hub>> {
        self.grouped.if_used()
    }

    /// For commands of the pool's own, which must not queue behind those they are to end.
    pub(crate) fn errands(&self) -> &Arc<Hub> {
        self.errands.get(|| (self.make)(Lane::Errands))
    }

    /// The signals that wait for a script there.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    pub(crate) fn errands_if_used(&self) -> Option<&Arc<Hub>> {
        self.errands.if_used()
    }

    /// Whether it is the one for those.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_for_errands(&self, hub: &Arc<Hub>) -> bool {
        let errands = self.errands.if_used();
        errands.is_some_and(|errands| Arc::ptr_eq(errands, hub))
    }

    /// The lane of a stream.
    pub(crate) fn of_stream(&self, shared: bool) -> &Arc<Hub> {
        if shared {
            &self.shared
        } else {
            self.isolated()
        }
    }

    /// Those that have been needed so far, the shared one first.
    pub(crate) fn hubs(&self) -> impl Iterator<Item = &Arc<Hub>> {
        std::iter::once(&self.shared)
            .chain(self.isolated.if_used())
            .chain(self.grouped.if_used())
            .chain(self.errands.if_used())
    }

    /// Somebody is about to end a command, and has to be done with it before errands are over.
    pub(crate) fn ending(&self) -> TaskTrackerToken {
        self.endings.token()
    }

    /// No new work from now on, and queued work is told so. Errands are still run.
    pub(crate) fn close(&self) {
        self.shared.close();
        self.isolated.close();
        self.grouped.close();
    }

    /// After [`close`](Self::close), of all hosts: ends what nobody needs any more.
    pub(crate) fn stop(&self) {
        self.shared.stop();
        self.isolated.stop();
        self.grouped.stop();
    }

    /// Waits until everything has ended. Cancel safe.
    pub(crate) async fn drained(&self) {
        self.shared.drained().await;
        for hub in [&self.isolated, &self.grouped] {
            if let Some(hub) = hub.if_used() {
                hub.drained().await;
            }
        }
        self.endings.close();
        self.endings.wait().await;
        self.close_errands();
        self.stop_errands();
        if let Some(hub) = self.errands.if_used() {
            hub.drained().await;
        }
    }

    /// Nothing is run any more, not even to end what runs.
    pub(crate) fn close_errands(&self) {
        self.errands.close();
    }

    /// After [`close_errands`](Self::close_errands).
    pub(crate) fn stop_errands(&self) {
        self.errands.stop();
    }

    /// Disconnects whatever is left.
    pub(crate) async fn cut(&self) {
        futures_util::future::join_all(self.hubs().map(|hub| hub.cut())).await;
    }

    /// Replaces every connection.
    pub(crate) fn evict(&self) {
        self.shared.evict_and_forget();
        self.hubs().skip(1).for_each(Hub::evict);
    }

    /// Nothing is connected, under way, waited for or worth remembering.
    pub(crate) fn is_unused(&self) -> bool {
        self.hubs().all(|hub| hub.is_unused())
    }
}

/// A hub that is made when it is needed first, which may be while its pool is being closed.
#[derive(Default)]
struct Later {
    hub: OnceLock<Arc<Hub>>,
    closed: AtomicBool,
    stopped: AtomicBool,
}

impl Later {
    fn get(&self, make: impl FnOnce() -> Arc<Hub>) -> &Arc<Hub> {
        let hub = self.hub.get_or_init(make);
        // Whoever closes may have come just before it was there.
        if self.closed.load(Ordering::SeqCst) {
            hub.close();
        }
        if self.stopped.load(Ordering::SeqCst) {
            hub.stop();
        }
        hub
    }

    fn if_used(&self) -> Option<&Arc<Hub>> {
        self.hub.get()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(hub) = self.if_used() {
            hub.close();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(hub) = self.if_used() {
            hub.stop();
        }
    }
}
