//! Callers with a pause of their own.

use std::time::{Duration, Instant};

/// A caller who comes back again and again for a while, and makes a pause before each time.
#[derive(Clone, Copy, Debug)]
pub struct PacedCaller {
    until: Instant,
    pause: Duration,
}

impl PacedCaller {
    /// One who does so for that long from now on.
    #[must_use]
    pub fn new(time: Duration, pause: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            pause,
        }
    }

    /// Makes the pause; `false` when the time is over.
    pub async fn comes_back(&self) -> bool {
        tokio::time::sleep(self.pause).await;
        Instant::now() < self.until
    }
}
