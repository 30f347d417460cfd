//! Alarms by themselves.

use std::time::Duration;

use super::super::tests::{connected, opens, rules};
use super::super::{ConnectionId, Fact};
use super::*;
use crate::event::Retirement;

const A: ConnectionId = ConnectionId(1);
const CHECK: Duration = Duration::from_secs(2);

/// One connection that owes an open to each of two waiters, with its alarm set.
fn owing(now: Instant) -> (Slots<u32>, Vec<Action>) {
    let mut slots = connected(rules(1, 10), 2, now);
    let actions = slots.take_actions();
    assert_eq!(opens(&actions).len(), 2);
    let alarms = (actions.iter()).filter(|action| matches!(action, Action::WakeAt(_)));
    assert_eq!(alarms.collect::<Vec<_>>(), [&Action::WakeAt(now + CHECK)]);
    (slots, actions)
}

fn is_suspect(actions: &[Action]) -> bool {
    actions.contains(&Action::Suspect(A))
}

#[test]
fn a_connection_that_answers_nothing_while_somebody_waits_is_suspect() {
    let now = Instant::now();
    let (mut slots, _) = owing(now);
    slots.wake(now + CHECK - Duration::from_millis(1));
    assert_eq!(slots.take_actions(), [], "not yet");
    slots.wake(now + CHECK);
    let actions = slots.take_actions();
    assert_eq!(
        actions,
        [Action::Suspect(A), Action::WakeAt(now + CHECK * 2)],
        "and it is looked at again"
    );
    slots.retire(A, Retirement::Unresponsive, now + CHECK);
    let actions = slots.take_actions();
    let told = Action::Report(Fact::Retired(A, Retirement::Unresponsive));
    assert!(actions.contains(&told), "{actions:?}");
    assert!(actions.contains(&Action::Disconnect(A)), "{actions:?}");
    assert!(actions.contains(&Action::Dial), "in its place: {actions:?}");
}

#[test]
fn an_answer_to_one_gives_the_others_time() {
    let now = Instant::now();
    let (mut slots, actions) = owing(now);
    let (id, mark) = opens(&actions)[0];
    let half = now + CHECK / 2;
    assert!(matches!(
        slots.opened(id, mark, half),
        super::super::Hand::To(_)
    ));
    slots.wake(now + CHECK);
    assert!(!is_suspect(&slots.take_actions()));
    slots.wake(half + CHECK);
    assert!(is_suspect(&slots.take_actions()));
}

#[test]
fn nobody_waits_and_nothing_is_suspect() {
    let now = Instant::now();
    let mut slots = connected(rules(1, 10), 0, now);
    let first = slots.wait(1, now);
    let second = slots.wait(2, now);
    slots.abandon(first);
    slots.abandon(second);
    slots.take_actions();
    slots.wake(now + CHECK * 10);
    assert_eq!(slots.take_actions(), []);
    // Whoever comes now counts on what was asked for long ago.
    slots.wait(3, now + CHECK * 10);
    assert!(is_suspect(&slots.take_actions()));
}

#[test]
fn a_connection_that_answers_everything_but_opens_takes_nothing_new_after_a_while() {
    let mut now = Instant::now();
    let (mut slots, _) = owing(now);
    for _ in 1..BEHIND {
        now += CHECK;
        slots.wake(now);
        assert!(is_suspect(&slots.take_actions()), "it is looked at");
    }
    now += CHECK;
    slots.wake(now);
    let actions = slots.take_actions();
    let told = Action::Report(Fact::Retired(A, Retirement::Unresponsive));
    assert!(actions.contains(&told), "{actions:?}");
    assert!(actions.contains(&Action::Dial), "in its place: {actions:?}");
}
