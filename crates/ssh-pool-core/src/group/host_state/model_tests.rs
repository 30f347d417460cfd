//! Random scenarios of a host, which must keep the state consistent and serve every waiter.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests; fuzzing runs the same scenarios without being one"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[cfg(test)]
use proptest::prelude::*;

#[cfg(test)]
use super::tests::config;
use super::*;

/// The number of kinds of steps.
pub(crate) const STEPS: u8 = 22;

/// A server and a network that answer in any order, a limit that the pool has to find out, and
/// callers who come and go.
pub(crate) struct HostModel {
    state: HostState<u32>,
    now: Instant,
    server_limit: u32,
    late_release: bool,
    lifetime: Duration,
    next_id: u64,
    next_who: u32,
    queue: VecDeque<(WaiterId, u32)>,
    /// The count of evictions at which each dial began.
    connecting: VecDeque<u64>,
    /// Whether they were replaced, and since when they take nothing new.
    retired: BTreeMap<ConnectionId, (Retirement, Instant)>,
    /// No channel may be handed out on these.
    evicted: BTreeSet<ConnectionId>,
    opening: BTreeMap<ConnectionId, VecDeque<CloseSeq>>,
    pings: Vec<(ConnectionId, CloseSeq)>,
    in_use: Vec<ConnectionId>,
    idle_channels: Vec<ConnectionId>,
    /// What the server holds, and of that what it will free with the next round trip.
    held: BTreeMap<ConnectionId, (u32, u32)>,
}

impl HostModel {
    pub(crate) fn new(
        config: GroupConfig,
        server_limit: u32,
        late_release: bool,
        lifetime: Duration,
    ) -> Self {
        Self {
            state: HostState::new(config),
            now: Instant::now(),
            server_limit,
            late_release,
            lifetime,
            next_id: 0,
            next_who: 0,
            queue: VecDeque::new(),
            connecting: VecDeque::new(),
            retired: BTreeMap::new(),
            evicted: BTreeSet::new(),
            opening: BTreeMap::new(),
            pings: Vec::new(),
            in_use: Vec::new(),
            idle_channels: Vec::new(),
            held: BTreeMap::new(),
        }
    }

