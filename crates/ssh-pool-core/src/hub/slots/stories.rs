//! Random stories of a host, which must keep the books true and serve everybody.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests; fuzzing tells the same stories without being one"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[cfg(test)]
use proptest::prelude::*;

#[cfg(test)]
use super::tests::rules;
use super::*;

/// So many kinds of steps there are.
pub(crate) const STEPS: u8 = 22;

/// A server and a network that answer in any order, a limit that the pool has to find out, and
/// callers who come and go.
pub(crate) struct World {
    slots: Slots<u32>,
    now: Instant,
    server_limit: u32,
    late_release: bool,
    lifetime: Duration,
    next_id: u64,
    next_who: u32,
    queue: VecDeque<(Ticket, u32)>,
    /// The count of evictions at which each dial began.
    dialling: VecDeque<u64>,
    /// Whether they were replaced, and since when they take nothing new.
    retired: BTreeMap<ConnectionId, (Retirement, Instant)>,
    /// Nobody may get anything on these any more.
    evicted: BTreeSet<ConnectionId>,
    opening: BTreeMap<ConnectionId, VecDeque<Mark>>,
    pings: Vec<(ConnectionId, Mark)>,
    leased: Vec<ConnectionId>,
    spares: Vec<ConnectionId>,
    /// What the server holds, and of that what it will free with the next round trip.
    held: BTreeMap<ConnectionId, (u32, u32)>,
}

impl World {
    pub(crate) fn new(
        rules: Rules,
        server_limit: u32,
        late_release: bool,
        lifetime: Duration,
    ) -> Self {
        Self {
            slots: Slots::new(rules),
            now: Instant::now(),
            server_limit,
            late_release,
            lifetime,
            next_id: 0,
            next_who: 0,
            queue: VecDeque::new(),
            dialling: VecDeque::new(),
            retired: BTreeMap::new(),
            evicted: BTreeSet::new(),
            opening: BTreeMap::new(),
            pings: Vec::new(),
            leased: Vec::new(),
            spares: Vec::new(),
            held: BTreeMap::new(),
        }
    }

