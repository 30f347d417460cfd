//! Which connection goes when, and what takes its place.

use super::tests::{A, B, C, answer_opens, connected, dials, rules};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A host that runs so many commands on its one connection, at the time when that is too old.
fn aged(rules: Rules, running: u32) -> (Slots<u32>, Instant) {
    let start = Instant::now();
    let mut slots = connected(rules, running, start);
    answer_opens(&mut slots, 10, start);
    (slots, start + HOUR)
}

fn retired(actions: &[Action]) -> Vec<(ConnectionId, Retirement)> {
    let fact = |action: &Action| match action {
        Action::Report(Fact::Retired(id, why)) => Some((*id, *why)),
        _ => None,
    };
    actions.iter().filter_map(fact).collect()
}

fn alive(slots: &Slots<u32>) -> Vec<ConnectionId> {
    slots.alive().collect()
}

#[test]
fn in_use_the_old_connection_goes_when_its_successor_is_there() {
    let (mut slots, now) = aged(rules(1, 10), 1);
    slots.tick(now);
    let actions = slots.take_actions();
    assert_eq!((dials(&actions), retired(&actions)), (1, vec![]));
    assert!(slots.claim(A, || now), "it serves until then");
    assert!(!slots.is_retiring(A));
    slots.tick(now + SECOND);
    assert_eq!(dials(&slots.take_actions()), 0, "one is under way");

    slots.dialled(B, now + SECOND, now + HOUR * 2);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(A, Retirement::Lifetime)]);
    assert!(!actions.contains(&Action::Disconnect(A)), "two run there");
    assert!(slots.is_retiring(A) && !slots.is_retiring(B));
    assert_eq!(alive(&slots), [B]);
    for _ in 0..2 {
        slots.closed(A, true, now + SECOND);
    }
    assert!(slots.take_actions().contains(&Action::Disconnect(A)));
}

#[test]
fn not_in_use_the_old_connection_goes_at_once_and_nothing_is_dialled() {
    let (mut slots, now) = aged(rules(1, 10), 1);
    slots.closed(A, true, now - SECOND);
    slots.take_actions();
    slots.tick(now);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(A, Retirement::Lifetime)]);
    assert!(actions.contains(&Action::Disconnect(A)));
    assert_eq!(dials(&actions), 0);
}

#[test]
fn between_two_commands_of_one_caller_a_host_is_busy() {
    let (mut slots, now) = aged(rules(1, 10), 1);
    slots.closed(A, true, now - SECOND / 2);
    slots.take_actions();
    slots.tick(now);
    let actions = slots.take_actions();
    assert_eq!((dials(&actions), alive(&slots)), (1, vec![A]));
    // No other command comes; but the successor does.
    slots.tick(now + SECOND);
    assert_eq!(slots.take_actions(), []);
    slots.dialled(B, now + SECOND, now + HOUR * 2);
    assert_eq!(alive(&slots), [B]);
    // Which is replaced by nothing, because it was of no use.
    slots.tick(now + SECOND * 30);
    assert_eq!(dials(&slots.take_actions()), 0);
}

#[test]
fn a_successor_that_does_not_connect_changes_nothing_and_the_next_is_dialled_after_the_pause() {
    let (mut slots, mut now) = aged(rules(1, 1), 2);
    slots.tick(now);
    for _ in 0..20 {
        assert_eq!(dials(&slots.take_actions()), 1);
        let pause = now + SECOND;
        assert!(slots.dial_failed(now, pause, false).is_empty(), "told");
        slots.tick(pause - SECOND / 2);
        assert_eq!(dials(&slots.take_actions()), 0, "too early");
        assert_eq!((alive(&slots), slots.waiting()), (vec![A], 1));
        now = pause;
        slots.tick(now);
    }
}

#[test]
fn while_the_host_cannot_be_reached_the_old_connection_stays_though_nothing_runs() {
    let (mut slots, now) = aged(rules(1, 10), 1);
    slots.tick(now);
    slots.take_actions();
    assert!(slots.dial_failed(now, now + SECOND, false).is_empty());
    slots.closed(A, true, now);
    slots.tick(now + SECOND * 30);
    let actions = slots.take_actions();
    assert_eq!((dials(&actions), alive(&slots)), (0, vec![A]));
    assert!(slots.claim(A, || now + SECOND * 31));
    assert_eq!(dials(&slots.take_actions()), 1, "in use again");
}

