//! Which connection goes when, and what takes its place.

use super::tests::{A, B, C, answer_opens, config, connected, dials};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A host that runs `commands` on its one connection, at the time when that is too old.
fn aged(config: GroupConfig, running: u32) -> (HostState<u32>, Instant) {
    let start = Instant::now();
    let mut state = connected(config, running, start);
    answer_opens(&mut state, 10, start);
    (state, start + HOUR)
}

fn retired(effects: &[Effect]) -> Vec<(ConnectionId, Retirement)> {
    let fact = |effect: &Effect| match effect {
        Effect::Report(StateEvent::Retired(id, why)) => Some((*id, *why)),
        _ => None,
    };
    effects.iter().filter_map(fact).collect()
}

fn alive(state: &HostState<u32>) -> Vec<ConnectionId> {
    state.alive().collect()
}

#[test]
fn in_use_the_old_connection_goes_when_its_successor_is_there() {
    let (mut state, now) = aged(config(1, 10), 1);
    state.tick(now);
    let effects = state.take_effects();
    assert_eq!((dials(&effects), retired(&effects)), (1, vec![]));
    assert!(state.claim(A, || now), "it serves until then");
    assert!(!state.is_retiring(A));
    state.tick(now + SECOND);
    assert_eq!(dials(&state.take_effects()), 0, "one is under way");

    state.connected(B, now + SECOND, now + HOUR * 2);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(A, Retirement::Lifetime)]);
    assert!(!effects.contains(&Effect::Disconnect(A)), "two run there");
    assert!(state.is_retiring(A) && !state.is_retiring(B));
    assert_eq!(alive(&state), [B]);
    for _ in 0..2 {
        state.closed(A, true, now + SECOND);
    }
    assert!(state.take_effects().contains(&Effect::Disconnect(A)));
}

#[test]
fn not_in_use_the_old_connection_goes_at_once_and_nothing_is_dialled() {
    let (mut state, now) = aged(config(1, 10), 1);
    state.closed(A, true, now - SECOND);
    state.take_effects();
    state.tick(now);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(A, Retirement::Lifetime)]);
    assert!(effects.contains(&Effect::Disconnect(A)));
    assert_eq!(dials(&effects), 0);
}

#[test]
fn between_two_commands_of_one_caller_a_host_is_busy() {
    let (mut state, now) = aged(config(1, 10), 1);
    state.closed(A, true, now - SECOND / 2);
    state.take_effects();
    state.tick(now);
    let effects = state.take_effects();
    assert_eq!((dials(&effects), alive(&state)), (1, vec![A]));
    // No other command comes; but the successor does.
    state.tick(now + SECOND);
    assert_eq!(state.take_effects(), []);
    state.connected(B, now + SECOND, now + HOUR * 2);
    assert_eq!(alive(&state), [B]);
    // It closes without a successor, because nothing has used it.
    state.tick(now + SECOND * 30);
    assert_eq!(dials(&state.take_effects()), 0);
}

#[test]
fn a_successor_that_does_not_connect_changes_nothing_and_the_next_is_dialled_after_the_pause() {
    let (mut state, mut now) = aged(config(1, 1), 2);
    state.tick(now);
    for _ in 0..20 {
        assert_eq!(dials(&state.take_effects()), 1);
        let pause = now + SECOND;
        assert!(state.connect_failed(now, pause, false).is_empty(), "told");
        state.tick(pause - SECOND / 2);
        assert_eq!(dials(&state.take_effects()), 0, "too early");
        assert_eq!((alive(&state), state.waiting()), (vec![A], 1));
        now = pause;
        state.tick(now);
    }
}

#[test]
fn while_the_host_cannot_be_reached_the_old_connection_stays_though_nothing_runs() {
    let (mut state, now) = aged(config(1, 10), 1);
    state.tick(now);
    state.take_effects();
    assert!(state.connect_failed(now, now + SECOND, false).is_empty());
    state.closed(A, true, now);
    state.tick(now + SECOND * 30);
    let effects = state.take_effects();
    assert_eq!((dials(&effects), alive(&state)), (0, vec![A]));
    assert!(state.claim(A, || now + SECOND * 31));
    assert_eq!(dials(&state.take_effects()), 1, "in use again");
}

