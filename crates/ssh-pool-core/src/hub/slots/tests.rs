//! The books by themselves: single stories, then random ones that must keep the invariants.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

fn rules(connections: u32, sessions: u32) -> Rules {
    Rules {
        connections,
        sessions,
        handshakes: 4,
        patience: Duration::from_millis(250),
        idle: Duration::from_secs(300),
        recovery: Duration::from_secs(300),
    }
}

fn opens(actions: &[Action]) -> Vec<(ConnectionId, Mark)> {
    let open = |action: &Action| match action {
        Action::Open { on, mark } => Some((*on, *mark)),
        _ => None,
    };
    actions.iter().filter_map(open).collect()
}

fn dials(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| **action == Action::Dial)
        .count()
}

/// A host with one live connection and `waiters` people in the queue.
fn connected(rules: Rules, waiters: u32, now: Instant) -> Slots<u32> {
    let mut slots = Slots::new(rules);
    for who in 0..waiters {
        slots.wait(who, now);
    }
    slots.dialled(A, now, now + Duration::from_secs(3600));
    slots
}

/// Answers every pending open the way a server with this limit does. Returns who was served.
fn answer_opens(slots: &mut Slots<u32>, server_limit: u32, now: Instant) -> (Vec<u32>, u32) {
    let (mut served, mut refused) = (Vec::new(), 0);
    loop {
        let pending = opens(&slots.take_actions());
        if pending.is_empty() {
            return (served, refused);
        }
        for (id, mark) in pending {
            let view = slots
                .views()
                .find(|view| view.id == id)
                .expect("connection");
            if view.ready + view.leased < server_limit {
                if let Hand::To(who) = slots.opened(id, mark, now) {
                    served.push(who);
                }
            } else {
                refused += 1;
                assert_eq!(slots.refused(id, mark, now), Refusal::Absorbed);
            }
        }
    }
}

#[test]
fn thirty_waiters_on_a_cold_host_dial_once() {
    let now = Instant::now();
    let mut slots = Slots::new(rules(4, 10));
    for who in 0..30 {
        slots.wait(who, now);
    }
    assert_eq!(dials(&slots.take_actions()), 1);
    slots.dialled(A, now, now + Duration::from_secs(3600));
    let actions = slots.take_actions();
    assert_eq!(opens(&actions).len(), 10);
    assert_eq!(dials(&actions), 0, "patience comes before another dial");
}

#[test]
fn patience_runs_out_and_as_many_connections_as_needed_are_dialled() {
    let now = Instant::now();
    let mut slots = connected(rules(4, 10), 35, now);
    let actions = slots.take_actions();
    let due = now + Duration::from_millis(250);
    assert!(actions.contains(&Action::WakeAt(due)), "{actions:?}");
    slots.wake(due);
    assert_eq!(dials(&slots.take_actions()), 3);
}

#[test]
fn waiters_are_served_in_order_and_abandoned_ones_are_skipped() {
    let now = Instant::now();
    let mut slots = Slots::new(rules(1, 10));
    let tickets: Vec<_> = (0..6).map(|who| slots.wait(who, now)).collect();
    slots.abandon(tickets[0]);
    slots.abandon(tickets[3]);
    slots.dialled(A, now, now + Duration::from_secs(3600));
    assert_eq!(answer_opens(&mut slots, 10, now).0, [1, 2, 4, 5]);
}

#[test]
fn an_open_whose_waiter_has_gone_is_a_spare() {
    let now = Instant::now();
    let mut slots = Slots::new(rules(1, 10));
    let ticket = slots.wait(0, now);
    slots.dialled(A, now, now + Duration::from_secs(3600));
    let (id, mark) = opens(&slots.take_actions())[0];
    slots.abandon(ticket);
    assert_eq!(slots.opened(id, mark, now), Hand::Spare);
    assert!(slots.claim(A, now));
}

#[test]
fn a_slot_cools_until_a_round_trip_proves_it_free() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 1), 2, now);
    assert_eq!(answer_opens(&mut slots, 1, now).0, [0]);
    slots.closed(A, true, now);
    let actions = slots.take_actions();
    assert!(
        opens(&actions).is_empty(),
        "CLOSE and OPEN in one segment: {actions:?}"
    );
    let Some(Action::Ping { on, mark }) = actions
        .into_iter()
        .find(|a| matches!(a, Action::Ping { .. }))
    else {
        panic!("no round trip is made");
    };
    slots.pinged(on, mark, now);
    assert_eq!(answer_opens(&mut slots, 1, now).0, [1]);
}