    pub(crate) fn step(&mut self, what: u8, pick: usize) {
        match what {
            0..=3 => self.arrive(),
            4 => self.leave(pick),
            5 => self.dialled(),
            6 => self.dial_fails(),
            7..=10 => self.answer_open(pick),
            11..=13 => self.finish_command(pick),
            14 => self.pong(),
            15 => self.die(pick),
            16 => self.give_back(pick),
            17 => self.forsake(pick),
            18 if pick.is_multiple_of(4) => self.evict(),
            _ => self.pass(Duration::from_millis(100 * (pick as u64 % 40))),
        }
        self.settle();
        self.check();
        if self.slots.is_calm() {
            self.slots.wake_waiters(self.now);
            assert_eq!(self.slots.take_actions(), [], "calm, and something to do");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.slots.wake(self.now);
        self.slots.tick(self.now);
    }

    fn arrive(&mut self) {
        while let Some(id) = self.spares.pop() {
            if self.slots.claim(id, || self.now) {
                self.lease(id);
                return;
            }
        }
        let who = self.next_who;
        self.next_who += 1;
        let ticket = self.slots.wait(who, self.now);
        self.queue.push_back((ticket, who));
    }

    fn lease(&mut self, id: ConnectionId) {
        assert!(!self.evicted.contains(&id), "on an evicted connection");
        self.leased.push(id);
    }

    fn evict(&mut self) {
        let in_use = !self.leased.is_empty() || !self.queue.is_empty();
        self.evicted.extend(self.held.keys());
        self.slots.evict(Retirement::Evicted, self.now);
        let alone = self.slots.rules.ready_each;
        assert!(
            alone || !in_use || self.slots.dialling() > 0,
            "no replacement"
        );
    }

    fn leave(&mut self, pick: usize) {
        if !self.queue.is_empty() {
            let at = pick % self.queue.len();
            let (ticket, _) = self.queue.remove(at).expect("in range");
            self.slots.abandon(ticket);
        }
    }

    fn dialled(&mut self) {
        if let Some(evictions) = self.dialling.pop_front() {
            self.next_id += 1;
            let id = ConnectionId(self.next_id);
            self.held.insert(id, (0, 0));
            self.opening.insert(id, VecDeque::new());
            if evictions == self.slots.evictions() {
                let retire_at = self.now + self.lifetime;
                self.slots.dialled(id, self.now, retire_at);
            } else {
                self.evicted.insert(id);
                self.slots.dialled_before_evict(id, self.now);
            }
        }
    }

    fn dial_fails(&mut self) {
        if self.dialling.pop_front().is_some() {
            let live = self.slots.live();
            let pause = self.now + Duration::from_millis(100);
            let told = self.slots.dial_failed(self.now, pause, false);
            assert_eq!(self.slots.live(), live, "a failed dial takes nothing away");
            self.told(&told);
        }
    }

    fn told(&mut self, told: &[u32]) {
        if !told.is_empty() {
            let queue: Vec<_> = self.queue.drain(..).map(|(_, who)| who).collect();
            assert_eq!(queue, told, "everybody in the queue, in order");
        }
    }

    fn hand(&mut self, id: ConnectionId, hand: Hand<u32>) {
        match hand {
            Hand::To(who) => {
                let (_, first) = self.queue.pop_front().expect("somebody waited");
                assert_eq!(who, first, "first come, first served");
                self.lease(id);
            }
            Hand::Spare => self.spares.push(id),
            Hand::Discard => {}
        }
    }

    fn answer_open(&mut self, pick: usize) {
        let ids: Vec<_> = self
            .opening
            .iter()
            .filter(|(_, q)| !q.is_empty())
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[pick % ids.len()];
        let mark = self
            .opening
            .get_mut(&id)
            .and_then(VecDeque::pop_front)
            .expect("pending");
        let (held, releasing) = self.held[&id];
        if held < self.server_limit {
            self.held.insert(id, (held + 1, releasing));
            let hand = self.slots.opened(id, mark, self.now);
            self.hand(id, hand);
        } else {
            self.held.insert(id, (held - releasing, 0));
            match self.slots.refused(id, mark, self.now) {
                Refusal::Absorbed => {}
                Refusal::Hard(told) => self.told(&told),
            }
        }
    }

    fn finish_command(&mut self, pick: usize) {
        if self.leased.is_empty() {
            return;
        }
        let id = self.leased.swap_remove(pick % self.leased.len());
        let (held, releasing) = self.held[&id];
        let now_free = if self.late_release {
            (held, releasing + 1)
        } else {
            (held - 1, releasing)
        };
        self.held.insert(id, now_free);
        self.slots.closed(id, true, self.now);
    }

    fn pong(&mut self) {
        if let Some((id, mark)) = self.pings.pop() {
            if let Some((held, releasing)) = self.held.get_mut(&id) {
                *held -= *releasing;
                *releasing = 0;
            }
            self.slots.pinged(id, mark, self.now);
        }
    }

    fn die(&mut self, pick: usize) {
        let ids: Vec<_> = self.held.keys().copied().collect();
        if !ids.is_empty() {
            self.bury(ids[pick % ids.len()]);
        }
    }

    fn bury(&mut self, id: ConnectionId) {
        self.held.remove(&id);
        self.opening.remove(&id);
        self.leased.retain(|other| *other != id);
        self.spares.retain(|other| *other != id);
        self.pings.retain(|(other, _)| *other != id);
        let _ended: Option<u32> = self.slots.died(id, self.now);
    }

    fn give_back(&mut self, pick: usize) {
        if !self.leased.is_empty() {
            let id = self.leased.swap_remove(pick % self.leased.len());
            let hand = self.slots.returned(id, true, self.now);
            self.hand(id, hand);
        }
    }

    fn forsake(&mut self, pick: usize) {
        if !self.leased.is_empty() {
            let id = self.leased.swap_remove(pick % self.leased.len());
            let settled = pick.is_multiple_of(2);
            self.slots.closed_here(id, true, settled, self.now);
        }
    }

    /// Carries out what the books ask for.
    fn settle(&mut self) {
        loop {
            let actions = self.slots.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Dial => self.dialling.push_back(self.slots.evictions()),
                    Action::Open { on, mark, .. } => {
                        self.opening
                            .get_mut(&on)
                            .expect("an open on a live connection")
                            .push_back(mark);
                    }
                    Action::Ping { on, mark } => self.pings.push((on, mark)),
                    Action::Widen => {
                        let leased = self.slots.views().map(|view| view.leased).sum();
                        assert!(self.slots.channels_at_most() >= leased);
                    }
                    Action::Reclaim => {
                        for id in std::mem::take(&mut self.spares) {
                            let hand = self.slots.returned(id, false, self.now);
                            self.hand(id, hand);
                        }
                    }
                    Action::Sweep => {
                        let alive: Vec<_> = self.slots.alive().collect();
                        for id in std::mem::take(&mut self.spares) {
                            if alive.contains(&id) {
                                self.spares.push(id);
                            } else {
                                let hand = self.slots.returned(id, false, self.now);
                                self.hand(id, hand);
                            }
                        }
                    }
                    Action::Disconnect(id) => {
                        assert!(!self.leased.contains(&id), "goodbye to a connection in use");
                        self.bury(id);
                    }
                    Action::Report(Fact::Retired(id, why)) => {
                        let before = self.retired.insert(id, (why, self.now));
                        assert_eq!(before, None, "once");
                    }
                    Action::Suspect(id) => {
                        assert!(!self.queue.is_empty(), "nobody waits for its answer");
                        self.slots.retire(id, Retirement::Unresponsive, self.now);
                    }
                    Action::Report(_) => {}
                    Action::WakeAt(at) => assert!(at > self.now, "a wake-up in the past"),
                }
            }
        }
    }

    fn check(&self) {
        let slots = &self.slots;
        let most = slots.rules.connections;
        assert!(slots.live() <= most && slots.live() + slots.dials_for_waiters() <= most);
        assert!(slots.live() + slots.dialling() + self.draining() <= most + 1);
        assert_eq!(slots.dialling() as usize, self.dialling.len());
        assert_eq!(slots.waiting(), self.queue.len());
        assert!((1..=slots.rules.sessions).contains(&slots.learned()));
        for view in slots.views() {
            let leased = self.leased.iter().filter(|id| **id == view.id).count();
            let spares = self.spares.iter().filter(|id| **id == view.id).count();
            let opening = self.opening[&view.id].len();
            let ours = (
                view.leased as usize,
                view.ready as usize,
                view.opening as usize,
            );
            assert_eq!(
                ours,
                (leased, spares, opening),
                "the books agree with the world"
            );
            let occupied = view.leased + view.ready + view.opening + view.cooling;
            // The learned limit may have sunk below what was already granted or asked for.
            assert!(occupied <= slots.rules.sessions, "{view:?}");
        }
        assert!(
            self.queue.is_empty() || self.spares.is_empty(),
            "waiting beside a spare"
        );
        let opening: usize = self.opening.values().map(VecDeque::len).sum();
        if self.queue.len() > opening {
            for connection in slots.connections.values() {
                let room = connection.room(slots.learned(), self.now);
                assert_eq!(room, 0, "waiting while there is room: {connection:?}");
            }
        }
    }

    /// Replaced connections that are still there, and were not replaced long ago.
    fn draining(&self) -> u32 {
        let counts = |id: &ConnectionId| match self.retired.get(id) {
            Some((Retirement::Lifetime | Retirement::Worn, since)) => {
                self.now - *since < self.slots.rules.drain
            }
            _ => false,
        };
        u32::try_from(self.held.keys().filter(|id| counts(id)).count()).expect("a few")
    }

    /// From any state, if everything answers from now on, everybody is served.
    pub(crate) fn everybody_is_served_in_the_end(&mut self) {
        for round in 0..10_000 {
            if self.queue.is_empty() {
                return;
            }
            self.answer_all(round);
            self.finish_command(round);
            // Before time passes: what is due then is asked for now.
            self.settle();
            self.now += Duration::from_millis(20);
            self.slots.wake(self.now);
            self.settle();
            self.check();
        }
        panic!("{} still wait: {:?}", self.queue.len(), self.slots);
    }

    fn answer_all(&mut self, round: usize) {
        self.dialled();
        self.settle();
        self.answer_open(round);
        self.settle();
        self.pong();
        self.settle();
    }

    /// From any state, beside commands that never end and others that do, what is old now goes; a
    /// connection with such a command takes nothing new, unless that is all it is for.
    pub(crate) fn everything_old_goes_in_the_end(&mut self) {
        let endless = std::mem::take(&mut self.leased);
        let last = self.next_id;
        let alone = self.slots.rules.ready_each;
        for round in 0..10_000 {
            self.pass(self.lifetime.min(Duration::from_secs(1)));
            self.settle();
            let old = self.held.keys().filter(|id| id.0 <= last);
            let mut left = old.filter(|id| !endless.contains(id)).count();
            for view in self.slots.views().filter(|view| view.id.0 <= last) {
                left += usize::from(!alone && !view.retiring);
            }
            if left == 0 {
                return;
            }
            self.arrive();
            self.settle();
            self.answer_all(round);
            self.finish_command(round);
            self.settle();
        }
        panic!("still there: {:?}", self.slots);
    }
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_story_keeps_the_books_true_and_serves_everybody(
        connections in 1u32..4,
        sessions in 1u32..12,
        server_limit in 1u32..12,
        late_release: bool,
        ready_each: bool,
        lifetime in 1u64..60,
        drain in 0u64..20,
        story in prop::collection::vec((0..STEPS, 0usize..1000), 1..250),
    ) {
        let rules = Rules {
            ready_each,
            drain: Duration::from_secs(drain),
            ..rules(connections, if ready_each { 1 } else { sessions })
        };
        let lifetime = Duration::from_secs(lifetime);
        let mut world = World::new(rules, server_limit, late_release, lifetime);
        for (what, pick) in story {
            world.step(what, pick);
        }
        world.everybody_is_served_in_the_end();
        world.everything_old_goes_in_the_end();
    }
}
