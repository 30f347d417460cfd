//! What a server's refusals, to talk or to let somebody in, have taught about its address, whoever
//! was refused.
//!
//! Plain state: time comes in as an argument.

use std::time::{Duration, Instant};

use super::breaker::{FIRST_PAUSE, LONGEST_PAUSE, doubled, jitter};
use crate::error::{Error, Phase};
use crate::transport::DialError;

/// For so long after the last refusal dials go out one at a time: sshd counts those under way
/// (`MaxStartups`), and may let in a single one.
const ONE_AT_A_TIME: Duration = Duration::from_secs(30);

/// What sshd charges the address of a client for a failed login (`PerSourcePenalties`, 9.8 and
/// later: `authfail`). Time pays it off.
const FAILED_LOGIN: Duration = Duration::from_secs(5);
/// What it charges for hanging up without a login (`noauth`).
const DISTRUST: Duration = Duration::from_secs(1);
/// An address that owes more than this is turned away until all of it is paid, with whoever else
/// comes from there (`min`).
const MOST: Duration = Duration::from_secs(15);
/// So much of that those may owe who were never let in, or not the last time; so one failure of
/// somebody else fits in.
const CREDIT: Duration = Duration::from_secs(10);

/// Whether an address is dialled, now and by how many.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// In a row; those that came together are one.
    refusals: u32,
    not_before: Option<Instant>,
    single_until: Option<Instant>,
    /// When failed logins are paid off.
    owed_until: Option<Instant>,
    /// Logins under way that may well fail, and those of who was let in the last time.
    doubtful: u32,
    proven: u32,
}

impl Throttle {
    /// One dial at a time.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.single_until.is_some_and(|until| now < until)
    }

    /// Nobody dials before then.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|until| now < *until)
    }

    /// A login goes out, if the server would bear it that this one fails and all others that are
    /// under way. Else: not before then, or until one of those has ended. Ends with
    /// [`redeem`](Self::redeem).
    ///
    /// Those that are doubtful leave room for one that is not.
    pub(super) fn pledge(&mut self, doubtful: bool, now: Instant) -> Result<(), Instant> {
        let owed = self.owed_until.map(|at| at.saturating_duration_since(now));
        let with = |others: u32| owed.unwrap_or_default() + FAILED_LOGIN * (others + 1);
        let mut excess = with(self.doubtful + self.proven).saturating_sub(MOST);
        if doubtful {
            excess = excess.max(with(self.doubtful).saturating_sub(CREDIT));
        }
        if excess.is_zero() {
            *self.under_way(doubtful) += 1;
            Ok(())
        } else {
            Err(now + excess)
        }
    }

    /// How long a login waits at least, because of those that have failed already.
    pub(super) fn delay(&self, doubtful: bool, now: Instant) -> Duration {
        let owed = self.owed_until.map(|at| at.saturating_duration_since(now));
        let most = if doubtful { CREDIT } else { MOST };
        (owed.unwrap_or_default() + FAILED_LOGIN).saturating_sub(most)
    }

    /// That login has ended. If it has failed, [`answered`](Self::answered) has been told before.
    pub(super) fn redeem(&mut self, doubtful: bool) {
        let count = self.under_way(doubtful);
        *count = count.saturating_sub(1);
    }

    fn under_way(&mut self, doubtful: bool) -> &mut u32 {
        if doubtful {
            &mut self.doubtful
        } else {
            &mut self.proven
        }
    }

    /// A dial has ended, with that failure if it has failed.
    pub(super) fn answered(&mut self, failure: Option<&DialError>, now: Instant) {
        if let Some(penalty) = failure.and_then(penalty) {
            let owed_until = self.owed_until.map_or(now, |at| at.max(now));
            self.owed_until = Some(owed_until + penalty);
        }
        self.answered_for_free(failure, now);
    }

    /// The same for a server that is known not to count failures.
    pub(super) fn answered_for_free(&mut self, failure: Option<&DialError>, now: Instant) {
        match failure.map(Answer::of) {
            Some(Answer::Refusal) => self.refused(now),
            Some(Answer::Silence) => {}
            Some(Answer::Talk) | None => {
                self.refusals = 0;
                // sshd takes a moment to see that somebody has logged in, and counts him until then.
                let moment = self.is_on(now).then(|| now + jitter(FIRST_PAUSE));
                // Others may have been turned away after this one had been let through.
                self.not_before = self.not_before.max(moment);
            }
        }
    }

    fn refused(&mut self, now: Instant) {
        self.single_until = Some(now + ONE_AT_A_TIME);
        if self.wait(now).is_none() {
            self.refusals += 1;
            let pause = jitter(doubled(self.refusals).min(LONGEST_PAUSE));
            self.not_before = Some(now + pause);
        }
    }
}

/// What a failed dial costs.
fn penalty(failure: &DialError) -> Option<Duration> {
    match failure {
        failure if failure.is_failed_login() => Some(FAILED_LOGIN),
        failure if failure.is_distrust() => Some(DISTRUST),
        _ => None,
    }
}

