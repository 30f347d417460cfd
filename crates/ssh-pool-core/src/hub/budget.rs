//! What the hosts of a pool share: how many handshakes may be under way at once, with one address
//! and in all; places in the queue; connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::queue::Queue;
use super::room::Room;
use super::size;
use crate::limits::Limits;

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
    known: HashMap<(String, u16), Weak<Semaphore>>,
    /// With so many of them it is time to look for those that nobody uses any more: at each new
    /// host, ten thousand hosts would look at each other fifty million times.
    sweep_at: usize,
}

impl Addresses {
    fn sweep_when_due(&mut self) {
        if self.known.len() < self.sweep_at {
            return;
        }
        self.known
            .retain(|_, semaphore| semaphore.strong_count() > 0);
        self.sweep_at = self.known.len().saturating_mul(2).max(SMALL);
    }
}

/// So few addresses are not worth a look.
const SMALL: usize = 64;

/// What one host may use of them.
#[derive(Clone)]
pub(crate) struct Budget {
    address: Arc<Semaphore>,
    all: Arc<Semaphore>,
    /// `None`: what the pool does for itself is not turned away.
    queue: Option<Arc<Queue>>,
    room: Arc<Room>,
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
                let semaphore = Arc::new(Semaphore::new(self.per_address));
                addresses.known.insert(key, Arc::downgrade(&semaphore));
                semaphore
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
    /// holds none of the others up. Neither semaphore is ever closed.
    pub(super) async fn address(&self) -> Option<SemaphorePermit<'_>> {
        self.address.acquire().await.ok()
    }

    /// Waits for one of all handshakes.
    pub(super) async fn handshake(&self) -> Option<SemaphorePermit<'_>> {
        self.all.acquire().await.ok()
    }

    pub(super) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }
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
