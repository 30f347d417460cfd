//! How two contenders compare.

use super::names::contender;
use super::{Report, Series};
use crate::stats::quantile;

/// One contender's figure divided by another's, in the same round: what slows the machine down for a
/// while slows both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The median over the rounds.
    pub median: f64,
    /// The lower quartile.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
    /// In how many rounds both have a figure.
    pub pairs: usize,
}

impl Ratio {
    /// `dividend` by `divisor`, round by round. `None` if there is no round with both, or the
    /// divisor is zero throughout.
    #[must_use]
    pub fn between(dividend: &Series, divisor: &Series) -> Option<Self> {
        let ratios: Vec<f64> = dividend
            .rounds
            .iter()
            .zip(&divisor.rounds)
            .filter_map(|(dividend, divisor)| Some((*dividend)? / (*divisor)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        Some(Self {
            median: quantile(&ratios, 0.5)?,
            low: quantile(&ratios, 0.25)?,
            high: quantile(&ratios, 0.75)?,
            pairs: ratios.len(),
        })
    }
}

impl Report {
    /// A contender's figure as a multiple of ours: 2 is twice the time, or twice the rate.
    #[must_use]
    pub fn times_ours(&self, series: &Series) -> Option<Ratio> {
        let ours = self.find(
            &series.scenario,
            Some(&series.setting),
            contender::SSH_POOL,
            &series.metric,
        )?;
        Ratio::between(series, ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::series;

    #[test]
    fn rounds_are_compared_with_their_own_round() {
        // The medians are 30 and 10; what is asked for is the median of 2, 3 and 1.
        let theirs = series("warm", "0 ms", "ssh", "p50", "ms", &[2.0, 30.0, 100.0]);
        let ours = series("warm", "0 ms", "ssh-pool", "p50", "ms", &[1.0, 10.0, 100.0]);
        let ratio = Ratio::between(&theirs, &ours).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (1.0, 2.0, 3.0));
        assert_eq!(ratio.pairs, 3);
    }

    #[test]
    fn a_round_without_one_of_them_does_not_count() {
        let mut theirs = series("warm", "0 ms", "ssh", "p50", "ms", &[3.0, 9.0, 5.0]);
        let ours = series("warm", "0 ms", "ssh-pool", "p50", "ms", &[1.0, 1.0]);
        theirs.rounds[0] = None;
        let ratio = Ratio::between(&theirs, &ours).unwrap();
        assert_eq!((ratio.median, ratio.pairs), (9.0, 1));
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let some = series("burst", "cold", "ssh", "failures", "", &[3.0]);
        let none = series("burst", "cold", "ssh-pool", "failures", "", &[0.0]);
        assert_eq!(Ratio::between(&some, &none), None);
        assert_eq!(Ratio::between(&none, &none), None);
    }
}
