//! One host as one caller may use it: its connections, its queue, its idle channels.
//!
//! The group carries out what its state ([`host_state`]) decides. Every transition has the same shape:
//! lock, tell the state what happened, take the effects, unlock, carry them out. No lock is held across
//! an await, a spawn or a callback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::event::{ConnectionRef, EventKind, EventScope, Reporter, Retirement};
use crate::receiver::ChannelEnd;
use crate::transport::{Channel, Connection, Endpoint, Transport};

mod breaker;
mod budget;
mod channel_guard;
mod channels;
mod check;
mod checkout;
mod closing;
mod connect;
mod connection_limiter;
mod connection_state;
mod effects;
mod holds;
pub(crate) mod host_state;
mod login_budget;
mod losses;
mod peer;
mod penalties;
mod poll_then_spawn;
mod queue;
mod ready;
mod snapshot;
mod stream_permit;
mod verify;
mod waiting;

pub(crate) use breaker::{doubled, jitter};
pub(crate) use budget::{Budget, Budgets};
pub(crate) use channel_guard::ChannelGuard;
use channels::ChannelPool;
use check::Checks;
use closing::Unattended;
pub(crate) use closing::UnattendedUse;
pub(crate) use connect::SharedBreaker;
pub(crate) use connection_limiter::{ConnectionLimiter, make_room};
pub(crate) use connection_state::SessionCounts;
pub(crate) use effects::DeferredEffects;
pub(crate) use holds::StreamHold;
pub(crate) use host_state::ConnectionId;
pub(crate) use host_state::Counters;
pub(crate) use host_state::GroupConfig;
use host_state::{Handoff, HostState};
pub(crate) use losses::Reached;
pub(crate) use queue::Admission;
pub(crate) use snapshot::{ConnectionSnapshot, GroupSnapshot};
pub(crate) use stream_permit::StreamPermit;
use verify::LiveConnection;
use waiting::Opening;

/// What a waiter gets.
type ChannelResult = Result<IdleChannel, Error>;
type WaiterSender = oneshot::Sender<ChannelResult>;

/// An opened session channel that has not been used.
pub(crate) struct IdleChannel {
    connection: ConnectionId,
    channel: Channel,
    opening: Opening,
    /// Counted as in use rather than as idle. Changed under the group's lock only.
    in_use: Arc<AtomicBool>,
    /// Effects of taking it, carried out by the caller that gets it.
    deferred: Option<DeferredEffects>,
}

/// What the connections of a group are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Commands whose output the library drains, side by side.
    Shared,
    /// One stream a connection.
    Isolated,
    /// The same, for callers whose `StreamGroup` has a stream already.
    Grouped,
    /// Helper commands of the pool.
    Control,
}

