//! What a server's refusals of connections and logins say about its address, for all identities.
//!
//! Plain state: time comes in as an argument.

use std::time::{Duration, Instant};

use super::breaker::{AWAITED, FIRST_PAUSE, LONGEST_PAUSE, doubled, jitter};
use crate::error::{Error, Phase};
use crate::transport::ConnectError;

/// For so long after the last refusal dials go out one at a time: sshd counts those under way
/// (`MaxStartups`), and may let in a single one.
const ONE_AT_A_TIME: Duration = Duration::from_secs(30);

/// What sshd charges the address of a client for a failed login (`PerSourcePenalties`, 9.8 and
/// later: `authfail`). Time pays it off.
const FAILED_LOGIN_PENALTY: Duration = Duration::from_secs(5);
/// What it charges for hanging up without a login (`noauth`).
const HANGUP_PENALTY: Duration = Duration::from_secs(1);
/// Above this penalty sshd refuses all connections from the address until it has expired (`min`).
const PENALTY_LIMIT: Duration = Duration::from_secs(15);
/// The share of it for unverified identities: the rest leaves room for one failure of a verified one.
const UNVERIFIED_LIMIT: Duration = Duration::from_secs(10);

/// Whether an address is dialled, now and by how many.
#[derive(Debug, Default)]
pub(super) struct AddressPenalties {
    /// In a row; those that came together are one.
    refusals: u32,
    not_before: Option<Instant>,
    single_until: Option<Instant>,
    /// When failed logins are paid off.
    penalty_until: Option<Instant>,
    /// Logins under way of unverified and of verified identities.
    unverified: u32,
    verified: u32,
}

impl AddressPenalties {
    /// One dial at a time.
    pub(super) fn is_throttling(&self, now: Instant) -> bool {
        self.single_until.is_some_and(|until| now < until)
    }

    /// No dial before this time.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|until| now < *until)
    }

    /// Admits a login, if the limit has room for the failure of this one and of all others that are
    /// under way. Else: not before then, or until one of those has ended. Ends with
    /// [`release`](Self::release).
    ///
    /// Unverified logins leave room for a verified one.
    pub(super) fn reserve(&mut self, unverified: bool, now: Instant) -> Result<(), Instant> {
        let penalty_left = self
            .penalty_until
            .map(|at| at.saturating_duration_since(now));
        let with =
            |others: u32| penalty_left.unwrap_or_default() + FAILED_LOGIN_PENALTY * (others + 1);
        let mut excess = with(self.unverified + self.verified).saturating_sub(PENALTY_LIMIT);
        if unverified {
            excess = excess.max(with(self.unverified).saturating_sub(UNVERIFIED_LIMIT));
        }
        if excess.is_zero() {
            *self.under_way(unverified) += 1;
            Ok(())
        } else {
            Err(now + excess)
        }
    }

    /// How long a login waits at least, because of those that have failed already.
    pub(super) fn delay(&self, unverified: bool, now: Instant) -> Duration {
        let penalty_left = self
            .penalty_until
            .map(|at| at.saturating_duration_since(now));
        let most = if unverified {
            UNVERIFIED_LIMIT
        } else {
            PENALTY_LIMIT
        };
        (penalty_left.unwrap_or_default() + FAILED_LOGIN_PENALTY).saturating_sub(most)
    }

    /// That login has ended. A failure was reported to [`answered`](Self::answered) before.
    pub(super) fn release(&mut self, unverified: bool) {
        let count = self.under_way(unverified);
        *count = count.saturating_sub(1);
    }

    fn under_way(&mut self, unverified: bool) -> &mut u32 {
        if unverified {
            &mut self.unverified
        } else {
            &mut self.verified
        }
    }

    /// A dial has ended, with that failure if it has failed.
    pub(super) fn answered(&mut self, failure: Option<&ConnectError>, now: Instant) {
        self.charge(failure, now);
        self.learn(failure, LONGEST_PAUSE, now);
    }

    /// The same while a caller waits until the host is ready: pauses are short, for sshd charges no
    /// client that it turns away. `charges`: unless the server is known not to count failures.
    pub(super) fn answered_awaited(
        &mut self,
        failure: Option<&ConnectError>,
        charges: bool,
        now: Instant,
    ) {
        if charges {
            self.charge(failure, now);
        }
        self.learn(failure, AWAITED, now);
    }

    fn charge(&mut self, failure: Option<&ConnectError>, now: Instant) {
        if let Some(penalty) = failure.and_then(penalty) {
            let penalty_until = self.penalty_until.map_or(now, |at| at.max(now));
            self.penalty_until = Some(penalty_until + penalty);
        }
    }

    fn learn(&mut self, failure: Option<&ConnectError>, longest: Duration, now: Instant) {
        match failure.map(ServerResponse::of) {
            Some(ServerResponse::Refusal) => self.refused(longest, now),
            Some(ServerResponse::Silence) => {}
            Some(ServerResponse::Talk) | None => {
                self.refusals = 0;
                // sshd counts a connection as unauthenticated for a moment after its login.
                let moment = self.is_throttling(now).then(|| now + jitter(FIRST_PAUSE));
                // Others may have been turned away after this one had been let through.
                self.not_before = self.not_before.max(moment);
            }
        }
    }

    fn refused(&mut self, longest: Duration, now: Instant) {
        self.single_until = Some(now + ONE_AT_A_TIME);
        if self.wait(now).is_none() {
            self.refusals += 1;
            let pause = jitter(doubled(self.refusals).min(longest));
            self.not_before = Some(now + pause);
        }
    }
}