#[test]
fn connections_of_one_age_are_replaced_one_after_the_other() {
    let start = Instant::now();
    let mut slots = connected(rules(3, 1), 3, start);
    slots.wake(start + SECOND);
    slots.dialled(B, start, start + HOUR);
    slots.dialled(C, start, start + HOUR);
    answer_opens(&mut slots, 1, start);

    let now = start + HOUR;
    for (old, new) in [(A, 4), (B, 5), (C, 6)] {
        slots.tick(now);
        assert_eq!(dials(&slots.take_actions()), 1);
        slots.dialled(ConnectionId(new), now, now + HOUR);
        let actions = slots.take_actions();
        assert_eq!(retired(&actions), [(old, Retirement::Lifetime)]);
        slots.tick(now);
        assert_eq!(slots.live(), 3);
        assert_eq!(dials(&actions), 0, "the old one is still there");
        assert_eq!(slots.take_actions(), []);
        slots.closed(old, true, now);
        assert!(slots.take_actions().contains(&Action::Disconnect(old)));
        slots.died(old, now);
    }
    assert_eq!(slots.tally().peak_connections, 4);
}

#[test]
fn a_command_that_goes_on_for_long_does_not_hold_the_other_renewals_up() {
    let start = Instant::now();
    let mut slots = connected(rules(2, 1), 2, start);
    slots.wake(start + SECOND);
    slots.take_actions();
    slots.dialled(B, start, start + HOUR);
    answer_opens(&mut slots, 1, start);
    let now = start + HOUR;
    slots.tick(now);
    slots.dialled(C, now, now + HOUR);
    slots.take_actions();
    slots.tick(now + SECOND * 29);
    assert_eq!(dials(&slots.take_actions()), 0);
    slots.tick(now + SECOND * 30);
    assert_eq!(dials(&slots.take_actions()), 1);
}

#[test]
fn those_who_wait_are_dialled_for_beside_a_successor() {
    let start = Instant::now();
    let mut slots = connected(rules(2, 1), 1, start);
    answer_opens(&mut slots, 1, start);
    let now = start + HOUR;
    slots.tick(now);
    assert_eq!(dials(&slots.take_actions()), 1);
    slots.wait(7, now);
    slots.wake(now + SECOND);
    assert_eq!(dials(&slots.take_actions()), 1);
    slots.tick(now + SECOND);
    assert_eq!(dials(&slots.take_actions()), 0, "three at most");
}

#[test]
fn a_worn_connection_serves_without_the_slots_it_has_lost_until_it_is_replaced() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 3), 2, now);
    answer_opens(&mut slots, 3, now);
    slots.closed_here(A, true, false, now);
    let actions = slots.take_actions();
    assert_eq!((dials(&actions), alive(&slots)), (1, vec![A]));
    assert!(slots.claim(A, || now), "the spare");
    slots.wait(7, now);
    assert_eq!(answer_opens(&mut slots, 3, now).0, [0_u32; 0], "no room");
    slots.dialled(B, now, now + HOUR);
    assert_eq!(retired(&slots.actions), [(A, Retirement::Worn)]);
    assert_eq!(answer_opens(&mut slots, 3, now).0, [7]);
}

#[test]
fn a_worn_connection_without_a_slot_goes_at_once() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 1), 2, now);
    answer_opens(&mut slots, 1, now);
    slots.closed_here(A, true, false, now);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(A, Retirement::Worn)]);
    assert!(actions.contains(&Action::Disconnect(A)));
    assert_eq!(dials(&actions), 1, "for the one who waits");
}

#[test]
fn after_many_local_closes_a_connection_is_worn() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 1), 1, now);
    answer_opens(&mut slots, 1, now);
    for _ in 1..WORN {
        slots.closed_here(A, false, true, now);
        slots.end_stream(B, true, now);
    }
    assert_eq!(dials(&slots.take_actions()), 0);
    slots.end_stream(A, true, now);
    assert_eq!(dials(&slots.take_actions()), 1);
    slots.dialled(B, now, now + HOUR);
    assert_eq!(retired(&slots.take_actions()), [(A, Retirement::Worn)]);
}

