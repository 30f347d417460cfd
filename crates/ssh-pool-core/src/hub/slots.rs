//! What the pool knows about one host's connections, and every decision that follows from it.
//!
//! Plain state: no I/O, no clock of its own, no tokio. Each thing that happens is one method; it
//! updates the counts and leaves [`Action`]s behind, which the caller takes under the same lock
//! and carries out after it. That is what makes the decisions here testable by themselves.
//!
//! A session slot of a connection goes round like this (RFC 4254, section 5):
//!
//! ```text
//!            OPEN sent        confirmed            taken by a command     peer's CLOSE seen
//!   room ───▶ opening ───────▶ ready (a spare) ───▶ leased ──────────────▶ cooling ───▶ room
//!                │ refused                                                    ▲
//!                ▼                                        one round trip proves that
//!              room                                       the server has freed it
//! ```
//!
//! A slot cools because sshd frees a session only after it has worked off its whole input
//! buffer: a CLOSE and the next OPEN in one segment are refused every time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::sessions::{Lesson, Mark, Sessions, View};
use crate::event::Retirement;

mod connections;
mod ends;
mod holds;
mod idle;
mod meter;
mod overdue;
mod pump;
mod renewal;
mod streams;

use connections::Connections;
use meter::Meter;
pub(crate) use meter::Reading;
use renewal::Renewal;

/// One connection, for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// A waiter's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The rules, from `Limits` and `Timeouts`.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Connections that take new commands, at most.
    pub(crate) connections: u32,
    /// So many more at most, in the place of connections whose sessions streams hold.
    pub(crate) held_connections: u32,
    /// And so many more of those, while a caller waits who holds streams.
    pub(crate) urgent_connections: u32,
    /// Where the session limit starts, and how far it may creep back up.
    pub(crate) sessions: u32,
    /// Streams on one connection, at most.
    pub(crate) streams: u32,
    /// Dials in flight at once, at most.
    pub(crate) handshakes: u32,
    /// How long the oldest waiter waits on live connections before another one is dialled.
    pub(crate) patience: Duration,
    /// A connection that ran nothing for this long is closed.
    pub(crate) idle: Duration,
    /// After this long without a refusal the learned limit creeps up by one.
    pub(crate) recovery: Duration,
    /// A retired connection that is still there after so long holds up no renewal.
    pub(crate) drain: Duration,
    /// How long a connection may owe an answer that somebody waits for.
    pub(crate) check: Duration,
    /// Every connection that is free has a channel ready, not only one of a busy host: where a
    /// connection is one channel, the next one would else cost a round trip to see the last one's
    /// slot free, and another to open it.
    pub(crate) ready_each: bool,
}

/// What the caller of a transition has to do next, outside the lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial one connection.
    Dial,
    /// Open a session channel, asked for now; report `opened` or `refused` with this mark.
    Open {
        on: ConnectionId,
        mark: Mark,
        since: Instant,
    },
    /// Make one round trip; report `pinged` with this mark.
    Ping { on: ConnectionId, mark: Mark },
    /// Somebody waits while spares lie idle: hand them over.
    Reclaim,
    /// Throw out spares of connections that are gone or retiring.
    Sweep,
    /// Commands run on connections that are retiring: they take no place away from those on others.
    Widen,
    /// This connection owes an answer that somebody waits for: retire it, unless something else
    /// was heard from it meanwhile.
    Suspect(ConnectionId),
    /// Say goodbye to a connection that nobody uses.
    Disconnect(ConnectionId),
    /// Call `wake` at this time.
    WakeAt(Instant),
    /// Tell whoever wants to know.
    Report(Fact),
}

/// Something that whoever watches a pool may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    Learned(u32),
    Retired(ConnectionId, Retirement),
}

/// Where an opened channel goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hand<W> {
    /// To this waiter; it is leased from now on.
    To(W),
    /// Nobody waits: it is a spare.
    Spare,
    /// Its connection is on the way out: forget it.
    Discard,
}

/// What a refused open means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal<W> {
    /// The queue takes care of it; the caller never sees it.
    Absorbed,
    /// The server takes no session at all: tell all of these.
    Hard(Vec<W>),
}

