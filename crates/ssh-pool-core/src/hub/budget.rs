//! What the hosts of a pool share: how many handshakes may be under way at once, with one address
//! and in all, and none for a while with an address that has turned one away; how many logins may
//! fail at an address, and how many it may see; places in the queue; connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::peer::Peer;
use super::queue::Queue;
use super::room::Room;
use super::size;
use crate::limits::Limits;

use super::login_budget::LoginBudget;
use super::now;
use super::throttle::Throttle;
use crate::transport::DialError;

/// The budgets of one pool. Callers with different users or identities dial the same server, so
/// an address has one budget for all of them.
pub(crate) struct Budgets {
    all: Arc<Semaphore>,
    per_address: usize,
    login_burst: u32,
    addresses: Mutex<Addresses>,
    queue: Arc<Queue>,
    room: Arc<Room>,
}

#[derive(Default)]
struct Addresses {
    known: HashMap<(String, u16), Weak<Address>>,
    /// With so many of them it is time to look for those that nobody uses any more: at each new
    /// host, ten thousand hosts would look at each other fifty million times.
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

/// So few addresses are not worth a look.
const SMALL: usize = 64;

/// What is shared by all who dial one address.
struct Address {
    shares: Arc<Semaphore>,
    /// For whoever dials while the server is throttling.
    turn: Arc<Semaphore>,
    /// For whoever is next to log in and may not be let in; and for whoever was let in before.
    doubtful: Semaphore,
    proven: Semaphore,
    throttle: Mutex<Throttle>,
    /// A login has ended.
    redeemed: Notify,
    /// Where the name resolves to, as far as it is in use.
    peer: Arc<Peer>,
    logins: Mutex<LoginBudget>,
    /// For the login that the budget admits next.
    next_login: Semaphore,
}

impl Address {
    fn new(shares: usize, login_burst: u32) -> Self {
        Self {
            shares: Arc::new(Semaphore::new(shares)),
            turn: Arc::new(Semaphore::new(1)),
            doubtful: Semaphore::new(1),
            proven: Semaphore::new(1),
            throttle: Mutex::default(),
            redeemed: Notify::new(),
            peer: Arc::default(),
            logins: Mutex::new(LoginBudget::new(login_burst)),
            next_login: Semaphore::new(1),
        }
    }

    fn logins(&self) -> MutexGuard<'_, LoginBudget> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While the server is throttling, one after the other, and not before its pause is over.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if !self.throttle().is_on(now()) {
            return None;
        }
        let turn = acquire(&self.turn).await;
        loop {
            let pause = self.throttle().wait(now());
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
    address: Arc<Address>,
    all: Arc<Semaphore>,
    /// `None`: it is for callers who are not turned away.
    queue: Option<Arc<Queue>>,
    room: Arc<Room>,
    use_: Use,
}

/// Whom connections are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Callers,
    /// Groups that have streams.
    Groups,
    Errands,
}

/// One handshake's share.
pub(crate) struct Permit {
    address: Arc<Address>,
    _share: Option<OwnedSemaphorePermit>,
    _turn: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

/// The address will bear it if this login fails. Dropped, that is over: whatever came of it has
/// been told to its [`Permit`].
pub(crate) struct Pledge {
    address: Arc<Address>,
    doubtful: bool,
}

impl Drop for Pledge {
    fn drop(&mut self) {
        self.address.throttle().redeem(self.doubtful);
        self.address.redeemed.notify_waiters();
    }
}

/// An attempt to log in, and then the connection that came of it. Dropped, it has ended, and is
/// charged to the login budget of its address unless it served for long.
pub(crate) struct Login {
    address: Arc<Address>,
    since: Instant,
    reached: bool,
}

impl Login {
    /// The server was not reached, so it has seen no login.
    pub(super) fn not_reached(mut self) {
        self.reached = false;
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if self.reached {
            let now = now();
            let lasted = now.saturating_duration_since(self.since);
            self.address.logins().ended(lasted, now);
        }
    }
}

impl Permit {
    /// The handshake has ended, with that failure if it has failed. The share ends when this is
    /// dropped.
    pub(crate) fn answered(&self, failure: Option<&DialError>, now: Instant) {
        self.address.throttle().answered(failure, now);
    }

    /// The same, by a server that is known not to count failures.
    pub(crate) fn answered_for_free(&self, failure: Option<&DialError>, now: Instant) {
        self.address.throttle().answered_for_free(failure, now);
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
            room: Arc::new(Room::new(limits.connections)),
        }
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
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
                let address = Arc::new(Address::new(self.per_address, self.login_burst));
                addresses.known.insert(key, Arc::downgrade(&address));
                address
            });
        Budget {
            address,
            all: self.all.clone(),
            queue: Some(self.queue.clone()),
            room: self.room.clone(),
            use_: Use::Callers,
        }
    }
}

impl Budget {
    /// For what the pool does for itself: it takes no place in the queue, and waits for nothing that
    /// only ends with what it is to end.
    pub(crate) fn for_errands(self) -> Self {
        Self {
            queue: None,
            use_: Use::Errands,
            ..self
        }
    }