    pub(crate) fn step(&mut self, what: u8, pick: usize) {
        match what {
            0..=3 => self.arrive(),
            4 => self.leave(pick),
            5 => self.connected(),
            6 => self.connect_fails(),
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
        if self.state.is_calm() {
            self.state.wake_waiters(self.now);
            assert_eq!(self.state.take_effects(), [], "calm, and something to do");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.wake(self.now);
        self.state.tick(self.now);
    }

    fn arrive(&mut self) {
        while let Some(id) = self.idle_channels.pop() {
            if self.state.claim(id, || self.now) {
                self.guard(id);
                return;
            }
        }
        let who = self.next_who;
        self.next_who += 1;
        let waiter_id = self.state.wait(who, self.now);
        self.queue.push_back((waiter_id, who));
    }

    fn guard(&mut self, id: ConnectionId) {
        assert!(!self.evicted.contains(&id), "on an evicted connection");
        self.in_use.push(id);
    }

    fn evict(&mut self) {
        let in_use = !self.in_use.is_empty() || !self.queue.is_empty();
        self.evicted.extend(self.held.keys());
        self.state.evict(Retirement::Evicted, self.now);
        let alone = self.state.config.idle_each;
        assert!(
            alone || !in_use || self.state.connecting() > 0,
            "no replacement"
        );
    }

    fn leave(&mut self, pick: usize) {
        if !self.queue.is_empty() {
            let at = pick % self.queue.len();
            let (waiter_id, _) = self.queue.remove(at).expect("in range");
            self.state.abandon(waiter_id);
        }
    }

    fn connected(&mut self) {
        if let Some(evictions) = self.connecting.pop_front() {
            self.next_id += 1;
            let id = ConnectionId(self.next_id);
            self.held.insert(id, (0, 0));
            self.opening.insert(id, VecDeque::new());
            if evictions == self.state.evictions() {
                let retire_at = self.now + self.lifetime;
                self.state.connected(id, self.now, retire_at);
            } else {
                self.evicted.insert(id);
                self.state.connected_before_evict(id, self.now);
            }
        }
    }

    fn connect_fails(&mut self) {
        if self.connecting.pop_front().is_some() {
            let live = self.state.live();
            let pause = self.now + Duration::from_millis(100);
            let told = self.state.connect_failed(self.now, pause, false);
            assert_eq!(self.state.live(), live, "a failed dial takes nothing away");
            self.told(&told);
        }
    }

    fn told(&mut self, told: &[u32]) {
        if !told.is_empty() {
            let queue: Vec<_> = self.queue.drain(..).map(|(_, who)| who).collect();
            assert_eq!(queue, told, "all waiters, in order");
        }
    }

    fn handoff(&mut self, id: ConnectionId, handoff: Handoff<u32>) {
        match handoff {
            Handoff::To(who) => {
                let (_, first) = self.queue.pop_front().expect("a caller waited");
                assert_eq!(who, first, "first come, first served");
                self.guard(id);
            }
            Handoff::Idle => self.idle_channels.push(id),
            Handoff::Discard => {}
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
        let close_seq = self
            .opening
            .get_mut(&id)
            .and_then(VecDeque::pop_front)
            .expect("pending");
        let (held, releasing) = self.held[&id];
        if held < self.server_limit {
            self.held.insert(id, (held + 1, releasing));
            let handoff = self.state.opened(id, close_seq, self.now);
            self.handoff(id, handoff);
        } else {
            self.held.insert(id, (held - releasing, 0));
            match self.state.refused(id, close_seq, self.now) {
                RefusalOutcome::Absorbed => {}
                RefusalOutcome::Hard(told) => self.told(&told),
            }
        }
    }

    fn finish_command(&mut self, pick: usize) {
        if self.in_use.is_empty() {
            return;
        }
        let id = self.in_use.swap_remove(pick % self.in_use.len());
        let (held, releasing) = self.held[&id];
        let now_free = if self.late_release {
            (held, releasing + 1)
        } else {
            (held - 1, releasing)
        };
        self.held.insert(id, now_free);
        self.state.closed(id, true, self.now);
    }

    fn pong(&mut self) {
        if let Some((id, close_seq)) = self.pings.pop() {
            if let Some((held, releasing)) = self.held.get_mut(&id) {
                *held -= *releasing;
                *releasing = 0;
            }
            self.state.pinged(id, close_seq, self.now);
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
        self.in_use.retain(|other| *other != id);
        self.idle_channels.retain(|other| *other != id);
        self.pings.retain(|(other, _)| *other != id);
        let _ended: Option<u32> = self.state.died(id, self.now);
    }

    fn give_back(&mut self, pick: usize) {
        if !self.in_use.is_empty() {
            let id = self.in_use.swap_remove(pick % self.in_use.len());
            let handoff = self.state.returned(id, true, self.now);
            self.handoff(id, handoff);
        }
    }

    fn forsake(&mut self, pick: usize) {
        if !self.in_use.is_empty() {
            let id = self.in_use.swap_remove(pick % self.in_use.len());
            let settled = pick.is_multiple_of(2);
            self.state.closed_here(id, true, settled, self.now);
        }
    }

    /// Carries out what the state asks for.
    fn settle(&mut self) {
        loop {
            let effects = self.state.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Connect => self.connecting.push_back(self.state.evictions()),
                    Effect::Open { on, close_seq, .. } => {
                        self.opening
                            .get_mut(&on)
                            .expect("an open on a live connection")
                            .push_back(close_seq);
                    }
                    Effect::Ping { on, close_seq } => self.pings.push((on, close_seq)),
                    Effect::RaiseCapacity => {
                        let in_use = self
                            .state
                            .session_counts()
                            .map(|counts| counts.in_use)
                            .sum();
                        assert!(self.state.channels_at_most() >= in_use);
                    }
                    Effect::ServeFromIdle => {
                        for id in std::mem::take(&mut self.idle_channels) {
                            let handoff = self.state.returned(id, false, self.now);
                            self.handoff(id, handoff);
                        }
                    }
                    Effect::DropStaleIdle => {
                        let alive: Vec<_> = self.state.alive().collect();
                        for id in std::mem::take(&mut self.idle_channels) {
                            if alive.contains(&id) {
                                self.idle_channels.push(id);
                            } else {
                                let handoff = self.state.returned(id, false, self.now);
                                self.handoff(id, handoff);
                            }
                        }
                    }
                    Effect::Disconnect(id) => {
                        assert!(!self.in_use.contains(&id), "goodbye to a connection in use");
                        self.bury(id);
                    }
                    Effect::Report(StateEvent::Retired(id, why)) => {
                        let before = self.retired.insert(id, (why, self.now));
                        assert_eq!(before, None, "once");
                    }
                    Effect::CheckLiveness(id) => {
                        assert!(!self.queue.is_empty(), "no caller waits for its answer");
                        self.state.retire(id, Retirement::Unresponsive, self.now);
                    }
                    Effect::Report(_) => {}
                    Effect::WakeAt(at) => assert!(at > self.now, "a wake-up in the past"),
                }
            }
        }
    }

    fn check(&self) {
        let state = &self.state;
        let most = state.config.connections;
        assert!(state.live() <= most && state.live() + state.connects_for_waiters() <= most);
        assert!(state.live() + state.connecting() + self.draining() <= most + 1);
        assert_eq!(state.connecting() as usize, self.connecting.len());
        assert_eq!(state.waiting(), self.queue.len());
        assert!((1..=state.config.sessions).contains(&state.learned()));
        for counts in state.session_counts() {
            let in_use = self.in_use.iter().filter(|id| **id == counts.id).count();
            let idle_channels = self
                .idle_channels
                .iter()
                .filter(|id| **id == counts.id)
                .count();
            let opening = self.opening[&counts.id].len();
            let ours = (
                counts.in_use as usize,
                counts.idle as usize,
                counts.opening as usize,
            );
            assert_eq!(
                ours,
                (in_use, idle_channels, opening),
                "the state agrees with the model"
            );
            let occupied = counts.in_use + counts.idle + counts.opening + counts.releasing;
            // The learned limit may have sunk below what was already granted or asked for.
            assert!(occupied <= state.config.sessions, "{counts:?}");
        }
        assert!(
            self.queue.is_empty() || self.idle_channels.is_empty(),
            "waiting beside a spare"
        );
        let opening: usize = self.opening.values().map(VecDeque::len).sum();
        if self.queue.len() > opening {
            for connection in state.connections.values() {
                let room = connection.free_sessions(state.learned(), self.now);
                assert_eq!(room, 0, "waiting while there is room: {connection:?}");
            }
        }
    }

    /// Replaced connections that are still there, and were not replaced long ago.
    fn draining(&self) -> u32 {
        let counts = |id: &ConnectionId| match self.retired.get(id) {
            Some((Retirement::Lifetime | Retirement::Worn, since)) => {
                self.now - *since < self.state.config.drain
            }
            _ => false,
        };
        u32::try_from(self.held.keys().filter(|id| counts(id)).count()).expect("a few")
    }

    /// From any state, if everything answers from now on, every waiter is served.
    pub(crate) fn every_waiter_is_served_in_the_end(&mut self) {
        for round in 0..10_000 {
            if self.queue.is_empty() {
                return;
            }
            self.answer_all(round);
            self.finish_command(round);
            // Before time passes: what is due then is asked for now.
            self.settle();
            self.now += Duration::from_millis(20);
            self.state.wake(self.now);
            self.settle();
            self.check();
        }
        panic!("{} still wait: {:?}", self.queue.len(), self.state);
    }

    fn answer_all(&mut self, round: usize) {
        self.connected();
        self.settle();
        self.answer_open(round);
        self.settle();
        self.pong();
        self.settle();
    }

    /// From any state, beside commands that never end and others that do, what is old now goes; a
    /// connection with such a command takes nothing new, unless that is all it is for.
    pub(crate) fn everything_old_goes_in_the_end(&mut self) {
        let endless = std::mem::take(&mut self.in_use);
        let last = self.next_id;
        let alone = self.state.config.idle_each;
        for round in 0..10_000 {
            self.pass(self.lifetime.min(Duration::from_secs(1)));
            self.settle();
            let old = self.held.keys().filter(|id| id.0 <= last);
            let mut left = old.filter(|id| !endless.contains(id)).count();
            for counts in self
                .state
                .session_counts()
                .filter(|counts| counts.id.0 <= last)
            {
                left += usize::from(!alone && !counts.retiring);
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
        panic!("still there: {:?}", self.state);
    }
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_scenario_keeps_the_state_consistent_and_serves_every_waiter(
        connections in 1u32..4,
        sessions in 1u32..12,
        server_limit in 1u32..12,
        late_release: bool,
        idle_each: bool,
        lifetime in 1u64..60,
        drain in 0u64..20,
        scenario in prop::collection::vec((0..STEPS, 0usize..1000), 1..250),
    ) {
        let config = GroupConfig {
            idle_each,
            drain: Duration::from_secs(drain),
            ..config(connections, if idle_each { 1 } else { sessions })
        };
        let lifetime = Duration::from_secs(lifetime);
        let mut model = HostModel::new(config, server_limit, late_release, lifetime);
        for (what, pick) in scenario {
            model.step(what, pick);
        }
        model.every_waiter_is_served_in_the_end();
        model.everything_old_goes_in_the_end();
    }
}
