//! What follows from the books: who is served, what is opened, when another connection is dialled.

use std::time::{Duration, Instant};

use super::{Action, ConnectionId, Hand, NO_SPARES, Sessions, Slots};

/// How long a round trip on a live connection may take before another one is worth a dial.
const COOLING: Duration = Duration::from_secs(1);

impl<W> Slots<W> {
    /// Gives an open channel that is in nobody's hands to the oldest waiter.
    pub(super) fn hand(&mut self, id: ConnectionId) -> Hand<W> {
        match self.connections.get_mut(id) {
            Some(connection) if !connection.retiring => match self.waiters.pop_front() {
                Some(waiter) => {
                    connection.leased += 1;
                    self.tally.commands += 1;
                    Hand::To(waiter.who)
                }
                None => {
                    connection.ready += 1;
                    Hand::Spare
                }
            },
            _ => Hand::Discard,
        }
    }

    /// Whatever can be started now is started: this runs at the end of every transition.
    pub(super) fn pump(&mut self, now: Instant) {
        if !self.closed {
            self.start_all(now);
        }
        self.set_meter(now);
    }

    fn start_all(&mut self, now: Instant) {
        self.creep(now);
        self.renew(now);
        let mut unserved = self.unserved();
        if unserved > 0
            && self
                .connections
                .values()
                .any(|c| !c.retiring && c.ready > 0)
        {
            self.push_once(Action::Reclaim);
        }
        while unserved > 0 && self.open_one(now) {
            unserved -= 1;
        }
        if unserved > 0 {
            self.cool_down(now);
            self.dial_more(unserved, now);
            self.set_alarm(now);
        } else if self.rules.ready_each {
            self.make_ready(now);
        } else if self.wants_spare() {
            self.open_one(now);
        }
        self.try_new(now);
        self.watch(now);
    }

    /// The [`pump`](Slots::pump) would find nothing to do, whatever the time is.
    pub(super) fn is_calm(&self) -> bool {
        let nothing_to_learn = self.learned_at.is_none();
        let nothing_to_open = !self.rules.ready_each && !self.wants_spare();
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

    /// One spare per busy host; none where the server allows a single session, or closes sessions
    /// that it finds unused.
    fn wants_spare(&self) -> bool {
        let live = || self.connections.values().filter(|c| !c.retiring);
        self.waiters.is_empty()
            && self.learned > 1
            && self.dislike < NO_SPARES
            && live().any(|c| c.leased > 0)
            && live().all(|c| c.ready == 0 && c.opening == 0)
    }

    /// A login proves little: each new connection is asked for a session at once, wanted or not, so that
    /// it is soon known whether the host is of use.
    fn try_new(&mut self, now: Instant) {
        let learned = self.learned;
        for (id, connection) in self.connections.iter_mut() {
            if connection.is_untried() && connection.room(learned, now) > 0 {
                let mark = connection.begin_open(now);
                self.actions.push(Action::Open {
                    on: id,
                    mark,
                    since: now,
                });
            }
        }
    }

    /// A channel on every connection that is free; where its slot cools, a round trip first.
    fn make_ready(&mut self, now: Instant) {
        if self.dislike >= NO_SPARES {
            return;
        }
        let learned = self.learned;
        for (id, connection) in self.connections.iter_mut() {
            if let Some(mark) = connection.begin_ping(now) {
                self.actions.push(Action::Ping { on: id, mark });
            } else if connection.occupied() == 0 && connection.room(learned, now) > 0 {
                let mark = connection.begin_open(now);
                self.actions.push(Action::Open {
                    on: id,
                    mark,
                    since: now,
                });
            }
        }
    }

    /// Opens a channel on the connection with the fewest sessions that has room.
    fn open_one(&mut self, now: Instant) -> bool {
        let learned = self.learned;
        let best = (self.connections.iter_mut())
            .filter(|(_, c)| c.room(learned, now) > 0)
            .min_by_key(|(_, c)| c.occupied());
        let Some((id, connection)) = best else {
            return false;
        };
        let mark = connection.begin_open(now);
        self.actions.push(Action::Open {
            on: id,
            mark,
            since: now,
        });
        true
    }

    /// Somebody waits while slots cool: a round trip on each such connection frees them.
    fn cool_down(&mut self, now: Instant) {
        for (id, connection) in self.connections.iter_mut() {
            if let Some(mark) = connection.begin_ping(now) {
                self.actions.push(Action::Ping { on: id, mark });
            }
        }
    }

    fn dial_more(&mut self, unserved: u32, now: Instant) {
        if self.dial_not_before.is_some_and(|t| now < t) {
            return;
        }
        let live = self.live();
        let wanted = if live == 0 {
            1 // the first one shows whether the host can be reached at all, and its limit
        } else if self.dial_due().is_some_and(|due| now >= due) {
            unserved.div_ceil(self.learned.max(1))
        } else {
            0
        };
        // After a failure one at a time: the server may be throttling.
        let at_once = if self.dial_not_before.is_some() {
            1
        } else {
            self.rules.handshakes
        };
        let most = self.connections_now(now).saturating_sub(live).min(at_once);
        while self.dials_for_waiters() < wanted.min(most) {
            self.dial_one();
        }
    }

    pub(super) fn dial_one(&mut self) {
        self.dialling += 1;
        self.actions.push(Action::Dial);
    }

    /// When the oldest waiter has waited long enough on live connections.
    fn dial_due(&self) -> Option<Instant> {
        let live = self.connections.values().filter(|c| !c.retiring);
        let cooling: u32 = live.map(Sessions::cooling).sum();
        // What cools is free after a round trip, if the server is there at all.
        let soon = usize::try_from(cooling).is_ok_and(|cooling| cooling >= self.waiters.len());
        let patience = self
            .rules
            .patience
            .max(if soon { COOLING } else { Duration::ZERO });
        self.waiters.front().map(|oldest| oldest.since + patience)
    }

    fn creep(&mut self, now: Instant) {
        if let Some(at) = self.learned_at
            && now >= at + self.rules.recovery
        {
            self.learn((self.learned + 1).min(self.most));
            self.learned_at = (self.learned < self.most).then_some(now);
        }
    }

    /// Time alone may let a waiter go on: when a hold ends, or another dial is allowed.
    fn set_alarm(&mut self, now: Instant) {
        let holds = self.connections.values().filter_map(|c| c.hold);
        let there = self.live() + self.dials_for_waiters();
        let may_dial = there < self.connections_now(now);
        let may_dial_later = there < self.connections_at_most();
        let dial = match (self.dial_not_before.filter(|t| *t > now), self.live()) {
            (Some(t), _) => Some(t),
            (None, 0) => None,
            (None, _) => self.dial_due(),
        };
        let next = holds
            .chain(dial.filter(|_| may_dial))
            .chain(self.hold_due().filter(|_| may_dial_later))
            .filter(|t| *t > now)
            .min();
        if let Some(next) = next
            && self.wake_at.is_none_or(|at| next < at)
        {
            self.wake_at = Some(next);
            self.actions.push(Action::WakeAt(next));
        }
    }

    fn push_once(&mut self, action: Action) {
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }
}
