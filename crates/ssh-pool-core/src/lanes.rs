//! The connections to one host as one caller may use it, apart by what they are for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::hub::{Hub, Lane};

/// Makes the hub of a lane, when it is needed first.
type Make = Box<dyn Fn(Lane) -> Arc<Hub> + Send + Sync>;

/// The hubs of one host. They share a budget of handshakes and the memory of past dials; each has
/// a queue and connections of its own.
pub(crate) struct Lanes {
    shared: Arc<Hub>,
    isolated: OnceLock<Arc<Hub>>,
    errands: OnceLock<Arc<Hub>>,
    make: Make,
    closed: AtomicBool,
}

impl Lanes {
    pub(crate) fn new(make: impl Fn(Lane) -> Arc<Hub> + Send + Sync + 'static) -> Self {
        Self {
            shared: make(Lane::Shared),
            isolated: OnceLock::new(),
            errands: OnceLock::new(),
            make: Box::new(make),
            closed: AtomicBool::new(false),
        }
    }

    /// For commands whose output the library drains.
    pub(crate) fn shared(&self) -> &Arc<Hub> {
        &self.shared
    }

    /// One stream a connection: a reader that does not read holds up nobody else.
    pub(crate) fn isolated(&self) -> &Arc<Hub> {
        let hub = self.isolated.get_or_init(|| (self.make)(Lane::Isolated));
        // `close` may have come just before it was there.
        if self.closed.load(Ordering::SeqCst) {
            end(hub);
        }
        hub
    }

    pub(crate) fn isolated_if_used(&self) -> Option<&Arc<Hub>> {
        self.isolated.get()
    }

    /// For commands of the pool's own, which must not queue behind those they are to end.
    pub(crate) fn errands(&self) -> &Arc<Hub> {
        self.errands.get_or_init(|| (self.make)(Lane::Errands))
    }

    pub(crate) fn errands_if_used(&self) -> Option<&Arc<Hub>> {
        self.errands.get()
    }

    /// Whether it is the one for those.
    #[cfg(feature = "metrics")]
    pub(crate) fn is_for_errands(&self, hub: &Arc<Hub>) -> bool {
        let errands = self.errands.get();
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

    /// Those that have been needed so far.
    pub(crate) fn hubs(&self) -> impl Iterator<Item = &Arc<Hub>> {
        self.for_callers().chain(self.errands.get())
    }

    fn for_callers(&self) -> impl Iterator<Item = &Arc<Hub>> {
        std::iter::once(&self.shared).chain(self.isolated.get())
    }

    /// No new work from now on, and queued work is told so. Errands are still run.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.for_callers().for_each(Hub::close);
    }

    /// After [`close`](Self::close), of all hosts: ends what nobody needs any more.
    pub(crate) fn stop(&self) {
        self.for_callers().for_each(|hub| hub.stop());
    }

    /// Waits until everything has ended. Cancel safe.
    pub(crate) async fn drained(&self) {
        self.shared.drained().await;
        if let Some(hub) = self.isolated.get() {
            hub.drained().await;
        }
        if let Some(hub) = self.errands.get() {
            end(hub);
            hub.drained().await;
        }
    }

    /// Disconnects whatever is left.
    pub(crate) async fn cut(&self) {
        if let Some(hub) = self.errands.get() {
            end(hub);
        }
        futures_util::future::join_all(self.hubs().map(|hub| hub.cut())).await;
    }

    /// Replaces every connection.
    pub(crate) fn evict(&self) {
        self.hubs().for_each(Hub::evict);
    }

    /// Nothing is connected, under way, waited for or worth remembering.
    pub(crate) fn is_unused(&self) -> bool {
        self.hubs().all(|hub| hub.is_unused())
    }
}

fn end(hub: &Arc<Hub>) {
    hub.close();
    hub.stop();
}
