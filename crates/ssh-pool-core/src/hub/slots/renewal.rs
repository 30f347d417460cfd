//! When a connection goes, and what takes its place.
//!
//! A connection that is old or worn is *due*: it serves on until another one is there, if anybody
//! would miss it.
//!
//! ```text
//!   in service ──▶ due ── a successor is dialled; it has connected ──▶ retiring ──▶ gone
//!       │           ├──── nothing runs on the host ──────────────────────▶ ▲    when the last
//!       │           └──── the dial fails: it stays, and another is tried   │   command has ended
//!       └── idle, evicted, refused, pool closed ───────────────────────────┘
//! ```
//!
//! One successor at a time, and none while a connection that was retired lately is still there: so
//! there is at most one more than `Rules::connections`. Where a command goes on for longer than
//! `Rules::drain`, its connection is not waited for.

use std::time::{Duration, Instant};

use super::super::sessions::Sessions;
use super::{Action, ConnectionId, Fact, Slots};
use crate::event::Retirement;

/// A host is busy for so long after a command has ended: between two commands of a caller who runs
/// one after the other, nothing runs.
const LULL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// One of the dials is for a successor.
    dialling: bool,
    /// One of the dials is for nobody who waits.
    unasked: bool,
    /// A host that was in use has been evicted: its next connection is dialled without being
    /// asked for.
    owed: bool,
    /// How often the host was evicted.
    evictions: u64,
}

impl Renewal {
    /// A dial has ended: the others are for those who wait.
    pub(super) fn no_dial(&mut self) {
        self.dialling = false;
        self.unasked = false;
    }
}

impl<W> Slots<W> {
    /// Time has passed: connections grow old or idle, and limits creep back up.
    pub(crate) fn tick(&mut self, now: Instant) {
        let idle = self.rules.idle;
        let mut idlers = Vec::new();
        for (id, c) in self.connections.iter_mut().filter(|(_, c)| !c.retiring) {
            if c.is_unused() && c.opening == 0 && now >= c.idle_since + idle {
                idlers.push(id);
            } else if now >= c.retire_at {
                c.due.get_or_insert(Retirement::Lifetime);
            }
        }
        for id in idlers {
            self.stop_serving(id, Retirement::Idle, now);
        }
        self.pump(now);
    }

    /// No new commands on this connection; goodbye when the last one has finished.
    pub(crate) fn retire(&mut self, id: ConnectionId, why: Retirement, now: Instant) {
        self.stop_serving(id, why, now);
        self.pump(now);
    }

