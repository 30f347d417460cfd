//! The breaker by itself, one scenario at a time. Random ones are in `model_tests.rs`.

use super::*;
use crate::error::Cause;

pub(super) const COOLDOWN: Duration = Duration::from_secs(60);
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// The port has no listener.
pub(super) fn refused() -> ConnectError {
    ConnectError {
        error: Error::Connect {
            target: "t".into(),
            source: Cause::new("refused"),
        },
        transient: false,
    }
}

pub(super) fn throttled() -> ConnectError {
    ConnectError {
        error: Error::Throttled {
            target: "t".into(),
            message: "Exceeded MaxStartups".into(),
            source: Cause::new("closed"),
        },
        transient: true,
    }
}

pub(super) fn lost_in_auth() -> ConnectError {
    ConnectError {
        error: Error::AuthLost {
            target: "t".into(),
            lost: true,
            source: Cause::new("reset"),
            messages: Box::default(),
        },
        transient: true,
    }
}

pub(super) fn rejected() -> ConnectError {
    ConnectError {
        error: Error::AuthRejected {
            target: "t".into(),
            tried: Vec::new(),
            allowed: Box::default(),
            accepted: Box::default(),
            messages: Box::default(),
            cooldown: COOLDOWN,
        },
        transient: false,
    }
}

fn go(breaker: &mut CircuitBreaker, now: Instant) -> ConnectPermit {
    let (begin, _) = breaker.begin(now);
    let Begin::Go(mut permit) = begin else {
        panic!("no leave: {begin:?}")
    };
    assert!(breaker.confirm(&mut permit, now));
    permit
}

/// A dial that logs in, to a server that grants a session.
fn succeeds(breaker: &mut CircuitBreaker, permit: ConnectPermit) -> Option<Change> {
    breaker.logged_in();
    breaker.verified(permit)
}

type Failed = (RetryDecision, Option<Change>);
fn fail(breaker: &mut CircuitBreaker, failure: ConnectError, now: Instant) -> Failed {
    let permit = go(breaker, now);
    breaker.failed(permit, failure, MOMENT, now)
}

/// One that has let this identity in.
fn proven(now: Instant) -> CircuitBreaker {
    let mut breaker = CircuitBreaker::default();
    let permit = go(&mut breaker, now);
    assert!(succeeds(&mut breaker, permit).is_none(), "it was closed");
    breaker
}

/// One that has failed so often that callers were told that many times; and its next moment.
fn reported(times: u32) -> (CircuitBreaker, Instant) {
    let (mut breaker, mut now) = (CircuitBreaker::default(), Instant::now());
    for _ in 0..times {
        now = fail(&mut breaker, refused(), now).0.not_before;
    }
    (breaker, now)
}

#[test]
fn pauses_grow_and_stay_bounded() {
    for failures in 1..40 {
        for reported in [1, REPEATED, REPEATED + 1] {
            let breaker = CircuitBreaker {
                failures,
                reported,
                ..CircuitBreaker::default()
            };
            let pause = breaker.pause(MOMENT);
            let longest = if reported > REPEATED {
                LONGEST_OPEN
            } else {
                LONGEST_PAUSE
            };
            assert!(pause >= FIRST_PAUSE / 2 && pause <= longest, "{pause:?}");
            let slow = breaker.pause(Duration::from_secs(10));
            assert!(slow >= Duration::from_millis(2500) && slow <= LONGEST_OPEN);
        }
    }
    assert!(doubled(6) > doubled(1));
}

#[test]
fn a_refused_connection_is_an_answer_from_a_host_never_seen() {
    let now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    let (decision, change) = fail(&mut breaker, refused(), now);
    assert!(!decision.try_again);
    assert!(matches!(change, Some(Change::Opened { .. })), "{change:?}");
    assert!(breaker.answer(now).is_some());
    assert!(matches!(breaker.begin(now).0, Begin::Refused { .. }));
    assert!(breaker.answer(now + LONGEST_PAUSE).is_none());
}

#[test]
fn a_refused_connection_is_a_restart_of_a_host_that_was_there() {
    let mut now = Instant::now();
    let mut breaker = proven(now);
    let mut tries = 0;
    loop {
        let (decision, _) = fail(&mut breaker, refused(), now);
        tries += 1;
        now = decision.not_before;
        if !decision.try_again {
            break;
        }
        assert!(breaker.answer(now).is_none(), "callers wait");
    }
    assert_eq!(tries, TRIES);
}

