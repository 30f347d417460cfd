//! The breaker of one host as one identity sees it: whether it may be dialled now, by how many at
//! once, and what answers instead. All groups of the host share it.
//!
//! ```text
//!            a failure that callers get
//!   Closed ─────────────────────────────────────▶ Open ◀───────────┐
//!     ▲                                             │ its time is   │ the dial
//!     │                                             │ over, and a   │ fails
//!     │ a connection grants something; evict        ▼ dial is wanted│
//!     └───────────────────────────────────────── HalfOpen ──────────┘
//! ```
//!
//! A login is not yet a success: sshd logs us in and then ends the connection where `ChrootDirectory`
//! has the wrong modes. A connection is *unverified* until the server grants the first session, stream
//! or listener on it. If it ends before that, or every session is refused, that is a failed dial: the
//! failures before it still count, and pauses grow.
//!
//! Plain state: time comes in as an argument, and what others should hear comes out as a
//! [`Change`].

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::status::Breaker;
use crate::transport::ConnectError;

/// The first pause after a failed dial; it doubles up to the longest, with jitter.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause while a caller waits until the host is ready: what a person would leave between
/// two tries.
pub(super) const AWAITED: Duration = Duration::from_secs(1);
/// The same after a refused login, which servers count.
const AWAITED_LOGIN: Duration = Duration::from_millis(1500);
/// The longest pause of a dial that had no descriptor. Where another part of the program closes one,
/// nothing tells of it.
const LONGEST_SHORT: Duration = Duration::from_secs(1);
/// How long the breaker stays open at most, but for the cool-down of a refused login.
const LONGEST_OPEN: Duration = Duration::from_secs(30);
/// A transient failure is tried again this often before the waiters hear of it.
const TRIES: u32 = 8;
/// A connection lost during authentication may also be the answer of an account that is locked,
/// and counts as a failed login where the server keeps count. An account that has been let in
/// before is not taken for one.
const LOGIN_TRIES: u32 = 2;
/// The same for a connection that ends after its login, where none has ever granted anything: the
/// account is set up wrongly rather than the server restarting.
const UNVERIFIED_TRIES: u32 = 3;
/// After this many failures in a row that callers got, one caller waits for the dial that shows
/// whether the host is back, and the others get the last error meanwhile.
const REPEATED: u32 = 3;

/// What past dials of a host have taught, and what follows for the next.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    state: BreakerState,
    /// A dial is under way that the others wait for, or its connection is not verified yet.
    probe: bool,
    /// Failures since the last success, which is the first grant on a connection.
    failures: u32,
    /// Failures since the waiters were last told.
    tries: u32,
    /// Dials in a row that had no descriptor for their socket.
    out_of_descriptors: u32,
    /// Failures since the last success that waiters got.
    reported: u32,
    /// Grows with every failure that counts.
    generation: Generation,
    /// What began before this round teaches nothing.
    forgotten: Generation,
    ever_connected: bool,
    /// A connection has granted something.
    ever_verified: bool,
    /// The last login that was answered was let in.
    login_accepted: bool,
    /// No other try before then.
    not_before: Option<Instant>,
    last_error: Option<Error>,
    /// Callers who wait until the host is ready: failures are no news to them.
    awaited: u32,
}

#[derive(Debug, Default)]
enum BreakerState {
    #[default]
    Closed,
    /// Until then, the error answers instead of a dial.
    Open { until: Instant, error: Error },
    /// The next dial decides.
    HalfOpen { error: Error },
}

/// Dials that were under way together fail together, and that is one failure.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Generation(u64);

/// Permission for one dial.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectPermit {
    begun: Generation,
    /// The others wait for it.
    probe: bool,
    /// It does not wait for the probe.
    bypass_probe: bool,
    /// Unverified identity: a failure may incur a server penalty.
    pub(super) unverified: bool,
}

impl ConnectPermit {
    /// The others wait for it.
    pub(super) fn is_probe(&self) -> bool {
        self.probe
    }
}

/// The decision on a dial that is wanted.
#[derive(Debug)]
pub(super) enum Begin {
    Go(ConnectPermit),
    /// Until then, or until something has changed.
    Wait(Option<Instant>),
    /// It would only annoy the server: this answers, and there is no permit before then.
    Refused {
        error: Error,
        until: Instant,
    },
}

