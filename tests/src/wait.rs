//! Waiting for something to become true, with a deadline.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `condition` until it answers `true`, or `timeout` is over; says which of the two it was.
///
/// Blocks the thread. Inside a runtime use [`eventually_async`], or the thing waited for may be
/// kept from happening.
#[must_use]
pub fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// [`eventually`] for async code: yields to the runtime between two looks.
///
/// The deadline is real time even where tokio's clock is paused.
pub async fn eventually_async(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls on this thread, without any runtime.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(thread::current())).into();
    let (mut work, mut cx) = (pin!(work), Context::from_waker(&waker));
    loop {
        match work.as_mut().poll(&mut cx) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}