#[test]
fn dials_that_fail_together_are_one_failure_and_open_it_once() {
    let now = Instant::now();
    let mut breaker = proven(now);
    let leaves: Vec<_> = (0..4).map(|_| go(&mut breaker, now)).collect();
    for permit in &leaves {
        let (decision, change) = breaker.failed(*permit, throttled(), MOMENT, now);
        assert!(decision.try_again && change.is_none());
    }
    assert_eq!((breaker.failures, breaker.tries), (1, 1));

    let mut breaker = proven(now);
    let leaves: Vec<_> = (0..4).map(|_| go(&mut breaker, now)).collect();
    let changes = leaves.iter().map(|permit| {
        let (decision, change) = breaker.failed(*permit, rejected(), MOMENT, now);
        assert!(!decision.try_again && decision.not_before == now + COOLDOWN);
        u32::from(change.is_some())
    });
    assert_eq!(changes.sum::<u32>(), 1);
    assert_eq!((breaker.failures, breaker.reported), (1, 1));
}

#[test]
fn of_those_that_fail_together_the_longest_pause_counts() {
    let now = Instant::now();
    for reversed in [false, true] {
        let mut failures = [throttled(), rejected()];
        failures[0].transient = false;
        if reversed {
            failures.reverse();
        }
        let mut breaker = proven(now);
        let leaves = failures.map(|failure| (go(&mut breaker, now), failure));
        for (permit, failure) in leaves {
            breaker.failed(permit, failure, MOMENT, now);
        }
        let answer = breaker.answer(now + COOLDOWN - MOMENT).expect("still open");
        assert!(matches!(answer, Error::AuthRejected { .. }), "{answer}");
    }
}

#[test]
fn a_refused_login_is_remembered_for_its_cooldown() {
    let now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    let (decision, _) = fail(&mut breaker, rejected(), now);
    assert!(!decision.try_again);
    assert_eq!(decision.not_before, now + COOLDOWN);
    assert!(breaker.answer(now + COOLDOWN - MOMENT).is_some());
    assert!(breaker.answer(now + COOLDOWN).is_none());
}

#[test]
fn a_login_lost_in_the_middle_is_tried_twice_before_the_first_success() {
    let now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    let (decision, _) = fail(&mut breaker, lost_in_auth(), now);
    assert!(decision.try_again);
    let (decision, _) = fail(&mut breaker, lost_in_auth(), decision.not_before);
    assert!(!decision.try_again);
}

#[test]
fn until_the_first_login_succeeds_one_connects_and_the_others_wait_for_it() {
    let now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    let first = go(&mut breaker, now);
    assert!(matches!(breaker.begin(now).0, Begin::Wait(None)));
    assert!(breaker.answer(now).is_none(), "callers wait too");
    succeeds(&mut breaker, first);
    go(&mut breaker, now);
    go(&mut breaker, now);
}

#[test]
fn after_a_transient_failure_one_connects_and_not_before_the_pause_is_over() {
    let now = Instant::now();
    let mut breaker = proven(now);
    let (decision, change) = fail(&mut breaker, throttled(), now);
    assert!(decision.try_again && change.is_none());
    let (begin, _) = breaker.begin(now);
    assert!(matches!(begin, Begin::Wait(Some(at)) if at == decision.not_before));
    go(&mut breaker, decision.not_before);
    let (begin, _) = breaker.begin(decision.not_before);
    assert!(matches!(begin, Begin::Wait(None)), "{begin:?}");
}

#[test]
fn what_waited_for_its_share_while_another_failed_has_to_ask_again() {
    let now = Instant::now();
    let mut breaker = proven(now);
    let (Begin::Go(mut waits), _) = breaker.begin(now) else {
        panic!("no leave")
    };
    fail(&mut breaker, rejected(), now);
    assert!(!breaker.confirm(&mut waits, now));
    breaker.abandoned(waits, now);
    assert!(matches!(breaker.begin(now).0, Begin::Refused { .. }));
}

