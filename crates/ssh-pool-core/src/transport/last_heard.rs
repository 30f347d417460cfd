//! When a peer last gave a sign of life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The last moment at which anything came from the peer, by both clocks of this machine: the
/// steady one stands still while the machine is suspended, and the wall clock can be set.
///
/// The two are stored one after the other. A reader in between sees them a read apart, which does
/// not matter for timeouts of seconds.
#[derive(Debug)]
pub(super) struct LastHeard {
    /// Milliseconds of the steady clock count from here.
    base: Instant,
    steady: AtomicU64,
    /// Milliseconds since 1970.
    wall: AtomicU64,
    /// How often something was written to the peer.
    writes: AtomicU64,
}

impl Default for LastHeard {
    /// Made now.
    fn default() -> Self {
        Self::new(Instant::now(), SystemTime::now())
    }
}

impl LastHeard {
    fn new(now: Instant, wall: SystemTime) -> Self {
        Self {
            base: now,
            steady: AtomicU64::new(0),
            wall: AtomicU64::new(since_epoch(wall)),
            writes: AtomicU64::new(0),
        }
    }

    /// Something was heard.
    pub(super) fn record(&self, now: Instant, wall: SystemTime) {
        let steady = millis(now.saturating_duration_since(self.base));
        self.steady.store(steady, Ordering::Relaxed);
        self.wall.store(since_epoch(wall), Ordering::Relaxed);
    }

    /// Something was written.
    pub(super) fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// How long nothing was heard: what the clock says that saw more of it. One that was set back
    /// saw nothing.
    pub(super) fn quiet_for(&self, now: Instant, wall: SystemTime) -> Duration {
        let heard = Duration::from_millis(self.wall.load(Ordering::Relaxed));
        let by_wall = Duration::from_millis(since_epoch(wall)).saturating_sub(heard);
        let heard = Duration::from_millis(self.steady.load(Ordering::Relaxed));
        let since_base = now.saturating_duration_since(self.base);
        since_base.saturating_sub(heard).max(by_wall)
    }
}

fn since_epoch(wall: SystemTime) -> u64 {
    millis(wall.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A record of one message, and the clocks at that moment.
    fn recorded() -> (LastHeard, Instant, SystemTime) {
        let (born, wall) = (Instant::now(), UNIX_EPOCH + SECOND * 1_000_000);
        let last_heard = LastHeard::new(born, wall);
        let (now, wall) = (born + SECOND * 100, wall + SECOND * 100);
        last_heard.record(now, wall);
        (last_heard, now, wall)
    }

    #[test]
    fn silence_is_counted_from_the_last_beat() {
        let (last_heard, now, wall) = recorded();
        assert_eq!(last_heard.quiet_for(now, wall), Duration::ZERO);
        for seconds in [0, 4, 60] {
            let (now, wall) = (now + SECOND * seconds, wall + SECOND * seconds);
            assert_eq!(last_heard.quiet_for(now, wall), SECOND * seconds);
        }
        last_heard.record(now + SECOND * 60, wall + SECOND * 60);
        assert_eq!(
            last_heard.quiet_for(now + SECOND * 61, wall + SECOND * 61),
            SECOND
        );
    }

    #[test]
    fn a_suspended_machine_counts_as_silence() {
        let (last_heard, now, wall) = recorded();
        let wall = wall + SECOND * 3600;
        assert_eq!(last_heard.quiet_for(now, wall), SECOND * 3600);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_is_ignored() {
        let (last_heard, now, wall) = recorded();
        let back = wall - SECOND * 3600;
        for seconds in [1, 60] {
            let now = now + SECOND * seconds;
            assert_eq!(last_heard.quiet_for(now, back), SECOND * seconds);
        }
        // By a little less than the silence was long, as a time server sets it.
        let (later, back) = (now + SECOND * 5, wall + SECOND);
        assert_eq!(last_heard.quiet_for(later, back), SECOND * 5);
        // Before 1970 too, and before the record was made.
        let (long_ago, unborn) = (UNIX_EPOCH - SECOND, now - SECOND * 99);
        assert_eq!(last_heard.quiet_for(unborn, long_ago), Duration::ZERO);
    }
}
