//! What the hosts of a pool share: how many handshakes may be under way at once, with one address
//! and in all, and none for a while with an address that has turned one away; how many logins may
//! fail at an address, and how many it may see; places in the queue; connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::connection_limiter::ConnectionLimiter;
use super::peer::Peer;
use super::queue::Queue;
use super::size;
use crate::limits::Limits;

use super::login_budget::LoginBudget;
use super::now;
use super::penalties::AddressPenalties;
use crate::transport::ConnectError;

/// The budgets of one pool. Callers with different users or identities dial the same server, so
/// an address has one budget for all of them.
pub(crate) struct Budgets {
    all: Arc<Semaphore>,
    per_address: usize,
    login_burst: u32,
    addresses: Mutex<Addresses>,
    queue: Arc<Queue>,
    limiter: Arc<ConnectionLimiter>,
}

#[derive(Default)]
struct Addresses {
    known: HashMap<(String, u16), Weak<AddressBudget>>,
    /// Size at which unused entries are removed: a scan at each new host would be quadratic in the
    /// number of hosts.
    sweep_at: usize,
}

impl Addresses {
    fn sweep_when_due(&mut self) {
        if self.known.len() < self.sweep_at {
            return;
        }
        self.known.retain(|_, address| address.strong_count() > 0);
        self.sweep_at = self.known.len().saturating_mul(2).max(SMALL);
    }
}

/// Below this size the map is never scanned.
const SMALL: usize = 64;

/// What is shared by all who dial one address.
struct AddressBudget {
    shares: Arc<Semaphore>,
    /// Held by a connect while the server is throttling.
    turn: Arc<Semaphore>,
    /// Held by the next login of an unverified identity, and by the next one of a verified
    /// identity.
    unverified: Semaphore,
    verified: Semaphore,
    penalties: Mutex<AddressPenalties>,
    /// A login has ended.
    released: Notify,
    /// Where the name resolves to, as far as it is in use.
    peer: Arc<Peer>,
    logins: Mutex<LoginBudget>,
    /// For the login that the budget admits next.
    next_login: Semaphore,
}

impl AddressBudget {
    fn new(shares: usize, login_burst: u32) -> Self {
        Self {
            shares: Arc::new(Semaphore::new(shares)),
            turn: Arc::new(Semaphore::new(1)),
            unverified: Semaphore::new(1),
            verified: Semaphore::new(1),
            penalties: Mutex::default(),
            released: Notify::new(),
            peer: Arc::default(),
            logins: Mutex::new(LoginBudget::new(login_burst)),
            next_login: Semaphore::new(1),
        }
    }

    fn logins(&self) -> MutexGuard<'_, LoginBudget> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn penalties(&self) -> MutexGuard<'_, AddressPenalties> {
        self.penalties
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// While the server is throttling, one after the other, and not before its pause is over.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if !self.penalties().is_throttling(now()) {
            return None;
        }
        let turn = acquire(&self.turn).await;
        loop {
            let pause = self.penalties().wait(now());
            match pause {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => return turn,
            }
        }
    }
}

/// What one host may use of them.
#[derive(Clone)]
pub(crate) struct Budget {
    address: Arc<AddressBudget>,
    all: Arc<Semaphore>,
    /// `None`: it is for callers who are not turned away.
    queue: Option<Arc<Queue>>,
    limiter: Arc<ConnectionLimiter>,
    use_: Use,
}

/// Whom connections are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Callers,
    /// Stream groups that have streams.
    StreamGroups,
    Control,
}

/// One handshake's share.
pub(crate) struct HandshakePermit {
    address: Arc<AddressBudget>,
    _share: Option<OwnedSemaphorePermit>,
    _turn: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

/// The penalty limit of the address has room for the failure of this login. Dropped when the login has
/// ended, after its outcome has been reported to its [`HandshakePermit`].
pub(crate) struct LoginPermit {
    address: Arc<AddressBudget>,
    unverified: bool,
}

impl Drop for LoginPermit {
    fn drop(&mut self) {
        self.address.penalties().release(self.unverified);
        self.address.released.notify_waiters();
    }
}

/// An attempt to log in, and then the connection that came of it. Dropped, it has ended, and is
/// charged to the login budget of its address unless it served for long.
pub(crate) struct LoginCharge {
    address: Arc<AddressBudget>,
    since: Instant,
    reached: bool,
}

impl LoginCharge {
    /// The server was not reached, so it has seen no login.
    pub(super) fn not_reached(mut self) {
        self.reached = false;
    }
}

impl Drop for LoginCharge {
    fn drop(&mut self) {
        if self.reached {
            let now = now();
            let lasted = now.saturating_duration_since(self.since);
            self.address.logins().ended(lasted, now);
        }
    }
}

impl HandshakePermit {
    /// The handshake has ended, with that failure if it has failed. The share ends when this is
    /// dropped.
    pub(crate) fn answered(&self, failure: Option<&ConnectError>, now: Instant) {
        self.address.penalties().answered(failure, now);
    }

