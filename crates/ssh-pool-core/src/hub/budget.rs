//! How many handshakes may be under way at once: with one address, and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budgets of one pool. Callers with different users or identities dial the same server, so
/// an address has one budget for all of them.
pub(crate) struct Budgets {
    all: Arc<Semaphore>,
    per_address: usize,
    addresses: Mutex<Addresses>,
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
}

/// One handshake's share.
pub(crate) struct Permit {
    _address: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
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
                let semaphore = Arc::new(Semaphore::new(self.per_address));
                addresses.known.insert(key, Arc::downgrade(&semaphore));
                semaphore
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
        // Neither semaphore is ever closed.
        let address = self.address.clone().acquire_owned().await.ok();
        let all = self.all.clone().acquire_owned().await.ok();
        Permit {
            _address: address,
            _all: all,
        }
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
