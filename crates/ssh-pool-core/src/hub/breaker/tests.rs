//! The breaker by itself: one story at a time, and random ones.

use proptest::prelude::*;

use super::*;
use crate::error::Cause;

const COOLDOWN: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

/// Nobody listens.
fn refused() -> DialError {
    DialError {
        error: Error::Connect {
            target: "t".into(),
            source: Cause::new("refused"),
        },
        passing: false,
    }
}

fn throttled() -> DialError {
    DialError {
        error: Error::Throttled {
            target: "t".into(),
            message: "Exceeded MaxStartups".into(),
            source: Cause::new("closed"),
        },
        passing: true,
    }
}

fn lost_in_auth() -> DialError {
    DialError {
        error: Error::AuthLost {
            target: "t".into(),
            source: Cause::new("reset"),
        },
        passing: true,
    }
}

fn rejected() -> DialError {
    DialError {
        error: Error::AuthRejected {
            target: "t".into(),
            tried: Vec::new(),
            allowed: String::new(),
            cooldown: COOLDOWN,
        },
        passing: false,
    }
}

fn go(circuit: &mut Circuit, now: Instant) -> Leave {
    let (begin, _) = circuit.begin(now);
    let Begin::Go(mut leave) = begin else {
        panic!("no leave: {begin:?}")
    };
    assert!(circuit.confirm(&mut leave));
    leave
}

fn fail(circuit: &mut Circuit, failure: DialError, now: Instant) -> (Verdict, Option<Change>) {
    let leave = go(circuit, now);
    circuit.failed(leave, failure, MOMENT, now)
}

/// One that has let this identity in.
fn proven(now: Instant) -> Circuit {
    let mut circuit = Circuit::default();
    let leave = go(&mut circuit, now);
    assert!(circuit.succeeded(leave).is_none(), "it was closed");
    circuit
}

/// One that has failed so often that callers were told that many times; and its next moment.
fn told(times: u32) -> (Circuit, Instant) {
    let (mut circuit, mut now) = (Circuit::default(), Instant::now());
    for _ in 0..times {
        now = fail(&mut circuit, refused(), now).0.not_before;
    }
    (circuit, now)
}

#[test]
fn pauses_grow_and_stay_bounded() {
    for failures in 1..40 {
        for told in [1, REPEATED, REPEATED + 1] {
            let circuit = Circuit {
                failures,
                told,
                ..Circuit::default()
            };
            let pause = circuit.pause(MOMENT);
            let longest = if told > REPEATED {
                LONGEST_OPEN
            } else {
                LONGEST_PAUSE
            };
            assert!(pause >= FIRST_PAUSE / 2 && pause <= longest, "{pause:?}");
            let slow = circuit.pause(Duration::from_secs(10));
            assert!(slow >= Duration::from_millis(2500) && slow <= LONGEST_OPEN);
        }
    }
    assert!(doubled(6) > doubled(1));
}

#[test]
fn a_refused_connection_is_an_answer_from_a_host_never_seen() {
    let now = Instant::now();
    let mut circuit = Circuit::default();
    let (verdict, change) = fail(&mut circuit, refused(), now);
    assert!(!verdict.try_again);
    assert!(matches!(change, Some(Change::Opened { .. })), "{change:?}");
    assert!(circuit.answer(now).is_some());
    assert!(matches!(circuit.begin(now).0, Begin::Refused { .. }));
    assert!(circuit.answer(now + LONGEST_PAUSE).is_none());
}

#[test]
fn a_refused_connection_is_a_restart_of_a_host_that_was_there() {
    let mut now = Instant::now();
    let mut circuit = proven(now);
    let mut tries = 0;
    loop {
        let (verdict, _) = fail(&mut circuit, refused(), now);
        tries += 1;
        now = verdict.not_before;
        if !verdict.try_again {
            break;
        }
        assert!(circuit.answer(now).is_none(), "callers wait");
    }
    assert_eq!(tries, TRIES);
}

