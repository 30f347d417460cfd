//! How many handshakes may be under way at once, with one address and in all; and none for a while
//! with an address that has turned one away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::now;
use super::throttle::Throttle;
use crate::transport::DialError;

/// The budgets of one pool. Callers with different users or identities dial the same server, so
/// an address has one budget for all of them.
pub(crate) struct Budgets {
    all: Arc<Semaphore>,
    per_address: usize,
    addresses: Mutex<Addresses>,
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
    pub(crate) fn new(all: u32, per_address: u32) -> Self {
        let size = |count: u32| usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(size(all))),
            per_address: size(per_address),
            addresses: Mutex::default(),
        }
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
        }
    }
}

impl Budget {
    /// Waits for a share: the address first, so that a slow host holds none of the others up.
    pub(crate) async fn acquire(&self) -> Permit {
        let share = acquire(&self.address.shares).await;
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
        let budgets = Budgets::new(64, 4);
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
