//! How long commands took.

use std::time::Duration;

/// The durations of finished commands.
#[derive(Debug, Clone, Default)]
pub struct Timings(Vec<Duration>);

impl Timings {
    /// Adds one.
    pub fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A quantile, such as 0.5 for the median, in milliseconds; 0 when there is none.
    #[must_use]
    pub fn quantile_ms(&self, quantile_of: f64) -> f64 {
        let mut sorted: Vec<f64> = self.0.iter().map(|d| d.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        quantile(&sorted, quantile_of)
    }
}

/// The value at a quantile of sorted values (nearest rank); 0 when there is none.
#[must_use]
pub fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts of commands are far below 2^52"
    )]
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
