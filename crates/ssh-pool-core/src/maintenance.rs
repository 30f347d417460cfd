//! What happens to connections over time: they grow idle, and old.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::group::{ConnectionGroup, ConnectionLimiter, make_room};
use crate::pool::Inner;

/// Between two looks, at most; short timeouts are looked at more often.
const LONGEST_PERIOD: Duration = Duration::from_secs(5);
const SHORTEST_PERIOD: Duration = Duration::from_millis(20);

/// Ends the pool if the task is dropped while that is there: with its runtime.
struct Home(Weak<Inner>);

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.runtime_ended();
        }
    }
}

/// Looks after a pool for as long as there is one. It holds the pool weakly, so it keeps nothing
/// alive, and ends with it.
pub(crate) async fn run(pool: Weak<Inner>, limiter: Arc<ConnectionLimiter>) {
    let _home = Home(pool.clone());
    let mut last = Instant::now();
    #[cfg(feature = "metrics")]
    let mut gauges = crate::metrics::Gauges::default();
    let mut next = Duration::ZERO;
    loop {
        let due = tokio::select! {
            () = sleep_until(last + next) => true,
            () = limiter.changed() => false,
        };
        let Some(pool) = pool.upgrade() else {
            return;
        };
        if due {
            last = Instant::now();
            next = (pool.shortest_timeout() / 10).clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
        }
        let hosts = pool.hosts();
        make_room(&limiter, hosts.iter().flat_map(|pools| pools.groups()));
        if due {
            for pools in hosts {
                pools.groups().for_each(ConnectionGroup::tick);
            }
            pool.forget_unused();
        }
        #[cfg(feature = "metrics")]
        if due {
            gauges.show(&pool.hosts());
        }
    }
}