#[test]
fn connections_of_one_age_are_replaced_one_after_the_other() {
    let start = Instant::now();
    let mut state = connected(config(3, 1), 3, start);
    state.wake(start + SECOND);
    state.connected(B, start, start + HOUR);
    state.connected(C, start, start + HOUR);
    answer_opens(&mut state, 1, start);

    let now = start + HOUR;
    for (old, new) in [(A, 4), (B, 5), (C, 6)] {
        state.tick(now);
        assert_eq!(dials(&state.take_effects()), 1);
        state.connected(ConnectionId(new), now, now + HOUR);
        let effects = state.take_effects();
        assert_eq!(retired(&effects), [(old, Retirement::Lifetime)]);
        state.tick(now);
        assert_eq!(state.live(), 3);
        assert_eq!(dials(&effects), 0, "the old one is still there");
        assert_eq!(state.take_effects(), []);
        state.closed(old, true, now);
        assert!(state.take_effects().contains(&Effect::Disconnect(old)));
        state.died(old, now);
    }
    assert_eq!(state.counters().peak_connections, 4);
}

#[test]
fn a_long_command_does_not_delay_other_replacements() {
    let start = Instant::now();
    let mut state = connected(config(2, 1), 2, start);
    state.wake(start + SECOND);
    state.take_effects();
    state.connected(B, start, start + HOUR);
    answer_opens(&mut state, 1, start);
    let now = start + HOUR;
    state.tick(now);
    state.connected(C, now, now + HOUR);
    state.take_effects();
    state.tick(now + SECOND * 29);
    assert_eq!(dials(&state.take_effects()), 0);
    state.tick(now + SECOND * 30);
    assert_eq!(dials(&state.take_effects()), 1);
}

#[test]
fn those_who_wait_are_dialled_for_beside_a_successor() {
    let start = Instant::now();
    let mut state = connected(config(2, 1), 1, start);
    answer_opens(&mut state, 1, start);
    let now = start + HOUR;
    state.tick(now);
    assert_eq!(dials(&state.take_effects()), 1);
    state.wait(7, now);
    state.wake(now + SECOND);
    assert_eq!(dials(&state.take_effects()), 1);
    state.tick(now + SECOND);
    assert_eq!(dials(&state.take_effects()), 0, "three at most");
}

#[test]
fn a_worn_connection_serves_without_the_slots_it_has_lost_until_it_is_replaced() {
    let now = Instant::now();
    let mut state = connected(config(1, 3), 2, now);
    answer_opens(&mut state, 3, now);
    state.closed_here(A, true, false, now);
    let effects = state.take_effects();
    assert_eq!((dials(&effects), alive(&state)), (1, vec![A]));
    assert!(state.claim(A, || now), "the spare");
    state.wait(7, now);
    assert_eq!(answer_opens(&mut state, 3, now).0, [0_u32; 0], "no room");
    state.connected(B, now, now + HOUR);
    assert_eq!(retired(&state.effects), [(A, Retirement::Worn)]);
    assert_eq!(answer_opens(&mut state, 3, now).0, [7]);
}

#[test]
fn a_worn_connection_without_a_slot_goes_at_once() {
    let now = Instant::now();
    let mut state = connected(config(1, 1), 2, now);
    answer_opens(&mut state, 1, now);
    state.closed_here(A, true, false, now);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(A, Retirement::Worn)]);
    assert!(effects.contains(&Effect::Disconnect(A)));
    assert_eq!(dials(&effects), 1, "for the one who waits");
}

#[test]
fn after_many_local_closes_a_connection_is_worn() {
    let now = Instant::now();
    let mut state = connected(config(1, 1), 1, now);
    answer_opens(&mut state, 1, now);
    for _ in 1..WORN {
        state.closed_here(A, false, true, now);
        state.end_stream(B, true, now);
    }
    assert_eq!(dials(&state.take_effects()), 0);
    state.end_stream(A, true, now);
    assert_eq!(dials(&state.take_effects()), 1);
    state.connected(B, now, now + HOUR);
    assert_eq!(retired(&state.take_effects()), [(A, Retirement::Worn)]);
}