/// What a failed dial costs.
fn penalty(failure: &ConnectError) -> Option<Duration> {
    match failure {
        failure if failure.is_failed_login() => Some(FAILED_LOGIN_PENALTY),
        failure if failure.is_host_key_rejected() => Some(HANGUP_PENALTY),
        _ => None,
    }
}

/// What a failed dial says about the server.
#[derive(Debug, PartialEq, Eq)]
enum ServerResponse {
    /// It said that it would not talk, or hung up before it had said anything, as dropbear does
    /// with too many unauthenticated connections from one address.
    Refusal,
    /// It was not reached, as far as is known.
    Silence,
    /// It talked.
    Talk,
}

impl ServerResponse {
    fn of(failure: &ConnectError) -> Self {
        match &failure.error {
            Error::Throttled { .. } => Self::Refusal,
            Error::Connect { .. } if failure.transient => Self::Refusal,
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

    fn failure(error: Error, transient: bool) -> ConnectError {
        ConnectError { error, transient }
    }

    fn throttled() -> ConnectError {
        let error = Error::Throttled {
            target: "t".into(),
            message: "Exceeded MaxStartups".into(),
            source: Cause::new("closed"),
        };
        failure(error, true)
    }

    fn unconnected(transient: bool) -> ConnectError {
        let error = Error::Connect {
            target: "t".into(),
            source: Cause::new("closed"),
        };
        failure(error, transient)
    }

    fn lost_in_key_exchange() -> ConnectError {
        let error = Error::KeyExchange {
            target: "t".into(),
            lost: true,
            source: Cause::new("reset"),
        };
        failure(error, true)
    }

    /// The file was not there.
    fn unread() -> ConnectError {
        let error = Error::Identity {
            target: "t".into(),
            identity: "key".into(),
            source: Cause::new("no such file"),
        };
        failure(error, false)
    }

    fn rejected() -> ConnectError {
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

    /// The wait for a reservation, once it has been made.
    fn wait_for_reserve(penalties: &mut AddressPenalties, now: Instant) -> Duration {
        let mut then = now;
        while let Err(until) = penalties.reserve(true, then) {
            assert!(until > then);
            then = until;
        }
        then - now
    }

    #[test]
    fn two_logins_that_may_fail_are_under_way_and_the_others_wait_for_credit() {
        let now = Instant::now();
        let mut penalties = AddressPenalties::default();
        assert_eq!(penalties.reserve(true, now), Ok(()));
        assert_eq!(penalties.reserve(true, now), Ok(()));
        assert_eq!(
            penalties.reserve(true, now),
            Err(now + FAILED_LOGIN_PENALTY)
        );
        // One is let in, or was not made.
        penalties.answered(None, now);
        penalties.release(true);
        assert_eq!(penalties.reserve(true, now), Ok(()));
        // The others are not.
        for _ in 0..2 {
            penalties.answered(Some(&rejected()), now);
            penalties.release(true);
        }
        let moment = Duration::from_secs(1);
        let later = now + moment;
        assert_eq!(
            penalties.reserve(true, later),
            Err(later + FAILED_LOGIN_PENALTY - moment),
            "time pays"
        );
        assert_eq!(
            wait_for_reserve(&mut penalties, later),
            FAILED_LOGIN_PENALTY - moment
        );
        penalties.release(true);
        assert_eq!(
            wait_for_reserve(&mut penalties, now + UNVERIFIED_LIMIT),
            Duration::ZERO
        );
        assert_eq!(
            wait_for_reserve(&mut penalties, now + UNVERIFIED_LIMIT),
            Duration::ZERO,
            "all is paid"
        );
    }

    #[test]
    fn of_those_who_were_let_in_before_as_many_go_out_as_may_all_fail() {
        let now = Instant::now();
        let mut penalties = AddressPenalties::default();
        for _ in 0..3 {
            assert_eq!(penalties.reserve(false, now), Ok(()));
        }
        assert_eq!(
            penalties.reserve(false, now),
            Err(now + FAILED_LOGIN_PENALTY)
        );
        assert_eq!(
            penalties.reserve(true, now),
            Err(now + FAILED_LOGIN_PENALTY)
        );
        penalties.answered(None, now);
        penalties.release(false);
        assert_eq!(penalties.reserve(false, now), Ok(()), "another one");
        for _ in 0..3 {
            penalties.release(false);
        }
        // Those who may well fail, and have failed, leave room for one of them.
        penalties.answered(Some(&rejected()), now);
        assert_eq!(penalties.reserve(true, now), Ok(()));
        assert_eq!(
            penalties.reserve(true, now),
            Err(now + FAILED_LOGIN_PENALTY)
        );
        assert_eq!(penalties.reserve(false, now), Ok(()));
        assert_eq!(
            penalties.reserve(false, now),
            Err(now + FAILED_LOGIN_PENALTY)
        );
    }

    #[test]
    fn who_was_not_held_up_and_fails_counts_too() {
        let now = Instant::now();
        let mut penalties = AddressPenalties::default();
        for _ in 0..4 {
            penalties.answered(Some(&rejected()), now);
        }
        let wait = wait_for_reserve(&mut penalties, now);
        assert_eq!(wait, FAILED_LOGIN_PENALTY * 5 - UNVERIFIED_LIMIT);
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
            let mut penalties = AddressPenalties::default();
            penalties.answered(Some(&failure), now);
            let penalty_left = penalties.penalty_until.map(|until| (until - now).as_secs());
            assert_eq!(penalty_left.unwrap_or(0), seconds, "{failure:?}");
        }
    }

    #[test]
    fn what_goes_wrong_before_the_server_is_asked_is_no_sign_that_it_talks() {
        let now = Instant::now();
        let mut penalties = AddressPenalties::default();
        penalties.answered(Some(&throttled()), now);
        let until = penalties.wait(now);
        penalties.answered(Some(&unread()), now);
        assert_eq!((penalties.wait(now), penalties.refusals), (until, 1));
    }

    #[test]
    fn who_began_before_a_refusal_and_is_let_in_does_not_shorten_its_pause() {
        let now = Instant::now();
        let mut penalties = AddressPenalties {
            refusals: 6,
            ..AddressPenalties::default()
        };
        penalties.answered(Some(&throttled()), now);
        let until = penalties.wait(now);
        assert!(until.is_some_and(|until| until > now + LONGEST_PAUSE / 4));
        penalties.answered(None, now);
        assert_eq!(penalties.wait(now), until);
    }

    #[test]
    fn words_and_a_silent_goodbye_are_refusals_and_a_closed_port_is_none() {
        assert_eq!(ServerResponse::of(&throttled()), ServerResponse::Refusal);
        assert_eq!(
            ServerResponse::of(&unconnected(true)),
            ServerResponse::Refusal
        );
        assert_eq!(
            ServerResponse::of(&unconnected(false)),
            ServerResponse::Silence
        );
        assert_eq!(
            ServerResponse::of(&lost_in_key_exchange()),
            ServerResponse::Talk
        );
    }

    #[test]
    fn a_refusal_is_a_pause_for_all_and_then_it_is_one_at_a_time() {
        let now = Instant::now();
        let mut penalties = AddressPenalties::default();
        assert_eq!(
            (penalties.is_throttling(now), penalties.wait(now)),
            (false, None)
        );
        penalties.answered(Some(&throttled()), now);
        let until = penalties.wait(now).expect("a pause");
        assert!(until - now >= Duration::from_millis(50) && until - now <= LONGEST_PAUSE);
        assert!(penalties.is_throttling(until) && penalties.wait(until).is_none());
        // Let in: still one at a time, and the next one after a moment.
        penalties.answered(None, until);
        let moment = penalties.wait(until).expect("a pause") - until;
        assert!(
            penalties.is_throttling(until) && moment <= FIRST_PAUSE,
            "{moment:?}"
        );
        let later = now + ONE_AT_A_TIME;
        assert!(!penalties.is_throttling(later));
        penalties.answered(None, later);
        assert_eq!(penalties.wait(later), None);
    }

    #[test]
    fn pauses_grow_stay_bounded_and_begin_anew_once_the_server_talks() {
        let mut now = Instant::now();
        let mut penalties = AddressPenalties::default();
        let mut pause = |now: &mut Instant| {
            penalties.answered(Some(&throttled()), *now);
            let until = penalties.wait(*now).expect("a pause");
            until - std::mem::replace(now, until)
        };
        let pauses: Vec<_> = (0..12).map(|_| pause(&mut now)).collect();
        assert!(pauses[0] <= Duration::from_millis(100), "{pauses:?}");
        assert!(pauses[11] >= LONGEST_PAUSE / 2, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        now += ONE_AT_A_TIME;
        penalties.answered(Some(&lost_in_key_exchange()), now);
        penalties.answered(Some(&throttled()), now);
        let pause = penalties.wait(now).expect("a pause") - now;
        assert!(pause <= Duration::from_millis(100), "{pause:?}");
    }

    #[test]
    fn a_host_that_is_awaited_is_tried_once_a_second_however_often_it_refuses() {
        let mut now = Instant::now();
        let mut penalties = AddressPenalties::default();
        for refusals in 1..=12 {
            penalties.answered_awaited(Some(&throttled()), true, now);
            let until = penalties.wait(now).expect("a pause");
            let shortest = doubled(refusals).min(AWAITED) / 2;
            assert!(until - now >= shortest && until - now <= AWAITED);
            assert!(penalties.is_throttling(until), "one at a time");
            now = until;
        }
        // A caller that does not wait for it leaves it alone for longer.
        penalties.answered(Some(&throttled()), now);
        assert!(
            penalties
                .wait(now)
                .is_some_and(|until| until > now + AWAITED)
        );
    }

    #[test]
    fn a_failed_login_at_a_host_that_is_awaited_is_charged_unless_it_counts_none() {
        let now = Instant::now();
        for (charges, owed) in [(true, Some(now + FAILED_LOGIN_PENALTY)), (false, None)] {
            let mut penalties = AddressPenalties::default();
            penalties.answered_awaited(Some(&rejected()), charges, now);
            assert_eq!(penalties.penalty_until, owed);
        }
    }

    #[test]
    fn those_that_are_refused_together_are_one_refusal() {
        let now = Instant::now();
        let mut penalties = AddressPenalties::default();
        for _ in 0..4 {
            penalties.answered(Some(&throttled()), now);
        }
        assert_eq!(penalties.refusals, 1);
        penalties.answered(Some(&unconnected(false)), now);
        assert!(
            penalties.wait(now).is_some(),
            "a closed port is no good news"
        );
    }
}