    /// See [`AddressPenalties::answered_awaited`].
    pub(crate) fn answered_awaited(
        &self,
        failure: Option<&ConnectError>,
        charges: bool,
        now: Instant,
    ) {
        let mut penalties = self.address.penalties();
        penalties.answered_awaited(failure, charges, now);
    }
}

impl Budgets {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(size(limits.handshakes))),
            per_address: size(limits.handshakes_per_host),
            login_burst: limits.login_burst,
            addresses: Mutex::default(),
            queue: Arc::new(Queue::new(limits.queued_commands)),
            limiter: Arc::new(ConnectionLimiter::new(limits.connections)),
        }
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn limiter(&self) -> &Arc<ConnectionLimiter> {
        &self.limiter
    }

    pub(crate) fn of(&self, host: &str, port: u16) -> Budget {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.sweep_when_due();
        let key = (host.to_owned(), port);
        let address = (addresses.known)
            .get(&key)
            .and_then(Weak::upgrade)
            .unwrap_or_else(|| {
                let address = Arc::new(AddressBudget::new(self.per_address, self.login_burst));
                addresses.known.insert(key, Arc::downgrade(&address));
                address
            });
        Budget {
            address,
            all: self.all.clone(),
            queue: Some(self.queue.clone()),
            limiter: self.limiter.clone(),
            use_: Use::Callers,
        }
    }
}

impl Budget {
    /// For what the pool does for itself: it takes no place in the queue, and waits for nothing that
    /// only ends with what it is to end.
    pub(crate) fn for_control(self) -> Self {
        Self {
            queue: None,
            use_: Use::Control,
            ..self
        }
    }

    pub(super) fn is_for_control(&self) -> bool {
        self.use_ == Use::Control
    }

    /// For stream groups that have streams: they wait for nothing that may only end with one of those.
    /// Handshakes end by themselves, so they take their turn for those.
    pub(crate) fn for_stream_groups(self) -> Self {
        Self {
            queue: None,
            use_: Use::StreamGroups,
            ..self
        }
    }

    pub(super) fn is_for_stream_groups(&self) -> bool {
        self.use_ == Use::StreamGroups
    }

    /// Waits until the penalty limit of this address has room for another failed login. First come,
    /// first served, apart for unverified ones. `delayed` is called once if logins have failed, with the
    /// shortest wait for that.
    pub(super) async fn login_permit(
        &self,
        unverified: bool,
        delayed: impl FnOnce(Duration),
    ) -> LoginPermit {
        let mut delayed = Some(delayed);
        let mut tell = || {
            let wait = self.address.penalties().delay(unverified, now());
            if let Some(delayed) = delayed.take_if(|_| !wait.is_zero()) {
                delayed(wait);
            }
        };
        tell();
        let next = match unverified {
            true => &self.address.unverified,
            false => &self.address.verified,
        };
        let _next = next.acquire().await;
        loop {
            let released = self.address.released.notified();
            tokio::pin!(released);
            // Before the question, so that no end between it and the wait is missed.
            released.as_mut().enable();
            let reserved = self.address.penalties().reserve(unverified, now());
            match reserved {
                Ok(()) => {
                    return LoginPermit {
                        address: self.address.clone(),
                        unverified,
                    };
                }
                Err(until) => {
                    // They may have failed since.
                    tell();
                    drop(tokio::time::timeout_at(until.into(), released).await);
                }
            }
        }
    }

    /// When the login budget of this address admits a login; `None`: now.
    pub(super) fn login_delayed(&self) -> Option<Instant> {
        self.address.logins().admit(now()).err()
    }

