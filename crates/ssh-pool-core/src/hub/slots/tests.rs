//! The books by themselves, one story at a time. Random ones are in `stories.rs`.

use super::*;

pub(super) const A: ConnectionId = ConnectionId(1);
pub(super) const B: ConnectionId = ConnectionId(2);
pub(super) const C: ConnectionId = ConnectionId(3);

pub(super) fn rules(connections: u32, sessions: u32) -> Rules {
    Rules {
        connections,
        held_connections: 0,
        urgent_connections: 0,
        sessions,
        streams: 512,
        handshakes: 4,
        patience: Duration::from_millis(250),
        idle: Duration::from_secs(300),
        recovery: Duration::from_secs(300),
        drain: Duration::from_secs(30),
        check: Duration::from_secs(2),
        ready_each: false,
    }
}

pub(super) fn opens(actions: &[Action]) -> Vec<(ConnectionId, Mark)> {
    let open = |action: &Action| match action {
        Action::Open { on, mark, .. } => Some((*on, *mark)),
        _ => None,
    };
    actions.iter().filter_map(open).collect()
}

pub(super) fn dials(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| **action == Action::Dial)
        .count()
}

/// A host with one live connection and `waiters` people in the queue.
pub(super) fn connected(rules: Rules, waiters: u32, now: Instant) -> Slots<u32> {
    let mut slots = Slots::new(rules);
    for who in 0..waiters {
        slots.wait(who, now);
    }
    slots.dialled(A, now, now + Duration::from_secs(3600));
    slots
}

/// Answers every pending open the way a server with this limit does. Returns who was served.
pub(super) fn answer_opens(
    slots: &mut Slots<u32>,
    server_limit: u32,
    now: Instant,
) -> (Vec<u32>, u32) {
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
    assert!(slots.claim(A, || now));
}

#[test]
fn a_spare_that_is_taken_is_followed_by_the_next_and_two_by_none() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 10), 1, now);
    answer_opens(&mut slots, 10, now);
    assert!(slots.claim(A, || now));
    let (id, mark) = opens(&slots.take_actions())[0];
    assert_eq!(slots.opened(id, mark, now), Hand::Spare);
    assert_eq!(slots.returned(A, true, now), Hand::Spare);
    let no_time = || unreachable!("another spare is there: nothing follows");
    assert!(slots.claim(A, no_time));
    assert_eq!(slots.take_actions(), []);
}

