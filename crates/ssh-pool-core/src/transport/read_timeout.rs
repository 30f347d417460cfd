//! How long a peer may say nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Longer than any process lives, and no clock overflows.
const FOREVER: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Runs out when the peer has been silent for as long as it may be.
///
/// It looks once in each keepalive interval, so that it knows when this process did not run: a
/// peer that was asked nothing had nothing to answer.
#[derive(Debug)]
pub(super) struct ReadTimeout {
    interval: Duration,
    longest: Duration,
    since: Instant,
    /// Whatever was heard, it does not run out before this.
    not_before: Instant,
    look: Pin<Box<Sleep>>,
}

impl ReadTimeout {
    /// The last keepalive that may be missed is sent after `misses` quiet intervals, and has one
    /// more to be answered.
    pub(super) fn new(interval: Duration, misses: usize) -> Self {
        let intervals = u32::try_from(misses).unwrap_or(u32::MAX);
        let longest = interval.saturating_mul(intervals.saturating_add(1));
        let now = Instant::now();
        Self {
            interval,
            longest: longest.min(FOREVER),
            since: now,
            not_before: now,
            look: Box::pin(tokio::time::sleep_until(now + interval)),
        }
    }

    /// Something was heard, or could not be.
    pub(super) fn end(&mut self, now: Instant) {
        self.since = now;
    }

    /// Fails when it has lasted too long. The timer is set anew only when it has run out, not with
    /// everything that is heard. `excused`: nothing is expected of the peer now.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        excused: impl Fn() -> bool,
    ) -> io::Result<()> {
        while let Poll::Ready(()) = self.look.as_mut().poll(cx) {
            let now = Instant::now();
            if excused() {
                self.since = now;
            }
            // It is not polled while there is always something to read.
            let due = self.look.deadline().max(self.since);
            let late = now.saturating_duration_since(due);
            if late >= self.interval / 2 {
                // Stopped, or starved. The keepalive that is overdue goes out now.
                tracing::debug!(?late, "this process did not run");
                self.not_before = now + self.interval;
            }
            let until = self.not_before.max(self.since + self.longest);
            if until <= now {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("nothing was heard for {:?}", self.longest),
                ));
            }
            self.look.as_mut().reset(until.min(now + self.interval));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits until it runs out.
    async fn over(read_timeout: &mut ReadTimeout) {
        let error = poll_fn(|cx| match read_timeout.poll(cx, || false) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        });
        assert_eq!(error.await.kind(), io::ErrorKind::TimedOut);
    }

    /// How long from now until it runs out.
    async fn left(read_timeout: &mut ReadTimeout) -> Duration {
        let began = Instant::now();
        let over = timeout(SECOND * 10_000, over(read_timeout)).await;
        over.expect("it runs out");
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_one_interval_longer_than_keepalives_may_be_missed() {
        assert_eq!(
            left(&mut ReadTimeout::new(SECOND * 15, 3)).await,
            SECOND * 60
        );
        let mut forever = ReadTimeout::new(SECOND * 15, usize::MAX);
        assert!(timeout(SECOND * 10_000, over(&mut forever)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_heard_ends_it() {
        let mut read_timeout = ReadTimeout::new(SECOND, 2);
        for _ in 0..10 {
            assert!(timeout(SECOND * 2, over(&mut read_timeout)).await.is_err());
            read_timeout.end(Instant::now());
        }
        assert_eq!(left(&mut read_timeout).await, SECOND * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_excused_may_be_silent_for_ever() {
        let mut read_timeout = ReadTimeout::new(SECOND, 2);
        for _ in 0..20 {
            sleep(SECOND).await;
            let polled = poll_fn(|cx| Poll::Ready(read_timeout.poll(cx, || true)));
            assert!(polled.await.is_ok());
        }
        assert_eq!(left(&mut read_timeout).await, SECOND * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_gives_its_peer_one_more_interval() {
        let mut read_timeout = ReadTimeout::new(SECOND, 2);
        assert!(timeout(SECOND / 2, over(&mut read_timeout)).await.is_err());
        advance(SECOND * 1000).await;
        assert_eq!(left(&mut read_timeout).await, SECOND);
        // Stopped for a moment only: the peer has what was left to it anyway.
        let mut read_timeout = ReadTimeout::new(SECOND, 2);
        assert!(timeout(SECOND / 2, over(&mut read_timeout)).await.is_err());
        advance(SECOND).await;
        assert_eq!(left(&mut read_timeout).await, SECOND * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_a_little_late_gives_nothing() {
        let mut read_timeout = ReadTimeout::new(SECOND, 2);
        for _ in 0..2 {
            assert!(timeout(SECOND / 2, over(&mut read_timeout)).await.is_err());
            advance(SECOND / 10 * 9).await;
        }
        assert_eq!(left(&mut read_timeout).await, SECOND / 5);
    }
}