    /// This connection is worn: it goes as soon as it is not needed.
    pub(super) fn wear_out(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.due.get_or_insert(Retirement::Worn);
        }
    }

    /// A dial may be made at once, whatever has failed.
    pub(crate) fn forget_pause(&mut self, now: Instant) {
        self.dial_not_before = None;
        self.pump(now);
    }

    /// Retires every connection, and forgets what was learned from them. What is being dialled is
    /// of the past, too: see [`dialled_before_evict`](Self::dialled_before_evict).
    pub(crate) fn evict(&mut self, why: Retirement, now: Instant) {
        self.dial_not_before = None;
        self.renewal = Renewal {
            dialling: false,
            unasked: false,
            owed: self.is_owed_a_successor(),
            evictions: self.renewal.evictions + 1,
        };
        self.forget_server();
        for id in self.connections.ids() {
            self.stop_serving(id, why, now);
        }
        self.pump(now);
    }

    /// The host has another address, where the dials that are under way go. The connections to the
    /// old one retire, and what was learned from them is forgotten.
    pub(crate) fn change_address(&mut self, old: &[ConnectionId], now: Instant) {
        if old.is_empty() {
            return;
        }
        self.renewal.owed |= self.is_owed_a_successor();
        self.forget_server();
        for id in old {
            self.stop_serving(*id, Retirement::AddressChanged, now);
        }
        self.pump(now);
    }

    /// What was learned may not hold for the next connection.
    fn forget_server(&mut self) {
        self.learned = self.rules.sessions;
        self.most = self.rules.sessions;
        self.learned_at = None;
        self.dislike = 0;
    }

    /// Whether a connection is to be dialled for a host whose connections retire all at once. A
    /// connection that is one command's has no successor, and after the end there is none.
    fn is_owed_a_successor(&self) -> bool {
        !self.closed && !self.rules.ready_each && self.is_in_use()
    }

    /// How often this host was evicted: a dial that began at another count is of the past.
    pub(crate) fn evictions(&self) -> u64 {
        self.renewal.evictions
    }

    /// A dial that began before an evict has succeeded, maybe with a login of then: nobody gets it.
    pub(crate) fn dialled_before_evict(&mut self, id: ConnectionId, now: Instant) {
        self.dialling = self.dialling.saturating_sub(1);
        self.add(id, Sessions::new(false, now, now));
        let why = if self.closed {
            Retirement::PoolClosed
        } else {
            Retirement::Evicted
        };
        self.retire(id, why, now);
    }

    pub(super) fn stop_serving(&mut self, id: ConnectionId, why: Retirement, now: Instant) {
        if let Some(connection) = self.connections.get_mut(id) {
            if !connection.retiring {
                connection.retiring = true;
                connection.retired_at = now;
                self.actions.push(Action::Report(Fact::Retired(id, why)));
                if connection.leased > 0 {
                    self.actions.push(Action::Widen);
                }
            }
            if connection.ready > 0 {
                self.actions.push(Action::Sweep);
            }
        }
        self.leave_if_unused(id);
    }

    /// How many channels there may be: in service, and what still runs on connections that are not.
    pub(crate) fn channels_at_most(&self) -> u32 {
        let retiring = self.connections.values().filter(|c| c.retiring);
        let leased: u32 = retiring.map(|c| c.leased).sum();
        let in_service = self
            .connections_at_most()
            .saturating_mul(self.rules.sessions);
        in_service.saturating_add(leased)
    }

    pub(super) fn leave_if_unused(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.retiring
            && connection.is_unused()
            && !connection.leaving
        {
            connection.leaving = true;
            self.actions.push(Action::Disconnect(id));
        }
    }

    /// What is due goes, or gets a successor.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.renewal.owed && self.may_dial_unasked(now) {
            self.renewal.owed = false;
            if self.live() == 0 {
                self.renewal.unasked = true;
                self.dial_one();
            }
        }
        if !self.has_due() && !self.renewal.dialling {
            return;
        }
        let busy = self.is_busy(now);
        // While a successor is dialled, or the host cannot be reached, a command may come that needs
        // what there is.
        let kept = busy || self.renewal.dialling || self.dial_not_before.is_some();
        // Where a connection is one command's, it goes at the end of that, and demand dials.
        let alone = self.rules.ready_each;
        let learned = self.learned;
        let free: Vec<_> = (self.connections.iter())
            .filter(|(_, c)| c.is_unused() && (alone || !kept || c.lost >= learned))
            .filter_map(|(id, c)| Some((id, c.due_for()?)))
            .collect();
        for (id, why) in free {
            self.stop_serving(id, why, now);
        }
        if !self.has_due() {
            self.renewal.no_dial();
        } else if busy && !alone && self.may_dial_unasked(now) && !self.is_draining(now) {
            self.renewal.dialling = true;
            self.renewal.unasked = true;
            self.dial_one();
        }
    }

    /// A successor has connected: the oldest of those that are due goes.
    pub(super) fn succeed(&mut self, now: Instant) {
        let succeeds = self.renewal.dialling;
        self.renewal.no_dial();
        if succeeds {
            let oldest = (self.connections.iter()).find_map(|(id, c)| Some((id, c.due_for()?)));
            if let Some((id, why)) = oldest {
                self.stop_serving(id, why, now);
            }
        }
    }

    /// Dials for those who wait, without the one for a successor: that one may be one too many.
    pub(super) fn dials_for_waiters(&self) -> u32 {
        self.dialling
            .saturating_sub(u32::from(self.renewal.dialling))
    }

    /// Somebody waits, or a dial was asked for though nobody may be waiting.
    pub(crate) fn wants_dial(&self) -> bool {
        !self.waiters.is_empty() || self.renewal.unasked
    }

    /// The books have nothing to replace.
    pub(super) fn is_settled(&self) -> bool {
        !self.renewal.owed && !self.has_due()
    }

    /// Whether nothing new goes to this connection. One that is a single command's and due goes at
    /// the end of that; another one that is due serves on until its successor is there.
    pub(crate) fn is_retiring(&self, id: ConnectionId) -> bool {
        let going = |c: &Sessions| c.retiring || (self.rules.ready_each && c.due.is_some());
        self.connections.get(id).is_none_or(going)
    }

    pub(super) fn has_due(&self) -> bool {
        self.connections.values().any(|c| c.due_for().is_some())
    }

    /// Nobody waits for this dial: others go first, and pauses are kept.
    fn may_dial_unasked(&self, now: Instant) -> bool {
        self.dialling == 0 && self.dial_not_before.is_none_or(|t| now >= t)
    }

    fn is_in_use(&self) -> bool {
        !self.waiters.is_empty() || self.connections.values().any(|c| !c.is_unused())
    }

    /// It is in use, or was until a moment ago.
    fn is_busy(&self, now: Instant) -> bool {
        let lull = |c: &Sessions| c.used && now.saturating_duration_since(c.idle_since) < LULL;
        self.is_in_use() || self.connections.values().any(lull)
    }

    /// A connection that was retired lately is still there.
    fn is_draining(&self, now: Instant) -> bool {
        let drain = self.rules.drain;
        let lately = |c: &Sessions| now.saturating_duration_since(c.retired_at) < drain;
        (self.connections.values()).any(|c| c.retiring && lately(c))
    }
}
