//! What a server's refusals to talk have taught about its address, whoever was refused.
//!
//! Plain state: time comes in as an argument.

use std::time::{Duration, Instant};

use super::breaker::{FIRST_PAUSE, LONGEST_PAUSE, doubled, jitter};
use crate::error::{Error, Phase};
use crate::transport::DialError;

/// For so long after the last refusal dials go out one at a time: sshd counts those under way
/// (`MaxStartups`), and may let in a single one.
const ONE_AT_A_TIME: Duration = Duration::from_secs(30);

/// Whether an address is dialled, now and by how many.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// In a row; those that came together are one.
    refusals: u32,
    not_before: Option<Instant>,
    single_until: Option<Instant>,
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

    /// A dial has ended, with that failure if it has failed.
    pub(super) fn answered(&mut self, failure: Option<&DialError>, now: Instant) {
        match failure.map(Answer::of) {
            Some(Answer::Refusal) => self.refused(now),
            Some(Answer::Silence) => {}
            Some(Answer::Talk) | None => {
                self.refusals = 0;
                // sshd takes a moment to see that somebody has logged in, and counts him until then.
                self.not_before = self.is_on(now).then(|| now + jitter(FIRST_PAUSE));
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

/// What a failed dial says about the server's mood.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It said that it would not talk, or hung up before it had said anything, as dropbear does
    /// with too many strangers from one address.
    Refusal,
    /// It was not reached.
    Silence,
    /// It talked.
    Talk,
}

impl Answer {
    fn of(failure: &DialError) -> Self {
        match &failure.error {
            Error::Throttled { .. } => Self::Refusal,
            Error::Connect { .. } if failure.passing => Self::Refusal,
            error if error.phase() > Phase::Banner => Self::Talk,
            _ => Self::Silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

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