/// What to do after a failed dial.
#[derive(Debug)]
pub(super) struct RetryDecision {
    pub(super) not_before: Instant,
    pub(super) try_again: bool,
    /// The failure, with what is known of it now.
    pub(super) error: Error,
}

/// An event for the observers of a pool.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Opened { error: Error, retry_in: Duration },
    HalfOpen,
    Closed,
}

impl CircuitBreaker {
    /// What a caller gets at once who would have to wait for a dial; `None`: it may wait.
    pub(super) fn answer(&self, now: Instant) -> Option<Error> {
        match &self.state {
            BreakerState::Closed => None,
            BreakerState::Open { until, error } => {
                (now < *until).then(|| error.clone().retried_in(*until - now))
            }
            BreakerState::HalfOpen { error } => self.fails_fast().then(|| error.clone()),
        }
    }

    /// A probe is under way, and the host has failed too often for all callers to wait for it.
    fn fails_fast(&self) -> bool {
        self.probe && self.reported >= REPEATED
    }

    /// A dial is wanted. The permit ends with [`verified`](Self::verified),
    /// [`failed`](Self::failed) or [`abandoned`](Self::abandoned).
    pub(super) fn begin(&mut self, now: Instant) -> (Begin, Option<Change>) {
        match &self.state {
            BreakerState::Open { until, error } if now < *until => {
                let (error, until) = (error.clone().retried_in(*until - now), *until);
                return (Begin::Refused { error, until }, None);
            }
            BreakerState::HalfOpen { error } if self.fails_fast() => {
                let (error, until) = (error.clone(), now + FIRST_PAUSE);
                return (Begin::Refused { error, until }, None);
            }
            _ if self.is_healthy() => return (Begin::Go(self.permit(false)), None),
            _ if self.probe => return (Begin::Wait(None), None),
            _ => {}
        }
        if let Some(until) = self.not_before.filter(|until| now < *until) {
            return (Begin::Wait(Some(until)), None);
        }
        let change = if let BreakerState::Open { error, .. } = &self.state {
            let error = error.clone();
            self.state = BreakerState::HalfOpen { error };
            Some(Change::HalfOpen)
        } else {
            None
        };
        self.probe = true;
        (Begin::Go(self.permit(true)), change)
    }

    /// The same for a helper command, which bypasses the probe of another caller: that may wait for
    /// room which is held by the command that the helper command is to end.
    pub(super) fn begin_control(&mut self, now: Instant) -> (Begin, Option<Change>) {
        match self.begin(now) {
            (Begin::Wait(None), change) => {
                let begin = match self.not_before.filter(|until| now < *until) {
                    Some(until) => Begin::Wait(Some(until)),
                    None => Begin::Go(ConnectPermit {
                        bypass_probe: true,
                        ..self.permit(false)
                    }),
                };
                (begin, change)
            }
            other => other,
        }
    }

    pub(super) fn permit(&self, probe: bool) -> ConnectPermit {
        ConnectPermit {
            begun: self.generation,
            probe,
            bypass_probe: false,
            unverified: !self.login_accepted,
        }
    }

    /// It has let this identity in and granted something, and nothing has failed since: several may
    /// dial at once. Else one at a time, until its connection has been verified: a failure need not
    /// happen to as many dials as there are groups.
    fn is_healthy(&self) -> bool {
        self.login_accepted && self.ever_verified && self.failures == 0
    }

    /// The dial goes out only now. `false`: things have changed, and it has to ask again.
    #[must_use]
    pub(super) fn confirm(&mut self, permit: &mut ConnectPermit, now: Instant) -> bool {
        // A dial that was under way may have opened it since, or been refused its login.
        let open = matches!(&self.state, BreakerState::Open { until, .. } if now < *until);
        let goes = permit.probe || permit.bypass_probe;
        let good =
            (goes && !open || self.is_healthy()) && (permit.unverified || self.login_accepted);
        permit.begun = self.generation;
        good
    }

    /// The dial has logged in. Its permit ends with [`verified`](Self::verified),
    /// [`failed`](Self::failed) or [`abandoned`](Self::abandoned).
    pub(super) fn logged_in(&mut self) {
        self.ever_connected = true;
        self.login_accepted = true;
    }

