//! When a connection goes, and what takes its place.
//!
//! A connection that is old or worn is *expired*: while the host is busy, it stays in service until its
//! successor is there.
//!
//! ```text
//!   in service ──▶ expired ── a successor is dialled; it has connected ──▶ retiring ──▶ gone
//!       │             ├────── nothing runs on the host ────────────────────▶ ▲    when the last
//!       │             └────── the dial fails: it stays, and another is tried │   command has ended
//!       └── idle, evicted, refused, pool closed ─────────────────────────────┘
//! ```
//!
//! One successor at a time, and none while a connection that was retired lately is still there: so
//! there is at most one more than `GroupConfig::connections`. Where a command goes on for longer
//! than `GroupConfig::drain`, its connection is not waited for.

use std::time::{Duration, Instant};

use super::super::connection_state::ConnectionState;
use super::{ConnectionId, Effect, HostState, StateEvent};
use crate::event::Retirement;

/// A host is busy for this long after a command has ended: between two commands of a caller who runs
/// one after the other, nothing runs.
const BUSY_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Replacement {
    /// One of the dials is for a successor.
    connecting: bool,
    /// One of the dials has no waiter.
    unrequested: bool,
    /// A host that was in use has been evicted: its next connection is dialled without being
    /// asked for.
    redial_after_evict: bool,
    /// How often the host was evicted.
    evictions: u64,
}

impl Replacement {
    /// A dial has ended: the others are for those who wait.
    pub(super) fn no_connect(&mut self) {
        self.connecting = false;
        self.unrequested = false;
    }
}

impl<W> HostState<W> {
    /// Time has passed: connections grow old or idle, and limits rise again.
    pub(crate) fn tick(&mut self, now: Instant) {
        let idle = self.config.idle;
        let mut idlers = Vec::new();
        for (id, c) in self.connections.iter_mut().filter(|(_, c)| !c.retiring) {
            if c.is_unused() && c.opening == 0 && now >= c.idle_since + idle {
                idlers.push(id);
            } else if now >= c.retire_at {
                c.expired.get_or_insert(Retirement::Lifetime);
            }
        }
        for id in idlers {
            self.stop_serving(id, Retirement::Idle, now);
        }
        self.schedule(now);
    }

    /// No new commands on this connection; goodbye when the last one has finished.
    pub(crate) fn retire(&mut self, id: ConnectionId, why: Retirement, now: Instant) {
        self.stop_serving(id, why, now);
        self.schedule(now);
    }

