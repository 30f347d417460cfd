//! Which fault strikes which host when: all of it drawn from the seed beforehand.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::host::{Kind, millis};

/// A fault on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Strike {
    /// Milliseconds from the beginning of the storm to when it strikes …
    pub(crate) at: u64,
    /// … and to when it is mended.
    pub(crate) until: u64,
    pub(crate) host: usize,
    pub(crate) fault: Fault,
}

/// Hosts that are broken at once, at most: the others have to go on meanwhile.
const AT_ONCE: usize = 7;
/// Milliseconds between two faults, on average.
const BETWEEN: u64 = 650;
/// A host is left alone for that long after a fault, so that what follows has one cause.
const REST: Duration = Duration::from_secs(9);
/// The same for sshd 10.0, which forgives a second for a second: what two faults cost must not add
/// up to an exclusion.
const LONG_REST: Duration = Duration::from_secs(25);

/// Draws the strikes for the time from `begin` to `end`, by which all are mended.
///
/// They are dealt from a deck in which each fault is once, so that a short run meets all of them.
pub(crate) fn draw(
    random: &mut fastrand::Rng,
    kinds: &[Kind],
    begin: Duration,
    end: Duration,
) -> Vec<Strike> {
    let (begin, end) = (millis(begin), millis(end));
    let mut strikes: Vec<Strike> = Vec::new();
    let mut deck = Vec::new();
    let mut at = begin;
    while at < end {
        at += random.u64(BETWEEN / 2..=BETWEEN * 3 / 2);
        if deck.is_empty() {
            deck = Fault::ALL.to_vec();
            random.shuffle(&mut deck);
        }
        let is_free = |host: usize, kind: Kind| {
            let rest = if kind == Kind::Sshd10 {
                LONG_REST
            } else {
                REST
            };
            let over = |strike: &&Strike| strike.until + millis(rest) > at;
            !(strikes.iter()).any(|strike| strike.host == host && over(&strike))
        };
        let busy = strikes.iter().filter(|strike| strike.until > at).count();
        let Some(fault) = deck.last().copied().filter(|_| busy < AT_ONCE) else {
            continue;
        };
        let hosts: Vec<usize> = (kinds.iter().enumerate())
            .filter(|(host, kind)| fault.fits(**kind) && is_free(*host, **kind))
            .map(|(host, _)| host)
            .collect();
        let (shortest, longest) = fault.lasts();
        let until = at + random.u64(shortest..=longest);
        if let Some(host) = random.choice(hosts)
            && until <= end
        {
            deck.pop();
            strikes.push(Strike {
                at,
                until,
                host,
                fault,
            });
        } else if let Some(last) = deck.pop() {
            // Later; another one fits now.
            deck.insert(0, last);
        }
    }
    strikes
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |millis| Duration::from_millis(millis).as_secs_f64();
        let (at, until) = (seconds(self.at), seconds(self.until));
        write!(
            f,
            "{at:7.2} s to {until:7.2} s: {:16} host {}",
            self.fault, self.host
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kind> {
        let mut kinds = vec![Kind::Sshd; 12];
        kinds.extend([Kind::Dropbear; 4]);
        kinds.extend([Kind::Embedded; 4]);
        kinds
    }

    fn drawn(seed: u64, seconds: u64) -> Vec<Strike> {
        let mut random = fastrand::Rng::with_seed(seed);
        draw(
            &mut random,
            &kinds(),
            Duration::from_secs(2),
            Duration::from_secs(seconds),
        )
    }

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        assert_eq!(drawn(1, 60), drawn(1, 60));
        assert_ne!(drawn(1, 60), drawn(2, 60));
    }

    #[test]
    fn a_short_run_meets_every_fault_and_all_of_them_end_in_time() {
        for seed in 0..50 {
            let strikes = drawn(seed, 40);
            for fault in Fault::ALL {
                let met = strikes.iter().any(|strike| strike.fault == fault);
                assert!(met, "seed {seed}: no {fault}");
            }
            assert!(
                strikes
                    .iter()
                    .all(|strike| strike.at >= 2_000 && strike.until <= 40_000)
            );
        }
    }

    #[test]
    fn most_hosts_are_well_at_any_time_and_none_has_two_faults_at_once() {
        for seed in 0..20 {
            let strikes = drawn(seed, 120);
            for strike in &strikes {
                let others = strikes.iter().filter(|other| {
                    other.at <= strike.at && other.until > strike.at && *other != strike
                });
                assert!(others.count() < AT_ONCE, "seed {seed}: {strike}");
                let twice = strikes.iter().any(|other| {
                    other != strike
                        && other.host == strike.host
                        && other.at <= strike.until
                        && strike.at <= other.until
                });
                assert!(!twice, "seed {seed}: {strike}");
                assert!(strike.fault.fits(kinds()[strike.host]));
            }
        }
    }
}