#[test]
fn a_round_trip_proves_only_what_was_closed_before_it_began() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 2), 4, now);
    assert_eq!(answer_opens(&mut slots, 2, now).0, [0, 1]);
    slots.closed(A, true, now);
    let ping = slots
        .take_actions()
        .into_iter()
        .find_map(|action| match action {
            Action::Ping { mark, .. } => Some(mark),
            _ => None,
        });
    slots.closed(A, true, now);
    slots.pinged(A, ping.expect("a round trip"), now);
    let actions = slots.take_actions();
    assert_eq!(opens(&actions).len(), 1, "{actions:?}");
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Ping { .. }))
    );
}

#[test]
fn the_servers_limit_is_learned_after_one_retry() {
    let start = Instant::now();
    let mut slots = connected(rules(1, 10), 10, start);
    let (served, refused) = answer_opens(&mut slots, 2, start);
    assert_eq!((served.len(), refused), (2, 8));
    assert_eq!(
        slots.learned(),
        10,
        "a burst of refusals is one observation"
    );
    let later = start + Duration::from_secs(1);
    slots.wake(later);
    assert_eq!(answer_opens(&mut slots, 2, later), (vec![], 1), "the retry");
    assert_eq!(slots.learned(), 2);
    slots.wake(later + Duration::from_secs(1));
    assert_eq!(opens(&slots.take_actions()), [], "nobody asks again");
}

#[test]
fn a_false_alarm_does_not_sink_the_limit() {
    let start = Instant::now();
    let mut slots = connected(rules(1, 10), 10, start);
    let (served, _) = answer_opens(&mut slots, 2, start);
    assert_eq!(served.len(), 2);
    let later = start + Duration::from_secs(1);
    slots.wake(later);
    let (served, refused) = answer_opens(&mut slots, 10, later);
    assert_eq!((served.len(), refused), (8, 0));
    assert_eq!(slots.learned(), 10);
}

#[test]
fn a_late_release_at_the_known_limit_teaches_nothing() {
    let start = Instant::now();
    let mut slots = connected(rules(1, 2), 3, start);
    answer_opens(&mut slots, 2, start);
    slots.closed(A, true, start);
    let actions = slots.take_actions();
    let mark = actions.iter().find_map(|action| match action {
        Action::Ping { mark, .. } => Some(*mark),
        _ => None,
    });
    slots.pinged(A, mark.expect("a round trip"), start);
    let (id, mark) = opens(&slots.take_actions())[0];
    // The slot that the server is late with is not among those we count.
    assert_eq!(slots.refused(id, mark, start), Refusal::Absorbed);
    assert_eq!(slots.learned(), 2);
    let later = start + Duration::from_secs(1);
    slots.wake(later);
    assert_eq!(answer_opens(&mut slots, 2, later).0, [2]);
    assert_eq!(slots.learned(), 2);
}

#[test]
fn the_learned_limit_creeps_back_up() {
    let start = Instant::now();
    let mut slots = connected(rules(1, 10), 10, start);
    answer_opens(&mut slots, 2, start);
    let mut now = start + Duration::from_secs(1);
    slots.wake(now);
    answer_opens(&mut slots, 2, now);
    assert_eq!(slots.learned(), 2);
    for expected in 3..=10 {
        now += Duration::from_secs(300);
        slots.tick(now);
        // The server has been reconfigured meanwhile.
        answer_opens(&mut slots, 10, now);
        assert_eq!(slots.learned(), expected);
    }
}

#[test]
fn a_server_without_sessions_is_a_hard_error_for_everybody() {
    let now = Instant::now();
    let mut slots = connected(rules(4, 10), 3, now);
    let pending = opens(&slots.take_actions());
    let mut told = Vec::new();
    for (id, mark) in pending {
        if let Refusal::Hard(waiters) = slots.refused(id, mark, now) {
            told = waiters;
        }
    }
    assert_eq!(told, [0, 1, 2]);
    assert!(slots.take_actions().contains(&Action::Disconnect(A)));
}

