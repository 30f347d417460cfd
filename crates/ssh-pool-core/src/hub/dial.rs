//! Dials: in a task of their own, so that they outlive the caller who needed them first, as far as
//! the breaker and the budget allow, and with one shared failure for everybody who waited.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tracing::Instrument;

use super::breaker::{Begin, Change, Circuit, Leave, Verdict};
use super::budget::{Login, Permit, Pledge};
use super::peer::DialAddress;
use super::room::Short;
use super::{Hub, now, tell};
use crate::error::Error;
use crate::event::{EventKind, LoginDelay};
use crate::status::Breaker;
use crate::transport::{DialError, Endpoint, Link};

/// How long a host that a caller waits for has to accept a connection, and then to identify itself: a
/// connection from before it was ready may never be answered.
const HELLO: Duration = Duration::from_secs(2);

/// Descriptors that a dial has open at once: its socket, and a file or an agent's socket.
const FOR_A_DIAL: usize = 2;

/// What past dials of a host have taught, whatever the connections were for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Dials(Arc<Memory>);

#[derive(Debug, Default)]
struct Memory {
    circuit: Mutex<Circuit>,
    /// A dial has ended, or is not wanted any more, or everything was forgotten.
    changed: Notify,
    /// Dials that wait until the address would bear a failed login.
    in_debt: AtomicUsize,
    /// Dials that wait for the login budget of the address.
    delayed: AtomicUsize,
}

/// Counts a dial for as long as it waits.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dials {
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.0
            .circuit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.circuit().last_error()
    }

    pub(super) fn breaker(&self) -> Breaker {
        self.circuit().shown(now())
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.circuit().is_forgettable(now())
    }

    pub(super) fn logged_in(&self) {
        self.circuit().logged_in();
    }

    /// The others wait no longer for what becomes of this dial.
    pub(super) fn released(&self, leave: Leave) -> Leave {
        self.circuit().released(leave)
    }

    /// A connection has granted something for the first time.
    pub(super) fn verified(&self, leave: Leave) -> Option<Change> {
        self.circuit().verified(leave)
    }

    /// There is nothing to learn from this dial.
    pub(super) fn abandoned(&self, leave: Leave) -> Option<Change> {
        self.circuit().abandoned(leave, now())
    }

    /// A connection that has granted nothing has come to nothing. `None`: its leave is not known.
    pub(super) fn unusable(
        &self,
        leave: Option<Leave>,
        error: Error,
        passing: bool,
        now: Instant,
    ) -> (Verdict, Option<Change>) {
        let mut circuit = self.circuit();
        let leave = leave.unwrap_or_else(|| circuit.leave(false));
        let failure = DialError { error, passing };
        circuit.failed(leave, failure, Duration::ZERO, now)
    }

    /// See [`Circuit::begin_await`].
    pub(super) fn begin_await(&self) -> Option<Change> {
        self.circuit().begin_await()
    }

    pub(super) fn end_await(&self) {
        self.circuit().end_await();
    }

    fn is_awaited(&self) -> bool {
        self.circuit().is_awaited()
    }

    pub(super) fn forget(&self) -> Option<Change> {
        self.circuit().forget()
    }

    /// What answers a caller who would have to wait for a dial that would only annoy the server.
    pub(super) fn answer(&self, now: Instant) -> Option<Error> {
        self.circuit().answer(now)
    }

    /// Whoever waits for leave, or for room, asks again. Called outside of every lock.
    pub(super) fn wake(&self) {
        self.0.changed.notify_waiters();
    }

    /// The next time that they are woken.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    pub(super) fn is_in_debt(&self) -> bool {
        self.0.in_debt.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_delayed(&self) -> bool {
        self.0.delayed.load(Ordering::Relaxed) > 0
    }
}

/// Leave for one dial, which is given back if that is not made.
struct Held {
    hub: Arc<Hub>,
    leave: Leave,
    used: bool,
}

impl Held {
    fn confirm(&mut self) -> bool {
        self.hub.dials.circuit().confirm(&mut self.leave, now())
    }

