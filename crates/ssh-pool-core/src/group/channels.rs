//! The pool of session channels: the fair queue for them, their upper bound, and the idle ones.
//!
//! This is the only file that names deadpool. An object of the pool is a session channel, opened
//! and ready for exec. It leaves the pool when the peer's CLOSE has been seen, so the pool's size
//! is the truth about the server's slots. Idle objects are unused channels.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, PoolError, RecycleError, RecycleResult};
use futures_util::FutureExt;

use super::host_state::WaiterId;
use super::{ConnectionGroup, IdleChannel};
use crate::error::Error;

/// A channel with an owner. Dropped, it is idle again.
pub(super) type Pooled = managed::Object<Opener>;

tokio::task_local! {
    /// Set while an unused channel is being put among the idle ones.
    static PARKING: ();
    /// The queue position of a caller that had to wait. The queue admits callers in order, but the
    /// runtime may run them in another one.
    static WAITER_ID: WaiterId;
}

/// A caller that waits in the queue keeps this position when it is served.
pub(super) fn with_waiter_id<F: Future>(
    waiter_id: WaiterId,
    get: F,
) -> impl Future<Output = F::Output> {
    WAITER_ID.scope(waiter_id, get)
}

/// The position of a caller that has waited in the queue.
pub(super) fn waiter_id() -> Option<WaiterId> {
    WAITER_ID.try_with(|waiter_id| *waiter_id).ok()
}

pub(super) struct Opener {
    group: Weak<ConnectionGroup>,
}

impl Manager for Opener {
    type Type = IdleChannel;
    type Error = Option<Error>;

    async fn create(&self) -> Result<IdleChannel, Self::Error> {
        let group = self.group.upgrade().ok_or(None)?;
        if PARKING.try_with(|()| ()).is_ok() {
            // Another caller may have taken it: then there is nothing to park.
            return group.next_unclaimed().ok_or(None);
        }
        group.create().await.map_err(Some)
    }

    async fn recycle(&self, idle: &mut IdleChannel, _: &Metrics) -> RecycleResult<Self::Error> {
        let good = match self.group.upgrade() {
            // Parking met another idle channel first; it goes straight back.
            Some(_) if PARKING.try_with(|()| ()).is_ok() => !idle.channel.receiver.has_ended(),
            Some(group) => group.recycle(idle),
            None => false,
        };
        if good {
            Ok(())
        } else {
            tracing::debug!(connection = idle.connection.0, "a spare channel had died");
            Err(RecycleError::message("the idle channel has died"))
        }
    }
}

pub(super) struct ChannelPool {
    /// Made when it is needed first: deadpool makes room for all objects at once. With the stock
    /// limits that is 7 kB, more than all else that a host costs which is known and not used.
    pool: OnceLock<managed::Pool<Opener>>,
    /// How many channels there may be at once. Grows only: deadpool has no way to take a place away
    /// that is in use.
    most: Mutex<usize>,
    group: Weak<ConnectionGroup>,
}

impl ChannelPool {
    /// At most `most` channels at once, idle ones included.
    pub(super) fn new(group: Weak<ConnectionGroup>, most: usize) -> Self {
        Self {
            pool: OnceLock::new(),
            most: Mutex::new(most),
            group,
        }
    }

    fn pool(&self) -> &managed::Pool<Opener> {
        self.pool.get_or_init(|| {
            // Without time-outs of its own the builder has nothing to refuse; the caller's
            // deadline is kept around the whole of `get`.
            let group = self.group.clone();
            let pool = managed::Pool::builder(Opener { group })
                .max_size(*self.most())
                .build();
            pool.unwrap_or_else(|_| unreachable!("no time-outs are configured"))
        })
    }

    fn most(&self) -> MutexGuard<'_, usize> {
        self.most.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises the number of channels that may exist at once.
    pub(super) fn raise_capacity(&self, least: usize) {
        let mut most = self.most();
        if least > *most {
            *most = least;
            if let Some(pool) = self.pool.get() {
                pool.resize(least);
            }
        }
    }

    /// The next channel: fair among all who ask. Cancel safe.
    pub(super) async fn get(&self) -> Result<Pooled, Error> {
        match self.pool().get().await {
            Ok(channel) => Ok(channel),
            Err(PoolError::Backend(Some(error))) => Err(error),
            Err(_) => Err(self.closed()),
        }
    }

    fn closed(&self) -> Error {
        match self.group.upgrade() {
            Some(group) => group.closed_error(),
            None => Error::Closed { target: "".into() },
        }
    }

    /// Puts an unclaimed channel among the idle ones, if there is one and the queue is free. If
    /// not, the next in the queue finds it unclaimed.
    pub(super) fn park(&self) {
        let at_once = managed::Timeouts {
            wait: Some(Duration::ZERO),
            create: None,
            recycle: None,
        };
        let parking = PARKING.scope((), self.pool().timeout_get(&at_once));
        // Nothing in there waits, so it needs no task.
        drop(parking.now_or_never());
    }

    /// Takes those idle channels out that `which` points at.
    pub(super) fn take_idle(&self, which: impl Fn(&IdleChannel) -> bool) -> Vec<IdleChannel> {
        match self.pool.get() {
            Some(pool) => pool.retain(|idle, _| !which(idle)).removed,
            None => Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.pool().status().available
    }

    /// Whether a caller could be served now without waiting (a hint).
    pub(super) fn has_idle(&self) -> bool {
        self.pool
            .get()
            .is_some_and(|pool| pool.status().available > 0)
    }

    /// Those who ask for a channel and have none.
    pub(super) fn waiting(&self) -> usize {
        self.pool.get().map_or(0, |pool| pool.status().waiting)
    }

    /// Fails all waiters with `Closed`, and drops the idle channels.
    pub(super) fn close(&self) {
        self.pool().close();
    }
}

/// Takes a channel out of the pool for good: its slot is free, or gone with its connection.
pub(super) fn take_out(channel: Pooled) -> IdleChannel {
    managed::Object::take(channel)
}
