//! What the pool knows about one host's connections, and every decision that follows from it.
//!
//! Plain state: no I/O, no clock of its own, no tokio. Each thing that happens is one method; it
//! updates the counts and leaves [`Effect`]s behind, which the caller takes under the same lock
//! and carries out after it. That is what makes the decisions here testable by themselves.
//!
//! A session slot of a connection goes round like this (RFC 4254, section 5):
//!
//! ```text
//!            OPEN sent        confirmed            taken by a command     peer's CLOSE seen
//!   free ───▶ opening ───────▶ idle ──────────────▶ in use ──────────────▶ releasing ─▶ free
//!                │ refused                                                    ▲
//!                ▼                                        one round trip proves that
//!              free                                       the server has freed it
//! ```
//!
//! A closed slot is releasing first, because sshd frees a session only after it has worked off its
//! whole input buffer: a CLOSE and the next OPEN in one segment are refused every time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::connection_state::{CloseSeq, ConnectionState, OpenRefusal, SessionCounts};
use crate::event::Retirement;

mod connections;
mod ends;
mod holds;
mod idle;
mod open_timeout;
mod replacement;
mod schedule;
mod stall_clock;
mod streams;

use connections::Connections;
use replacement::Replacement;
use stall_clock::StallClock;
pub(crate) use stall_clock::StallTotals;

/// One connection, for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// A waiter's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaiterId(u64);

/// The configuration of a group, from `Limits` and `Timeouts`.
#[derive(Debug, Clone)]
pub(crate) struct GroupConfig {
    /// Connections that take new commands, at most.
    pub(crate) connections: u32,
    /// Further ones at most, in the place of connections whose sessions streams hold.
    pub(crate) held_connections: u32,
    /// Further ones of those, while a caller waits that holds streams.
    pub(crate) urgent_connections: u32,
    /// Where the session limit starts, and how far it may rise again.
    pub(crate) sessions: u32,
    /// Streams on one connection, at most.
    pub(crate) streams: u32,
    /// Dials in flight at once, at most.
    pub(crate) handshakes: u32,
    /// How long the oldest waiter waits on live connections before another one is dialled.
    pub(crate) expand_after: Duration,
    /// A connection that ran nothing for this long is closed.
    pub(crate) idle: Duration,
    /// After this long without a refusal the learned limit is raised by one.
    pub(crate) recovery: Duration,
    /// A retired connection that is still there after this long holds up no replacement.
    pub(crate) drain: Duration,
    /// How long an answer that a caller waits for may take.
    pub(crate) check: Duration,
    /// Every connection that is free has a channel ready, not only one of a busy host: where a
    /// connection is one channel, the next one would else cost a round trip to see the last one's
    /// slot free, and another to open it.
    pub(crate) idle_each: bool,
}

/// What the caller of a transition has to do next, outside the lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Dial one connection.
    Connect,
    /// Open a session channel, asked for now; report `opened` or `refused` with this `close_seq`.
    Open {
        on: ConnectionId,
        close_seq: CloseSeq,
        since: Instant,
    },
    /// Make one round trip; report `pinged` with this `close_seq`.
    Ping {
        on: ConnectionId,
        close_seq: CloseSeq,
    },
    /// A caller waits while channels are idle: hand them over.
    ServeFromIdle,
    /// Throw out idle channels of connections that are gone or retiring.
    DropStaleIdle,
    /// Allow more channels at once: commands run on connections that are retiring, and take no place
    /// away from those on others.
    RaiseCapacity,
    /// An answer that a caller waits for is overdue: retire the connection, unless something else
    /// was heard from it meanwhile.
    CheckLiveness(ConnectionId),
    /// Disconnect an unused connection.
    Disconnect(ConnectionId),
    /// Call `wake` at this time.
    WakeAt(Instant),
    /// Report an event.
    Report(StateEvent),
}

/// An event for the observers of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateEvent {
    Learned(u32),
    Retired(ConnectionId, Retirement),
}

/// Where an opened channel goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Handoff<W> {
    /// To this waiter; it is in use from now on.
    To(W),
    /// No caller waits: the channel is idle.
    Idle,
    /// Its connection is on the way out: forget it.
    Discard,
}

/// What a refused open means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RefusalOutcome<W> {
    /// The queue takes care of it; the caller never sees it.
    Absorbed,
    /// The server takes no session at all: tell all of these.
    Hard(Vec<W>),
}

/// Counts for the status; totals since the host was first used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) dials: u64,
    pub(crate) failed_dials: u64,
    pub(crate) opens: u64,
    pub(crate) refused_opens: u64,
    pub(crate) commands: u64,
    pub(crate) peak_connections: u32,
}

