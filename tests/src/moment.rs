//! Moments drawn by lot, for what has to hold whenever something is given up.

use std::time::Duration;

/// How long until one, less than `most`.
#[must_use]
pub fn moment(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

/// Waits for one.
pub async fn moment_passes(most: Duration) {
    tokio::time::sleep(moment(most)).await;
}
