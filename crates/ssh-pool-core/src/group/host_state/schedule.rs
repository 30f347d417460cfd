//! What follows from the state: which waiter is served, what is opened, when another connection is
//! made.

use std::time::{Duration, Instant};

use super::{ConnectionId, ConnectionState, Effect, Handoff, HostState, UNUSED_CLOSE_LIMIT};

/// How long a round trip on a live connection may take before another one is worth a dial.
const RELEASE_GRACE: Duration = Duration::from_secs(1);

impl<W> HostState<W> {
    /// Gives an open channel without an owner to the oldest waiter.
    pub(super) fn hand_off(&mut self, id: ConnectionId) -> Handoff<W> {
        match self.connections.get_mut(id) {
            Some(connection) if !connection.retiring => match self.waiters.pop_front() {
                Some(waiter) => {
                    connection.in_use += 1;
                    self.counters.commands += 1;
                    Handoff::To(waiter.who)
                }
                None => {
                    connection.idle += 1;
                    Handoff::Idle
                }
            },
            _ => Handoff::Discard,
        }
    }

    /// Whatever can be started now is started: this runs at the end of every transition.
    pub(super) fn schedule(&mut self, now: Instant) {
        if !self.closed {
            self.start_all(now);
        }
        self.update_stall_clock(now);
    }

    fn start_all(&mut self, now: Instant) {
        self.raise_limit(now);
        self.replace_expired(now);
        let mut unserved = self.unserved();
        if unserved > 0 && self.connections.values().any(|c| !c.retiring && c.idle > 0) {
            self.push_once(Effect::ServeFromIdle);
        }
        while unserved > 0 && self.open_one(now) {
            unserved -= 1;
        }
        if unserved > 0 {
            self.confirm_releases(now);
            self.connect_more(unserved, now);
            self.set_alarm(now);
        } else if self.config.idle_each {
            self.open_idle(now);
        } else if self.wants_idle() {
            self.open_one(now);
        }
        self.try_new(now);
        self.watch(now);
    }

    /// [`schedule`](HostState::schedule) would find nothing to do, whatever the time is.
    pub(super) fn is_calm(&self) -> bool {
        let nothing_to_learn = self.learned_at.is_none();
        let nothing_to_open = !self.config.idle_each && !self.wants_idle();
        let nothing_to_do = nothing_to_learn && nothing_to_open && self.is_settled();
        self.closed || self.waiters.is_empty() && nothing_to_do
    }