/// The waiting times that the group itself keeps.
#[derive(Debug, Clone)]
pub(crate) struct GroupTimeouts {
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

pub(crate) struct ConnectionGroup {
    endpoint: Endpoint,
    transport: Arc<dyn Transport>,
    timeouts: GroupTimeouts,
    budget: Budget,
    breaker: SharedBreaker,
    reporter: Arc<Reporter>,
    runtime: Handle,
    channels: ChannelPool,
    state: Mutex<GroupState>,
    /// Something has ended: `drained` may be waiting for the last one.
    ended: Notify,
    unattended: Unattended,
    /// Cancels what is under way: connects, pauses, listeners.
    closing: CancellationToken,
}

struct GroupState {
    host: HostState<WaiterSender>,
    connections: HashMap<ConnectionId, LiveConnection>,
    checks: Checks,
    /// Opened without a waiter, about to enter the pool of idle channels.
    unclaimed: Vec<IdleChannel>,
    /// Dials that wait for room in the pool.
    blocked_on_limit: u32,
    /// The last dial had no file descriptor.
    out_of_descriptors: Option<connection_limiter::OutOfDescriptors>,
}

/// The permits of a semaphore for this count. Where a `usize` has 32 bits, `MAX_PERMITS` may be less
/// than the count.
pub(crate) fn size(count: u32) -> usize {
    let most = Semaphore::MAX_PERMITS;
    usize::try_from(count).map_or(most, |count| count.min(most))
}

pub(crate) fn now() -> Instant {
    // tokio's clock, so that a test's paused time applies to all code.
    tokio::time::Instant::now().into_std()
}

impl ConnectionGroup {
    #[allow(
        clippy::too_many_arguments,
        reason = "called once, with what a group is made of"
    )]
    pub(crate) fn new(
        endpoint: Endpoint,
        transport: Arc<dyn Transport>,
        config: GroupConfig,
        timeouts: GroupTimeouts,
        budget: Budget,
        breaker: SharedBreaker,
        reporter: Arc<Reporter>,
        runtime: Handle,
    ) -> Arc<Self> {
        let endpoint = Endpoint {
            phase_cell: Arc::default(),
            ..endpoint
        };
        // Twice what there is room for, so that it usually need not grow for what still runs
        // on retiring connections.
        let capacity = config.connections.saturating_mul(config.sessions);
        let most = size(capacity.saturating_mul(2));
        let group = Arc::new_cyclic(|group: &Weak<Self>| Self {
            endpoint,
            transport,
            timeouts,
            budget,
            breaker,
            reporter,
            runtime,
            channels: ChannelPool::new(group.clone(), most),
            state: Mutex::new(GroupState {
                host: HostState::new(config),
                connections: HashMap::new(),
                checks: Checks::default(),
                unclaimed: Vec::new(),
                blocked_on_limit: 0,
                out_of_descriptors: None,
            }),
            ended: Notify::new(),
            unattended: Unattended::default(),
            closing: CancellationToken::new(),
        });
        group.budget.peer().join(&group);
        group
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

    fn report_on(
        &self,
        on: ConnectionId,
        connection: Option<&Arc<dyn Connection>>,
        kind: EventKind,
    ) {
        let peer_addr = connection.and_then(|connection| connection.peer_addr());
        self.event_scope(on, peer_addr).report(kind);
    }

    fn event_scope(&self, on: ConnectionId, peer_addr: Option<SocketAddr>) -> EventScope {
        EventScope {
            reporter: self.reporter.clone(),
            target: self.name().clone(),
            connection: ConnectionRef {
                number: on.0,
                peer_addr,
            },
        }
    }

    pub(crate) fn kill_grace(&self) -> Duration {
        self.timeouts.kill_grace
    }

    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One transition: tells the state what happened, then does what follows from it.
    fn transition<T>(self: &Arc<Self>, happened: impl FnOnce(&mut GroupState, Instant) -> T) -> T {
        self.transition_untimed(|state| happened(state, now()))
    }

    /// A transition that mostly has no use for the time, which costs as much as both locks here.
    fn transition_untimed<T>(self: &Arc<Self>, happened: impl FnOnce(&mut GroupState) -> T) -> T {
        let limiter = self.budget.limiter();
        let (result, effects, can_make_room) = {
            let mut state = self.state();
            let result = happened(&mut state);
            let can_make_room = limiter.is_wanted() && state.host.idle().next().is_some();
            (result, state.host.take_effects(), can_make_room)
        };
        self.carry_out(effects);
        if can_make_room {
            limiter.notify();
        }
        result
    }

    // ── channels without an owner ────────────────────────────────────────────────────────────

    /// Takes an unused channel for a command, if it is still good.
    fn claim(state: &mut GroupState, idle: &IdleChannel) -> bool {
        let good = !idle.channel.receiver.has_ended() && state.host.claim(idle.connection, now);
        if good {
            idle.in_use.store(true, Ordering::Relaxed);
        }
        good
    }

    /// The idle channel is wanted for a command.
    fn recycle(self: &Arc<Self>, idle: &mut IdleChannel) -> bool {
        let (good, no_waiters, effects) = {
            let mut state = self.state();
            let good = Self::claim(&mut state, idle);
            let no_waiters = state.host.waiting() == 0;
            (good, no_waiters, state.host.take_effects())
        };
        if good && no_waiters {
            idle.deferred = DeferredEffects::after(self, effects);
        } else {
            self.carry_out(effects);
        }
        good
    }

    /// A channel that was opened without a waiter and is about to become idle.
    fn next_unclaimed(&self) -> Option<IdleChannel> {
        self.state().unclaimed.pop()
    }

    /// Decides where a channel goes that was in use or idle and has no owner now.
    fn next_handoff(self: &Arc<Self>, idle: &IdleChannel) -> Handoff<WaiterSender> {
        self.transition_untimed(|state| {
            // An ended channel has been, or is about to be, counted by its end; one that was used
            // will be.
            if idle.channel.receiver.is_spent() {
                return Handoff::Discard;
            }
            let in_use = idle.in_use.load(Ordering::Relaxed);
            let handoff = state.host.returned(idle.connection, in_use, now());
            idle.in_use
                .store(matches!(handoff, Handoff::To(_)), Ordering::Relaxed);
            handoff
        })
    }

    /// Gives a channel without an owner to the next waiter, or makes it idle.
    fn return_channel(self: &Arc<Self>, idle: IdleChannel) {
        let handoff = self.next_handoff(&idle);
        self.deliver(handoff, idle);
    }

    fn deliver(self: &Arc<Self>, handoff: Handoff<WaiterSender>, idle: IdleChannel) {
        let (mut handoff, mut idle) = (handoff, idle);
        loop {
            match handoff {
                Handoff::To(waiter) => match waiter.send(Ok(idle)) {
                    // That waiter has just gone: the next one.
                    Err(Ok(back)) => {
                        handoff = self.next_handoff(&back);
                        idle = back;
                    }
                    _ => return,
                },
                Handoff::Idle => return self.park(idle),
                Handoff::Discard => return,
            }
        }
    }

    /// Puts an unused channel among the idle ones.
    fn park(self: &Arc<Self>, idle: IdleChannel) {
        self.state().unclaimed.push(idle);
        self.channels.park();
        self.match_idle();
    }

    /// A caller may have begun to wait while a channel was becoming idle.
    fn match_idle(self: &Arc<Self>) {
        if self.state().host.waiting() > 0 {
            self.transition(|state, now| state.host.wake_waiters(now));
        }
    }

    fn abandon(self: &Arc<Self>, waiter_id: host_state::WaiterId) {
        self.transition(|state, _| state.host.abandon(waiter_id));
    }

    // ── what happens to connections and channels ─────────────────────────────────────────────

    /// The connection under a channel guard, if it is still there.
    pub(crate) fn connection_of(&self, guard: &ChannelGuard) -> Option<Arc<dyn Connection>> {
        self.connection(guard.on())
    }

    fn connection(&self, id: ConnectionId) -> Option<Arc<dyn Connection>> {
        self.state().connection(id)
    }

    /// Whether nothing new goes to that connection.
    pub(crate) fn is_retiring(&self, id: ConnectionId) -> bool {
        self.state().host.is_retiring(id)
    }

    fn channel_ended(self: &Arc<Self>, on: ConnectionId, in_use: &AtomicBool, end: &ChannelEnd) {
        self.transition(|state, now| match end {
            ChannelEnd::Closed => state.host.closed(on, in_use.load(Ordering::Relaxed), now),
            ChannelEnd::ClosedHere { settled } => {
                state
                    .host
                    .closed_here(on, in_use.load(Ordering::Relaxed), *settled, now);
            }
            // `died` has taken care of everything on that connection.
            ChannelEnd::Lost(_) => {}
        });
    }

    // ── for the pool ─────────────────────────────────────────────────────────────────────────

    /// Connections grow old or idle.
    pub(crate) fn tick(self: &Arc<Self>) {
        self.transition(|state, now| state.host.tick(now));
    }

    /// Replaces every connection: no new commands on those there are.
    pub(crate) fn evict(self: &Arc<Self>) {
        self.transition(|state, now| state.host.evict(Retirement::Evicted, now));
    }

    /// The same, and forgets past failures, so that a refused login may be tried again. Called on one
    /// of the groups that share the breaker.
    pub(crate) fn evict_and_forget(self: &Arc<Self>) {
        let change = self.transition(|state, now| {
            state.host.evict(Retirement::Evicted, now);
            self.breaker.forget()
        });
        self.report_breaker(change);
        self.breaker.wake();
    }

    /// Nothing is connected, under way, waited for or worth remembering.
    pub(crate) fn is_unused(&self) -> bool {
        self.state().host.is_empty()
            && self.breaker.is_forgettable()
            && self.budget.is_forgettable()
    }

    fn closed_error(&self) -> Error {
        Error::closed(self.name(), &self.runtime)
    }

    /// Cancelled by [`stop`](Self::stop).
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// No new work from now on, and queued work fails.
    pub(crate) fn close(self: &Arc<Self>) {
        let waiters = self.transition(|state, now| state.host.close(now));
        fail_waiters(waiters, &self.closed_error());
        self.channels.close();
    }

    /// Of a group that is closed: ends the dials that are under way, and whatever else would only
    /// end in time. A dial that ends makes way for the next one at its address, so all who must not
    /// dial then are closed before.
    pub(crate) fn stop(&self) {
        self.closing.cancel();
    }

    /// Disconnects whatever is left.
    pub(crate) async fn disconnect_all(&self) {
        let connections: Vec<_> = (self.state().connections.values())
            .map(|c| c.connection.clone())
            .collect();
        futures_util::future::join_all(
            connections.iter().map(|connection| connection.disconnect()),
        )
        .await;
    }
}

fn fail_waiters(waiters: Vec<WaiterSender>, error: &Error) {
    for waiter in waiters {
        // A waiter that has gone needs no answer.
        drop(waiter.send(Err(error.clone())));
    }
}

#[cfg(test)]
mod cancellation_tests;