#[test]
fn a_connection_for_one_command_goes_at_the_end_of_that_and_counts_until_then() {
    let config = GroupConfig {
        idle_each: true,
        idle: HOUR * 3,
        ..config(2, 1)
    };
    let (mut state, now) = aged(config, 1);
    state.connected(B, now, now + HOUR);
    answer_opens(&mut state, 1, now);
    assert!(!state.is_retiring(A));
    state.tick(now);
    let effects = state.take_effects();
    assert_eq!((dials(&effects), retired(&effects)), (0, vec![]));
    assert_eq!(state.live(), 2);
    assert!(state.is_retiring(A), "it serves no other caller");
    state.closed(A, true, now);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(A, Retirement::Lifetime)]);
    assert!(effects.contains(&Effect::Disconnect(A)));
    // B is free, with its channel ready.
    state.tick(now + HOUR);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(B, Retirement::Lifetime)]);
    assert_eq!((dials(&effects), state.live()), (0, 0));
}

#[test]
fn a_channel_that_comes_back_unused_does_not_keep_an_old_connection() {
    let config = GroupConfig {
        idle_each: true,
        ..config(1, 1)
    };
    let (mut state, now) = aged(config, 2);
    state.tick(now);
    assert_eq!(state.returned(A, true, now), Handoff::Discard);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(A, Retirement::Lifetime)]);
    assert_eq!(dials(&effects), 1, "for the one who waits");
}

#[test]
fn an_evicted_host_that_is_in_use_is_dialled_at_once_and_another_is_not() {
    let (mut state, now) = aged(config(4, 10), 1);
    state.evict(Retirement::Evicted, now);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(A, Retirement::Evicted)]);
    assert!(!effects.contains(&Effect::Disconnect(A)), "it finishes");
    assert_eq!(dials(&effects), 1);
    state.connected(B, now, now + HOUR);
    state.evict(Retirement::Evicted, now);
    assert_eq!(dials(&state.take_effects()), 1, "A still runs a command");

    state.connected(C, now, now + HOUR);
    state.closed(A, true, now);
    state.died(A, now);
    state.take_effects();
    state.evict(Retirement::Evicted, now + SECOND);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(C, Retirement::Evicted)]);
    assert_eq!(dials(&effects), 0);
}

#[test]
fn what_was_being_connected_when_the_host_was_evicted_serves_no_caller() {
    let now = Instant::now();
    let mut state = HostState::new(config(4, 10));
    state.wait(1, now);
    state.take_effects();
    state.evict(Retirement::Evicted, now);
    assert_eq!(dials(&state.take_effects()), 0, "one at a time");
    state.connected_before_evict(A, now);
    let effects = state.take_effects();
    assert_eq!(retired(&effects), [(A, Retirement::Evicted)]);
    assert_eq!((dials(&effects), state.waiting()), (1, 1));
    state.connected(B, now, now + HOUR);
    assert_eq!(answer_opens(&mut state, 10, now).0, [1]);
}

#[test]
fn a_successor_that_was_being_dialled_when_the_host_was_evicted_is_dialled_again() {
    let (mut state, now) = aged(config(1, 10), 1);
    state.tick(now);
    state.take_effects();
    state.evict(Retirement::Evicted, now);
    assert_eq!(dials(&state.take_effects()), 0, "one at a time");
    state.connected_before_evict(B, now);
    assert_eq!(dials(&state.take_effects()), 1, "without being asked for");
}

#[test]
fn a_host_that_is_closed_while_something_runs_asks_for_no_dial() {
    let (mut state, now) = aged(config(4, 10), 1);
    state.close(now);
    state.take_effects();
    // It had its channel, and has not begun.
    assert_eq!(state.returned(A, true, now), Handoff::Discard);
    state.tick(now + SECOND);
    let effects = state.take_effects();
    assert_eq!((dials(&effects), state.connecting()), (0, 0), "{effects:?}");
    assert!(effects.contains(&Effect::Disconnect(A)));
}