    /// The dial has ended: the breaker has to be told how.
    fn used(mut self) -> Leave {
        self.used = true;
        self.leave
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.used {
            let change = self.hub.dials.abandoned(self.leave);
            self.hub.dials.wake();
            self.hub.report_breaker(change);
        }
    }
}

/// What a dial holds of its address, until whoever comes next would know what came of it.
struct Turn {
    _permit: Permit,
    _pledge: Pledge,
    /// Binds other dials until this connection is in service, or there is none.
    _address: DialAddress,
}

/// What became of a dial that the books asked for.
enum Outcome {
    /// The host had been evicted so often when the dial began.
    Connected(Arc<dyn Link>, Login, Held, Turn, u64),
    Failed(DialError, Held, Turn, Duration),
    /// It was not made: this answers, and no other one is before then; if the host has not been
    /// evicted since.
    Refused(Error, Instant, u64),
    /// Nobody waits for it any more, and it had not begun.
    Unwanted,
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
        let started = now();
        let hub = self.clone();
        // Asked for at once, so that whoever comes next finds that somebody dials.
        let held = self.ask().ok();
        self.runtime.spawn(
            async move {
                let dial = hub.try_dial(held);
                let outcome = hub.closing.run_until_cancelled(dial).await;
                let span = tracing::Span::current();
                match outcome {
                    Some(Outcome::Connected(link, login, held, _turn, evictions)) => {
                        let took = now().saturating_duration_since(started);
                        let id = hub.connected(link, login, took, held.used(), evictions);
                        span.record("connection", id.0);
                    }
                    Some(Outcome::Failed(failure, held, _turn, took)) => {
                        span.record("error", tracing::field::display(&failure.error));
                        hub.dial_failed(failure, held.used(), took);
                    }
                    Some(Outcome::Refused(error, until, evictions)) => {
                        hub.dial_refused(&error, until, Some(evictions));
                    }
                    Some(Outcome::Unwanted) => hub.ended.notify_waiters(),
                    None => hub.dial_refused(&hub.closed_error(), now(), None),
                }
            }
            .instrument(span),
        );
    }

    #[allow(clippy::result_large_err, reason = "matched at once by the one caller")]
    fn ask(self: &Arc<Self>) -> Result<Held, Begin> {
        let (begin, change) = {
            let mut circuit = self.dials.circuit();
            match self.budget.is_for_errands() {
                true => circuit.begin_errand(now()),
                false => circuit.begin(now()),
            }
        };
        self.report_breaker(change);
        match begin {
            Begin::Go(leave) => Ok(Held {
                hub: self.clone(),
                leave,
                used: false,
            }),
            other => Err(other),
        }
    }

    /// Leave for one dial, as soon as there is one; or what answers in its place, and until when.
    async fn leave(self: &Arc<Self>) -> Result<Held, (Error, Instant)> {
        loop {
            let changed = self.dials.changed();
            tokio::pin!(changed);
            // Before the question, so that no change between it and the wait is missed.
            changed.as_mut().enable();
            match self.ask() {
                Ok(held) => return Ok(held),
                Err(Begin::Refused { error, until }) => return Err((error, until)),
                Err(Begin::Wait(Some(until))) => {
                    tokio::time::timeout_at(until.into(), changed).await.ok();
                }
                Err(Begin::Wait(None) | Begin::Go(_)) => changed.await,
            }
        }
    }

    async fn try_dial(self: &Arc<Self>, mut asked: Option<Held>) -> Outcome {
        let mut room = None;
        loop {
            let evictions = self.books().slots.evictions();
            let mut held = match asked.take() {
                Some(held) => held,
                None => match self.leave().await {
                    Ok(held) => held,
                    Err((error, until)) => return Outcome::Refused(error, until, evictions),
                },
            };
            // Before anything that others may need.
            let doubtful = match held.leave.doubtful {
                true => Some(self.credit().await),
                false => None,
            };
            self.login_admitted().await;
            // Before room: a dial that waits for a slow address takes none from others.
            let address = self.budget.address().await;
            let Some(claim) = room.take().or_else(|| self.room_at_once()) else {
                // Room may be had only when a stream ends, whose holder may need a dial of this host
                // or address before. So nothing is held while it is waited for.
                drop((address, doubtful, held));
                room = self.room().await;
                if room.is_none() {
                    return Outcome::Unwanted;
                }
                continue;
            };
            // The others wait while strangers wait for their handshakes: so not before they are
            // next, and never long.
            let pledge = match doubtful {
                Some(pledge) => pledge,
                None => self.pledge(false).await,
            };
            let permit = self.budget.handshake(address).await;
            if !held.confirm() {
                room = Some(claim);
                continue;
            }
            // A host that nobody uses any more is not dialled.
            let Some(evictions) = self.books().slots.begin_dial() else {
                return Outcome::Unwanted;
            };
            // Other connections may have ended since it was admitted.
            let Some(login) = self.budget.begin_login() else {
                asked = Some(held);
                room = Some(claim);
                continue;
            };
            let (share, connected) = self.share(claim);
            let began = now();
            let address = DialAddress::new(self.budget.peer().clone());
            let awaited = self.dials.is_awaited();
            let result = match awaited {
                true => {
                    let endpoint = Endpoint {
                        hello_timeout: HELLO,
                        ..self.endpoint.clone()
                    };
                    self.transport.dial(&endpoint, &address, share).await
                }
                false => self.transport.dial(&self.endpoint, &address, share).await,
            };
            match awaited && !address.charges() {
                true => permit.answered_for_free(result.as_ref().err(), now()),
                false => permit.answered(result.as_ref().err(), now()),
            }
            let turn = Turn {
                _permit: permit,
                _pledge: pledge,
                _address: address,
            };
            return match result {
                Ok(link) => {
                    connected.set();
                    Outcome::Connected(link, login, held, turn, evictions)
                }
                Err(failure) => {
                    if !failure.reached_server() {
                        login.not_reached();
                    }
                    let took = now().saturating_duration_since(began);
                    Outcome::Failed(failure, held, turn, took)
                }
            };
        }
    }

    async fn credit(&self) -> Pledge {
        let _in_debt = Counted::new(&self.dials.0.in_debt);
        self.pledge(true).await
    }

    /// Waits until the address would bear another failed login.
    async fn pledge(&self, doubtful: bool) -> Pledge {
        let reason = LoginDelay::FailedLogins;
        let delayed = |wait| self.report(EventKind::LoginDelayed { wait, reason });
        self.budget.pledge(doubtful, delayed).await
    }

    /// Waits for the login budget of the address.
    async fn login_admitted(&self) {
        let Some(until) = self.budget.login_delayed() else {
            return;
        };
        let wait = until.saturating_duration_since(now());
        let reason = LoginDelay::Budget;
        self.report(EventKind::LoginDelayed { wait, reason });
        let _delayed = Counted::new(&self.dials.0.delayed);
        self.budget.login_admitted().await;
    }

    fn dial_failed(self: &Arc<Self>, failure: DialError, leave: Leave, took: Duration) {
        let descriptors = matches!(failure.error, Error::Descriptors { .. });
        let (told, verdict, pause, change, actions) = {
            let mut books = self.books();
            let now = now();
            books.short = match books.short.take() {
                _ if !descriptors => None,
                None => Some(Short::new(self.budget.room(), now)),
                short => short,
            };
            let (verdict, change) = self.dials.circuit().failed(leave, failure, took, now);
            let pause = verdict.not_before.saturating_duration_since(now);
            let told = books
                .slots
                .dial_failed(now, verdict.not_before, verdict.try_again);
            (told, verdict, pause, change, books.slots.take_actions())
        };
        if descriptors {
            self.budget.room().ask(FOR_A_DIAL);
        }
        // Before what follows from it, such as the next dial.
        self.report(EventKind::DialFailed {
            error: verdict.error.clone(),
            pause,
        });
        self.report_breaker(change);
        self.carry_out(actions);
        self.dials.wake();
        tell(told, &verdict.error);
        self.ended.notify_waiters();
    }

    fn dial_refused(self: &Arc<Self>, error: &Error, until: Instant, evictions: Option<u64>) {
        let told = self.transition(|books, now| {
            // What has been forgotten since is no reason to wait.
            let forgotten = evictions.is_some_and(|count| count != books.slots.evictions());
            books.slots.dial_refused(now, until, forgotten)
        });
        tell(told, error);
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