#[derive(Debug)]
struct QueuedWaiter<W> {
    waiter_id: WaiterId,
    since: Instant,
    who: W,
}

/// The state of one host. `W` is whatever identifies a waiter to the caller.
#[derive(Debug)]
pub(crate) struct HostState<W> {
    config: GroupConfig,
    learned: u32,
    /// As far as the learned limit may rise again.
    most: u32,
    learned_at: Option<Instant>,
    connections: Connections,
    waiters: VecDeque<QueuedWaiter<W>>,
    /// Sessions that streams hold, on connections in service or not.
    held: u32,
    /// Callers who wait and hold streams.
    urgent: u32,
    last_waiter_id: u64,
    connecting: u32,
    replacement: Replacement,
    connect_not_before: Option<Instant>,
    wake_at: Option<Instant>,
    /// When answers are looked for next.
    watch_at: Option<Instant>,
    closed: bool,
    /// Score of unused session channels that the server closed.
    unused_close_score: u32,
    stall_clock: StallClock,
    counters: Counters,
    effects: Vec<Effect>,
}

/// What an idle channel that the server closes adds to the score; one that is used takes one off.
const UNUSED_CLOSE_PENALTY: u32 = 2;
/// From this score on no idle channels are opened. dropbear closes every unused session channel
/// when the process of another one ends.
const UNUSED_CLOSE_LIMIT: u32 = 6;

/// A connection is replaced after this many channels that we closed first: a quarter of a megabyte
/// in the transport.
const WORN: u32 = 64;

impl<W> HostState<W> {
    pub(crate) fn new(config: GroupConfig) -> Self {
        Self {
            learned: config.sessions,
            most: config.sessions,
            config,
            learned_at: None,
            connections: Connections::default(),
            waiters: VecDeque::new(),
            held: 0,
            urgent: 0,
            last_waiter_id: 0,
            connecting: 0,
            replacement: Replacement::default(),
            connect_not_before: None,
            wake_at: None,
            watch_at: None,
            closed: false,
            unused_close_score: 0,
            stall_clock: StallClock::default(),
            counters: Counters::default(),
            effects: Vec::new(),
        }
    }

    /// The effects that the transitions so far have left behind.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    // ── waiters ──────────────────────────────────────────────────────────────────────────────

    /// The next place in the queue, for a caller who comes to it later.
    pub(crate) fn next_waiter_id(&mut self) -> WaiterId {
        self.last_waiter_id += 1;
        WaiterId(self.last_waiter_id)
    }

    /// A caller wants a channel and found none idle.
    pub(crate) fn wait(&mut self, who: W, now: Instant) -> WaiterId {
        let waiter_id = self.next_waiter_id();
        self.wait_in_turn(waiter_id, who, now)
    }

    /// The same for a caller that has an id: callers that had to wait before may arrive in any
    /// order.
    pub(crate) fn wait_in_turn(&mut self, waiter_id: WaiterId, who: W, now: Instant) -> WaiterId {
        let position = self.waiters.partition_point(|w| w.waiter_id < waiter_id);
        let since = now;
        self.waiters.insert(
            position,
            QueuedWaiter {
                waiter_id,
                since,
                who,
            },
        );
        self.schedule(now);
        waiter_id
    }

    /// A waiter has gone. What was started for it goes to the next one, or becomes idle.
    pub(crate) fn abandon(&mut self, waiter_id: WaiterId) {
        // Ids grow along the queue.
        let position = self
            .waiters
            .binary_search_by_key(&waiter_id, |w| w.waiter_id);
        if let Ok(position) = position {
            self.waiters.remove(position);
        }
    }

    /// Removes all waiters from the queue, to fail them.
    pub(crate) fn dismiss(&mut self) -> Vec<W> {
        self.waiters.drain(..).map(|waiter| waiter.who).collect()
    }

    // ── dials ────────────────────────────────────────────────────────────────────────────────

    /// This server is known to handle no more than `sessions` on a connection.
    pub(crate) fn restrict(&mut self, sessions: u32) {
        self.most = self.most.min(sessions);
        self.learn(self.learned.min(sessions));
    }

    /// A dial has succeeded.
    pub(crate) fn connected(&mut self, id: ConnectionId, now: Instant, retire_at: Instant) {
        self.connecting = self.connecting.saturating_sub(1);
        self.connect_not_before = None;
        self.add(id, ConnectionState::new(self.closed, now, retire_at));
        self.succeed(now);
        self.leave_if_unused(id);
        self.schedule(now);
    }