    /// This connection is worn: it goes as soon as it is not needed.
    pub(super) fn wear_out(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.expired.get_or_insert(Retirement::Worn);
        }
    }

    /// A dial may be made at once, whatever has failed.
    pub(crate) fn forget_pause(&mut self, now: Instant) {
        self.connect_not_before = None;
        self.schedule(now);
    }

    /// Retires every connection, and forgets what was learned from them. What is being dialled is
    /// of the past, too: see [`connected_before_evict`](Self::connected_before_evict).
    pub(crate) fn evict(&mut self, why: Retirement, now: Instant) {
        self.connect_not_before = None;
        self.replacement = Replacement {
            connecting: false,
            unrequested: false,
            redial_after_evict: self.needs_successor(),
            evictions: self.replacement.evictions + 1,
        };
        self.forget_server();
        for id in self.connections.ids() {
            self.stop_serving(id, why, now);
        }
        self.schedule(now);
    }

    /// The host has another address, where the dials that are under way go. The connections to the
    /// old one retire, and what was learned from them is forgotten.
    pub(crate) fn change_address(&mut self, old: &[ConnectionId], now: Instant) {
        if old.is_empty() {
            return;
        }
        self.replacement.redial_after_evict |= self.needs_successor();
        self.forget_server();
        for id in old {
            self.stop_serving(*id, Retirement::AddressChanged, now);
        }
        self.schedule(now);
    }

    /// What was learned may not hold for the next connection.
    fn forget_server(&mut self) {
        self.learned = self.config.sessions;
        self.most = self.config.sessions;
        self.learned_at = None;
        self.unused_close_score = 0;
    }

    /// Whether a connection is to be dialled for a host whose connections retire all at once. A
    /// connection that is one command's has no successor, and after the end there is none.
    fn needs_successor(&self) -> bool {
        !self.closed && !self.config.idle_each && self.is_in_use()
    }

    /// How often this host was evicted: a dial that began at another count is of the past.
    pub(crate) fn evictions(&self) -> u64 {
        self.replacement.evictions
    }

    /// A dial that began before an evict has succeeded, maybe with an outdated login: its connection is
    /// not used.
    pub(crate) fn connected_before_evict(&mut self, id: ConnectionId, now: Instant) {
        self.connecting = self.connecting.saturating_sub(1);
        self.add(id, ConnectionState::new(false, now, now));
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
                self.effects
                    .push(Effect::Report(StateEvent::Retired(id, why)));
                if connection.in_use > 0 {
                    self.effects.push(Effect::RaiseCapacity);
                }
            }
            if connection.idle > 0 {
                self.effects.push(Effect::DropStaleIdle);
            }
        }
        self.leave_if_unused(id);
    }

    /// How many channels there may be: in service, and what still runs on connections that are not.
    pub(crate) fn channels_at_most(&self) -> u32 {
        let retiring = self.connections.values().filter(|c| c.retiring);
        let in_use: u32 = retiring.map(|c| c.in_use).sum();
        let in_service = self
            .connections_at_most()
            .saturating_mul(self.config.sessions);
        in_service.saturating_add(in_use)
    }

    pub(super) fn leave_if_unused(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.retiring
            && connection.is_unused()
            && !connection.leaving
        {
            connection.leaving = true;
            self.effects.push(Effect::Disconnect(id));
        }
    }

    /// Expired connections go, or get a successor.
    pub(super) fn replace_expired(&mut self, now: Instant) {
        if self.replacement.redial_after_evict && self.may_connect_unrequested(now) {
            self.replacement.redial_after_evict = false;
            if self.live() == 0 {
                self.replacement.unrequested = true;
                self.connect_one();
            }
        }
        if !self.has_expired() && !self.replacement.connecting {
            return;
        }
        let busy = self.is_busy(now);
        // While a successor is dialled, or the host cannot be reached, a command may come that needs
        // what there is.
        let kept = busy || self.replacement.connecting || self.connect_not_before.is_some();
        // Where a connection is one command's, it goes at the end of that, and demand dials.
        let alone = self.config.idle_each;
        let learned = self.learned;
        let free: Vec<_> = (self.connections.iter())
            .filter(|(_, c)| c.is_unused() && (alone || !kept || c.lost >= learned))
            .filter_map(|(id, c)| Some((id, c.expired_for()?)))
            .collect();
        for (id, why) in free {
            self.stop_serving(id, why, now);
        }
        if !self.has_expired() {
            self.replacement.no_connect();
        } else if busy && !alone && self.may_connect_unrequested(now) && !self.is_draining(now) {
            self.replacement.connecting = true;
            self.replacement.unrequested = true;
            self.connect_one();
        }
    }

    /// A successor has connected: the oldest expired connection goes.
    pub(super) fn succeed(&mut self, now: Instant) {
        let succeeds = self.replacement.connecting;
        self.replacement.no_connect();
        if succeeds {
            let oldest = (self.connections.iter()).find_map(|(id, c)| Some((id, c.expired_for()?)));
            if let Some((id, why)) = oldest {
                self.stop_serving(id, why, now);
            }
        }
    }

    /// Dials for those who wait, without the one for a successor: that one may be one too many.
    pub(super) fn connects_for_waiters(&self) -> u32 {
        self.connecting
            .saturating_sub(u32::from(self.replacement.connecting))
    }

    /// A caller waits, or a dial is wanted without a waiter.
    pub(crate) fn wants_connect(&self) -> bool {
        !self.waiters.is_empty() || self.replacement.unrequested
    }

    /// Nothing is to be replaced.
    pub(super) fn is_settled(&self) -> bool {
        !self.replacement.redial_after_evict && !self.has_expired()
    }

    /// Whether nothing new goes to this connection. An expired one goes at the end of its command if
    /// it has only that; else it serves on until its successor is there.
    pub(crate) fn is_retiring(&self, id: ConnectionId) -> bool {
        let going =
            |c: &ConnectionState| c.retiring || (self.config.idle_each && c.expired.is_some());
        self.connections.get(id).is_none_or(going)
    }

    pub(super) fn has_expired(&self) -> bool {
        self.connections.values().any(|c| c.expired_for().is_some())
    }

    /// Whether a dial without a waiter may be made: others go first, and pauses are kept.
    fn may_connect_unrequested(&self, now: Instant) -> bool {
        self.connecting == 0 && self.connect_not_before.is_none_or(|t| now >= t)
    }

    fn is_in_use(&self) -> bool {
        !self.waiters.is_empty() || self.connections.values().any(|c| !c.is_unused())
    }

    /// It is in use, or was until a moment ago.
    fn is_busy(&self, now: Instant) -> bool {
        let recently_used = |c: &ConnectionState| {
            c.used && now.saturating_duration_since(c.idle_since) < BUSY_GRACE
        };
        self.is_in_use() || self.connections.values().any(recently_used)
    }

    /// A connection that was retired lately is still there.
    fn is_draining(&self, now: Instant) -> bool {
        let drain = self.config.drain;
        let lately = |c: &ConnectionState| now.saturating_duration_since(c.retired_at) < drain;
        (self.connections.values()).any(|c| c.retiring && lately(c))
    }
}
