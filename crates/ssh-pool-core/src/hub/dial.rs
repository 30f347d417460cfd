//! Dials: in a task of their own, so that they outlive the caller who needed them first, with
//! back-off between failures, and with one shared failure for everybody who waited.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::{Hub, now, tell};
use crate::error::Error;
use crate::event::EventKind;
use crate::transport::DialError;

/// The first pause after a failed dial; it doubles up to the longest, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A passing failure is tried again this often before the waiters hear of it.
const TRIES: u32 = 8;
/// A connection lost during authentication may also be the answer of an account that is locked,
/// and counts as a failed login where the server keeps count. An account that has been let in
/// before is not taken for one.
const LOGIN_TRIES: u32 = 2;

/// Descriptors that a dial has open at once: its socket, and a file or an agent's socket.
const FOR_A_DIAL: usize = 2;

/// What past dials of a host have taught, whatever the connections were for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Dials(Arc<Mutex<History>>);

impl Dials {
    fn history(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn succeeded(&self) {
        self.history().succeeded();
    }

    pub(super) fn forget(&self) {
        self.history().forget();
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.history().last_error.clone()
    }

    /// A failure that is so recent that another dial would only annoy the server.
    pub(super) fn fresh_failure(&self, now: Instant) -> Option<Error> {
        self.history().fresh_failure(now)
    }

    /// The host is reachable and useless: back off as after a failed dial.
    pub(super) fn give_up(&self, error: Error, now: Instant) {
        self.history().give_up(error, now);
    }
}

#[derive(Debug, Default)]
struct History {
    /// Failures since the last success.
    failures: u32,
    /// Failures since the waiters were last told.
    tries: u32,
    /// Grows with every failure that counts.
    round: Round,
    ever_connected: bool,
    last_error: Option<Error>,
    /// Until then, the last error answers instead of another dial.
    fail_fast_until: Option<Instant>,
}

/// Dials that were under way together fail together, and that is one failure.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Round(u64);

/// What to do after a failed dial.
struct Verdict {
    not_before: Instant,
    try_again: bool,
}

impl History {
    fn succeeded(&mut self) {
        *self = Self {
            ever_connected: true,
            round: self.round,
            ..Self::default()
        };
    }

    fn forget(&mut self) {
        *self = Self {
            ever_connected: self.ever_connected,
            round: self.round,
            ..Self::default()
        };
    }

    fn fresh_failure(&self, now: Instant) -> Option<Error> {
        let fresh = self.fail_fast_until.is_some_and(|until| now < until);
        self.last_error.clone().filter(|_| fresh)
    }

    fn give_up(&mut self, error: Error, now: Instant) {
        self.failures += 1;
        self.tries = 0;
        self.fail_fast_until = Some(now + pause(self.failures));
        self.last_error = Some(error);
    }

    /// A dial that began in round `begun` has failed.
    fn failed(&mut self, failure: DialError, begun: Round, now: Instant) -> Verdict {
        if let Error::Descriptors { .. } = failure.error {
            return self.failed_here(failure, begun, now);
        }
        // A server that was there a moment ago is probably restarting.
        let restarting = self.ever_connected && matches!(failure.error, Error::Connect { .. });
        let locked = matches!(failure.error, Error::AuthLost { .. }) && !self.ever_connected;
        let tries = if locked { LOGIN_TRIES } else { TRIES };
        let counts = u32::from(begun == self.round);
        self.round.0 += u64::from(counts);
        let try_again = (failure.passing || restarting) && self.tries + counts < tries;
        if try_again {
            self.failures += counts;
            self.tries += counts;
            self.last_error = Some(failure.error);
            return Verdict {
                not_before: now + pause(self.failures),
                try_again,
            };
        }
        let cooldown = match &failure.error {
            // Never again until then: sshd counts failed logins, and bans for them (9.8+).
            Error::AuthRejected { cooldown, .. } => Some(*cooldown),
            _ => None,
        };
        self.give_up(failure.error, now);
        if let Some(cooldown) = cooldown {
            self.fail_fast_until = Some(now + cooldown);
        }
        Verdict {
            not_before: self.fail_fast_until.unwrap_or(now),
            try_again,
        }
    }

    /// A dial has failed for want of descriptors. That says nothing about the host: there is no
    /// pause but the shortest, and whoever comes next finds out for themselves.
    fn failed_here(&mut self, failure: DialError, begun: Round, now: Instant) -> Verdict {
        let counts = u32::from(begun == self.round);
        self.round.0 += u64::from(counts);
        self.tries += counts;
        let try_again = failure.passing && self.tries < TRIES;
        if !try_again {
            self.tries = 0;
        }
        self.last_error = Some(failure.error);
        Verdict {
            not_before: now + pause(1),
            try_again,
        }
    }
}

fn pause(failures: u32) -> Duration {
    let full = FIRST_PAUSE * (1 << failures.clamp(1, 7).saturating_sub(1));
    full.min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * fastrand::f64())
}