#[test]
fn what_decides_and_waited_while_a_login_was_refused_has_to_ask_again() {
    for (transient, unverified) in [(throttled(), false), (lost_in_auth(), true)] {
        let now = Instant::now();
        let mut breaker = proven(now);
        let [first, second] = [(); 2].map(|()| go(&mut breaker, now));
        let (decision, _) = breaker.failed(first, transient, MOMENT, now);
        let now = decision.not_before;
        let (Begin::Go(mut waits), _) = breaker.begin(now) else {
            panic!("no leave")
        };
        assert_eq!((waits.probe, waits.unverified), (true, unverified));
        breaker.failed(second, rejected(), MOMENT, now);
        assert!(!breaker.confirm(&mut waits, now), "in the cool-down");
        // That may be over at once: but now it is not sure any more that it will be let in.
        let later = now + COOLDOWN;
        assert_eq!(breaker.confirm(&mut waits, later), unverified);
        breaker.abandoned(waits, now);
        assert!(matches!(breaker.begin(now).0, Begin::Refused { .. }));
        assert!(go(&mut breaker, later).unverified);
    }
}

#[test]
fn a_login_is_unverified_until_accepted_and_after_a_refusal() {
    let mut now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    let permit = go(&mut breaker, now);
    assert!(permit.unverified);
    succeeds(&mut breaker, permit);
    assert!(!go(&mut breaker, now).unverified);
    for (failure, unverified) in [
        (throttled(), false),
        (refused(), false),
        (lost_in_auth(), true),
        (rejected(), true),
    ] {
        let mut breaker = proven(now);
        let (decision, _) = fail(&mut breaker, failure.clone(), now);
        now = decision.not_before;
        let next = go(&mut breaker, now);
        assert_eq!(next.unverified, unverified, "{failure:?}");
        breaker.abandoned(next, now);
        // Forgetting is for this end: the server has counted it.
        breaker.forget();
        let next = go(&mut breaker, now);
        assert_eq!(next.unverified, unverified, "{failure:?}");
        let another = breaker.begin(now).0;
        let one_at_a_time = matches!(another, Begin::Wait(None));
        assert_eq!(one_at_a_time, unverified, "{failure:?}");
    }
}

#[test]
fn one_dial_after_the_pause_closes_it_or_opens_it_again() {
    for good in [true, false] {
        let (mut breaker, now) = reported(1);
        assert!(matches!(breaker.shown(now - MOMENT), Breaker::Open { .. }));
        let (begin, change) = breaker.begin(now);
        let Begin::Go(permit) = begin else {
            panic!("{begin:?}")
        };
        assert!(matches!(change, Some(Change::HalfOpen)));
        assert_eq!(breaker.shown(now), Breaker::HalfOpen);
        assert!(matches!(breaker.begin(now).0, Begin::Wait(None)));
        assert!(breaker.answer(now).is_none(), "others share its outcome");
        let change = if good {
            succeeds(&mut breaker, permit)
        } else {
            breaker.failed(permit, refused(), MOMENT, now).1
        };
        assert_eq!(matches!(change, Some(Change::Closed)), good);
        assert_eq!(matches!(change, Some(Change::Opened { .. })), !good);
        assert_eq!(breaker.answer(now).is_none(), good);
    }
}

#[test]
fn after_repeated_failures_only_one_caller_waits_for_the_dial_that_decides() {
    let (mut breaker, now) = reported(REPEATED);
    assert!(
        breaker.answer(now).is_none(),
        "the first one is let through"
    );
    let permit = go(&mut breaker, now);
    assert!(breaker.answer(now).is_some());
    assert!(matches!(breaker.begin(now).0, Begin::Refused { .. }));
    // It has one try, whatever it fails with.
    let (decision, change) = breaker.failed(permit, throttled(), MOMENT, now);
    assert!(!decision.try_again);
    assert!(matches!(change, Some(Change::Opened { .. })));
}

#[test]
fn a_dial_that_decides_and_is_not_made_leaves_it_to_the_next_caller() {
    let (mut breaker, now) = reported(REPEATED);
    let permit = go(&mut breaker, now);
    let change = breaker.abandoned(permit, now);
    assert!(matches!(change, Some(Change::Opened { .. })), "{change:?}");
    assert!(breaker.answer(now).is_none());
    go(&mut breaker, now);
}