/// What a failed dial says about the server's mood.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It said that it would not talk, or hung up before it had said anything, as dropbear does
    /// with too many strangers from one address.
    Refusal,
    /// It was not reached, as far as is known.
    Silence,
    /// It talked.
    Talk,
}

impl Answer {
    fn of(failure: &DialError) -> Self {
        match &failure.error {
            Error::Throttled { .. } => Self::Refusal,
            Error::Connect { .. } if failure.passing => Self::Refusal,
            // A file that cannot be read is found before the server is asked, and these do not say
            // whether it was.
            Error::Identity { .. } | Error::HostKey { .. } => Self::Silence,
            error if error.phase() > Phase::Banner => Self::Talk,
            _ => Self::Silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Cause, HostKeyProblem};

    fn failure(error: Error, passing: bool) -> DialError {
        DialError { error, passing }
    }

    fn throttled() -> DialError {
        let error = Error::Throttled {
            target: "t".into(),
            message: "Exceeded MaxStartups".into(),
            source: Cause::new("closed"),
        };
        failure(error, true)
    }

    fn unconnected(passing: bool) -> DialError {
        let error = Error::Connect {
            target: "t".into(),
            source: Cause::new("closed"),
        };
        failure(error, passing)
    }

    fn lost_in_key_exchange() -> DialError {
        let error = Error::KeyExchange {
            target: "t".into(),
            lost: true,
            source: Cause::new("reset"),
        };
        failure(error, true)
    }

    /// The file was not there.
    fn unread() -> DialError {
        let error = Error::Identity {
            target: "t".into(),
            identity: "key".into(),
            source: Cause::new("no such file"),
        };
        failure(error, false)
    }

    fn rejected() -> DialError {
        let error = Error::AuthRejected {
            target: "t".into(),
            tried: Vec::new(),
            allowed: Box::default(),
            accepted: Box::default(),
            messages: Box::default(),
            cooldown: Duration::ZERO,
        };
        failure(error, false)
    }

    /// The wait for credit, once it has been granted.
    fn wait_for_credit(throttle: &mut Throttle, now: Instant) -> Duration {
        let mut then = now;
        while let Err(until) = throttle.pledge(true, then) {
            assert!(until > then);
            then = until;
        }
        then - now
    }

    #[test]
    fn two_logins_that_may_fail_are_under_way_and_the_others_wait_for_credit() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.pledge(true, now), Ok(()));
        assert_eq!(throttle.pledge(true, now), Ok(()));
        assert_eq!(throttle.pledge(true, now), Err(now + FAILED_LOGIN));
        // One is let in, or was not made.
        throttle.answered(None, now);
        throttle.redeem(true);
        assert_eq!(throttle.pledge(true, now), Ok(()));
        // The others are not.
        for _ in 0..2 {
            throttle.answered(Some(&rejected()), now);
            throttle.redeem(true);
        }
        let moment = Duration::from_secs(1);
        let later = now + moment;
        assert_eq!(
            throttle.pledge(true, later),
            Err(later + FAILED_LOGIN - moment),
            "time pays"
        );
        assert_eq!(wait_for_credit(&mut throttle, later), FAILED_LOGIN - moment);
        throttle.redeem(true);
        assert_eq!(wait_for_credit(&mut throttle, now + CREDIT), Duration::ZERO);
        assert_eq!(
            wait_for_credit(&mut throttle, now + CREDIT),
            Duration::ZERO,
            "all is paid"
        );
    }

    #[test]
    fn of_those_who_were_let_in_before_as_many_go_out_as_may_all_fail() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..3 {
            assert_eq!(throttle.pledge(false, now), Ok(()));
        }
        assert_eq!(throttle.pledge(false, now), Err(now + FAILED_LOGIN));
        assert_eq!(throttle.pledge(true, now), Err(now + FAILED_LOGIN));
        throttle.answered(None, now);
        throttle.redeem(false);
        assert_eq!(throttle.pledge(false, now), Ok(()), "another one");
        for _ in 0..3 {
            throttle.redeem(false);
        }
        // Those who may well fail, and have failed, leave room for one of them.
        throttle.answered(Some(&rejected()), now);
        assert_eq!(throttle.pledge(true, now), Ok(()));
        assert_eq!(throttle.pledge(true, now), Err(now + FAILED_LOGIN));
        assert_eq!(throttle.pledge(false, now), Ok(()));
        assert_eq!(throttle.pledge(false, now), Err(now + FAILED_LOGIN));
    }

    #[test]
    fn who_was_not_held_up_and_fails_counts_too() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..4 {
            throttle.answered(Some(&rejected()), now);
        }
        let wait = wait_for_credit(&mut throttle, now);
        assert_eq!(wait, FAILED_LOGIN * 5 - CREDIT);
    }

    #[test]
    fn a_login_that_fails_costs_five_seconds_and_to_hang_up_before_it_costs_one() {
        let late = |phase| Error::Timeout {
            target: "t".into(),
            phase,
            after: Duration::from_secs(10),
            state: crate::CommandState::NotStarted,
            killed: false,
            source: None,
        };
        let lost = Error::AuthLost {
            target: "t".into(),
            lost: true,
            source: Cause::new("reset"),
            messages: Box::default(),
        };
        let descriptors = Error::Descriptors {
            target: "t".into(),
            source: Cause::new("too many open files"),
        };
        let host_key = |reason| Error::HostKey {
            target: "t".into(),
            reason,
        };
        let revoked = host_key(HostKeyProblem::Revoked {
            fingerprint: String::new(),
            location: String::new(),
        });
        let unreadable = host_key(HostKeyProblem::Unreadable {
            path: "known_hosts".into(),
            reason: String::new(),
        });
        for (failure, seconds) in [
            (rejected(), 5),
            (failure(lost, true), 5),
            (failure(late(Phase::Auth), false), 5),
            (failure(descriptors.clone(), false), 5),
            (failure(revoked, false), 1),
            (failure(unreadable, false), 0),
            (failure(descriptors, true), 0),
            (failure(late(Phase::KeyExchange), false), 0),
            (unread(), 0),
            (throttled(), 0),
            (unconnected(true), 0),
            (lost_in_key_exchange(), 0),
        ] {
            let now = Instant::now();
            let mut throttle = Throttle::default();
            throttle.answered(Some(&failure), now);
            let owed = throttle.owed_until.map(|until| (until - now).as_secs());
            assert_eq!(owed.unwrap_or(0), seconds, "{failure:?}");
        }
    }

    #[test]
    fn what_goes_wrong_before_the_server_is_asked_is_no_sign_that_it_talks() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        throttle.answered(Some(&throttled()), now);
        let until = throttle.wait(now);
        throttle.answered(Some(&unread()), now);
        assert_eq!((throttle.wait(now), throttle.refusals), (until, 1));
    }

    #[test]
    fn who_began_before_a_refusal_and_is_let_in_does_not_shorten_its_pause() {
        let now = Instant::now();
        let mut throttle = Throttle {
            refusals: 6,
            ..Throttle::default()
        };
        throttle.answered(Some(&throttled()), now);
        let until = throttle.wait(now);
        assert!(until.is_some_and(|until| until > now + LONGEST_PAUSE / 4));
        throttle.answered(None, now);
        assert_eq!(throttle.wait(now), until);
    }

    #[test]
    fn words_and_a_silent_goodbye_are_refusals_and_a_closed_port_is_none() {
        assert_eq!(Answer::of(&throttled()), Answer::Refusal);
        assert_eq!(Answer::of(&unconnected(true)), Answer::Refusal);
        assert_eq!(Answer::of(&unconnected(false)), Answer::Silence);
        assert_eq!(Answer::of(&lost_in_key_exchange()), Answer::Talk);
    }

    #[test]
    fn a_refusal_is_a_pause_for_all_and_then_it_is_one_at_a_time() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!((throttle.is_on(now), throttle.wait(now)), (false, None));
        throttle.answered(Some(&throttled()), now);
        let until = throttle.wait(now).expect("a pause");
        assert!(until - now >= Duration::from_millis(50) && until - now <= LONGEST_PAUSE);
        assert!(throttle.is_on(until) && throttle.wait(until).is_none());
        // Let in: still one at a time, and the next one after a moment.
        throttle.answered(None, until);
        let moment = throttle.wait(until).expect("a pause") - until;
        assert!(throttle.is_on(until) && moment <= FIRST_PAUSE, "{moment:?}");
        let later = now + ONE_AT_A_TIME;
        assert!(!throttle.is_on(later));
        throttle.answered(None, later);
        assert_eq!(throttle.wait(later), None);
    }

    #[test]
    fn pauses_grow_stay_bounded_and_begin_anew_once_the_server_talks() {
        let mut now = Instant::now();
        let mut throttle = Throttle::default();
        let mut pause = |now: &mut Instant| {
            throttle.answered(Some(&throttled()), *now);
            let until = throttle.wait(*now).expect("a pause");
            until - std::mem::replace(now, until)
        };
        let pauses: Vec<_> = (0..12).map(|_| pause(&mut now)).collect();
        assert!(pauses[0] <= Duration::from_millis(100), "{pauses:?}");
        assert!(pauses[11] >= LONGEST_PAUSE / 2, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        now += ONE_AT_A_TIME;
        throttle.answered(Some(&lost_in_key_exchange()), now);
        throttle.answered(Some(&throttled()), now);
        let pause = throttle.wait(now).expect("a pause") - now;
        assert!(pause <= Duration::from_millis(100), "{pause:?}");
    }

    #[test]
    fn those_that_are_refused_together_are_one_refusal() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..4 {
            throttle.answered(Some(&throttled()), now);
        }
        assert_eq!(throttle.refusals, 1);
        throttle.answered(Some(&unconnected(false)), now);
        assert!(
            throttle.wait(now).is_some(),
            "a closed port is no good news"
        );
    }
}
