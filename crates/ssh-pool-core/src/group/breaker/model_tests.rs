//! Random scenarios of a breaker.

use proptest::prelude::*;

use super::tests::{
    COOLDOWN, MOMENT, closed_after_login, lost_in_auth, refused, rejected, session_refused,
    throttled,
};
use super::*;

/// Dials that begin and end in any order, on time that passes in leaps.
#[derive(Default)]
struct BreakerModel {
    breaker: CircuitBreaker,
    out: Vec<ConnectPermit>,
    /// Connections that have granted nothing so far.
    unverified: Vec<ConnectPermit>,
    shown: Option<Breaker>,
    /// No dial that begins now may go out, unless another one succeeds first.
    cooldown_until: Option<Instant>,
}

impl BreakerModel {
    fn step(&mut self, what: u8, pick: usize, now: Instant) {
        let change = match what {
            0..=4 => self.begin(now),
            5 => {
                let permit = self.end(pick, |breaker, permit| {
                    breaker.logged_in();
                    Some(permit)
                });
                self.unverified.extend(permit);
                None
            }
            6 => self.end(pick, |breaker, permit| breaker.abandoned(permit, now)),
            7 => self.breaker.forget(),
            8 | 9 if self.unverified.is_empty() => None,
            8 => {
                let permit = self.unverified.swap_remove(pick % self.unverified.len());
                self.breaker.verified(permit)
            }
            9 => {
                let permit = self.unverified.swap_remove(pick % self.unverified.len());
                let failure = [session_refused(), closed_after_login()][pick % 2].clone();
                let none = Duration::ZERO;
                self.breaker.failed(permit, failure, none, now).1
            }
            _ => {
                let failures = [refused(), throttled(), lost_in_auth(), rejected()];
                let failure = failures[usize::from(what) % failures.len()].clone();
                let took = MOMENT * u32::try_from(pick % 20_000).unwrap();
                self.end(pick, |breaker, permit| {
                    breaker.failed(permit, failure, took, now).1
                })
            }
        };
        self.reported(change, now);
        if matches!(what, 7 | 8) && matches!(self.breaker.state, BreakerState::Closed) {
            self.cooldown_until = None;
        }
        if let Some(Error::AuthRejected { .. }) = self.breaker.answer(now)
            && let Breaker::Open { retry_in } = self.breaker.shown(now)
        {
            self.cooldown_until = Some(now + retry_in);
        }
        let trials = self
            .out
            .iter()
            .chain(&self.unverified)
            .filter(|permit| permit.probe)
            .count();
        assert_eq!(usize::from(self.breaker.probe), trials, "one, and known");
    }

    fn begin(&mut self, now: Instant) -> Option<Change> {
        let answer = self.breaker.answer(now);
        let (begin, change) = self.breaker.begin(now);
        match begin {
            Begin::Go(mut permit) => {
                let same = self.breaker.confirm(&mut permit, now);
                assert!(same, "nothing has happened");
                assert!(answer.is_none(), "a caller would have been refused");
                assert!(self.cooldown_until.is_none_or(|until| now >= until));
                self.out.push(permit);
            }
            Begin::Wait(None) => assert!(self.breaker.probe, "no event would wake it"),
            Begin::Wait(Some(until)) => assert!(until > now && until <= now + LONGEST_PAUSE),
            Begin::Refused { until, .. } => assert!(answer.is_some() && until > now),
        }
        change
    }

    fn end<T>(
        &mut self,
        pick: usize,
        ended: impl FnOnce(&mut CircuitBreaker, ConnectPermit) -> Option<T>,
    ) -> Option<T> {
        if self.out.is_empty() {
            return None;
        }
        let permit = self.out.swap_remove(pick % self.out.len());
        ended(&mut self.breaker, permit)
    }

    /// Every change is reported, once, and nothing else is.
    fn reported(&mut self, change: Option<Change>, now: Instant) {
        let before = self.shown.unwrap_or(Breaker::Closed);
        let after = self.breaker.shown(now);
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
    fn every_change_is_reported_once_and_no_scenario_locks_a_host_out_for_ever(
        steps in prop::collection::vec((0_u8..14, any::<u16>(), 0_u64..20_000), 1..200)
    ) {
        let mut now = Instant::now();
        let mut world = BreakerModel::default();
        for (what, pick, pause) in steps {
            // Mostly moments, sometimes longer than any pause.
            now += MOMENT * u32::try_from(pause / 100 + pause.pow(3) / 100_000_000).unwrap();
            world.step(what, usize::from(pick), now);
        }
        world.out.append(&mut world.unverified);
        while !world.out.is_empty() {
            world.step(6, 0, now);
        }
        now += COOLDOWN;
        prop_assert!(world.breaker.answer(now).is_none(), "the next caller is let through");
        let begin = world.breaker.begin(now).0;
        prop_assert!(matches!(begin, Begin::Go(_)), "{begin:?}");
    }
}