    fn add(&mut self, id: ConnectionId, sessions: ConnectionState) {
        self.counters.dials += 1;
        self.connections.insert(id, sessions);
        let all = u32::try_from(self.connections.len()).unwrap_or(u32::MAX);
        self.counters.peak_connections = self.counters.peak_connections.max(all);
    }

    /// A dial has failed; the next one waits until `not_before`. Returns the waiters to tell: none
    /// if the failure is retried, or while another connection may serve them.
    pub(crate) fn connect_failed(
        &mut self,
        now: Instant,
        not_before: Instant,
        try_again: bool,
    ) -> Vec<W> {
        self.counters.failed_dials += 1;
        self.no_connect(now, not_before, try_again)
    }

    /// A dial that was asked for may not be made before `until`, or was not because of what has been
    /// forgotten since. Returns the waiters to tell.
    pub(crate) fn connect_refused(
        &mut self,
        now: Instant,
        until: Instant,
        forgotten: bool,
    ) -> Vec<W> {
        let until = if forgotten { now } else { until };
        self.no_connect(now, until, forgotten)
    }

    fn no_connect(&mut self, now: Instant, not_before: Instant, try_again: bool) -> Vec<W> {
        self.connecting = self.connecting.saturating_sub(1);
        self.replacement.no_connect();
        self.pause_connects(now, not_before, try_again)
    }

    /// No dial before then. Returns the waiters to tell.
    fn pause_connects(&mut self, now: Instant, not_before: Instant, try_again: bool) -> Vec<W> {
        self.connect_not_before = Some(not_before);
        let told = if try_again || self.connecting > 0 || self.live() > 0 {
            Vec::new()
        } else {
            self.dismiss()
        };
        self.schedule(now);
        told
    }

    /// The dial that was asked for goes out now. Returns how often the host was evicted before.
    /// `None`: the dial is no longer needed, and is not made.
    pub(crate) fn begin_connect(&mut self) -> Option<u64> {
        let wanted = self.wants_connect();
        self.connecting = self.connecting.saturating_sub(u32::from(!wanted));
        wanted.then(|| self.evictions())
    }

    // ── channels ─────────────────────────────────────────────────────────────────────────────

    /// The server granted an open.
    pub(crate) fn opened(
        &mut self,
        id: ConnectionId,
        close_seq: CloseSeq,
        now: Instant,
    ) -> Handoff<W> {
        self.counters.opens += 1;
        let Some(connection) = self.connections.get_mut(id) else {
            return Handoff::Discard;
        };
        connection.granted(close_seq, now);
        let handoff = self.hand_off(id);
        self.schedule(now);
        handoff
    }

    /// The server refused an open.
    pub(crate) fn refused(
        &mut self,
        id: ConnectionId,
        close_seq: CloseSeq,
        now: Instant,
    ) -> RefusalOutcome<W> {
        self.counters.refused_opens += 1;
        let Some(connection) = self.connections.get_mut(id) else {
            return RefusalOutcome::Absorbed;
        };
        let mut refusal = RefusalOutcome::Absorbed;
        match connection.refused(close_seq, self.learned, now) {
            OpenRefusal::Retry => {}
            OpenRefusal::Limit(limit) => {
                self.learn(limit);
                self.learned_at = Some(now);
            }
            OpenRefusal::Broken => self.retire(id, Retirement::Refused, now),
            OpenRefusal::NoSessions => {
                self.stop_serving(id, Retirement::Refused, now);
                // Where another one serves them, they wait for that.
                refusal = RefusalOutcome::Hard(match self.live() {
                    0 => self.dismiss(),
                    _ => Vec::new(),
                });
            }
        }
        self.schedule(now);
        refusal
    }

    fn learn(&mut self, sessions: u32) {
        if sessions != self.learned {
            self.learned = sessions;
            self.effects
                .push(Effect::Report(StateEvent::Learned(sessions)));
        }
    }

