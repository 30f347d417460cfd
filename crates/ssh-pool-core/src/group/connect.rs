//! Dials, which are attempts to make a connection: in a task of their own, so that they outlive the
//! caller that needed them first, as far as the breaker and the budget allow, and with one shared
//! failure for all waiters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tracing::Instrument;

use super::breaker::{Begin, Change, CircuitBreaker, ConnectPermit, RetryDecision};
use super::budget::{HandshakePermit, LoginCharge, LoginPermit};
use super::connection_limiter::OutOfDescriptors;
use super::peer::ConnectAddress;
use super::{ConnectionGroup, fail_waiters, now};
use crate::error::Error;
use crate::event::{EventKind, LoginDelay};
use crate::status::Breaker;
use crate::transport::{ConnectError, Connection, Endpoint};

/// How long a host that a caller waits for has to accept a connection, and then to identify itself:
/// a connection from before it was ready may never be answered.
const HELLO: Duration = Duration::from_secs(2);

/// Descriptors that a dial has open at once: its socket, and a file or an agent's socket.
const DESCRIPTORS_PER_CONNECT: usize = 2;

/// What past dials of a host have taught, whatever the connections were for.
#[derive(Debug, Default, Clone)]
pub(crate) struct SharedBreaker(Arc<BreakerCell>);

#[derive(Debug, Default)]
struct BreakerCell {
    breaker: Mutex<CircuitBreaker>,
    /// A dial has ended, or is not wanted any more, or everything was forgotten.
    changed: Notify,
    /// Dials that wait until the penalty limit of the address has room for a failed login.
    awaiting_penalty: AtomicUsize,
    /// Dials that wait for the login budget of the address.
    delayed: AtomicUsize,
}

/// Counts a dial for as long as it waits.
struct WaitCounter<'a>(&'a AtomicUsize);

impl<'a> WaitCounter<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaitCounter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SharedBreaker {
    fn lock(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.0
            .breaker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.lock().last_error()
    }

    pub(super) fn breaker(&self) -> Breaker {
        self.lock().shown(now())
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.lock().is_forgettable(now())
    }

    pub(super) fn logged_in(&self) {
        self.lock().logged_in();
    }

    /// The others wait no longer for what becomes of this dial.
    pub(super) fn released(&self, permit: ConnectPermit) -> ConnectPermit {
        self.lock().released(permit)
    }

    /// A connection has granted something for the first time.
    pub(super) fn verified(&self, permit: ConnectPermit) -> Option<Change> {
        self.lock().verified(permit)
    }

    /// There is nothing to learn from this dial.
    pub(super) fn abandoned(&self, permit: ConnectPermit) -> Option<Change> {
        self.lock().abandoned(permit, now())
    }

    /// A connection has ended before it was verified. `None`: its permit is not known.
    pub(super) fn unusable(
        &self,
        permit: Option<ConnectPermit>,
        error: Error,
        transient: bool,
        now: Instant,
    ) -> (RetryDecision, Option<Change>) {
        let mut breaker = self.lock();
        let permit = permit.unwrap_or_else(|| breaker.permit(false));
        let failure = ConnectError { error, transient };
        breaker.failed(permit, failure, Duration::ZERO, now)
    }

    /// See [`CircuitBreaker::begin_await`].
    pub(super) fn begin_await(&self) -> Option<Change> {
        self.lock().begin_await()
    }

    pub(super) fn end_await(&self) {
        self.lock().end_await();
    }

    fn is_awaited(&self) -> bool {
        self.lock().is_awaited()
    }

    pub(super) fn forget(&self) -> Option<Change> {
        self.lock().forget()
    }

    /// What answers a caller who would have to wait for a dial that would only annoy the server.
    pub(super) fn answer(&self, now: Instant) -> Option<Error> {
        self.lock().answer(now)
    }

    /// Wakes the dials that wait for a permit or for room in the pool. Called outside of every lock.
    pub(super) fn wake(&self) {
        self.0.changed.notify_waiters();
    }

    /// The next time that they are woken.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    pub(super) fn is_awaiting_penalty(&self) -> bool {
        self.0.awaiting_penalty.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_delayed(&self) -> bool {
        self.0.delayed.load(Ordering::Relaxed) > 0
    }
}

/// A permit for one dial, which is given back if that is not made.
struct ConnectAttempt {
    group: Arc<ConnectionGroup>,
    permit: ConnectPermit,
    used: bool,
}

impl ConnectAttempt {
    fn confirm(&mut self) -> bool {
        self.group.breaker.lock().confirm(&mut self.permit, now())
    }

    /// The dial has ended: its outcome is to be reported to the breaker.
    fn used(mut self) -> ConnectPermit {
        self.used = true;
        self.permit
    }
}

impl Drop for ConnectAttempt {
    fn drop(&mut self) {
        if !self.used {
            let change = self.group.breaker.abandoned(self.permit);
            self.group.breaker.wake();
            self.group.report_breaker(change);
        }
    }
}