#[test]
fn a_waiter_beside_an_idle_spare_gets_it() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 2), 1, now);
    answer_opens(&mut slots, 2, now);
    assert_eq!(
        slots.views().next().map(|view| view.ready),
        Some(1),
        "a spare beside the command"
    );
    // It was on its way to the idle channels when somebody looked there in vain.
    slots.wait(7, now);
    assert!(slots.take_actions().contains(&Action::Reclaim));
    assert_eq!(slots.returned(A, false, now), Hand::To(7));
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
fn a_burst_of_refusals_does_not_count_against_the_connection_later() {
    let start = Instant::now();
    let mut slots = connected(rules(1, 10), 12, start);
    assert_eq!(
        answer_opens(&mut slots, 1, start).1,
        9,
        "a burst of refusals"
    );
    let later = start + Duration::from_secs(1);
    slots.closed(A, true, later);
    let ping = slots
        .take_actions()
        .into_iter()
        .find_map(|action| match action {
            Action::Ping { mark, .. } => Some(mark),
            _ => None,
        });
    slots.pinged(A, ping.expect("a round trip"), later);
    // The server is late all the same: one refusal with nothing held.
    let (id, mark) = opens(&slots.take_actions())[0];
    assert_eq!(slots.refused(id, mark, later), Refusal::Absorbed);
    assert_eq!(
        slots.live(),
        1,
        "that is no reason to give the connection up"
    );
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
fn a_dial_that_was_refused_for_what_is_forgotten_by_now_is_made() {
    let now = Instant::now();
    let mut slots = Slots::new(rules(4, 10));
    slots.wait(0, now);
    assert_eq!(dials(&slots.take_actions()), 1);
    let until = now + Duration::from_secs(60);
    assert_eq!(slots.dial_refused(now, until, true), []);
    assert_eq!(dials(&slots.take_actions()), 1);
    assert_eq!(slots.dial_refused(now, until, false), [0]);
    assert_eq!(dials(&slots.take_actions()), 0);
}

#[test]
fn one_connection_without_sessions_fails_nobody_while_another_one_has_some() {
    let now = Instant::now();
    let mut slots = connected(rules(4, 1), 2, now);
    assert_eq!(answer_opens(&mut slots, 1, now).0, [0]);
    let later = now + Duration::from_secs(1);
    slots.dialled(B, later, later + Duration::from_secs(3600));
    let pending = opens(&slots.take_actions());
    let [(B, mark)] = pending[..] else {
        panic!("{pending:?}");
    };
    assert_eq!(slots.refused(B, mark, later), Refusal::Hard(Vec::new()));
    assert_eq!(slots.waiting(), 1);
    slots.closed(A, true, later);
    let actions = slots.take_actions();
    let ping = actions.iter().find_map(|action| match action {
        Action::Ping { on: A, mark } => Some(*mark),
        _ => None,
    });
    slots.pinged(A, ping.expect("its slot cools"), later);
    assert_eq!(opens(&slots.take_actions()).len(), 1, "it goes on");
}

#[test]
fn where_a_connection_is_one_channel_each_gets_the_next_one_ready() {
    let now = Instant::now();
    let rules = Rules {
        ready_each: true,
        ..rules(4, 1)
    };
    let mut slots = connected(rules, 1, now);
    let (served, _) = answer_opens(&mut slots, 1, now);
    assert_eq!(served, [0]);
    slots.closed(A, true, now);
    // First it has to be seen that the server has let go of the last one.
    let actions = slots.take_actions();
    let [Action::Ping { on: A, mark }] = actions[..] else {
        panic!("{actions:?}");
    };
    slots.pinged(A, mark, now);
    let opens = opens(&slots.take_actions());
    let [(A, mark)] = opens[..] else {
        panic!("{opens:?}");
    };
    assert_eq!(slots.opened(A, mark, now), Hand::Spare);
    assert!(slots.take_actions().is_empty(), "one is enough");
    assert!(slots.claim(A, || now));
    // It does not keep its connection from growing idle.
    slots.returned(A, true, now);
    slots.tick(now + Duration::from_secs(301));
    let actions = slots.take_actions();
    assert!(actions.contains(&Action::Disconnect(A)), "{actions:?}");
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
            } else if let Action::Open { on, mark, .. } = action {
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
    answer_opens(&mut slots, 10, now);
    slots.tick(now + Duration::from_secs(301));
    assert!(
        slots.take_actions().contains(&Action::Disconnect(B)),
        "idle"
    );
    slots.tick(now + Duration::from_secs(3601));
    let actions = slots.take_actions();
    assert!(
        !actions.contains(&Action::Disconnect(A)),
        "a command runs: {actions:?}"
    );
    slots.dialled(C, now, now + Duration::from_secs(7200));
    slots.closed(A, true, now + Duration::from_secs(3700));
    assert!(
        slots.take_actions().contains(&Action::Disconnect(A)),
        "drained"
    );
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

#[test]
fn whoever_leaves_a_long_queue_leaves_from_anywhere() {
    const LONG: u32 = 10_000;
    let now = Instant::now();
    let mut slots = Slots::new(rules(1, 1));
    let mut tickets: Vec<_> = (0..LONG).map(|who| (who, slots.wait(who, now))).collect();
    // One in ten stays.
    let (stay, mut leave): (Vec<_>, Vec<_>) = tickets.drain(..).partition(|(who, _)| who % 10 == 0);
    let mut rest = leave.split_off(leave.len() / 3);
    let mut back = rest.split_off(rest.len() / 2);
    back.reverse();
    fastrand::shuffle(&mut rest);
    for (who, ticket) in leave.into_iter().chain(back).chain(rest) {
        let before = slots.waiting();
        slots.abandon(ticket);
        assert_eq!(slots.waiting() + 1, before, "{who}");
    }
    let left = slots.dismiss();
    assert!(left.iter().eq(stay.iter().map(|(who, _)| who)), "in order");
}

#[test]
fn tickets_say_who_is_next_and_not_when_they_come() {
    let now = Instant::now();
    let mut slots = Slots::new(rules(1, 1));
    let tickets: Vec<_> = (0..3).map(|_| slots.next_ticket()).collect();
    slots.wait(3, now);
    for who in [1, 0, 2] {
        slots.wait_in_turn(tickets[who as usize], who, now);
    }
    slots.abandon(tickets[1]);
    assert_eq!(slots.dismiss(), [0, 2, 3]);
}

#[test]
fn the_meter_runs_while_there_is_nothing_to_wait_for_but_a_connection() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let until = |slots: &Slots<u32>, ms| {
        let Reading {
            dialling,
            backing_off,
        } = slots.standstill(at(ms));
        (dialling.as_millis(), backing_off.as_millis())
    };
    let mut slots = Slots::new(rules(1, 1));
    assert_eq!(until(&slots, 0), (0, 0));
    slots.wait(0, at(100));
    assert_eq!(until(&slots, 110), (10, 0));
    slots.dial_failed(at(130), at(230), true);
    slots.wait(1, at(150));
    assert_eq!(until(&slots, 150), (30, 20));
    slots.wake(at(230));
    slots.dialled(A, at(250), at(1_000_000));
    assert_eq!(until(&slots, 300), (50, 100));
    // One is served, and the other waits for it.
    assert_eq!(answer_opens(&mut slots, 1, at(300)).0, [0]);
    assert_eq!(until(&slots, 9000), (50, 100));
    slots.died(A, at(9000));
    assert_eq!(until(&slots, 9007), (57, 100));
    slots.dialled(B, at(9010), at(1_000_000));
    assert_eq!(until(&slots, 9999), (60, 100));
}