#[test]
fn no_spare_where_the_server_allows_a_single_session() {
    let start = Instant::now();
    let mut slots = connected(rules(1, 10), 1, start);
    let (served, refused) = answer_opens(&mut slots, 1, start);
    assert_eq!(
        (served.len(), refused),
        (1, 1),
        "the first spare is refused"
    );
    let mut now = start;
    let mut refusals = 0;
    for _ in 0..20 {
        now += Duration::from_secs(1);
        slots.closed(A, true, now);
        slots.wait(7, now);
        for action in slots.take_actions() {
            if let Action::Ping { on, mark } = action {
                slots.pinged(on, mark, now);
            } else if let Action::Open { on, mark } = action {
                slots.opened(on, mark, now);
            }
        }
        refusals += answer_opens(&mut slots, 1, now).1;
    }
    assert_eq!(slots.learned(), 1);
    assert!(refusals <= 1, "{refusals} refusals");
}

#[test]
fn no_spare_where_the_server_closes_unused_sessions() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 10), 1, now);
    answer_opens(&mut slots, 10, now);
    let mut deaths = 0;
    while slots.views().any(|view| view.ready > 0) {
        slots.closed(A, false, now);
        deaths += 1;
        answer_opens(&mut slots, 10, now);
    }
    assert_eq!(deaths, 3);
}

#[test]
fn a_failed_dial_fails_those_who_have_nobody_else() {
    let now = Instant::now();
    let mut slots = Slots::new(rules(4, 10));
    slots.wait(1, now);
    slots.wait(2, now);
    assert_eq!(
        slots.dial_failed(now, now + Duration::from_secs(1), false),
        [1, 2]
    );
    slots.wait(3, now);
    let actions = slots.take_actions();
    assert_eq!(dials(&actions), 1, "only the first one: {actions:?}");
    assert!(actions.contains(&Action::WakeAt(now + Duration::from_secs(1))));
}

#[test]
fn a_failed_dial_beside_a_live_connection_fails_nobody() {
    let now = Instant::now();
    let mut slots = connected(rules(4, 1), 3, now);
    answer_opens(&mut slots, 1, now);
    slots.wake(now + Duration::from_secs(1));
    assert!(dials(&slots.take_actions()) > 0);
    let later = now + Duration::from_secs(9);
    assert!(slots.dial_failed(now, later, false).is_empty());
    assert_eq!(slots.waiting(), 2);
}

#[test]
fn idle_and_old_connections_leave_and_busy_ones_finish_first() {
    let now = Instant::now();
    let mut slots = connected(rules(4, 10), 1, now);
    answer_opens(&mut slots, 10, now);
    slots.dialled(B, now, now + Duration::from_secs(3600));
    slots.take_actions();
    slots.tick(now + Duration::from_secs(301));
    assert!(
        slots.take_actions().contains(&Action::Disconnect(B)),
        "idle"
    );
    slots.tick(now + Duration::from_secs(3601));
    assert!(
        !slots.take_actions().contains(&Action::Disconnect(A)),
        "a command runs"
    );
    slots.closed(A, true, now + Duration::from_secs(3700));
    assert!(
        slots.take_actions().contains(&Action::Disconnect(A)),
        "drained"
    );
}

#[test]
fn a_locally_closed_channel_retires_its_connection() {
    let now = Instant::now();
    let mut slots = connected(rules(4, 10), 2, now);
    answer_opens(&mut slots, 10, now);
    slots.forsaken(A, true, now);
    assert_eq!(slots.live(), 0);
    slots.closed(A, true, now);
    assert!(slots.take_actions().contains(&Action::Disconnect(A)));
    slots.died(A, now);
    assert!(slots.is_empty());
}

#[test]
fn a_closed_pool_takes_everybody_out_of_the_queue() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 1), 3, now);
    answer_opens(&mut slots, 1, now);
    assert_eq!(slots.close(now), [1, 2]);
    assert_eq!(slots.live(), 0);
    slots.dialled(B, now, now + Duration::from_secs(3600));
    assert!(
        slots.take_actions().contains(&Action::Disconnect(B)),
        "a late dial"
    );
}

// ── random stories ───────────────────────────────────────────────────────────────────────────