#[test]
fn a_connection_for_one_command_goes_at_the_end_of_that_and_counts_until_then() {
    let rules = Rules {
        ready_each: true,
        idle: HOUR * 3,
        ..rules(2, 1)
    };
    let (mut slots, now) = aged(rules, 1);
    slots.dialled(B, now, now + HOUR);
    answer_opens(&mut slots, 1, now);
    assert!(!slots.is_retiring(A));
    slots.tick(now);
    let actions = slots.take_actions();
    assert_eq!((dials(&actions), retired(&actions)), (0, vec![]));
    assert_eq!(slots.live(), 2);
    assert!(slots.is_retiring(A), "it serves nobody else");
    slots.closed(A, true, now);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(A, Retirement::Lifetime)]);
    assert!(actions.contains(&Action::Disconnect(A)));
    // B is free, with its channel ready.
    slots.tick(now + HOUR);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(B, Retirement::Lifetime)]);
    assert_eq!((dials(&actions), slots.live()), (0, 0));
}

#[test]
fn a_channel_that_comes_back_unused_does_not_keep_an_old_connection() {
    let rules = Rules {
        ready_each: true,
        ..rules(1, 1)
    };
    let (mut slots, now) = aged(rules, 2);
    slots.tick(now);
    assert_eq!(slots.returned(A, true, now), Hand::Discard);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(A, Retirement::Lifetime)]);
    assert_eq!(dials(&actions), 1, "for the one who waits");
}

#[test]
fn an_evicted_host_that_is_in_use_is_dialled_at_once_and_another_is_not() {
    let (mut slots, now) = aged(rules(4, 10), 1);
    slots.evict(Retirement::Evicted, now);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(A, Retirement::Evicted)]);
    assert!(!actions.contains(&Action::Disconnect(A)), "it finishes");
    assert_eq!(dials(&actions), 1);
    slots.dialled(B, now, now + HOUR);
    slots.evict(Retirement::Evicted, now);
    assert_eq!(dials(&slots.take_actions()), 1, "A still runs a command");

    slots.dialled(C, now, now + HOUR);
    slots.closed(A, true, now);
    slots.died(A, now);
    slots.take_actions();
    slots.evict(Retirement::Evicted, now + SECOND);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(C, Retirement::Evicted)]);
    assert_eq!(dials(&actions), 0);
}

#[test]
fn what_was_being_dialled_when_the_host_was_evicted_serves_nobody() {
    let now = Instant::now();
    let mut slots = Slots::new(rules(4, 10));
    slots.wait(1, now);
    slots.take_actions();
    slots.evict(Retirement::Evicted, now);
    assert_eq!(dials(&slots.take_actions()), 0, "one at a time");
    slots.dialled_before_evict(A, now);
    let actions = slots.take_actions();
    assert_eq!(retired(&actions), [(A, Retirement::Evicted)]);
    assert_eq!((dials(&actions), slots.waiting()), (1, 1));
    slots.dialled(B, now, now + HOUR);
    assert_eq!(answer_opens(&mut slots, 10, now).0, [1]);
}

#[test]
fn a_successor_that_was_being_dialled_when_the_host_was_evicted_is_dialled_again() {
    let (mut slots, now) = aged(rules(1, 10), 1);
    slots.tick(now);
    slots.take_actions();
    slots.evict(Retirement::Evicted, now);
    assert_eq!(dials(&slots.take_actions()), 0, "one at a time");
    slots.dialled_before_evict(B, now);
    assert_eq!(dials(&slots.take_actions()), 1, "without being asked for");
}

#[test]
fn a_host_that_is_closed_while_something_runs_asks_for_no_dial() {
    let (mut slots, now) = aged(rules(4, 10), 1);
    slots.close(now);
    slots.take_actions();
    // It had its channel, and has not begun.
    assert_eq!(slots.returned(A, true, now), Hand::Discard);
    slots.tick(now + SECOND);
    let actions = slots.take_actions();
    assert_eq!((dials(&actions), slots.dialling()), (0, 0), "{actions:?}");
    assert!(actions.contains(&Action::Disconnect(A)));
}