#[test]
fn dials_that_fail_together_are_one_failure_and_open_it_once() {
    let now = Instant::now();
    let mut circuit = proven(now);
    let leaves: Vec<_> = (0..4).map(|_| go(&mut circuit, now)).collect();
    for leave in &leaves {
        let (verdict, change) = circuit.failed(*leave, throttled(), MOMENT, now);
        assert!(verdict.try_again && change.is_none());
    }
    assert_eq!((circuit.failures, circuit.tries), (1, 1));

    let mut circuit = proven(now);
    let leaves: Vec<_> = (0..4).map(|_| go(&mut circuit, now)).collect();
    let changes = leaves.iter().map(|leave| {
        let (verdict, change) = circuit.failed(*leave, rejected(), MOMENT, now);
        assert!(!verdict.try_again && verdict.not_before == now + COOLDOWN);
        u32::from(change.is_some())
    });
    assert_eq!(changes.sum::<u32>(), 1);
    assert_eq!((circuit.failures, circuit.told), (1, 1));
}

#[test]
fn of_those_that_fail_together_the_longest_pause_counts() {
    let now = Instant::now();
    for reversed in [false, true] {
        let mut failures = [throttled(), rejected()];
        failures[0].passing = false;
        if reversed {
            failures.reverse();
        }
        let mut circuit = proven(now);
        let leaves = failures.map(|failure| (go(&mut circuit, now), failure));
        for (leave, failure) in leaves {
            circuit.failed(leave, failure, MOMENT, now);
        }
        let answer = circuit.answer(now + COOLDOWN - MOMENT).expect("still open");
        assert!(matches!(answer, Error::AuthRejected { .. }), "{answer}");
    }
}

#[test]
fn a_refused_login_is_remembered_for_its_cooldown() {
    let now = Instant::now();
    let mut circuit = Circuit::default();
    let (verdict, _) = fail(&mut circuit, rejected(), now);
    assert!(!verdict.try_again);
    assert_eq!(verdict.not_before, now + COOLDOWN);
    assert!(circuit.answer(now + COOLDOWN - MOMENT).is_some());
    assert!(circuit.answer(now + COOLDOWN).is_none());
}

#[test]
fn a_login_lost_in_the_middle_is_tried_twice_where_nobody_has_been_let_in() {
    let now = Instant::now();
    let mut circuit = Circuit::default();
    let (verdict, _) = fail(&mut circuit, lost_in_auth(), now);
    assert!(verdict.try_again);
    let (verdict, _) = fail(&mut circuit, lost_in_auth(), verdict.not_before);
    assert!(!verdict.try_again);
}

#[test]
fn until_somebody_has_been_let_in_one_dials_and_the_others_wait_for_it() {
    let now = Instant::now();
    let mut circuit = Circuit::default();
    let first = go(&mut circuit, now);
    assert!(matches!(circuit.begin(now).0, Begin::Wait(None)));
    assert!(circuit.answer(now).is_none(), "callers wait too");
    circuit.succeeded(first);
    go(&mut circuit, now);
    go(&mut circuit, now);
}

#[test]
fn after_a_passing_failure_one_dials_and_not_before_the_pause_is_over() {
    let now = Instant::now();
    let mut circuit = proven(now);
    let (verdict, change) = fail(&mut circuit, throttled(), now);
    assert!(verdict.try_again && change.is_none());
    let (begin, _) = circuit.begin(now);
    assert!(matches!(begin, Begin::Wait(Some(at)) if at == verdict.not_before));
    go(&mut circuit, verdict.not_before);
    let (begin, _) = circuit.begin(verdict.not_before);
    assert!(matches!(begin, Begin::Wait(None)), "{begin:?}");
}

#[test]
fn what_waited_for_its_share_while_another_failed_has_to_ask_again() {
    let now = Instant::now();
    let mut circuit = proven(now);
    let (Begin::Go(mut waits), _) = circuit.begin(now) else {
        panic!("no leave")
    };
    fail(&mut circuit, rejected(), now);
    assert!(!circuit.confirm(&mut waits));
    circuit.abandoned(waits, now);
    assert!(matches!(circuit.begin(now).0, Begin::Refused { .. }));
}

