//! How many handshakes may be under way at once: with one address, and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budgets of one pool. Callers with different users or identities dial the same server, so
/// an address has one budget for all of them.
pub(crate) struct Budgets {
    all: Arc<Semaphore>,
    per_address: usize,
    addresses: Mutex<HashMap<(String, u16), Weak<Semaphore>>>,
}

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
        addresses.retain(|_, semaphore| semaphore.strong_count() > 0);
        let key = (host.to_owned(), port);
        let address = addresses
            .get(&key)
            .and_then(Weak::upgrade)
            .unwrap_or_else(|| {
                let semaphore = Arc::new(Semaphore::new(self.per_address));
                addresses.insert(key, Arc::downgrade(&semaphore));
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