impl Hub {
    /// Dials once. The books have made sure that this is the only dial, or a wanted one.
    pub(super) fn dial(self: &Arc<Self>) {
        let span = tracing::info_span!(
            "ssh_pool.dial",
            host = %self.name(),
            connection = tracing::field::Empty,
            error = tracing::field::Empty,
        );
        let begun = self.dials.history().round;
        let started = now();
        let hub = self.clone();
        self.runtime.spawn(
            async move {
                let dial = async {
                    // These two are for the handshake, and end with it. A dial that waits for room
                    // keeps nobody else from a handshake but those of its own address.
                    let _address = hub.budget.address().await;
                    let share = hub.share().await?;
                    let _handshake = hub.budget.handshake().await;
                    Some((hub.transport.dial(&hub.endpoint).await, share))
                };
                let Some(result) = hub.closing.run_until_cancelled(dial).await else {
                    let closed = DialError {
                        error: hub.closed_error(),
                        passing: false,
                    };
                    hub.dial_failed(closed, begun);
                    return;
                };
                let span = tracing::Span::current();
                match result {
                    None => tracing::debug!("there is room now, and nobody waits any more"),
                    Some((Ok(link), share)) => {
                        let took = now().saturating_duration_since(started);
                        let id = hub.connected(link, share, took);
                        span.record("connection", id.0);
                    }
                    Some((Err(failure), _share)) => {
                        span.record("error", tracing::field::display(&failure.error));
                        hub.dial_failed(failure, begun);
                    }
                }
            }
            .instrument(span),
        );
    }

    fn dial_failed(self: &Arc<Self>, failure: DialError, begun: Round) {
        let error = failure.error.clone();
        if let Error::Descriptors { .. } = error {
            self.budget.room().ask(FOR_A_DIAL);
        }
        let (told, pause) = self.transition(|books, now| {
            let verdict = self.dials.history().failed(failure, begun, now);
            let pause = verdict.not_before.saturating_duration_since(now);
            let told = books
                .slots
                .dial_failed(now, verdict.not_before, verdict.try_again);
            (told, pause)
        });
        let kind = EventKind::DialFailed {
            error: error.clone(),
            pause,
        };
        self.report(None, kind);
        tell(told, &error);
        self.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    fn refused() -> DialError {
        let source = Cause::new("refused");
        DialError {
            error: Error::Connect {
                target: "t".into(),
                source,
            },
            passing: false,
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for failures in 1..40 {
            let pause = pause(failures);
            assert!(
                pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE,
                "{failures}: {pause:?}"
            );
        }
        assert!(pause(6) > pause(1));
    }

    #[test]
    fn a_refused_connection_is_an_answer_from_a_host_never_seen() {
        let mut history = History::default();
        let now = Instant::now();
        assert!(!history.failed(refused(), history.round, now).try_again);
        assert!(history.fresh_failure(now).is_some());
        assert!(history.fresh_failure(now + LONGEST_PAUSE).is_none());
    }

    #[test]
    fn a_refused_connection_is_a_restart_of_a_host_that_was_there() {
        let mut history = History::default();
        history.succeeded();
        let now = Instant::now();
        let tries = (0..20)
            .take_while(|_| history.failed(refused(), history.round, now).try_again)
            .count();
        assert_eq!(tries, (TRIES - 1) as usize);
    }

    #[test]
    fn dials_that_fail_together_are_one_failure() {
        let lost = || DialError {
            error: Error::AuthLost {
                target: "t".into(),
                source: Cause::new("reset"),
            },
            passing: true,
        };
        let now = Instant::now();
        let mut history = History::default();
        let begun = history.round;
        assert!((0..4).all(|_| history.failed(lost(), begun, now).try_again));
        assert_eq!((history.failures, history.tries), (1, 1));
        // The next one began after those had failed.
        let begun = history.round;
        assert!(!history.failed(lost(), begun, now).try_again);
    }

    #[test]
    fn want_of_descriptors_is_held_against_no_host() {
        let none_left = || DialError {
            error: Error::Descriptors {
                target: "t".into(),
                source: Cause::new("too many open files"),
            },
            passing: true,
        };
        let mut history = History::default();
        let now = Instant::now();
        for round in 0..3 {
            for attempt in 1..=TRIES {
                let verdict = history.failed(none_left(), history.round, now);
                assert_eq!(verdict.try_again, attempt < TRIES, "{round}: {attempt}");
                assert!(
                    verdict.not_before <= now + FIRST_PAUSE,
                    "{round}: {attempt}"
                );
            }
            assert_eq!(history.failures, 0);
            assert!(history.fresh_failure(now).is_none());
        }
    }

    #[test]
    fn a_refused_login_is_remembered_for_its_cooldown() {
        let cooldown = Duration::from_secs(60);
        let error = Error::AuthRejected {
            target: "t".into(),
            tried: Vec::new(),
            allowed: String::new(),
            cooldown,
        };
        let mut history = History::default();
        let now = Instant::now();
        let verdict = history.failed(
            DialError {
                error,
                passing: false,
            },
            Round::default(),
            now,
        );
        assert!(!verdict.try_again);
        assert_eq!(verdict.not_before, now + cooldown);
        let almost = now + cooldown - Duration::from_millis(1);
        assert!(history.fresh_failure(almost).is_some());
        assert!(history.fresh_failure(now + cooldown).is_none());
    }
}