    /// The connection has granted nothing for a while, and is still up: the others wait no longer for it.
    pub(super) fn released(&mut self, permit: ConnectPermit) -> ConnectPermit {
        self.probe &= !permit.probe;
        ConnectPermit {
            probe: false,
            ..permit
        }
    }

    /// The connection has granted something for the first time: the host is reachable and usable.
    pub(super) fn verified(&mut self, permit: ConnectPermit) -> Option<Change> {
        let changed = !matches!(self.state, BreakerState::Closed);
        *self = Self {
            probe: self.probe && !permit.probe,
            ever_connected: true,
            ever_verified: true,
            login_accepted: true,
            generation: self.generation,
            forgotten: self.forgotten,
            awaited: self.awaited,
            ..Self::default()
        };
        changed.then_some(Change::Closed)
    }

    /// Whatever has failed is to be tried anew.
    pub(super) fn forget(&mut self) -> Option<Change> {
        let changed = !matches!(self.state, BreakerState::Closed);
        let next = Generation(self.generation.0 + 1);
        *self = Self {
            probe: self.probe,
            ever_connected: self.ever_connected,
            ever_verified: self.ever_verified,
            // The address has not forgotten it.
            login_accepted: self.login_accepted,
            generation: next,
            forgotten: next,
            awaited: self.awaited,
            ..Self::default()
        };
        changed.then_some(Change::Closed)
    }

    /// A caller waits until the host is ready. What has failed before is forgotten, and pauses are short
    /// from now on. Ends with [`end_await`](Self::end_await).
    pub(super) fn begin_await(&mut self) -> Option<Change> {
        self.awaited += 1;
        self.forget()
    }

    pub(super) fn end_await(&mut self) {
        self.awaited = self.awaited.saturating_sub(1);
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited > 0
    }

    /// The dial was not made, or not to its end, or we ended its connection before it was verified.
    pub(super) fn abandoned(&mut self, permit: ConnectPermit, now: Instant) -> Option<Change> {
        self.probe &= !permit.probe;
        match &self.state {
            BreakerState::HalfOpen { error } if permit.probe => {
                let error = error.clone();
                self.open(error, Duration::ZERO, now)
            }
            _ => None,
        }
    }

    /// A dial that took so long has failed, or the connection that it made has granted nothing.
    pub(super) fn failed(
        &mut self,
        permit: ConnectPermit,
        failure: ConnectError,
        took: Duration,
        now: Instant,
    ) -> (RetryDecision, Option<Change>) {
        self.probe &= !permit.probe;
        let again = |not_before, error| RetryDecision {
            not_before,
            try_again: true,
            error,
        };
        if permit.begun < self.forgotten {
            return (again(now, failure.error), None);
        }
        let counts = u32::from(permit.begun == self.generation);
        self.generation.0 += u64::from(counts);
        self.login_accepted &= !failure.is_failed_login();
        if let Error::Descriptors { .. } = failure.error {
            let error = failure.error.clone();
            return (again(self.failed_here(failure, counts, now), error), None);
        }
        self.out_of_descriptors = 0;
        self.failures += counts;
        self.tries += counts;
        let mut error = failure.error.attempted(self.failures);
        if self.is_awaited()
            && let Error::AuthRejected { cooldown, .. } = &mut error
        {
            *cooldown = (*cooldown).min(AWAITED_LOGIN);
        }
        if self.may_pass(&error, failure.transient) {
            let not_before = self.back_off(now);
            let error = error.retried_in(not_before - now);
            self.last_error = Some(error.clone());
            return (again(not_before, error), None);
        }
        self.reported += counts;
        let pause = match &error {
            // Never again until then: sshd counts failed logins, and bans for them (9.8+).
            Error::AuthRejected { cooldown, .. } => *cooldown,
            _ => self.pause(took),
        };
        let error = error.retried_in(pause);
        self.last_error = Some(error.clone());
        let change = self.open(error.clone(), pause, now);
        let not_before = match &self.state {
            BreakerState::Open { until, .. } => *until,
            _ => now,
        };
        let decision = RetryDecision {
            not_before,
            try_again: false,
            error,
        };
        (decision, change)
    }

