//! What a comparison has found.

use serde::Serialize;

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