/// Counts for the status; totals since the host was first used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) dials: u64,
    pub(crate) failed_dials: u64,
    pub(crate) opens: u64,
    pub(crate) refused_opens: u64,
    pub(crate) commands: u64,
    pub(crate) peak_connections: u32,
}

#[derive(Debug)]
struct Waiter<W> {
    ticket: Ticket,
    since: Instant,
    who: W,
}

/// The books of one host. `W` is whatever identifies a waiter to the caller.
#[derive(Debug)]
pub(crate) struct Slots<W> {
    rules: Rules,
    learned: u32,
    /// As far as the learned limit may creep back up.
    most: u32,
    learned_at: Option<Instant>,
    connections: Connections,
    waiters: VecDeque<Waiter<W>>,
    /// Sessions that streams hold, on connections in service or not.
    held: u32,
    /// Callers who wait and hold streams.
    urgent: u32,
    tickets: u64,
    dialling: u32,
    renewal: Renewal,
    dial_not_before: Option<Instant>,
    wake_at: Option<Instant>,
    /// When answers are looked for next.
    watch_at: Option<Instant>,
    closed: bool,
    /// How much the server dislikes unused session channels.
    dislike: u32,
    meter: Meter,
    tally: Tally,
    actions: Vec<Action>,
}

/// What a spare that the server closes adds to the dislike; one that is used takes one off.
const DEAD_SPARE: u32 = 2;
/// From this dislike on no spares are opened. dropbear closes every unused session channel when
/// the process of another one ends.
const NO_SPARES: u32 = 6;

/// After so many channels that we closed first a connection is replaced: a quarter of a megabyte
/// in the transport.
const WORN: u32 = 64;

