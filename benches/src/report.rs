//! What a comparison has found.

mod goals;
mod json;
mod markdown;
pub mod names;
#[cfg(feature = "contenders")]
mod plots;
mod ratio;
#[cfg(test)]
mod sample;
mod table;

use serde::Serialize;

pub use goals::{Goal, Limit, Outcome};
pub use ratio::Ratio;

use crate::stats;

/// Everything that one run has found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The command line that made it.
    pub command: String,
    /// The machine and the programs: kernel, processors, versions.
    pub machine: Vec<(String, String)>,
    /// The figures.
    pub series: Vec<Series>,
    /// What has to be said beside them: failures, and the words of programs that failed.
    pub notes: Vec<Note>,
}

/// One figure of one contender, once for each round.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// Which scenario: `warm`, `burst`, `cost`, `bulk`, `cold`, `fleet` or `scale`.
    pub scenario: String,
    /// Under which conditions: `0 ms`, `50 at once, cold`.
    pub setting: String,
    /// Who: the name as it is shown to people.
    pub contender: String,
    /// What: `p50`, `failures`.
    pub metric: String,
    /// In which unit: `ms`, `MB/s`, `KiB`; empty for counts.
    pub unit: String,
    /// The value of each round, in the order of the rounds; `None` where the contender failed.
    pub rounds: Vec<Option<f64>>,
}

impl Report {
    /// The series with these names; where a scenario has one setting only, it need not be named.
    #[must_use]
    pub fn find(
        &self,
        scenario: &str,
        setting: Option<&str>,
        contender: &str,
        metric: &str,
    ) -> Option<&Series> {
        self.series.iter().find(|series| {
            series.scenario == scenario
                && setting.is_none_or(|setting| series.setting == setting)
                && series.contender == contender
                && series.metric == metric
        })
    }
}

impl Series {
    /// The median of the rounds that succeeded; `None` when none did.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        stats::median(&self.values())
    }

    /// The largest of the rounds that succeeded.
    #[must_use]
    pub fn largest(&self) -> Option<f64> {
        self.values().into_iter().max_by(f64::total_cmp)
    }

    /// Whether it counts something. Of the rounds of a count the largest is shown, for one failure
    /// in ten rounds has happened.
    #[must_use]
    pub fn is_count(&self) -> bool {
        // Round trips are worked out of times.
        self.unit == names::unit::NONE && self.metric != names::metric::ROUND_TRIPS
    }

    fn values(&self) -> Vec<f64> {
        self.rounds.iter().copied().flatten().collect()
    }
}

/// Something seen that is not a figure.
#[derive(Debug, Clone, Serialize)]
pub struct Note {
    /// As in [`Series`].
    pub scenario: String,
    /// As in [`Series`].
    pub setting: String,
    /// As in [`Series`].
    pub contender: String,
    /// What was seen, on one line.
    pub text: String,
    /// How often.
    pub times: usize,
}