    /// Waiters that no open in flight will serve.
    fn unserved(&self) -> u32 {
        let opening: u32 = self
            .connections
            .values()
            .filter(|c| !c.retiring)
            .map(|c| c.opening)
            .sum();
        u32::try_from(self.waiters.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(opening)
    }

    /// One idle channel per busy host; none where the server allows a single session, or closes
    /// sessions that it finds unused.
    fn wants_idle(&self) -> bool {
        let live = || self.connections.values().filter(|c| !c.retiring);
        self.waiters.is_empty()
            && self.learned > 1
            && self.unused_close_score < UNUSED_CLOSE_LIMIT
            && live().any(|c| c.in_use > 0)
            && live().all(|c| c.idle == 0 && c.opening == 0)
    }

    /// A login proves little: each new connection is asked for a session at once, wanted or not, so
    /// that it is soon known whether the host is usable.
    fn try_new(&mut self, now: Instant) {
        let learned = self.learned;
        for (id, connection) in self.connections.iter_mut() {
            if connection.is_untried() && connection.free_sessions(learned, now) > 0 {
                let close_seq = connection.begin_open(now);
                self.effects.push(Effect::Open {
                    on: id,
                    close_seq,
                    since: now,
                });
            }
        }
    }

    /// A channel on every connection that is free; where its slot is being released, a round trip
    /// first.
    fn open_idle(&mut self, now: Instant) {
        if self.unused_close_score >= UNUSED_CLOSE_LIMIT {
            return;
        }
        let learned = self.learned;
        for (id, connection) in self.connections.iter_mut() {
            if let Some(close_seq) = connection.begin_ping(now) {
                self.effects.push(Effect::Ping { on: id, close_seq });
            } else if connection.occupied() == 0 && connection.free_sessions(learned, now) > 0 {
                let close_seq = connection.begin_open(now);
                self.effects.push(Effect::Open {
                    on: id,
                    close_seq,
                    since: now,
                });
            }
        }
    }

    /// Opens a channel on the connection with the fewest sessions that has room.
    fn open_one(&mut self, now: Instant) -> bool {
        let learned = self.learned;
        let best = (self.connections.iter_mut())
            .filter(|(_, c)| c.free_sessions(learned, now) > 0)
            .min_by_key(|(_, c)| c.occupied());
        let Some((id, connection)) = best else {
            return false;
        };
        let close_seq = connection.begin_open(now);
        self.effects.push(Effect::Open {
            on: id,
            close_seq,
            since: now,
        });
        true
    }

    /// A caller waits while slots are being released: a round trip on each such connection frees
    /// them.
    fn confirm_releases(&mut self, now: Instant) {
        for (id, connection) in self.connections.iter_mut() {
            if let Some(close_seq) = connection.begin_ping(now) {
                self.effects.push(Effect::Ping { on: id, close_seq });
            }
        }
    }

    fn connect_more(&mut self, unserved: u32, now: Instant) {
        if self.connect_not_before.is_some_and(|t| now < t) {
            return;
        }
        let live = self.live();
        let wanted = if live == 0 {
            1 // the first one shows whether the host can be reached at all, and its limit
        } else if self.connect_due().is_some_and(|due| now >= due) {
            unserved.div_ceil(self.learned.max(1))
        } else {
            0
        };
        // After a failure one at a time: the server may be throttling.
        let at_once = if self.connect_not_before.is_some() {
            1
        } else {
            self.config.handshakes
        };
        let most = self.connections_now(now).saturating_sub(live).min(at_once);
        while self.connects_for_waiters() < wanted.min(most) {
            self.connect_one();
        }
    }

    pub(super) fn connect_one(&mut self) {
        self.connecting += 1;
        self.effects.push(Effect::Connect);
    }

    /// When the oldest waiter has waited long enough on live connections.
    fn connect_due(&self) -> Option<Instant> {
        let live = self.connections.values().filter(|c| !c.retiring);
        let releasing: u32 = live.map(ConnectionState::releasing).sum();
        // A releasing slot is free after a round trip, if the server is there at all.
        let soon =
            usize::try_from(releasing).is_ok_and(|releasing| releasing >= self.waiters.len());
        let expand_after =
            self.config
                .expand_after
                .max(if soon { RELEASE_GRACE } else { Duration::ZERO });
        self.waiters
            .front()
            .map(|oldest| oldest.since + expand_after)
    }

    fn raise_limit(&mut self, now: Instant) {
        if let Some(at) = self.learned_at
            && now >= at + self.config.recovery
        {
            self.learn((self.learned + 1).min(self.most));
            self.learned_at = (self.learned < self.most).then_some(now);
        }
    }

    /// Time alone may let a waiter go on: when a hold ends, or another dial is allowed.
    fn set_alarm(&mut self, now: Instant) {
        let pauses = self.connections.values().filter_map(|c| c.paused_until);
        let there = self.live() + self.connects_for_waiters();
        let may_connect = there < self.connections_now(now);
        let may_connect_later = there < self.connections_at_most();
        let connect = match (self.connect_not_before.filter(|t| *t > now), self.live()) {
            (Some(t), _) => Some(t),
            (None, 0) => None,
            (None, _) => self.connect_due(),
        };
        let next = pauses
            .chain(connect.filter(|_| may_connect))
            .chain(self.stream_wait_until().filter(|_| may_connect_later))
            .filter(|t| *t > now)
            .min();
        if let Some(next) = next
            && self.wake_at.is_none_or(|at| next < at)
        {
            self.wake_at = Some(next);
            self.effects.push(Effect::WakeAt(next));
        }
    }

    fn push_once(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }
}