impl<W> Slots<W> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            learned: rules.sessions,
            most: rules.sessions,
            rules,
            learned_at: None,
            connections: Connections::default(),
            waiters: VecDeque::new(),
            held: 0,
            urgent: 0,
            tickets: 0,
            dialling: 0,
            renewal: Renewal::default(),
            dial_not_before: None,
            wake_at: None,
            watch_at: None,
            closed: false,
            dislike: 0,
            meter: Meter::default(),
            tally: Tally::default(),
            actions: Vec::new(),
        }
    }

    /// The actions that the transitions so far have left behind.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    // ── waiters ──────────────────────────────────────────────────────────────────────────────

    /// The next place in the queue, for a caller who comes to it later.
    pub(crate) fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// A caller wants a channel and found no spare.
    pub(crate) fn wait(&mut self, who: W, now: Instant) -> Ticket {
        let ticket = self.next_ticket();
        self.wait_in_turn(ticket, who, now)
    }

    /// The same for one who has a ticket: those who had to wait before they could come here may
    /// come in any order.
    pub(crate) fn wait_in_turn(&mut self, ticket: Ticket, who: W, now: Instant) -> Ticket {
        let place = self.waiters.partition_point(|w| w.ticket < ticket);
        let since = now;
        self.waiters.insert(place, Waiter { ticket, since, who });
        self.pump(now);
        ticket
    }

    /// A waiter has gone. What was started for it goes to the next one, or becomes a spare.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        // Tickets grow along the queue.
        let place = self.waiters.binary_search_by_key(&ticket, |w| w.ticket);
        if let Ok(place) = place {
            self.waiters.remove(place);
        }
    }

    /// Takes everybody out of the queue, to tell them that it is over.
    pub(crate) fn dismiss(&mut self) -> Vec<W> {
        self.waiters.drain(..).map(|waiter| waiter.who).collect()
    }

    // ── dials ────────────────────────────────────────────────────────────────────────────────

    /// This server is known to handle no more than so many sessions on a connection.
    pub(crate) fn restrict(&mut self, sessions: u32) {
        self.most = self.most.min(sessions);
        self.learn(self.learned.min(sessions));
    }

    /// A dial has succeeded.
    pub(crate) fn dialled(&mut self, id: ConnectionId, now: Instant, retire_at: Instant) {
        self.dialling = self.dialling.saturating_sub(1);
        self.dial_not_before = None;
        self.add(id, Sessions::new(self.closed, now, retire_at));
        self.succeed(now);
        self.leave_if_unused(id);
        self.pump(now);
    }

    fn add(&mut self, id: ConnectionId, sessions: Sessions) {
        self.tally.dials += 1;
        self.connections.insert(id, sessions);
        let all = u32::try_from(self.connections.len()).unwrap_or(u32::MAX);
        self.tally.peak_connections = self.tally.peak_connections.max(all);
    }

    /// A dial has failed; the next one waits until `not_before`. Returns the waiters to tell:
    /// nobody if the failure is worth another try, or while another connection may serve them.
    pub(crate) fn dial_failed(
        &mut self,
        now: Instant,
        not_before: Instant,
        try_again: bool,
    ) -> Vec<W> {
        self.tally.failed_dials += 1;
        self.no_dial(now, not_before, try_again)
    }

    /// A dial that was asked for may not be made before `until`, or was not because of what has been
    /// forgotten since. Returns the waiters to tell.
    pub(crate) fn dial_refused(&mut self, now: Instant, until: Instant, forgotten: bool) -> Vec<W> {
        let until = if forgotten { now } else { until };
        self.no_dial(now, until, forgotten)
    }

    fn no_dial(&mut self, now: Instant, not_before: Instant, try_again: bool) -> Vec<W> {
        self.dialling = self.dialling.saturating_sub(1);
        self.renewal.no_dial();
        self.pause_dials(now, not_before, try_again)
    }

    /// No dial before then. Returns the waiters to tell.
    fn pause_dials(&mut self, now: Instant, not_before: Instant, try_again: bool) -> Vec<W> {
        self.dial_not_before = Some(not_before);
        let told = if try_again || self.dialling > 0 || self.live() > 0 {
            Vec::new()
        } else {
            self.dismiss()
        };
        self.pump(now);
        told
    }

    /// The dial that was asked for goes out now, when the host has been evicted so often. `None`:
    /// nobody needs it any more, and it does not.
    pub(crate) fn begin_dial(&mut self) -> Option<u64> {
        let wanted = self.wants_dial();
        self.dialling = self.dialling.saturating_sub(u32::from(!wanted));
        wanted.then(|| self.evictions())
    }

    // ── channels ─────────────────────────────────────────────────────────────────────────────

    /// The server granted an open.
    pub(crate) fn opened(&mut self, id: ConnectionId, mark: Mark, now: Instant) -> Hand<W> {
        self.tally.opens += 1;
        let Some(connection) = self.connections.get_mut(id) else {
            return Hand::Discard;
        };
        connection.granted(mark, now);
        let hand = self.hand(id);
        self.pump(now);
        hand
    }

    /// The server refused an open.
    pub(crate) fn refused(&mut self, id: ConnectionId, mark: Mark, now: Instant) -> Refusal<W> {
        self.tally.refused_opens += 1;
        let Some(connection) = self.connections.get_mut(id) else {
            return Refusal::Absorbed;
        };
        let mut refusal = Refusal::Absorbed;
        match connection.refused(mark, self.learned, now) {
            Lesson::Retry => {}
            Lesson::Limit(limit) => {
                self.learn(limit);
                self.learned_at = Some(now);
            }
            Lesson::Broken => self.retire(id, Retirement::Refused, now),
            Lesson::NoSessions => {
                self.stop_serving(id, Retirement::Refused, now);
                // Where another one serves them, they wait for that.
                refusal = Refusal::Hard(match self.live() {
                    0 => self.dismiss(),
                    _ => Vec::new(),
                });
            }
        }
        self.pump(now);
        refusal
    }

    fn learn(&mut self, sessions: u32) {
        if sessions != self.learned {
            self.learned = sessions;
            self.actions.push(Action::Report(Fact::Learned(sessions)));
        }
    }

    /// An open came to nothing because its connection is going: `died` follows.
    pub(crate) fn open_lost(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.opening = connection.opening.saturating_sub(1);
        }
    }

    /// A spare is taken for a command. `false`: its connection takes no new commands. The time is
    /// asked for when something may follow from it.
    #[must_use]
    pub(crate) fn claim(&mut self, id: ConnectionId, now: impl FnOnce() -> Instant) -> bool {
        let claimed = self.connections.get_mut(id).is_some_and(|connection| {
            connection.ready = connection.ready.saturating_sub(1);
            if !connection.retiring {
                connection.leased += 1;
            }
            !connection.retiring
        });
        if claimed {
            self.tally.commands += 1;
            self.dislike = self
                .dislike
                .saturating_sub(u32::from(self.dislike < NO_SPARES));
            if !self.is_calm() {
                self.pump(now());
            }
        }
        claimed
    }

    /// A channel came back unused, from a lease or from the idle ones: it is as good as new.
    pub(crate) fn returned(&mut self, id: ConnectionId, leased: bool, now: Instant) -> Hand<W> {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.release(leased);
            if leased {
                connection.rest(now);
                self.tally.commands = self.tally.commands.saturating_sub(1);
            }
        }
        // One that is due may go here and now.
        self.renew(now);
        let hand = self.hand(id);
        self.leave_if_unused(id);
        // As a rule nothing follows from it, and this is half of the way of every warm command.
        if !matches!(hand, Hand::Spare) || !self.is_calm() {
            self.pump(now);
        }
        hand
    }

    /// The peer's CLOSE of a channel has been seen, and ours is on its way.
    pub(crate) fn closed(&mut self, id: ConnectionId, leased: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.release(leased);
        connection.cool();
        if leased {
            connection.rest(now);
        } else {
            self.dislike = self.dislike.saturating_add(DEAD_SPARE);
        }
        self.leave_if_unused(id);
        self.pump(now);
    }

    /// We closed a channel before the peer did, and the transport will not tell us when the server
    /// frees that slot. A `settled` one it frees at once, so a round trip proves it. Any other may
    /// be kept for as long as its process lives, so it counts as taken until the connection is
    /// replaced.
    pub(crate) fn closed_here(
        &mut self,
        id: ConnectionId,
        leased: bool,
        settled: bool,
        now: Instant,
    ) {
        if self.wear(id) || !settled {
            self.wear_out(id);
        }
        if settled {
            self.closed(id, leased, now);
            return;
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.release(leased);
            connection.lost += 1;
            if leased {
                connection.rest(now);
            }
        }
        self.leave_if_unused(id);
        self.pump(now);
    }

    /// The transport keeps an entry for every channel that we closed first: after many of them a
    /// connection is replaced.
    fn wear(&mut self, id: ConnectionId) -> bool {
        self.connections.get_mut(id).is_some_and(|connection| {
            connection.closed_here += 1;
            connection.closed_here >= WORN
        })
    }

    /// A round trip that began at `mark` is complete.
    pub(crate) fn pinged(&mut self, id: ConnectionId, mark: Mark, now: Instant) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.end_ping(mark, now);
        }
        self.pump(now);
    }

    // ── connections ──────────────────────────────────────────────────────────────────────────

    /// No new work from now on. Returns the waiters to tell; what runs may finish.
    pub(crate) fn close(&mut self, now: Instant) -> Vec<W> {
        self.closed = true;
        self.evict(Retirement::PoolClosed, now);
        self.dismiss()
    }

    /// Looks again: a channel has been put among the idle ones since somebody began to wait.
    pub(crate) fn wake_waiters(&mut self, now: Instant) {
        self.pump(now);
    }

    /// A `WakeAt` is due.
    pub(crate) fn wake(&mut self, now: Instant) {
        // Of two alarms the other is still to come.
        self.wake_at = self.wake_at.filter(|at| *at > now);
        self.watch_at = self.watch_at.filter(|at| *at > now);
        self.pump(now);
    }

    // ── what others may know ─────────────────────────────────────────────────────────────────

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn learned(&self) -> u32 {
        self.learned
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn dialling(&self) -> u32 {
        self.dialling
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
        self.connections.is_empty() && self.dialling == 0 && self.waiters.is_empty()
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = View> + '_ {
        self.connections.iter().map(|(id, c)| c.view(id))
    }
}

#[cfg(test)]
mod renewal_tests;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod stories;
#[cfg(test)]
mod tests;
