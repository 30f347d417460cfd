//! How many logins one address may see, whatever its server and our callers do.
//!
//! A connection that ends within [`SERVED`] of its login is charged when it ends, and so is an attempt
//! that reached the server and failed. Time pays one charge off every [`EACH`]. A login is admitted
//! while there are fewer than `burst` unpaid charges. So any window of `T` seconds has at most
//!
//! ```text
//!   up × (1 + T / 30 s) + burst + 2 × T
//! ```
//!
//! logins, where `up` is the most connections and handshakes that the address had at once: those that
//! ended before the last login of the window and were charged are fewer than `burst + 2 × T`, each of
//! those that were not charged had a place for 30 s, and the rest were up at that moment.
//!
//! Connections that live cost nothing, and neither do those that served: idle, old and evicted ones,
//! and all that a restart of the server ends at once.
//!
//! Plain state: time comes in as an argument.

use std::time::{Duration, Instant};

/// Time pays for one login in this time.
const EACH: Duration = Duration::from_millis(500);
/// A connection that lasted for so long is not charged.
pub(super) const SERVED: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct LoginBudget {
    /// `Limits::login_burst`.
    burst: u32,
    /// When all charges are paid off.
    paid_at: Option<Instant>,
}

impl LoginBudget {
    pub(super) fn new(burst: u32) -> Self {
        Self {
            burst,
            paid_at: None,
        }
    }

    /// Whether a login may begin; if not, the earliest time when one may.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Instant> {
        let room = EACH.saturating_mul(self.burst.saturating_sub(1));
        let excess = self.unpaid(now).saturating_sub(room);
        if excess.is_zero() {
            Ok(())
        } else {
            Err(now + excess)
        }
    }

    /// A connection has ended that lasted for so long, or an attempt that reached the server.
    pub(super) fn ended(&mut self, lasted: Duration, now: Instant) {
        if lasted < SERVED {
            let paid_at = self.paid_at.map_or(now, |at| at.max(now));
            self.paid_at = Some(paid_at + EACH);
        }
    }

    /// Nothing is owed: it is as good as new.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.unpaid(now).is_zero()
    }

    fn unpaid(&self, now: Instant) -> Duration {
        self.paid_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BURST: u32 = 128;

    #[test]
    fn a_burst_of_logins_is_admitted_at_once_and_then_two_a_second() {
        let mut now = Instant::now();
        let began = now;
        let mut budget = LoginBudget::new(BURST);
        for _ in 0..BURST {
            assert_eq!(budget.admit(now), Ok(()));
            budget.ended(Duration::ZERO, now);
        }
        for more in 1..100 {
            let until = budget.admit(now).expect_err("the burst is used up");
            assert_eq!(until, began + EACH * more);
            now = until;
            assert_eq!(budget.admit(now), Ok(()));
            budget.ended(Duration::ZERO, now);
        }
        assert!(!budget.is_settled(now));
        assert!(budget.is_settled(now + EACH * BURST));
    }

    #[test]
    fn connections_that_served_cost_nothing_however_many_end_at_once() {
        let now = Instant::now();
        let mut budget = LoginBudget::new(1);
        for _ in 0..10_000 {
            budget.ended(SERVED, now);
        }
        assert_eq!(budget.admit(now), Ok(()));
        assert!(budget.is_settled(now));
    }

    #[test]
    fn one_login_is_admitted_at_a_time_where_the_burst_is_one() {
        let now = Instant::now();
        let mut budget = LoginBudget::new(1);
        budget.ended(Duration::ZERO, now);
        assert_eq!(budget.admit(now), Err(now + EACH));
        assert_eq!(budget.admit(now + EACH), Ok(()));
    }

    /// What a server does with a login, and how long its connection lasts, in milliseconds.
    fn lifetimes() -> impl Strategy<Value = Vec<u64>> {
        let life = prop_oneof![
            4 => Just(0_u64),
            2 => 1_u64..200,
            1 => 200_u64..29_999,
            1 => 30_000_u64..90_000,
        ];
        prop::collection::vec(life, 1..8)
    }

    proptest! {
        /// Callers who want all places filled at all times, and a server that ends connections after
        /// times of its own.
        #[test]
        fn no_window_has_more_logins_than_the_budget(
            burst in 1_u32..200,
            up in 1_usize..40,
            lives in lifetimes(),
            pause in 1_u64..3_000,
        ) {
            let start = Instant::now();
            let mut budget = LoginBudget::new(burst);
            let mut logins: Vec<Instant> = Vec::new();
            let mut live: Vec<(Instant, Instant)> = Vec::new();
            let mut now = start;
            for (step, life) in (0..2_000).zip(lives.iter().cycle()) {
                live.retain(|(since, until)| {
                    if *until <= now {
                        budget.ended(*until - *since, now);
                    }
                    *until > now
                });
                while live.len() < up && budget.admit(now).is_ok() {
                    logins.push(now);
                    live.push((now, now + Duration::from_millis(*life)));
                    if *life == 0 {
                        break;
                    }
                }
                now += Duration::from_millis(if step % 3 == 0 { pause } else { 1 });
            }
            let up = f64::from(u32::try_from(up).expect("small"));
            for first in (0..logins.len()).step_by(7) {
                for last in (first..logins.len()).step_by(5) {
                    let window = (logins[last] - logins[first]).as_secs_f64();
                    let most = up * (1.0 + window / SERVED.as_secs_f64())
                        + f64::from(burst)
                        + window / EACH.as_secs_f64();
                    let seen = f64::from(u32::try_from(last - first + 1).expect("small"));
                    prop_assert!(seen <= most, "{seen} logins in {window} s, at most {most}");
                }
            }
        }
    }
}