#[test]
fn forgetting_closes_it_and_what_was_under_way_teaches_nothing() {
    let now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    let old = go(&mut breaker, now);
    assert!(breaker.forget().is_none());
    let (decision, change) = breaker.failed(old, rejected(), MOMENT, now);
    assert!(decision.try_again && change.is_none());
    fail(&mut breaker, rejected(), now);
    assert!(matches!(breaker.forget(), Some(Change::Closed)));
    assert!(breaker.answer(now).is_none() && breaker.last_error().is_none());
    go(&mut breaker, now);
}

#[test]
fn a_dead_host_is_remembered_for_a_while_after_its_pause() {
    let (mut breaker, now) = reported(1);
    assert!(!breaker.is_forgettable(now));
    assert!(breaker.is_forgettable(now + LONGEST_OPEN));
    let permit = go(&mut breaker, now);
    assert!(!breaker.is_forgettable(now + LONGEST_OPEN), "a dial is out");
    succeeds(&mut breaker, permit);
    assert!(breaker.is_forgettable(now));
}

#[test]
fn want_of_descriptors_is_held_against_no_host() {
    let none_left = || ConnectError {
        error: Error::Descriptors {
            target: "t".into(),
            source: Cause::new("too many open files"),
        },
        transient: true,
    };
    let mut breaker = CircuitBreaker::default();
    let mut now = Instant::now();
    for attempt in 1..30 {
        let (decision, change) = fail(&mut breaker, none_left(), now);
        assert!(change.is_none() && decision.try_again, "{attempt}");
        let full = doubled(attempt).min(LONGEST_SHORT);
        let pause = decision.not_before - now;
        assert!(
            (full / 2..=full).contains(&pause),
            "{attempt}: {pause:?} of {full:?}"
        );
        assert!(breaker.answer(now).is_none());
        now = decision.not_before;
    }
    assert_eq!((breaker.failures, breaker.tries), (0, 0));
}

#[test]
fn descriptors_that_run_out_in_mid_login_are_paused_for() {
    let in_login = || ConnectError {
        error: Error::Descriptors {
            target: "t".into(),
            source: Cause::new("too many open files"),
        },
        transient: false,
    };
    let mut breaker = proven(Instant::now());
    let mut now = Instant::now();
    for failures in 1..10 {
        let (decision, change) = fail(&mut breaker, in_login(), now);
        assert!(decision.try_again && change.is_none());
        let full = doubled(failures).min(LONGEST_PAUSE);
        let pause = decision.not_before - now;
        assert!(
            (full / 2..=full).contains(&pause),
            "{failures}: {pause:?} of {full:?}"
        );
        assert!(
            breaker.answer(now).is_none(),
            "who comes next may find some"
        );
        // Nor does another group come before that.
        assert!(matches!(breaker.begin(now).0, Begin::Wait(Some(at)) if at == decision.not_before));
        now = decision.not_before;
        assert!(!breaker.is_forgettable(now));
    }
}

/// The server grants no session.
pub(super) fn session_refused() -> ConnectError {
    ConnectError {
        error: Error::SessionRefused {
            target: "t".into(),
            reason: "prohibited".into(),
        },
        transient: false,
    }
}

/// The server ends a connection after its login.
pub(super) fn closed_after_login() -> ConnectError {
    ConnectError {
        error: Error::ClosedAfterLogin {
            target: "t".into(),
            lost: true,
            attempts: 1,
            retry_in: Duration::ZERO,
            reason: "closed".into(),
        },
        transient: true,
    }
}

/// A login that succeeds, and then the connection comes to nothing.
fn unusable(breaker: &mut CircuitBreaker, failure: ConnectError, now: Instant) -> Failed {
    let permit = go(breaker, now);
    breaker.logged_in();
    breaker.failed(permit, failure, Duration::ZERO, now)
}