/// What a dial holds of its address until its outcome is recorded.
struct HandshakeGuards {
    _handshake: HandshakePermit,
    _login_permit: LoginPermit,
    /// Binds other dials until this connection is in service, or there is none.
    _address: ConnectAddress,
}

/// What became of a dial that the state asked for.
enum ConnectOutcome {
    /// The host had been evicted so often when the dial began.
    Connected(
        Arc<dyn Connection>,
        LoginCharge,
        ConnectAttempt,
        HandshakeGuards,
        u64,
    ),
    Failed(ConnectError, ConnectAttempt, HandshakeGuards, Duration),
    /// It was not made: this answers, and no other one is before then; if the host has not been
    /// evicted since.
    Refused(Error, Instant, u64),
    /// It had not begun, and has no waiters left.
    Unwanted,
}

impl ConnectionGroup {
    /// Dials once. The state has made sure that this is the only dial, or a wanted one.
    pub(super) fn connect(self: &Arc<Self>) {
        let span = tracing::info_span!(
            "ssh_pool.dial",
            host = %self.name(),
            connection = tracing::field::Empty,
            error = tracing::field::Empty,
        );
        let started = now();
        let group = self.clone();
        // Asked for at once, so that the next caller finds a dial under way.
        let attempt = self.ask().ok();
        self.runtime.spawn(
            async move {
                let connect = group.try_connect(attempt);
                let outcome = group.closing.run_until_cancelled(connect).await;
                let span = tracing::Span::current();
                match outcome {
                    Some(ConnectOutcome::Connected(
                        connection,
                        login,
                        attempt,
                        _turn,
                        evictions,
                    )) => {
                        let took = now().saturating_duration_since(started);
                        let id =
                            group.connected(connection, login, took, attempt.used(), evictions);
                        span.record("connection", id.0);
                    }
                    Some(ConnectOutcome::Failed(failure, attempt, _turn, took)) => {
                        span.record("error", tracing::field::display(&failure.error));
                        group.connect_failed(failure, attempt.used(), took);
                    }
                    Some(ConnectOutcome::Refused(error, until, evictions)) => {
                        group.connect_refused(&error, until, Some(evictions));
                    }
                    Some(ConnectOutcome::Unwanted) => group.ended.notify_waiters(),
                    None => group.connect_refused(&group.closed_error(), now(), None),
                }
            }
            .instrument(span),
        );
    }

    #[allow(clippy::result_large_err, reason = "matched at once by the one caller")]
    fn ask(self: &Arc<Self>) -> Result<ConnectAttempt, Begin> {
        let (begin, change) = {
            let mut breaker = self.breaker.lock();
            match self.budget.is_for_control() {
                true => breaker.begin_control(now()),
                false => breaker.begin(now()),
            }
        };
        self.report_breaker(change);
        match begin {
            Begin::Go(permit) => Ok(ConnectAttempt {
                group: self.clone(),
                permit,
                used: false,
            }),
            other => Err(other),
        }
    }

    /// A permit for one dial, as soon as there is one; or what answers in its place, and until when.
    async fn permit(self: &Arc<Self>) -> Result<ConnectAttempt, (Error, Instant)> {
        loop {
            let changed = self.breaker.changed();
            tokio::pin!(changed);
            // Before the question, so that no change between it and the wait is missed.
            changed.as_mut().enable();
            match self.ask() {
                Ok(attempt) => return Ok(attempt),
                Err(Begin::Refused { error, until }) => return Err((error, until)),
                Err(Begin::Wait(Some(until))) => {
                    tokio::time::timeout_at(until.into(), changed).await.ok();
                }
                Err(Begin::Wait(None) | Begin::Go(_)) => changed.await,
            }
        }
    }

