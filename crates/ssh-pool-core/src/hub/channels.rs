//! The pool of session channels: the fair queue for them, their upper bound, and the idle ones.
//!
//! This is the only file that names deadpool. An object of the pool is a session channel, opened
//! and ready for exec. It leaves the pool when the peer's CLOSE has been seen, so the pool's size
//! is the truth about the server's slots. Idle objects are spare channels.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, PoolError, RecycleError, RecycleResult};
use futures_util::FutureExt;

use super::slots::Ticket;
use super::{Hub, Ready};
use crate::error::Error;

/// A channel in somebody's hands. Dropped, it lies among the idle ones again.
pub(super) type Pooled = managed::Object<Opener>;

tokio::task_local! {
    /// Set while a spare is being put among the idle channels.
    static PARKING: ();
    /// The place in the queue of whoever is let in late. The queue lets them in in order, and then
    /// they run when the runtime likes.
    static TICKET: Ticket;
}

/// Whoever waits in the queue keeps this place when it is their turn.
pub(super) fn with_ticket<F: Future>(ticket: Ticket, get: F) -> impl Future<Output = F::Output> {
    TICKET.scope(ticket, get)
}

/// The place of the caller who has waited in the queue.
pub(super) fn ticket() -> Option<Ticket> {
    TICKET.try_with(|ticket| *ticket).ok()
}

pub(super) struct Opener {
    hub: Weak<Hub>,
}

impl Manager for Opener {
    type Type = Ready;
    type Error = Option<Error>;

    async fn create(&self) -> Result<Ready, Self::Error> {
        let hub = self.hub.upgrade().ok_or(None)?;
        if PARKING.try_with(|()| ()).is_ok() {
            // Somebody may have taken it on the way: then there is nothing to park.
            return hub.next_unclaimed().ok_or(None);
        }
        hub.create().await.map_err(Some)
    }

    async fn recycle(&self, ready: &mut Ready, _: &Metrics) -> RecycleResult<Self::Error> {
        let good = match self.hub.upgrade() {
            // Parking met another spare first; it goes straight back.
            Some(_) if PARKING.try_with(|()| ()).is_ok() => !ready.channel.inbox.has_ended(),
            Some(hub) => hub.recycle(ready),
            None => false,
        };
        if good {
            Ok(())
        } else {
            tracing::debug!(connection = ready.connection.0, "a spare channel had died");
            Err(RecycleError::message("the spare has died"))
        }
    }
}

pub(super) struct Channels {
    /// Made when it is needed first: deadpool makes room for all objects at once. With the stock
    /// limits that is 7 kB, more than all else that a host costs which is known and not used.
    pool: OnceLock<managed::Pool<Opener>>,
    /// How many channels there may be at once. Grows only: deadpool has no way to take a place away
    /// that is in use.
    most: Mutex<usize>,
    hub: Weak<Hub>,
}

impl Channels {
    /// At most `most` channels at once, idle ones included.
    pub(super) fn new(hub: Weak<Hub>, most: usize) -> Self {
        Self {
            pool: OnceLock::new(),
            most: Mutex::new(most),
            hub,
        }
    }

    fn pool(&self) -> &managed::Pool<Opener> {
        self.pool.get_or_init(|| {
            // Without time-outs of its own the builder has nothing to refuse; the caller's
            // deadline is kept around the whole of `get`.
            let hub = self.hub.clone();
            let pool = managed::Pool::builder(Opener { hub })
                .max_size(*self.most())
                .build();
            pool.unwrap_or_else(|_| unreachable!("no time-outs are configured"))
        })
    }

    fn most(&self) -> MutexGuard<'_, usize> {
        self.most.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At least so many channels may be there at once.
    pub(super) fn widen(&self, least: usize) {
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
        match self.hub.upgrade() {
            Some(hub) => hub.closed_error(),
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
    pub(super) fn take_idle(&self, which: impl Fn(&Ready) -> bool) -> Vec<Ready> {
        match self.pool.get() {
            Some(pool) => pool.retain(|ready, _| !which(ready)).removed,
            None => Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.pool().status().available
    }

    /// Whether somebody who asks now need not wait, as far as can be said.
    pub(super) fn has_idle(&self) -> bool {
        self.pool
            .get()
            .is_some_and(|pool| pool.status().available > 0)
    }

    /// Those who ask for a channel and have none.
    pub(super) fn waiting(&self) -> usize {
        self.pool.get().map_or(0, |pool| pool.status().waiting)
    }

    /// Answers everybody in the queue with `Closed`, and drops the idle channels.
    pub(super) fn close(&self) {
        self.pool().close();
    }
}

/// Takes a channel out of the pool for good: its slot is free, or gone with its connection.
pub(super) fn take_out(channel: Pooled) -> Ready {
    managed::Object::take(channel)
}