    /// An open came to nothing because its connection is going: `died` follows.
    pub(crate) fn open_lost(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.opening = connection.opening.saturating_sub(1);
        }
    }

    /// An idle channel is taken for a command. `false`: its connection takes no new commands. The
    /// time is asked for when something may follow from it.
    #[must_use]
    pub(crate) fn claim(&mut self, id: ConnectionId, now: impl FnOnce() -> Instant) -> bool {
        let claimed = self.connections.get_mut(id).is_some_and(|connection| {
            connection.idle = connection.idle.saturating_sub(1);
            if !connection.retiring {
                connection.in_use += 1;
            }
            !connection.retiring
        });
        if claimed {
            self.counters.commands += 1;
            self.unused_close_score = self
                .unused_close_score
                .saturating_sub(u32::from(self.unused_close_score < UNUSED_CLOSE_LIMIT));
            if !self.is_calm() {
                self.schedule(now());
            }
        }
        claimed
    }

    /// A channel came back unused, from a channel guard or from the idle ones: it is as good as
    /// new.
    pub(crate) fn returned(&mut self, id: ConnectionId, in_use: bool, now: Instant) -> Handoff<W> {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.release(in_use);
            if in_use {
                connection.set_idle(now);
                self.counters.commands = self.counters.commands.saturating_sub(1);
            }
        }
        // An expired one may go here and now.
        self.replace_expired(now);
        let handoff = self.hand_off(id);
        self.leave_if_unused(id);
        // Usually nothing follows from it, and this is half of the way of every warm command.
        if !matches!(handoff, Handoff::Idle) || !self.is_calm() {
            self.schedule(now);
        }
        handoff
    }

    /// The peer's CLOSE of a channel has been seen, and ours is on its way.
    pub(crate) fn closed(&mut self, id: ConnectionId, in_use: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.release(in_use);
        connection.begin_release();
        if in_use {
            connection.set_idle(now);
        } else {
            self.unused_close_score = self.unused_close_score.saturating_add(UNUSED_CLOSE_PENALTY);
        }
        self.leave_if_unused(id);
        self.schedule(now);
    }

    /// We closed a channel before the peer did, and the transport will not tell us when the server
    /// frees that slot. A `settled` one it frees at once, so a round trip proves it. Any other may
    /// be kept for as long as its process lives, so it counts as taken until the connection is
    /// replaced.
    pub(crate) fn closed_here(
        &mut self,
        id: ConnectionId,
        in_use: bool,
        settled: bool,
        now: Instant,
    ) {
        if self.wear(id) || !settled {
            self.wear_out(id);
        }
        if settled {
            self.closed(id, in_use, now);
            return;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.release(in_use);
            connection.lost += 1;
            if in_use {
                connection.set_idle(now);
            }
        }
        self.leave_if_unused(id);
        self.schedule(now);
    }

    /// The transport keeps an entry for every channel that we closed first: after many of them a
    /// connection is replaced.
    fn wear(&mut self, id: ConnectionId) -> bool {
        self.connections.get_mut(id).is_some_and(|connection| {
            connection.closed_here += 1;
            connection.closed_here >= WORN
        })
    }

    /// A round trip that began at `close_seq` is complete.
    pub(crate) fn pinged(&mut self, id: ConnectionId, close_seq: CloseSeq, now: Instant) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.end_ping(close_seq, now);
        }
        self.schedule(now);
    }

    // ── connections ──────────────────────────────────────────────────────────────────────────

    /// No new work from now on. Returns the waiters to tell; what runs may finish.
    pub(crate) fn close(&mut self, now: Instant) -> Vec<W> {
        self.closed = true;
        self.evict(Retirement::PoolClosed, now);
        self.dismiss()
    }

    /// Schedules again: a channel has become idle since a caller began to wait.
    pub(crate) fn wake_waiters(&mut self, now: Instant) {
        self.schedule(now);
    }

    /// A `WakeAt` is due.
    pub(crate) fn wake(&mut self, now: Instant) {
        // Of two alarms the other is still to come.
        self.wake_at = self.wake_at.filter(|at| *at > now);
        self.watch_at = self.watch_at.filter(|at| *at > now);
        self.schedule(now);
    }

    // ── what others may know ─────────────────────────────────────────────────────────────────

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn learned(&self) -> u32 {
        self.learned
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn connecting(&self) -> u32 {
        self.connecting
    }

    /// The connections that take new commands.
    pub(crate) fn alive(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.connections
            .iter()
            .filter(|(_, c)| !c.retiring)
            .map(|(id, _)| id)
    }

    /// Connections that take new commands.
    pub(crate) fn live(&self) -> u32 {
        u32::try_from(self.alive().count()).unwrap_or(u32::MAX)
    }

    /// Nothing is connected, under way or waited for.
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.connecting == 0 && self.waiters.is_empty()
    }

    pub(crate) fn session_counts(&self) -> impl Iterator<Item = SessionCounts> + '_ {
        self.connections.iter().map(|(id, c)| c.counts(id))
    }
}

#[cfg(any(test, feature = "internals"))]
pub(crate) mod model_tests;
#[cfg(test)]
mod replacement_tests;
#[cfg(test)]
mod tests;
