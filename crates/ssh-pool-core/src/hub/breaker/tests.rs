//! The breaker by itself, one story at a time. Random ones are in `stories.rs`.

use super::*;
use crate::error::Cause;

pub(super) const COOLDOWN: Duration = Duration::from_secs(60);
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// Nobody listens.
pub(super) fn refused() -> DialError {
    DialError {
        error: Error::Connect {
            target: "t".into(),
            source: Cause::new("refused"),
        },
        passing: false,
    }
}

pub(super) fn throttled() -> DialError {
    DialError {
        error: Error::Throttled {
            target: "t".into(),
            message: "Exceeded MaxStartups".into(),
            source: Cause::new("closed"),
        },
        passing: true,
    }
}

pub(super) fn lost_in_auth() -> DialError {
    DialError {
        error: Error::AuthLost {
            target: "t".into(),
            lost: true,
            source: Cause::new("reset"),
            messages: Box::default(),
        },
        passing: true,
    }
}

pub(super) fn rejected() -> DialError {
    DialError {
        error: Error::AuthRejected {
            target: "t".into(),
            tried: Vec::new(),
            allowed: Box::default(),
            accepted: Box::default(),
            messages: Box::default(),
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
    assert!(circuit.confirm(&mut leave, now));
    leave
}

/// A dial that logs in, to a server that grants a session.
fn succeeds(circuit: &mut Circuit, leave: Leave) -> Option<Change> {
    circuit.logged_in();
    circuit.verified(leave)
}

fn fail(circuit: &mut Circuit, failure: DialError, now: Instant) -> (Verdict, Option<Change>) {
    let leave = go(circuit, now);
    circuit.failed(leave, failure, MOMENT, now)
}

/// One that has let this identity in.
fn proven(now: Instant) -> Circuit {
    let mut circuit = Circuit::default();
    let leave = go(&mut circuit, now);
    assert!(succeeds(&mut circuit, leave).is_none(), "it was closed");
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
    succeeds(&mut circuit, first);
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
    assert!(!circuit.confirm(&mut waits, now));
    circuit.abandoned(waits, now);
    assert!(matches!(circuit.begin(now).0, Begin::Refused { .. }));
}

#[test]
fn what_decides_and_waited_while_a_login_was_refused_has_to_ask_again() {
    for (passing, doubtful) in [(throttled(), false), (lost_in_auth(), true)] {
        let now = Instant::now();
        let mut circuit = proven(now);
        let [first, second] = [(); 2].map(|()| go(&mut circuit, now));
        let (verdict, _) = circuit.failed(first, passing, MOMENT, now);
        let now = verdict.not_before;
        let (Begin::Go(mut waits), _) = circuit.begin(now) else {
            panic!("no leave")
        };
        assert_eq!((waits.trial, waits.doubtful), (true, doubtful));
        circuit.failed(second, rejected(), MOMENT, now);
        assert!(!circuit.confirm(&mut waits, now), "in the cool-down");
        // That may be over at once: but now it is not sure any more that it will be let in.
        let later = now + COOLDOWN;
        assert_eq!(circuit.confirm(&mut waits, later), doubtful);
        circuit.abandoned(waits, now);
        assert!(matches!(circuit.begin(now).0, Begin::Refused { .. }));
        assert!(go(&mut circuit, later).doubtful);
    }
}

#[test]
fn a_login_is_doubtful_until_it_was_let_in_and_after_it_was_not() {
    let mut now = Instant::now();
    let mut circuit = Circuit::default();
    let leave = go(&mut circuit, now);
    assert!(leave.doubtful);
    succeeds(&mut circuit, leave);
    assert!(!go(&mut circuit, now).doubtful);
    for (failure, doubtful) in [
        (throttled(), false),
        (refused(), false),
        (lost_in_auth(), true),
        (rejected(), true),
    ] {
        let mut circuit = proven(now);
        let (verdict, _) = fail(&mut circuit, failure.clone(), now);
        now = verdict.not_before;
        let next = go(&mut circuit, now);
        assert_eq!(next.doubtful, doubtful, "{failure:?}");
        circuit.abandoned(next, now);
        // Forgetting is for this end: the server has counted it.
        circuit.forget();
        let next = go(&mut circuit, now);
        assert_eq!(next.doubtful, doubtful, "{failure:?}");
        let another = circuit.begin(now).0;
        let one_at_a_time = matches!(another, Begin::Wait(None));
        assert_eq!(one_at_a_time, doubtful, "{failure:?}");
    }
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
            succeeds(&mut circuit, leave)
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
    succeeds(&mut circuit, leave);
    assert!(circuit.is_forgettable(now));
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
    for attempt in 1..30 {
        let (verdict, change) = fail(&mut circuit, none_left(), now);
        assert!(change.is_none() && verdict.try_again, "{attempt}");
        let full = doubled(attempt).min(LONGEST_SHORT);
        let pause = verdict.not_before - now;
        assert!(
            (full / 2..=full).contains(&pause),
            "{attempt}: {pause:?} of {full:?}"
        );
        assert!(circuit.answer(now).is_none());
        now = verdict.not_before;
    }
    assert_eq!((circuit.failures, circuit.tries), (0, 0));
}

#[test]
fn descriptors_that_run_out_in_mid_login_are_paused_for() {
    let in_login = || DialError {
        error: Error::Descriptors {
            target: "t".into(),
            source: Cause::new("too many open files"),
        },
        passing: false,
    };
    let mut circuit = proven(Instant::now());
    let mut now = Instant::now();
    for failures in 1..10 {
        let (verdict, change) = fail(&mut circuit, in_login(), now);
        assert!(verdict.try_again && change.is_none());
        let full = doubled(failures).min(LONGEST_PAUSE);
        let pause = verdict.not_before - now;
        assert!(
            (full / 2..=full).contains(&pause),
            "{failures}: {pause:?} of {full:?}"
        );
        assert!(
            circuit.answer(now).is_none(),
            "who comes next may find some"
        );
        // Nor does another lane come before that.
        assert!(matches!(circuit.begin(now).0, Begin::Wait(Some(at)) if at == verdict.not_before));
        now = verdict.not_before;
        assert!(!circuit.is_forgettable(now));
    }
}

/// The server grants no session.
pub(super) fn session_refused() -> DialError {
    DialError {
        error: Error::SessionRefused {
            target: "t".into(),
            reason: "prohibited".into(),
        },
        passing: false,
    }
}

/// The server ends a connection after its login.
pub(super) fn closed_after_login() -> DialError {
    DialError {
        error: Error::ClosedAfterLogin {
            target: "t".into(),
            lost: true,
            attempts: 1,
            retry_in: Duration::ZERO,
            reason: "closed".into(),
        },
        passing: true,
    }
}

/// A login that succeeds, and then the connection comes to nothing.
fn unusable(circuit: &mut Circuit, failure: DialError, now: Instant) -> (Verdict, Option<Change>) {
    let leave = go(circuit, now);
    circuit.logged_in();
    circuit.failed(leave, failure, Duration::ZERO, now)
}

#[test]
fn a_host_that_lets_us_in_and_refuses_every_session_is_left_alone_for_longer_each_time() {
    let mut now = Instant::now();
    let mut circuit = Circuit::default();
    let pause = |circuit: &mut Circuit, now: &mut Instant| {
        let (verdict, _) = unusable(circuit, session_refused(), *now);
        assert!(!verdict.try_again);
        verdict.not_before - std::mem::replace(now, verdict.not_before)
    };
    for times in 1..20 {
        let longest = if times > REPEATED {
            LONGEST_OPEN
        } else {
            LONGEST_PAUSE
        };
        let full = doubled(times).min(longest);
        let pause = pause(&mut circuit, &mut now);
        assert!((full / 2..=full).contains(&pause), "{times}: {pause:?}");
    }
    // It has been mended, or looked at by an operator.
    let leave = go(&mut circuit, now);
    succeeds(&mut circuit, leave);
    assert!(pause(&mut circuit, &mut now) <= FIRST_PAUSE);
    pause(&mut circuit, &mut now);
    circuit.forget();
    assert!(pause(&mut circuit, &mut now) <= FIRST_PAUSE);
}

#[test]
fn a_connection_that_ends_after_its_login_is_a_failed_dial_and_says_what_has_been_tried() {
    let mut now = Instant::now();
    let mut circuit = Circuit::default();
    for failures in 1..20 {
        let (verdict, change) = unusable(&mut circuit, closed_after_login(), now);
        let pause = verdict.not_before - now;
        // Two of three are absorbed; after nine all callers hear of each.
        let told = failures % UNVERIFIED_TRIES == 0 || failures > UNVERIFIED_TRIES * REPEATED;
        assert_eq!(
            (verdict.try_again, change.is_some()),
            (!told, told),
            "{failures}"
        );
        let longest = if failures > UNVERIFIED_TRIES * REPEATED {
            LONGEST_OPEN
        } else {
            LONGEST_PAUSE
        };
        let full = doubled(failures).min(longest);
        assert!((full / 2..=full).contains(&pause), "{failures}: {pause:?}");
        let Error::ClosedAfterLogin {
            attempts, retry_in, ..
        } = verdict.error
        else {
            panic!("{:?}", verdict.error)
        };
        assert_eq!(attempts, failures);
        assert_eq!(retry_in.as_millis(), pause.as_millis());
        // Those who come during the pause hear what is left of it.
        if told {
            let answer = circuit.answer(verdict.not_before - MOMENT);
            let Some(Error::ClosedAfterLogin { retry_in, .. }) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(retry_in, MOMENT);
        }
        now = verdict.not_before;
    }
    let leave = go(&mut circuit, now);
    assert!(
        succeeds(&mut circuit, leave).is_some(),
        "one that grants something ends it"
    );
    let (verdict, _) = unusable(&mut circuit, closed_after_login(), now);
    assert!(verdict.not_before - now <= FIRST_PAUSE);
}

#[test]
fn a_server_that_granted_something_before_is_taken_to_be_restarting() {
    let mut now = Instant::now();
    let mut circuit = proven(now);
    for attempt in 1..TRIES {
        let (verdict, _) = unusable(&mut circuit, closed_after_login(), now);
        assert!(verdict.try_again, "{attempt}");
        now = verdict.not_before;
    }
    assert!(
        !unusable(&mut circuit, closed_after_login(), now)
            .0
            .try_again
    );
}

#[test]
fn connections_that_end_together_after_their_logins_are_one_failure() {
    let now = Instant::now();
    let mut circuit = proven(now);
    let logins = [(); 4].map(|()| {
        circuit.logged_in();
        go(&mut circuit, now)
    });
    for leave in logins {
        circuit.failed(leave, closed_after_login(), Duration::ZERO, now);
    }
    assert_eq!(circuit.failures, 1);
    // From now on one at a time.
    go(&mut circuit, now + LONGEST_PAUSE);
    assert!(matches!(
        circuit.begin(now + LONGEST_PAUSE).0,
        Begin::Wait(None)
    ));
}

#[test]
fn what_a_throttling_host_has_taught_is_remembered_for_a_while_after_its_pause() {
    let now = Instant::now();
    let mut circuit = proven(now);
    assert!(circuit.is_forgettable(now));
    let (verdict, _) = fail(&mut circuit, throttled(), now);
    assert!(!circuit.is_forgettable(verdict.not_before));
    assert!(circuit.is_forgettable(verdict.not_before + LONGEST_OPEN));
    let leave = go(&mut circuit, verdict.not_before);
    succeeds(&mut circuit, leave);
    assert!(circuit.is_forgettable(verdict.not_before));
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