/// A server and a network that answer in any order, a limit that the pool has to find out, and
/// callers who come and go.
struct World {
    slots: Slots<u32>,
    now: Instant,
    server_limit: u32,
    late_release: bool,
    next_id: u64,
    next_who: u32,
    queue: VecDeque<(Ticket, u32)>,
    dialling: u32,
    opening: BTreeMap<ConnectionId, VecDeque<Mark>>,
    pings: Vec<(ConnectionId, Mark)>,
    leased: Vec<ConnectionId>,
    spares: Vec<ConnectionId>,
    /// What the server holds, and of that what it will free with the next round trip.
    held: BTreeMap<ConnectionId, (u32, u32)>,
}

impl World {
    fn new(connections: u32, sessions: u32, server_limit: u32, late_release: bool) -> Self {
        Self {
            slots: Slots::new(rules(connections, sessions)),
            now: Instant::now(),
            server_limit,
            late_release,
            next_id: 0,
            next_who: 0,
            queue: VecDeque::new(),
            dialling: 0,
            opening: BTreeMap::new(),
            pings: Vec::new(),
            leased: Vec::new(),
            spares: Vec::new(),
            held: BTreeMap::new(),
        }
    }

    fn step(&mut self, what: u8, pick: usize) {
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
            _ => {
                self.now += Duration::from_millis(100 * (pick as u64 % 40));
                self.slots.wake(self.now);
                self.slots.tick(self.now);
            }
        }
        self.settle();
        self.check();
    }

    fn arrive(&mut self) {
        while let Some(id) = self.spares.pop() {
            if self.slots.claim(id, self.now) {
                self.leased.push(id);
                return;
            }
        }
        let who = self.next_who;
        self.next_who += 1;
        let ticket = self.slots.wait(who, self.now);
        self.queue.push_back((ticket, who));
    }

    fn leave(&mut self, pick: usize) {
        if !self.queue.is_empty() {
            let at = pick % self.queue.len();
            let (ticket, _) = self.queue.remove(at).expect("in range");
            self.slots.abandon(ticket);
        }
    }

    fn dialled(&mut self) {
        if self.dialling > 0 {
            self.dialling -= 1;
            self.next_id += 1;
            let id = ConnectionId(self.next_id);
            self.held.insert(id, (0, 0));
            self.opening.insert(id, VecDeque::new());
            self.slots
                .dialled(id, self.now, self.now + Duration::from_secs(60));
        }
    }

    fn dial_fails(&mut self) {
        if self.dialling > 0 {
            self.dialling -= 1;
            let told =
                self.slots
                    .dial_failed(self.now, self.now + Duration::from_millis(100), false);
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
                self.leased.push(id);
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
        self.slots.died(id, self.now);
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
            self.slots.forsaken(id, true, self.now);
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
                    Action::Dial => self.dialling += 1,
                    Action::Open { on, mark } => {
                        self.opening
                            .get_mut(&on)
                            .expect("an open on a live connection")
                            .push_back(mark);
                    }
                    Action::Ping { on, mark } => self.pings.push((on, mark)),
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
                    Action::WakeAt(at) => assert!(at > self.now, "a wake-up in the past"),
                }
            }
        }
    }

    fn check(&self) {
        let slots = &self.slots;
        assert!(slots.live() + slots.dialling() <= slots.rules.connections);
        assert_eq!(slots.dialling(), self.dialling);
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

    /// From any state, if everything answers from now on, everybody is served.
    fn everybody_is_served_in_the_end(&mut self) {
        for round in 0..10_000 {
            if self.queue.is_empty() {
                return;
            }
            self.dialled();
            self.settle();
            self.answer_open(round);
            self.settle();
            self.pong();
            self.settle();
            self.finish_command(round);
            self.now += Duration::from_millis(20);
            self.slots.wake(self.now);
            self.settle();
            self.check();
        }
        panic!("{} still wait: {:?}", self.queue.len(), self.slots);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_story_keeps_the_books_true_and_serves_everybody(
        connections in 1u32..4,
        sessions in 1u32..12,
        server_limit in 1u32..12,
        late_release: bool,
        story in prop::collection::vec((0u8..22, 0usize..1000), 1..250),
    ) {
        let mut world = World::new(connections, sessions, server_limit, late_release);
        for (what, pick) in story {
            world.step(what, pick);
        }
        world.everybody_is_served_in_the_end();
    }
}
