//! What happens to connections when nobody does anything: they grow idle, and old.

use std::sync::Weak;
use std::time::Duration;

use crate::hub::Hub;
use crate::pool::Inner;

/// Between two looks, at most; short timeouts are looked at more often.
const LONGEST_PERIOD: Duration = Duration::from_secs(5);
const SHORTEST_PERIOD: Duration = Duration::from_millis(20);

/// Looks after a pool for as long as there is one. It holds the pool weakly, so it keeps nothing
/// alive, and ends with it.
pub(crate) async fn run(pool: Weak<Inner>, shortest_timeout: Duration) {
    let period = (shortest_timeout / 10).clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
    #[cfg(feature = "metrics")]
    let mut gauges = crate::metrics::Gauges::default();
    loop {
        tokio::time::sleep(period).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        for lanes in pool.hosts() {
            lanes.hubs().for_each(Hub::tick);
        }
        pool.forget_unused();
        #[cfg(feature = "metrics")]
        gauges.show(&pool.hosts(), pool.limits());
    }
}