#[test]
fn a_host_that_lets_us_in_and_refuses_every_session_is_left_alone_for_longer_each_time() {
    let mut now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    let pause = |breaker: &mut CircuitBreaker, now: &mut Instant| {
        let (decision, _) = unusable(breaker, session_refused(), *now);
        assert!(!decision.try_again);
        decision.not_before - std::mem::replace(now, decision.not_before)
    };
    for times in 1..20 {
        let longest = if times > REPEATED {
            LONGEST_OPEN
        } else {
            LONGEST_PAUSE
        };
        let full = doubled(times).min(longest);
        let pause = pause(&mut breaker, &mut now);
        assert!((full / 2..=full).contains(&pause), "{times}: {pause:?}");
    }
    // It has been mended, or looked at by an operator.
    let permit = go(&mut breaker, now);
    succeeds(&mut breaker, permit);
    assert!(pause(&mut breaker, &mut now) <= FIRST_PAUSE);
    pause(&mut breaker, &mut now);
    breaker.forget();
    assert!(pause(&mut breaker, &mut now) <= FIRST_PAUSE);
}

#[test]
fn a_connection_that_ends_after_its_login_is_a_failed_dial_and_says_what_has_been_tried() {
    let mut now = Instant::now();
    let mut breaker = CircuitBreaker::default();
    for failures in 1..20 {
        let (decision, change) = unusable(&mut breaker, closed_after_login(), now);
        let pause = decision.not_before - now;
        // Two of three are absorbed; after nine all callers hear of each.
        let reported = failures % UNVERIFIED_TRIES == 0 || failures > UNVERIFIED_TRIES * REPEATED;
        assert_eq!(
            (decision.try_again, change.is_some()),
            (!reported, reported),
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
        } = decision.error
        else {
            panic!("{:?}", decision.error)
        };
        assert_eq!(attempts, failures);
        assert_eq!(retry_in.as_millis(), pause.as_millis());
        // Those who come during the pause hear what is left of it.
        if reported {
            let answer = breaker.answer(decision.not_before - MOMENT);
            let Some(Error::ClosedAfterLogin { retry_in, .. }) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(retry_in, MOMENT);
        }
        now = decision.not_before;
    }
    let permit = go(&mut breaker, now);
    assert!(
        succeeds(&mut breaker, permit).is_some(),
        "one that grants something ends it"
    );
    let (decision, _) = unusable(&mut breaker, closed_after_login(), now);
    assert!(decision.not_before - now <= FIRST_PAUSE);
}

#[test]
fn a_server_that_granted_something_before_is_taken_to_be_restarting() {
    let mut now = Instant::now();
    let mut breaker = proven(now);
    for attempt in 1..TRIES {
        let (decision, _) = unusable(&mut breaker, closed_after_login(), now);
        assert!(decision.try_again, "{attempt}");
        now = decision.not_before;
    }
    assert!(
        !unusable(&mut breaker, closed_after_login(), now)
            .0
            .try_again
    );
}

#[test]
fn connections_that_end_together_after_their_logins_are_one_failure() {
    let now = Instant::now();
    let mut breaker = proven(now);
    let logins = [(); 4].map(|()| {
        breaker.logged_in();
        go(&mut breaker, now)
    });
    for permit in logins {
        breaker.failed(permit, closed_after_login(), Duration::ZERO, now);
    }
    assert_eq!(breaker.failures, 1);
    // From now on one at a time.
    go(&mut breaker, now + LONGEST_PAUSE);
    assert!(matches!(
        breaker.begin(now + LONGEST_PAUSE).0,
        Begin::Wait(None)
    ));
}

#[test]
fn what_a_throttling_host_has_taught_is_remembered_for_a_while_after_its_pause() {
    let now = Instant::now();
    let mut breaker = proven(now);
    assert!(breaker.is_forgettable(now));
    let (decision, _) = fail(&mut breaker, throttled(), now);
    assert!(!breaker.is_forgettable(decision.not_before));
    assert!(breaker.is_forgettable(decision.not_before + LONGEST_OPEN));
    let permit = go(&mut breaker, decision.not_before);
    succeeds(&mut breaker, permit);
    assert!(breaker.is_forgettable(decision.not_before));
}

#[test]
fn a_server_that_asks_for_patience_gets_that_of_each_caller() {
    let mut breaker = CircuitBreaker::default();
    let mut now = Instant::now();
    for attempt in 0..5 * TRIES {
        let (decision, change) = fail(&mut breaker, throttled(), now);
        assert!(decision.try_again && change.is_none(), "{attempt}");
        assert!(decision.not_before <= now + LONGEST_PAUSE, "{attempt}");
        now = decision.not_before;
    }
    assert!(breaker.answer(now).is_none());
}
