//! One host as one caller may use it: its connections, its queue, its spare channels.
//!
//! The hub carries out what the books ([`slots`]) decide. Every transition has the same shape:
//! lock, tell the books what happened, take the actions, unlock, carry them out. No lock is held
//! across an await, a spawn or anybody else's code.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::event::{ConnectionRef, EventKind, Reporter, Retirement, Witness};
use crate::inbox::End;
use crate::transport::{Channel, Endpoint, Link, Transport};

mod actions;
mod breaker;
mod budget;
mod channels;
mod check;
mod checkout;
mod closing;
mod dial;
mod eager;
mod holds;
mod lease;
mod login_budget;
mod losses;
mod peer;
mod queue;
mod ready;
mod room;
mod sessions;
pub(crate) mod slots;
mod snapshot;
mod streams;
mod throttle;
mod verify;
mod waiting;

pub(crate) use actions::Next;
pub(crate) use breaker::{doubled, jitter};
pub(crate) use budget::{Budget, Budgets};
use channels::Channels;
use check::Checks;
pub(crate) use closing::Idler;
use closing::Unattended;
pub(crate) use dial::Dials;
pub(crate) use holds::StreamHold;
pub(crate) use lease::Lease;
pub(crate) use losses::Reached;
pub(crate) use queue::Entry;
pub(crate) use room::{Room, make_room};
pub(crate) use sessions::View;
pub(crate) use slots::ConnectionId;
pub(crate) use slots::Rules;
pub(crate) use slots::Tally;
use slots::{Hand, Slots};
pub(crate) use snapshot::{Sight, Snapshot};
pub(crate) use streams::Berth;
use verify::Connected;
use waiting::Opening;

/// What a waiter is told.
type Answer = Result<Ready, Error>;
type Waiter = oneshot::Sender<Answer>;

/// An opened session channel that has not been used.
pub(crate) struct Ready {
    connection: ConnectionId,
    channel: Channel,
    opening: Opening,
    /// Counted as leased rather than as a spare. Changed under the hub's lock only.
    leased: Arc<AtomicBool>,
    /// What follows from its being taken, on the way to whoever takes it.
    next: Option<Next>,
}

/// What the connections of a hub are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Commands whose output the library drains, side by side.
    Shared,
    /// One stream a connection.
    Isolated,
    /// The same, for groups that have a stream: see `StreamGroup`.
    Grouped,
    /// Commands of the pool's own.
    Errands,
}

/// The waiting times that the hub itself keeps.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    pub(crate) acquire: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) kill_grace: Duration,
    /// A connection that was quiet for this long is checked before it is used.
    pub(crate) check_after: Duration,
    /// How long it has to answer.
    pub(crate) check: Duration,
}

/// When a wait ends, and how long that was from the caller's point of view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) after: Duration,
}

/// As far away as a deadline may be: no process lives as long, and no clock overflows.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Deadline {
    pub(crate) fn is_over(&self) -> bool {
        now() >= self.at
    }

    pub(crate) fn after(after: Duration) -> Self {
        Self {
            // `Duration::MAX` is a way to say that there is none.
            at: now() + after.min(NEVER),
            after,
        }
    }
}

pub(crate) struct Hub {
    endpoint: Endpoint,
    transport: Arc<dyn Transport>,
    patience: Patience,
    budget: Budget,
    dials: Dials,
    reporter: Arc<Reporter>,
    runtime: Handle,
    channels: Channels,
    books: Mutex<Books>,
    /// Something has ended: somebody may be waiting for the last one.
    ended: Notify,
    unattended: Unattended,
    /// Nobody needs what is under way: dials, pauses, listeners.
    closing: CancellationToken,
}

struct Books {
    slots: Slots<Waiter>,
    links: HashMap<ConnectionId, Connected>,
    checks: Checks,
    /// Opened for nobody, on the way into the pool of idle channels.
    unclaimed: Vec<Ready>,
    /// Dials that wait for room in the pool.
    held_up: u32,
    /// The last dial had no file descriptor.
    short: Option<room::Short>,
}

/// So many permits of a semaphore. Where a `usize` has 32 bits, that is fewer than can be asked for.
pub(crate) fn size(count: u32) -> usize {
    let most = Semaphore::MAX_PERMITS;
    usize::try_from(count).map_or(most, |count| count.min(most))
}

pub(crate) fn now() -> Instant {
    // tokio's clock, so that a test's paused time is everybody's time.
    tokio::time::Instant::now().into_std()
}

