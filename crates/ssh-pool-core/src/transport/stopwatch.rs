//! A time limit that does not count what has a time limit of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::PhaseCell;
use crate::error::Phase;

/// The time limit of a dial, which stands still while an agent is asked or a key is decrypted.
#[derive(Debug)]
pub(super) struct Stopwatch {
    state: Mutex<StopwatchState>,
    /// Shows what it stands still for.
    phase_cell: Arc<PhaseCell>,
}

#[derive(Debug)]
struct StopwatchState {
    /// How much of the limit is left, as of `since`.
    left: Duration,
    since: Instant,
    /// How many pauses there are at the moment.
    pauses: usize,
}

impl StopwatchState {
    /// Counts the time since the last change.
    fn advance(&mut self, now: Instant) {
        if self.pauses == 0 {
            let spent = now.saturating_duration_since(self.since);
            self.left = self.left.saturating_sub(spent);
        }
        self.since = now;
    }
}

/// The limit has passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired;

/// The stopwatch stands still until this is dropped.
#[derive(Debug)]
pub(super) struct Pause {
    watch: Arc<Stopwatch>,
    /// The phase that goes on then.
    interrupted: Option<Phase>,
}

impl Drop for Pause {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        state.advance(Instant::now());
        state.pauses = state.pauses.saturating_sub(1);
        drop(state);
        self.watch.phase_cell.set(self.interrupted);
    }
}

impl Stopwatch {
    #[cfg(test)]
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        Self::of_handshake(limit, Arc::default())
    }

    /// The limit of the dial that shows there how far it has come.
    pub(super) fn of_handshake(limit: Duration, phase_cell: Arc<PhaseCell>) -> Arc<Self> {
        let state = StopwatchState {
            left: limit,
            since: Instant::now(),
            pauses: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            phase_cell,
        })
    }

    fn state(&self) -> MutexGuard<'_, StopwatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dial is in this phase meanwhile.
    pub(super) fn pause(self: &Arc<Self>, phase: Phase) -> Pause {
        let mut state = self.state();
        state.advance(Instant::now());
        state.pauses += 1;
        drop(state);
        let interrupted = self.phase_cell.phase();
        self.phase_cell.set(Some(phase));
        Pause {
            watch: self.clone(),
            interrupted,
        }
    }

    /// When the limit passes; `None` while it stands still.
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        (state.pauses == 0).then(|| state.since + state.left)
    }

    /// Runs `future` within the limit. Only `future` itself may pause it: the deadline is read
    /// again after each poll.
    ///
    /// # Errors
    ///
    /// [`Expired`].
    pub(super) async fn limit<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut future = pin!(future);
        let mut sleep = pin!(tokio::time::sleep_until(Instant::now()));
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let Some(deadline) = self.deadline() else {
                return Poll::Pending;
            };
            if sleep.deadline() != deadline {
                sleep.as_mut().reset(deadline);
            }
            sleep.as_mut().poll(context).map(|()| Err(Expired))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_than_the_limit_is_ended_by_it() {
        let watch = Stopwatch::new(LIMIT);
        let began = Instant::now();
        assert_eq!(watch.limit(sleep(2 * LIMIT)).await, Err(Expired));
        assert_eq!(began.elapsed(), LIMIT);
        let watch = Stopwatch::new(LIMIT);
        assert_eq!(watch.limit(sleep(LIMIT / 2)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_does_not_count_and_the_time_around_it_does() {
        let watch = Stopwatch::new(LIMIT);
        let began = Instant::now();
        let result = watch.limit(async {
            sleep(LIMIT / 2).await;
            let outer = watch.pause(Phase::Agent);
            let inner = watch.pause(Phase::Agent);
            sleep(5 * LIMIT).await;
            drop(outer);
            sleep(5 * LIMIT).await;
            drop(inner);
            sleep(LIMIT).await;
        });
        assert_eq!(result.await, Err(Expired));
        assert_eq!(began.elapsed(), 10 * LIMIT + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_within_the_limit_after_a_pause_ends_well() {
        let watch = Stopwatch::new(LIMIT);
        let result = watch.limit(async {
            let pause = watch.pause(Phase::Agent);
            sleep(3 * LIMIT).await;
            drop(pause);
            sleep(LIMIT / 2).await;
        });
        assert_eq!(result.await, Ok(()));
    }
}