    /// A dial has failed for want of descriptors. That says nothing about the host: callers wait for
    /// one until their deadlines, and the next dial comes after a pause, or when a connection closes. If
    /// the server was there already, pauses grow as after a failure, for it has seen a login that was
    /// not made.
    fn failed_here(&mut self, failure: ConnectError, counts: u32, now: Instant) -> Instant {
        self.last_error = Some(failure.error);
        if failure.transient {
            self.out_of_descriptors += counts;
            return now + jitter(doubled(self.out_of_descriptors).min(LONGEST_SHORT));
        }
        self.failures += counts;
        self.back_off(now)
    }

    /// No dial before this time.
    fn back_off(&mut self, now: Instant) -> Instant {
        let longest = match self.is_awaited() {
            true => AWAITED,
            false => LONGEST_PAUSE,
        };
        let pause = now + jitter(doubled(self.failures).min(longest));
        let not_before = self.not_before.map_or(pause, |at| at.max(pause));
        self.not_before = Some(not_before);
        not_before
    }

    /// Whether callers go on waiting after such a failure.
    fn may_pass(&self, error: &Error, transient: bool) -> bool {
        if let Error::Throttled { .. } = error {
            // It is there, and has asked for patience: that of each caller is the limit.
            return transient && self.reported < REPEATED;
        }
        // A server that was there a moment ago is probably restarting.
        let restarting = self.ever_connected && matches!(error, Error::Connect { .. });
        let locked = matches!(error, Error::AuthLost { .. }) && !self.ever_connected;
        let unverified = matches!(error, Error::ClosedAfterLogin { .. }) && !self.ever_verified;
        let tries = match (locked, unverified) {
            (true, _) => LOGIN_TRIES,
            (_, true) => UNVERIFIED_TRIES,
            _ => TRIES,
        };
        (transient || restarting) && self.reported < REPEATED && self.tries < tries
    }

    /// A host that takes long to fail is not worth that much time again at once.
    fn pause(&self, took: Duration) -> Duration {
        if self.is_awaited() {
            return jitter(AWAITED);
        }
        let longest = if self.reported > REPEATED {
            LONGEST_OPEN
        } else {
            LONGEST_PAUSE
        };
        let full = doubled(self.failures).min(longest);
        jitter(full.max(took / 2).min(LONGEST_OPEN))
    }

    fn open(&mut self, error: Error, pause: Duration, now: Instant) -> Option<Change> {
        self.tries = 0;
        self.not_before = None;
        let until = now + pause;
        match &self.state {
            // Of those that fail together, the one with the longest pause.
            BreakerState::Open { until: before, .. } if *before >= until => return None,
            BreakerState::Open { .. } => {
                self.state = BreakerState::Open { until, error };
                return None;
            }
            _ => {}
        }
        self.state = BreakerState::Open {
            until,
            error: error.clone(),
        };
        let retry_in = pause;
        Some(Change::Opened { error, retry_in })
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.last_error.clone()
    }

    pub(super) fn shown(&self, now: Instant) -> Breaker {
        match &self.state {
            BreakerState::Closed => Breaker::Closed,
            BreakerState::Open { until, .. } => Breaker::Open {
                retry_in: until.saturating_duration_since(now),
            },
            BreakerState::HalfOpen { .. } => Breaker::HalfOpen,
        }
    }

    /// Nothing has failed lately. What has is remembered for a while after its pause, so that who
    /// comes back every few seconds does not find a host that looks like new.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let tried = self.not_before.is_none_or(|at| now >= at + LONGEST_OPEN);
        match &self.state {
            BreakerState::Closed => tried,
            BreakerState::Open { until, .. } => now >= *until + LONGEST_OPEN,
            BreakerState::HalfOpen { .. } => !self.probe && tried,
        }
    }
}

/// The pause after this many failures in a row.
pub(crate) fn doubled(failures: u32) -> Duration {
    FIRST_PAUSE * (1 << failures.clamp(1, 10).saturating_sub(1))
}

/// Half of it to all of it, so that those who were turned away together do not come back together.
pub(crate) fn jitter(full: Duration) -> Duration {
    full.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
