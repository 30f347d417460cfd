//! Two things measured side by side: on a machine that does other work too, a ratio is worth more
//! than two times.

use std::time::Duration;

use crate::stats;

/// What both took, by medians, and the median of the ratios of each round.
#[derive(Debug, Clone, Copy)]
pub struct Paired {
    /// Nanoseconds of one of the first.
    pub first: f64,
    /// Nanoseconds of one of the second.
    pub second: f64,
    /// How many times as long as the second the first took.
    pub ratio: f64,
}

/// Measures in rounds, one after the other in each, and who begins alternates. Each is asked for
/// `cycles` at once and says how long they took together.
#[must_use]
pub fn measure(
    rounds: u32,
    cycles: u32,
    mut first: impl FnMut(u32) -> Duration,
    mut second: impl FnMut(u32) -> Duration,
) -> Paired {
    let (mut firsts, mut seconds, mut ratios) = (vec![], vec![], vec![]);
    // The first round warms caches.
    for round in 0..=rounds {
        let (a, b) = if round % 2 == 0 {
            let a = first(cycles);
            (a, second(cycles))
        } else {
            let b = second(cycles);
            (first(cycles), b)
        };
        if round > 0 {
            let each = |whole: Duration| whole.as_secs_f64() * 1e9 / f64::from(cycles);
            firsts.push(each(a));
            seconds.push(each(b));
            ratios.push(a.as_secs_f64() / b.as_secs_f64());
        }
    }
    let median = |values: &[f64]| stats::median(values).unwrap_or(f64::NAN);
    Paired {
        first: median(&firsts),
        second: median(&seconds),
        ratio: median(&ratios),
    }
}