#[test]
fn one_dial_after_the_pause_closes_it_or_opens_it_again() {
    for good in [true, false] {
        let (mut circuit, now) = told(1);
        assert!(matches!(circuit.shown(now - MOMENT), Breaker::Open { .. }));
        let (begin, change) = circuit.begin(now);
        let Begin::Go(leave) = begin else {
            panic!("{begin:?}")
        };
        assert!(matches!(change, Some(Change::HalfOpen)));
        assert_eq!(circuit.shown(now), Breaker::HalfOpen);
        assert!(matches!(circuit.begin(now).0, Begin::Wait(None)));
        assert!(circuit.answer(now).is_none(), "others share its outcome");
        let change = if good {
            circuit.succeeded(leave)
        } else {
            circuit.failed(leave, refused(), MOMENT, now).1
        };
        assert_eq!(matches!(change, Some(Change::Closed)), good);
        assert_eq!(matches!(change, Some(Change::Opened { .. })), !good);
        assert_eq!(circuit.answer(now).is_none(), good);
    }
}

#[test]
fn after_repeated_failures_only_one_caller_waits_for_the_dial_that_decides() {
    let (mut circuit, now) = told(REPEATED);
    assert!(
        circuit.answer(now).is_none(),
        "the first one is let through"
    );
    let leave = go(&mut circuit, now);
    assert!(circuit.answer(now).is_some());
    assert!(matches!(circuit.begin(now).0, Begin::Refused { .. }));
    // It has one try, whatever it fails with.
    let (verdict, change) = circuit.failed(leave, throttled(), MOMENT, now);
    assert!(!verdict.try_again);
    assert!(matches!(change, Some(Change::Opened { .. })));
}

#[test]
fn a_dial_that_decides_and_is_not_made_leaves_it_to_the_next_caller() {
    let (mut circuit, now) = told(REPEATED);
    let leave = go(&mut circuit, now);
    let change = circuit.abandoned(leave, now);
    assert!(matches!(change, Some(Change::Opened { .. })), "{change:?}");
    assert!(circuit.answer(now).is_none());
    go(&mut circuit, now);
}

#[test]
fn forgetting_closes_it_and_what_was_under_way_teaches_nothing() {
    let now = Instant::now();
    let mut circuit = Circuit::default();
    let old = go(&mut circuit, now);
    assert!(circuit.forget().is_none());
    let (verdict, change) = circuit.failed(old, rejected(), MOMENT, now);
    assert!(verdict.try_again && change.is_none());
    fail(&mut circuit, rejected(), now);
    assert!(matches!(circuit.forget(), Some(Change::Closed)));
    assert!(circuit.answer(now).is_none() && circuit.last_error().is_none());
    go(&mut circuit, now);
}

#[test]
fn a_dead_host_is_remembered_for_a_while_after_its_pause() {
    let (mut circuit, now) = told(1);
    assert!(!circuit.is_forgettable(now));
    assert!(circuit.is_forgettable(now + LONGEST_OPEN));
    let leave = go(&mut circuit, now);
    assert!(!circuit.is_forgettable(now + LONGEST_OPEN), "a dial is out");
    circuit.succeeded(leave);
    assert!(circuit.is_forgettable(now));
}

/// Dials that begin and end in any order, on time that passes in leaps.
#[derive(Default)]
struct World {
    circuit: Circuit,
    out: Vec<Leave>,
    shown: Option<Breaker>,
    /// No dial that begins now may go out, unless another one succeeds first.
    cooling_until: Option<Instant>,
}

impl World {
    fn step(&mut self, what: u8, pick: usize, now: Instant) {
        let change = match what {
            0..=4 => self.begin(now),
            5 => self.end(pick, |circuit, leave| circuit.succeeded(leave)),
            6 => self.end(pick, |circuit, leave| circuit.abandoned(leave, now)),
            7 => self.circuit.forget(),
            8 => self.circuit.give_up(refused().error, now),
            _ => {
                let failures = [refused(), throttled(), lost_in_auth(), rejected()];
                let failure = failures[usize::from(what) % failures.len()].clone();
                let took = MOMENT * u32::try_from(pick % 20_000).unwrap();
                self.end(pick, |circuit, leave| {
                    circuit.failed(leave, failure, took, now).1
                })
            }
        };
        self.told(change, now);
        if matches!(what, 5 | 7) && matches!(self.circuit.state, State::Closed) {
            self.cooling_until = None;
        }
        if let Some(Error::AuthRejected { .. }) = self.circuit.answer(now)
            && let Breaker::Open { retry_in } = self.circuit.shown(now)
        {
            self.cooling_until = Some(now + retry_in);
        }
        let trials = self.out.iter().filter(|leave| leave.trial).count();
        assert_eq!(usize::from(self.circuit.trial), trials, "one, and known");
    }