    /// Waits until the login budget of this address admits a login, in order. Cancel safe.
    pub(super) async fn login_admitted(&self) {
        // The semaphore is never closed.
        let _next = self.address.next_login.acquire().await;
        while let Some(until) = self.login_delayed() {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// A login begins, if the budget still admits it.
    pub(super) fn begin_login(&self) -> Option<LoginCharge> {
        let since = now();
        self.address.logins().admit(since).ok()?;
        Some(LoginCharge {
            address: self.address.clone(),
            since,
            reached: true,
        })
    }

    /// The budget of the address has nothing to remember.
    pub(super) fn is_forgettable(&self) -> bool {
        self.address.logins().is_settled(now())
    }

    /// Waits for one of the handshakes with this address. This comes first, so that a slow host
    /// holds none of the others up. A helper command is one more: those may all wait for room in
    /// the pool, which may be held by the command that the helper command is to end.
    pub(super) async fn address(&self) -> Option<OwnedSemaphorePermit> {
        self.one_of(&self.address.shares).await
    }

    async fn one_of(&self, handshakes: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        match self.is_for_control() {
            true => handshakes.clone().try_acquire_owned().ok(),
            false => acquire(handshakes).await,
        }
    }

    /// Waits for one of the pool's handshakes, and until the address's throttle admits it. A helper
    /// command does not wait for the pool's: hosts that do not answer may hold all of them for
    /// `Timeouts::connect`.
    pub(super) async fn handshake(&self, share: Option<OwnedSemaphorePermit>) -> HandshakePermit {
        loop {
            let turn = self.address.turn().await;
            let all = self.one_of(&self.all).await;
            // Others may have been turned away meanwhile.
            if turn.is_some() || !self.address.penalties().is_throttling(now()) {
                return HandshakePermit {
                    address: self.address.clone(),
                    _share: share,
                    _turn: turn,
                    _all: all,
                };
            }
        }
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.address.peer
    }

    pub(super) fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.as_ref()
    }

    pub(super) fn limiter(&self) -> &Arc<ConnectionLimiter> {
        &self.limiter
    }
}

/// No semaphore here is ever closed.
async fn acquire(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    semaphore.clone().acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::error::Error;

    fn known(budgets: &Budgets) -> usize {
        budgets.addresses.lock().expect("not poisoned").known.len()
    }

    #[test]
    fn unused_addresses_are_forgotten_and_the_others_are_not() {
        let budgets = Budgets::new(&Limits::default());
        let kept = budgets.of("kept", 22);
        for n in 0..10_000 {
            budgets.of(&format!("host-{n}"), 22);
        }
        assert!(known(&budgets) <= SMALL + 1, "{}", known(&budgets));
        let again = budgets.of("kept", 22);
        assert!(Arc::ptr_eq(&kept.address, &again.address));
        let used: Vec<_> = (0..10_000)
            .map(|n| budgets.of(&format!("host-{n}"), 22))
            .collect();
        assert!(known(&budgets) > used.len());
    }

    fn failed_login() -> ConnectError {
        let error = Error::AuthRejected {
            target: "t".into(),
            tried: Vec::new(),
            allowed: Box::default(),
            accepted: Box::default(),
            messages: Box::default(),
            cooldown: Duration::ZERO,
        };
        ConnectError {
            error,
            transient: false,
        }
    }

    /// Two at once, and no third.
    #[track_caller]
    fn assert_full_credit(budget: &Budget) {
        let permits = [(); 3].map(|()| budget.login_permit(true, drop).now_or_never());
        let had = permits.each_ref().map(Option::is_some);
        assert_eq!(had, [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_permit_is_released_wherever_it_is_dropped() {
        let budget = Budgets::new(&Limits::default()).of("test", 22);
        for ends in 0..4 {
            {
                let [first, _second] =
                    [(); 2].map(|()| budget.login_permit(true, drop).now_or_never());
                let mut next = Box::pin(budget.login_permit(true, drop));
                let mut last = Box::pin(budget.login_permit(true, drop));
                let waits = next.as_mut().now_or_never().is_none();
                let waits_behind = last.as_mut().now_or_never().is_none();
                assert!(waits && waits_behind);
                match ends {
                    0 => drop(next),
                    1 => drop(last),
                    // What it waited for has come, and it has not been polled.
                    2 => {
                        drop(first);
                        drop(next);
                        assert!(last.now_or_never().is_some(), "the other one has it");
                    }
                    _ => {
                        drop(first);
                        assert!(last.as_mut().now_or_never().is_none(), "in turn");
                        assert!(next.now_or_never().is_some(), "in turn");
                    }
                }
            }
            assert_full_credit(&budget);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_waits_for_penalties_goes_on_when_they_have_expired() {
        let budgets = Budgets::new(&Limits::default());
        let budget = budgets.of("test", 22);
        for _ in 0..2 {
            let login_permit = budget
                .login_permit(true, drop)
                .now_or_never()
                .expect("credit");
            let permit = budget.handshake(budget.address().await).await;
            permit.answered(Some(&failed_login()), now());
            drop(login_permit);
        }
        let began = now();
        let long = Duration::from_secs(60);
        let login_permit = tokio::time::timeout(long, budget.login_permit(true, drop)).await;
        let waited = now() - began;
        assert!(waited.as_secs_f64() > 4.9 && waited.as_secs_f64() < 5.1);
        drop(login_permit);
        let elsewhere = budgets.of("test", 2222);
        assert_full_credit(&elsewhere);
    }
}
