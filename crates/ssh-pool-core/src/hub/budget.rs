//! What the hosts of a pool share: how many handshakes may be under way at once, with one address
//! and in all, and none for a while with an address that has turned one away; places in the queue;
//! connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::queue::Queue;
use super::room::Room;
use super::size;
use crate::limits::Limits;

use super::now;
use super::throttle::Throttle;
use crate::transport::DialError;

/// The budgets of one pool. Callers with different users or identities dial the same server, so
/// an address has one budget for all of them.
pub(crate) struct Budgets {
    all: Arc<Semaphore>,
    per_address: usize,
    addresses: Mutex<Addresses>,
    queue: Arc<Queue>,
    room: Arc<Room>,
}

#[derive(Default)]
struct Addresses {
    known: HashMap<(String, u16), Weak<Address>>,
    /// With so many of them it is time to look for those that nobody uses any more: at each new
    /// host, ten thousand hosts would look at each other fifty million times.
    sweep_at: usize,
}

impl Addresses {
    fn sweep_when_due(&mut self) {
        if self.known.len() < self.sweep_at {
            return;
        }
        self.known.retain(|_, address| address.strong_count() > 0);
        self.sweep_at = self.known.len().saturating_mul(2).max(SMALL);
    }
}

/// So few addresses are not worth a look.
const SMALL: usize = 64;

/// What is shared by all who dial one address.
struct Address {
    shares: Arc<Semaphore>,
    /// For whoever dials while the server is throttling.
    turn: Arc<Semaphore>,
    throttle: Mutex<Throttle>,
}

impl Address {
    fn new(shares: usize) -> Self {
        Self {
            shares: Arc::new(Semaphore::new(shares)),
            turn: Arc::new(Semaphore::new(1)),
            throttle: Mutex::default(),
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While the server is throttling, one after the other, and not before its pause is over.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if !self.throttle().is_on(now()) {
            return None;
        }
        let turn = acquire(&self.turn).await;
        loop {
            let pause = self.throttle().wait(now());
            match pause {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => return turn,
            }
        }
    }
}

/// What one host may use of them.
#[derive(Clone)]
pub(crate) struct Budget {
    address: Arc<Address>,
    all: Arc<Semaphore>,
    /// `None`: what the pool does for itself is not turned away.
    queue: Option<Arc<Queue>>,
    room: Arc<Room>,
}

/// One handshake's share.
pub(crate) struct Permit {
    address: Arc<Address>,
    _share: Option<OwnedSemaphorePermit>,
    _turn: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// The handshake has ended, with that failure if it has failed.
    pub(crate) fn answered(self, failure: Option<&DialError>, now: Instant) {
        self.address.throttle().answered(failure, now);
    }
}

impl Budgets {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(size(limits.handshakes))),
            per_address: size(limits.handshakes_per_host),
            addresses: Mutex::default(),
            queue: Arc::new(Queue::new(limits.queued_commands)),
            room: Arc::new(Room::new(limits.connections)),
        }
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(crate) fn of(&self, host: &str, port: u16) -> Budget {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.sweep_when_due();
        let key = (host.to_owned(), port);
        let address = (addresses.known)
            .get(&key)
            .and_then(Weak::upgrade)
            .unwrap_or_else(|| {
                let address = Arc::new(Address::new(self.per_address));
                addresses.known.insert(key, Arc::downgrade(&address));
                address
            });
        Budget {
            address,
            all: self.all.clone(),
            queue: Some(self.queue.clone()),
            room: self.room.clone(),
        }
    }
}

impl Budget {
    /// For what the pool does for itself: it takes no place in the queue.
    pub(crate) fn unqueued(self) -> Self {
        Self {
            queue: None,
            ..self
        }
    }

    /// Waits for one of the handshakes with this address. This comes first, so that a slow host
    /// holds none of the others up.
    pub(super) async fn address(&self) -> Option<OwnedSemaphorePermit> {
        acquire(&self.address.shares).await
    }

    /// Waits for one of all handshakes, and for the address to be in the mood for one.
    pub(super) async fn handshake(&self, share: Option<OwnedSemaphorePermit>) -> Permit {
        loop {
            let turn = self.address.turn().await;
            let all = acquire(&self.all).await;
            // Others may have been turned away meanwhile.
            if turn.is_some() || !self.address.throttle().is_on(now()) {
                return Permit {
                    address: self.address.clone(),
                    _share: share,
                    _turn: turn,
                    _all: all,
                };
            }
        }
    }

    pub(super) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }
}

/// No semaphore here is ever closed.
async fn acquire(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    semaphore.clone().acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(budgets: &Budgets) -> usize {
        budgets.addresses.lock().expect("not poisoned").known.len()
    }

    #[test]
    fn addresses_that_nobody_uses_are_forgotten_and_the_others_are_not() {
        let budgets = Budgets::new(&Limits::default());
        let kept = budgets.of("kept", 22);
        for n in 0..10_000 {
            budgets.of(&format!("host-{n}"), 22);
        }
        assert!(known(&budgets) <= SMALL + 1, "{}", known(&budgets));
        let again = budgets.of("kept", 22);
        assert!(Arc::ptr_eq(&kept.address, &again.address));
        let used: Vec<_> = (0..10_000)
            .map(|n| budgets.of(&format!("host-{n}"), 22))
            .collect();
        assert!(known(&budgets) > used.len());
    }
}