    fn begin(&mut self, now: Instant) -> Option<Change> {
        let answer = self.circuit.answer(now);
        let (begin, change) = self.circuit.begin(now);
        match begin {
            Begin::Go(mut leave) => {
                assert!(self.circuit.confirm(&mut leave), "nothing has happened");
                assert!(answer.is_none(), "a caller would have been refused");
                assert!(self.cooling_until.is_none_or(|until| now >= until));
                self.out.push(leave);
            }
            Begin::Wait(None) => assert!(self.circuit.trial, "nobody would wake it"),
            Begin::Wait(Some(until)) => assert!(until > now && until <= now + LONGEST_PAUSE),
            Begin::Refused { until, .. } => assert!(answer.is_some() && until > now),
        }
        change
    }

    fn end<T>(
        &mut self,
        pick: usize,
        ended: impl FnOnce(&mut Circuit, Leave) -> Option<T>,
    ) -> Option<T> {
        if self.out.is_empty() {
            return None;
        }
        let leave = self.out.swap_remove(pick % self.out.len());
        ended(&mut self.circuit, leave)
    }

    /// Every change is told, once, and nothing else is.
    fn told(&mut self, change: Option<Change>, now: Instant) {
        let before = self.shown.unwrap_or(Breaker::Closed);
        let after = self.circuit.shown(now);
        let kind = std::mem::discriminant::<Breaker>;
        assert_eq!(
            change.is_some(),
            kind(&before) != kind(&after),
            "{change:?}"
        );
        match change {
            None => {}
            Some(Change::Closed) => assert_eq!(after, Breaker::Closed),
            Some(Change::HalfOpen) => {
                assert!(matches!(before, Breaker::Open { .. }) && after == Breaker::HalfOpen);
            }
            Some(Change::Opened { retry_in, .. }) => {
                assert_eq!(after, Breaker::Open { retry_in });
                assert!(retry_in <= COOLDOWN);
            }
        }
        self.shown = Some(after);
    }
}

proptest! {
    #[test]
    fn every_change_is_told_once_and_no_story_locks_a_host_out_for_ever(
        steps in prop::collection::vec((0_u8..13, any::<u16>(), 0_u64..20_000), 1..200)
    ) {
        let mut now = Instant::now();
        let mut world = World::default();
        for (what, pick, pause) in steps {
            // Mostly moments, sometimes longer than any pause.
            now += MOMENT * u32::try_from(pause / 100 + pause.pow(3) / 100_000_000).unwrap();
            world.step(what, usize::from(pick), now);
        }
        while !world.out.is_empty() {
            world.step(6, 0, now);
        }
        now += COOLDOWN;
        prop_assert!(world.circuit.answer(now).is_none(), "the next caller is let through");
        let begin = world.circuit.begin(now).0;
        prop_assert!(matches!(begin, Begin::Go(_)), "{begin:?}");
    }
}

#[test]
fn want_of_descriptors_is_held_against_no_host() {
    let none_left = || DialError {
        error: Error::Descriptors {
            target: "t".into(),
            source: Cause::new("too many open files"),
        },
        passing: true,
    };
    let mut circuit = Circuit::default();
    let mut now = Instant::now();
    for round in 0..3 {
        for attempt in 1..=TRIES {
            let (verdict, change) = fail(&mut circuit, none_left(), now);
            assert!(change.is_none(), "{round}: {attempt}");
            assert_eq!(verdict.try_again, attempt < TRIES, "{round}: {attempt}");
            assert!(
                verdict.not_before <= now + FIRST_PAUSE,
                "{round}: {attempt}"
            );
            assert!(circuit.answer(now).is_none());
            now = verdict.not_before;
        }
        assert_eq!(circuit.failures, 0);
    }
}

#[test]
fn a_server_that_asks_for_patience_gets_that_of_each_caller() {
    let mut circuit = Circuit::default();
    let mut now = Instant::now();
    for attempt in 0..5 * TRIES {
        let (verdict, change) = fail(&mut circuit, throttled(), now);
        assert!(verdict.try_again && change.is_none(), "{attempt}");
        assert!(verdict.not_before <= now + LONGEST_PAUSE, "{attempt}");
        now = verdict.not_before;
    }
    assert!(circuit.answer(now).is_none());
}
