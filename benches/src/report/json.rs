//! The report for programs.

use serde::Serialize;

use super::{Goal, Limit, Note, Outcome, Ratio, Report, Series};

/// Raised when a field changes its meaning or goes; new fields do not raise it.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    command: &'a str,
    machine: Vec<Fact<'a>>,
    series: Vec<Measured<'a>>,
    notes: &'a [Note],
    goals: Vec<Checked>,
}

#[derive(Serialize)]
struct Fact<'a> {
    what: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct Measured<'a> {
    #[serde(flatten)]
    series: &'a Series,
    median: Option<f64>,
    times_ours: Option<Multiple>,
}

#[derive(Serialize)]
struct Multiple {
    median: f64,
    lower_quartile: f64,
    upper_quartile: f64,
    pairs: usize,
}

#[derive(Serialize)]
struct Checked {
    number: u8,
    text: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
    measured: Option<f64>,
    held: Option<bool>,
}

impl Report {
    /// The report as JSON. Its fields keep their names:
    ///
    /// - `version`: 1.
    /// - `command`: the command line that made it.
    /// - `machine`: a list of `what` and `value`.
    /// - `series`: a list of `scenario`, `setting`, `contender`, `metric`, `unit` (empty for
    ///   counts), `rounds` (numbers, `null` where it failed), `median` (or `null`), and `times_ours`
    ///   (or `null`): `median`, `lower_quartile` and `upper_quartile` of the ratios of each round to
    ///   that of ssh-pool, and how many `pairs` there are.
    /// - `notes`: a list of `scenario`, `setting`, `contender`, `text` and `times`.
    /// - `goals`: a list of `number`, `text`, `at_most` or `at_least` (the other is `null`),
    ///   `measured` and `held` (both `null` where it was not measured).
    ///
    /// # Errors
    ///
    /// None of its parts can fail to be written; the signature is that of serde.
    pub fn json(&self) -> serde_json::Result<String> {
        let document = Document {
            version: VERSION,
            command: &self.command,
            machine: self
                .machine
                .iter()
                .map(|(what, value)| Fact { what, value })
                .collect(),
            series: self
                .series
                .iter()
                .map(|series| Measured {
                    series,
                    median: series.median(),
                    times_ours: self.times_ours(series).map(Multiple::from),
                })
                .collect(),
            notes: &self.notes,
            goals: self.goals().into_iter().map(Checked::from).collect(),
        };
        serde_json::to_string_pretty(&document).map(|text| text + "\n")
    }
}

impl From<Ratio> for Multiple {
    fn from(ratio: Ratio) -> Self {
        Self {
            median: ratio.median,
            lower_quartile: ratio.low,
            upper_quartile: ratio.high,
            pairs: ratio.pairs,
        }
    }
}

impl From<Goal> for Checked {
    fn from(goal: Goal) -> Self {
        let (at_most, at_least) = match goal.limit {
            Limit::AtMost(limit) => (Some(limit), None),
            Limit::AtLeast(limit) => (None, Some(limit)),
        };
        Self {
            number: goal.number,
            text: goal.text,
            at_most,
            at_least,
            measured: goal.measured,
            held: match goal.outcome {
                Outcome::Held => Some(true),
                Outcome::NotHeld => Some(false),
                Outcome::NotMeasured => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::report::sample::report;

    #[test]
    fn programs_find_the_documented_fields() {
        let value: Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(
            value["machine"][0],
            json!({"what": "Linux", "value": "6.1"})
        );
        let theirs = value["series"].as_array().unwrap().iter().find(|series| {
            series["contender"] == "async-ssh2-tokio" && series["setting"] == "up, default cipher"
        });
        assert_eq!(
            theirs.unwrap(),
            &json!({
                "scenario": "bulk", "setting": "up, default cipher", "metric": "rate",
                "contender": "async-ssh2-tokio", "unit": "MB/s",
                "rounds": [null], "median": null, "times_ours": null,
            })
        );
        let ours = &value["series"][0];
        assert_eq!(ours["times_ours"]["median"], 1.0);
        assert_eq!(ours["times_ours"]["pairs"], 3);
        let goal = &value["goals"][0];
        assert_eq!(
            (&goal["at_most"], &goal["at_least"]),
            (&json!(0.25), &Value::Null)
        );
        assert_eq!(goal["held"], true);
        let last = value["goals"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&last["measured"], &last["held"]),
            (&json!(1.4), &json!(false))
        );
        assert_eq!(value["notes"][0]["times"], 12);
    }
}