    pub(super) fn is_for_errands(&self) -> bool {
        self.use_ == Use::Errands
    }

    /// For groups that have streams: they wait for nothing that may only end with one of those.
    /// Handshakes end by themselves, so they take their turn for those.
    pub(crate) fn for_groups(self) -> Self {
        Self {
            queue: None,
            use_: Use::Groups,
            ..self
        }
    }

    pub(super) fn is_for_groups(&self) -> bool {
        self.use_ == Use::Groups
    }

    /// Waits until this address would bear another failed login. First come, first served, apart for
    /// those that may well fail. `delayed` is called once if logins have failed, with the shortest
    /// wait for that.
    pub(super) async fn pledge(&self, doubtful: bool, delayed: impl FnOnce(Duration)) -> Pledge {
        let mut delayed = Some(delayed);
        let mut tell = || {
            let wait = self.address.throttle().delay(doubtful, now());
            if let Some(delayed) = delayed.take_if(|_| !wait.is_zero()) {
                delayed(wait);
            }
        };
        tell();
        let next = match doubtful {
            true => &self.address.doubtful,
            false => &self.address.proven,
        };
        let _next = next.acquire().await;
        loop {
            let redeemed = self.address.redeemed.notified();
            tokio::pin!(redeemed);
            // Before the question, so that no end between it and the wait is missed.
            redeemed.as_mut().enable();
            let pledged = self.address.throttle().pledge(doubtful, now());
            match pledged {
                Ok(()) => {
                    return Pledge {
                        address: self.address.clone(),
                        doubtful,
                    };
                }
                Err(until) => {
                    // They may have failed since.
                    tell();
                    drop(tokio::time::timeout_at(until.into(), redeemed).await);
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
    pub(super) fn begin_login(&self) -> Option<Login> {
        let since = now();
        self.address.logins().admit(since).ok()?;
        Some(Login {
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
    /// holds none of the others up. An errand is one more: those may all wait for room in the pool,
    /// and that for the errand.
    pub(super) async fn address(&self) -> Option<OwnedSemaphorePermit> {
        self.one_of(&self.address.shares).await
    }

    async fn one_of(&self, handshakes: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        match self.is_for_errands() {
            true => handshakes.clone().try_acquire_owned().ok(),
            false => acquire(handshakes).await,
        }
    }

    /// Waits for one of the pool's handshakes, and until the address's throttle admits it. A helper
    /// command does not wait for the pool's: hosts that do not answer may hold all of them for
    /// `Timeouts::connect`.
    pub(super) async fn handshake(&self, share: Option<OwnedSemaphorePermit>) -> Permit {
        loop {
            let turn = self.address.turn().await;
            let all = self.one_of(&self.all).await;
            // Others may have been turned away meanwhile.
            if turn.is_some() || !self.address.throttle().is_on(now()) {
                return Permit {
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

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
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
    fn addresses_that_nobody_uses_are_forgotten_and_the_others_are_not() {
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

    fn failed_login() -> DialError {
        let error = Error::AuthRejected {
            target: "t".into(),
            tried: Vec::new(),
            allowed: Box::default(),
            accepted: Box::default(),
            messages: Box::default(),
            cooldown: Duration::ZERO,
        };
        DialError {
            error,
            passing: false,
        }
    }

    /// Two at once, and no third.
    #[track_caller]
    fn assert_full_credit(budget: &Budget) {
        let pledges = [(); 3].map(|()| budget.pledge(true, drop).now_or_never());
        let had = pledges.each_ref().map(Option::is_some);
        assert_eq!(had, [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pledge_gives_its_credit_back_wherever_it_is_dropped() {
        let budget = Budgets::new(&Limits::default()).of("test", 22);
        for ends in 0..4 {
            {
                let [first, _second] = [(); 2].map(|()| budget.pledge(true, drop).now_or_never());
                let mut next = Box::pin(budget.pledge(true, drop));
                let mut last = Box::pin(budget.pledge(true, drop));
                let waits = next.as_mut().now_or_never().is_none();
                let waits_behind = last.as_mut().now_or_never().is_none();
                assert!(waits && waits_behind);
                match ends {
                    0 => drop(next),
                    1 => drop(last),
                    // What it waited for has come, and nobody has looked.
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
    async fn whoever_waits_for_credit_goes_on_when_time_has_paid_for_it() {
        let budgets = Budgets::new(&Limits::default());
        let budget = budgets.of("test", 22);
        for _ in 0..2 {
            let pledge = budget.pledge(true, drop).now_or_never().expect("credit");
            let permit = budget.handshake(budget.address().await).await;
            permit.answered(Some(&failed_login()), now());
            drop(pledge);
        }
        let began = now();
        let long = Duration::from_secs(60);
        let pledge = tokio::time::timeout(long, budget.pledge(true, drop)).await;
        let waited = now() - began;
        assert!(waited.as_secs_f64() > 4.9 && waited.as_secs_f64() < 5.1);
        drop(pledge);
        let elsewhere = budgets.of("test", 2222);
        assert_full_credit(&elsewhere);
    }
}
