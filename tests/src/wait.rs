//! Waiting for something to become true, with a deadline.

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