    async fn try_connect(self: &Arc<Self>, mut asked: Option<ConnectAttempt>) -> ConnectOutcome {
        let mut connection_permit = None;
        loop {
            let evictions = self.state().host.evictions();
            let mut attempt = match asked.take() {
                Some(attempt) => attempt,
                None => match self.permit().await {
                    Ok(attempt) => attempt,
                    Err((error, until)) => return ConnectOutcome::Refused(error, until, evictions),
                },
            };
            // Before anything that others may need.
            let unverified = match attempt.permit.unverified {
                true => Some(self.unverified_login_permit().await),
                false => None,
            };
            self.login_admitted().await;
            // Before room: a dial that waits for a slow address takes none from others.
            let address = self.budget.address().await;
            let Some(reserved) = connection_permit
                .take()
                .or_else(|| self.try_connection_permit())
            else {
                // Room may be had only when a stream ends, whose holder may need a dial of this host
                // or address before. So nothing is held while it is waited for.
                drop((address, unverified, attempt));
                connection_permit = self.connection_permit().await;
                if connection_permit.is_none() {
                    return ConnectOutcome::Unwanted;
                }
                continue;
            };
            // The others wait while strangers wait for their handshakes: so not before they are
            // next, and never long.
            let login_permit = match unverified {
                Some(login_permit) => login_permit,
                None => self.login_permit(false).await,
            };
            let handshake = self.budget.handshake(address).await;
            if !attempt.confirm() {
                connection_permit = Some(reserved);
                continue;
            }
            // A host without callers is not dialled.
            let Some(evictions) = self.state().host.begin_connect() else {
                return ConnectOutcome::Unwanted;
            };
            // Other connections may have ended since it was admitted.
            let Some(login) = self.budget.begin_login() else {
                asked = Some(attempt);
                connection_permit = Some(reserved);
                continue;
            };
            let (share, connected) = self.connection_share(reserved);
            let began = now();
            let address = ConnectAddress::new(self.budget.peer().clone());
            let awaited = self.breaker.is_awaited();
            let result = match awaited {
                true => {
                    let endpoint = Endpoint {
                        hello_timeout: HELLO,
                        ..self.endpoint.clone()
                    };
                    self.transport.connect(&endpoint, &address, share).await
                }
                false => {
                    self.transport
                        .connect(&self.endpoint, &address, share)
                        .await
                }
            };
            let failure = result.as_ref().err();
            match awaited {
                true => handshake.answered_awaited(failure, address.charges(), now()),
                false => handshake.answered(failure, now()),
            }
            let turn = HandshakeGuards {
                _handshake: handshake,
                _login_permit: login_permit,
                _address: address,
            };
            return match result {
                Ok(connection) => {
                    connected.set();
                    ConnectOutcome::Connected(connection, login, attempt, turn, evictions)
                }
                Err(failure) => {
                    if !failure.reached_server() {
                        login.not_reached();
                    }
                    let took = now().saturating_duration_since(began);
                    ConnectOutcome::Failed(failure, attempt, turn, took)
                }
            };
        }
    }

    async fn unverified_login_permit(&self) -> LoginPermit {
        let _in_debt = WaitCounter::new(&self.breaker.0.awaiting_penalty);
        self.login_permit(true).await
    }

    /// Waits until the penalty limit of the address has room for another failed login.
    async fn login_permit(&self, unverified: bool) -> LoginPermit {
        let reason = LoginDelay::FailedLogins;
        let delayed = |wait| self.report(EventKind::LoginDelayed { wait, reason });
        self.budget.login_permit(unverified, delayed).await
    }

    /// Waits for the login budget of the address.
    async fn login_admitted(&self) {
        let Some(until) = self.budget.login_delayed() else {
            return;
        };
        let wait = until.saturating_duration_since(now());
        let reason = LoginDelay::Budget;
        self.report(EventKind::LoginDelayed { wait, reason });
        let _delayed = WaitCounter::new(&self.breaker.0.delayed);
        self.budget.login_admitted().await;
    }

    fn connect_failed(
        self: &Arc<Self>,
        failure: ConnectError,
        permit: ConnectPermit,
        took: Duration,
    ) {
        let descriptors = matches!(failure.error, Error::Descriptors { .. });
        let (told, decision, pause, change, effects) = {
            let mut state = self.state();
            let now = now();
            state.out_of_descriptors = match state.out_of_descriptors.take() {
                _ if !descriptors => None,
                None => Some(OutOfDescriptors::new(self.budget.limiter(), now)),
                out_of_descriptors => out_of_descriptors,
            };
            let (decision, change) = self.breaker.lock().failed(permit, failure, took, now);
            let pause = decision.not_before.saturating_duration_since(now);
            let told = state
                .host
                .connect_failed(now, decision.not_before, decision.try_again);
            (told, decision, pause, change, state.host.take_effects())
        };
        if descriptors {
            self.budget.limiter().request_idle(DESCRIPTORS_PER_CONNECT);
        }
        // Before what follows from it, such as the next dial.
        self.report(EventKind::DialFailed {
            error: decision.error.clone(),
            pause,
        });
        self.report_breaker(change);
        self.carry_out(effects);
        self.breaker.wake();
        fail_waiters(told, &decision.error);
        self.ended.notify_waiters();
    }

    fn connect_refused(self: &Arc<Self>, error: &Error, until: Instant, evictions: Option<u64>) {
        let told = self.transition(|state, now| {
            // What has been forgotten since is no reason to wait.
            let forgotten = evictions.is_some_and(|count| count != state.host.evictions());
            state.host.connect_refused(now, until, forgotten)
        });
        fail_waiters(told, error);
        self.ended.notify_waiters();
    }

    pub(super) fn report_breaker(&self, change: Option<Change>) {
        let kind = match change {
            None => return,
            Some(Change::Opened { error, retry_in }) => {
                EventKind::BreakerOpened { error, retry_in }
            }
            Some(Change::HalfOpen) => EventKind::BreakerHalfOpen,
            Some(Change::Closed) => EventKind::BreakerClosed,
        };
        self.report(kind);
    }
}