impl Hub {
    #[allow(
        clippy::too_many_arguments,
        reason = "called once, with what a hub is made of"
    )]
    pub(crate) fn new(
        endpoint: Endpoint,
        transport: Arc<dyn Transport>,
        rules: Rules,
        patience: Patience,
        budget: Budget,
        dials: Dials,
        reporter: Arc<Reporter>,
        runtime: Handle,
    ) -> Arc<Self> {
        let endpoint = Endpoint {
            stage: Arc::default(),
            ..endpoint
        };
        // Twice what there is room for, so that it need not grow for what still runs on retiring
        // connections as a rule.
        let room = rules.connections.saturating_mul(rules.sessions);
        let most = size(room.saturating_mul(2));
        let hub = Arc::new_cyclic(|hub: &Weak<Self>| Self {
            endpoint,
            transport,
            patience,
            budget,
            dials,
            reporter,
            runtime,
            channels: Channels::new(hub.clone(), most),
            books: Mutex::new(Books {
                slots: Slots::new(rules),
                links: HashMap::new(),
                checks: Checks::default(),
                unclaimed: Vec::new(),
                held_up: 0,
                short: None,
            }),
            ended: Notify::new(),
            unattended: Unattended::default(),
            closing: CancellationToken::new(),
        });
        hub.budget.peer().join(&hub);
        hub
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.endpoint.name
    }

    /// Whether each of its connections has one session.
    pub(crate) fn is_isolated(&self) -> bool {
        self.endpoint.isolated
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn report(&self, kind: EventKind) {
        self.reporter.report(&self.endpoint.name, None, kind);
    }

    fn report_on(&self, on: ConnectionId, link: Option<&Arc<dyn Link>>, kind: EventKind) {
        let peer_addr = link.and_then(|link| link.peer_addr());
        self.witness(on, peer_addr).report(kind);
    }

    fn witness(&self, on: ConnectionId, peer_addr: Option<SocketAddr>) -> Witness {
        Witness {
            reporter: self.reporter.clone(),
            target: self.name().clone(),
            connection: ConnectionRef {
                number: on.0,
                peer_addr,
            },
        }
    }

    pub(crate) fn kill_grace(&self) -> Duration {
        self.patience.kill_grace
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transition: tells the books what happened, then does what follows from it.
    fn transition<T>(self: &Arc<Self>, happened: impl FnOnce(&mut Books, Instant) -> T) -> T {
        self.timeless(|books| happened(books, now()))
    }

    /// A transition that mostly has no use for the time, which costs as much as both locks here.
    fn timeless<T>(self: &Arc<Self>, happened: impl FnOnce(&mut Books) -> T) -> T {
        let room = self.budget.room();
        let (result, actions, has_room) = {
            let mut books = self.books();
            let result = happened(&mut books);
            let has_room = room.is_wanted() && books.slots.idle().next().is_some();
            (result, books.slots.take_actions(), has_room)
        };
        self.carry_out(actions);
        if has_room {
            room.look();
        }
        result
    }

    // ── channels in nobody's hands ───────────────────────────────────────────────────────────

    /// Takes an unused channel for a command, if it is still good.
    fn claim(books: &mut Books, ready: &Ready) -> bool {
        let good = !ready.channel.inbox.has_ended() && books.slots.claim(ready.connection, now);
        if good {
            ready.leased.store(true, Ordering::Relaxed);
        }
        good
    }

    /// The idle channel is wanted for a command.
    fn recycle(self: &Arc<Self>, ready: &mut Ready) -> bool {
        let (good, nobody_waits, actions) = {
            let mut books = self.books();
            let good = Self::claim(&mut books, ready);
            let nobody_waits = books.slots.waiting() == 0;
            (good, nobody_waits, books.slots.take_actions())
        };
        if good && nobody_waits {
            ready.next = Next::after(self, actions);
        } else {
            self.carry_out(actions);
        }
        good
    }

    /// A channel that nobody waited for and that is on its way into the idle ones.
    fn next_unclaimed(&self) -> Option<Ready> {
        self.books().unclaimed.pop()
    }

    /// A channel that was leased, or idle, is in nobody's hands: says where it goes now.
    fn hand_on(self: &Arc<Self>, ready: &Ready) -> Hand<Waiter> {
        self.timeless(|books| {
            // An ended channel has been, or is about to be, counted by its end; one that was used
            // will be.
            if ready.channel.inbox.is_spent() {
                return Hand::Discard;
            }
            let leased = ready.leased.load(Ordering::Relaxed);
            let hand = books.slots.returned(ready.connection, leased, now());
            ready
                .leased
                .store(matches!(hand, Hand::To(_)), Ordering::Relaxed);
            hand
        })
    }

    /// Gives a channel that is in nobody's hands to the next waiter, or puts it among the idle.
    fn give_back(self: &Arc<Self>, ready: Ready) {
        let hand = self.hand_on(&ready);
        self.place(hand, ready);
    }

    fn place(self: &Arc<Self>, hand: Hand<Waiter>, ready: Ready) {
        let (mut hand, mut ready) = (hand, ready);
        loop {
            match hand {
                Hand::To(waiter) => match waiter.send(Ok(ready)) {
                    // That waiter has just gone: the next one.
                    Err(Ok(back)) => {
                        hand = self.hand_on(&back);
                        ready = back;
                    }
                    _ => return,
                },
                Hand::Spare => return self.park(ready),
                Hand::Discard => return,
            }
        }
    }

    /// Puts a spare among the idle channels.
    fn park(self: &Arc<Self>, ready: Ready) {
        self.books().unclaimed.push(ready);
        self.channels.park();
        self.match_idle();
    }

    /// Somebody may have begun to wait while a channel was on its way to the idle ones.
    fn match_idle(self: &Arc<Self>) {
        if self.books().slots.waiting() > 0 {
            self.transition(|books, now| books.slots.wake_waiters(now));
        }
    }

    fn abandon(self: &Arc<Self>, ticket: slots::Ticket) {
        self.transition(|books, _| books.slots.abandon(ticket));
    }

    // ── what happens to connections and channels ─────────────────────────────────────────────

    /// The connection under a lease, if it is still there.
    pub(crate) fn link_of(&self, lease: &Lease) -> Option<Arc<dyn Link>> {
        self.link(lease.on())
    }

    fn link(&self, id: ConnectionId) -> Option<Arc<dyn Link>> {
        self.books().link(id)
    }

    /// Whether nothing new goes to that connection.
    pub(crate) fn is_retiring(&self, id: ConnectionId) -> bool {
        self.books().slots.is_retiring(id)
    }

    fn channel_ended(self: &Arc<Self>, on: ConnectionId, leased: &AtomicBool, end: &End) {
        self.transition(|books, now| match end {
            End::Closed => books.slots.closed(on, leased.load(Ordering::Relaxed), now),
            End::ClosedHere { settled } => {
                books
                    .slots
                    .closed_here(on, leased.load(Ordering::Relaxed), *settled, now);
            }
            // `died` has taken care of everything on that connection.
            End::Lost(_) => {}
        });
    }

    // ── for the pool ─────────────────────────────────────────────────────────────────────────

    /// Connections grow old or idle.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.transition(|books, now| books.slots.tick(now));
    }

    /// Replaces every connection: no new commands on those there are.
    pub(crate) fn evict(self: &Arc<Self>) {
        self.transition(|books, now| books.slots.evict(Retirement::Evicted, now));
    }

    /// The same, and a failed login may be tried again: for one hub of those that share that memory.
    pub(crate) fn evict_and_forget(self: &Arc<Self>) {
        let change = self.transition(|books, now| {
            books.slots.evict(Retirement::Evicted, now);
            self.dials.forget()
        });
        self.report_breaker(change);
        self.dials.wake();
    }

    /// Nothing is connected, under way, waited for or worth remembering.
    pub(crate) fn is_unused(&self) -> bool {
        self.books().slots.is_empty() && self.dials.is_forgettable() && self.budget.is_forgettable()
    }

    fn closed_error(&self) -> Error {
        Error::closed(self.name(), &self.runtime)
    }

    /// Cancelled by [`stop`](Self::stop).
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// No new work from now on, and queued work is told so.
    pub(crate) fn close(self: &Arc<Self>) {
        let waiters = self.transition(|books, now| books.slots.close(now));
        tell(waiters, &self.closed_error());
        self.channels.close();
    }

    /// Of a hub that is closed: ends the dials that are under way, and whatever else would only end
    /// in time. A dial that ends makes way for the next one at its address, so all who must not dial
    /// then are closed before.
    pub(crate) fn stop(&self) {
        self.closing.cancel();
    }

    /// Disconnects whatever is left.
    pub(crate) async fn cut(&self) {
        let links: Vec<_> = (self.books().links.values())
            .map(|c| c.link.clone())
            .collect();
        futures_util::future::join_all(links.iter().map(|link| link.disconnect())).await;
    }
}

fn tell(waiters: Vec<Waiter>, error: &Error) {
    for waiter in waiters {
        // A waiter that has gone needs no answer.
        drop(waiter.send(Err(error.clone())));
    }
}

#[cfg(test)]
mod cancellation_tests;
