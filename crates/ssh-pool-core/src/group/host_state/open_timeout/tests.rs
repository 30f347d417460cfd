//! The open timeout by itself.

use std::time::Duration;

use super::super::tests::{config, connected, opens};
use super::super::{ConnectionId, StateEvent};
use super::*;
use crate::event::Retirement;

const A: ConnectionId = ConnectionId(1);
const CHECK: Duration = Duration::from_secs(2);

/// One connection that owes an open to each of two waiters, with its alarm set.
fn owing(now: Instant) -> (HostState<u32>, Vec<Effect>) {
    let mut state = connected(config(1, 10), 2, now);
    let effects = state.take_effects();
    assert_eq!(opens(&effects).len(), 2);
    let alarms = (effects.iter()).filter(|effect| matches!(effect, Effect::WakeAt(_)));
    assert_eq!(alarms.collect::<Vec<_>>(), [&Effect::WakeAt(now + CHECK)]);
    (state, effects)
}

fn is_checked(effects: &[Effect]) -> bool {
    effects.contains(&Effect::CheckLiveness(A))
}

#[test]
fn a_connection_that_does_not_answer_a_waiter_is_checked() {
    let now = Instant::now();
    let (mut state, _) = owing(now);
    state.wake(now + CHECK - Duration::from_millis(1));
    assert_eq!(state.take_effects(), [], "not yet");
    state.wake(now + CHECK);
    let effects = state.take_effects();
    assert_eq!(
        effects,
        [Effect::CheckLiveness(A), Effect::WakeAt(now + CHECK * 2)],
        "and it is looked at again"
    );
    state.retire(A, Retirement::Unresponsive, now + CHECK);
    let effects = state.take_effects();
    let told = Effect::Report(StateEvent::Retired(A, Retirement::Unresponsive));
    assert!(effects.contains(&told), "{effects:?}");
    assert!(effects.contains(&Effect::Disconnect(A)), "{effects:?}");
    assert!(
        effects.contains(&Effect::Connect),
        "in its place: {effects:?}"
    );
}

#[test]
fn an_answer_to_one_gives_the_others_time() {
    let now = Instant::now();
    let (mut state, effects) = owing(now);
    let (id, close_seq) = opens(&effects)[0];
    let half = now + CHECK / 2;
    assert!(matches!(
        state.opened(id, close_seq, half),
        super::super::Handoff::To(_)
    ));
    state.wake(now + CHECK);
    assert!(!is_checked(&state.take_effects()));
    state.wake(half + CHECK);
    assert!(is_checked(&state.take_effects()));
}

#[test]
fn without_waiters_no_connection_is_checked() {
    let now = Instant::now();
    let mut state = connected(config(1, 10), 0, now);
    let first = state.wait(1, now);
    let second = state.wait(2, now);
    state.abandon(first);
    state.abandon(second);
    state.take_effects();
    state.wake(now + CHECK * 10);
    assert_eq!(state.take_effects(), []);
    // A new waiter depends on a request that was made long ago.
    state.wait(3, now + CHECK * 10);
    assert!(is_checked(&state.take_effects()));
}

#[test]
fn a_connection_that_answers_everything_but_opens_takes_nothing_new_after_a_while() {
    let mut now = Instant::now();
    let (mut state, _) = owing(now);
    for _ in 1..BEHIND {
        now += CHECK;
        state.wake(now);
        assert!(is_checked(&state.take_effects()), "it is looked at");
    }
    now += CHECK;
    state.wake(now);
    let effects = state.take_effects();
    let told = Effect::Report(StateEvent::Retired(A, Retirement::Unresponsive));
    assert!(effects.contains(&told), "{effects:?}");
    assert!(
        effects.contains(&Effect::Connect),
        "in its place: {effects:?}"
    );
}
