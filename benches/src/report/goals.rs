//! What we set out to reach, and whether this run did.

mod targets;

use super::names::contender;
use super::table::{Table, count, escaped};
use super::{Ratio, Report, Series};
use targets::{Against, Of, TARGETS, Target};

/// One goal, beside what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// Its number among our goals. Goals in several parts have one number.
    pub number: u8,
    /// In words.
    pub text: String,
    /// Which values hold it.
    pub limit: Limit,
    /// The ratio or the value; `None` where it was not measured.
    pub measured: Option<f64>,
    /// Whether it holds.
    pub outcome: Outcome,
}

/// Which values hold a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// What has become of a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Held,
    /// It does not.
    NotHeld,
    /// Nobody knows: one of the two has no figure.
    NotMeasured,
}

impl Report {
    /// Our goals, each with what this run has found.
    #[must_use]
    pub fn goals(&self) -> Vec<Goal> {
        TARGETS.iter().map(|target| target.check(self)).collect()
    }

    /// The goals as a table in Markdown. Those of scenarios that this run left out are left out.
    #[must_use]
    pub fn goals_table(&self) -> String {
        let ran = |target: &&Target| {
            let mut series = self.series.iter();
            series.any(|series| series.scenario == target.of.scenario)
        };
        let header = ["goal", "limit", "measured", ""];
        let mut table = Table::new(header.map(ToOwned::to_owned));
        for goal in TARGETS.iter().filter(ran).map(|target| target.check(self)) {
            let limit = match goal.limit {
                Limit::AtMost(limit) => format!("≤ {}", count(limit)),
                Limit::AtLeast(limit) => format!("≥ {}", count(limit)),
            };
            let measured = goal.measured.map_or_else(|| "–".to_owned(), count);
            let outcome = match goal.outcome {
                Outcome::Held => "held",
                Outcome::NotHeld => "**not held**",
                Outcome::NotMeasured => "not measured",
            };
            table.row([
                format!("{}: {}", goal.number, escaped(&goal.text)),
                limit,
                measured,
                outcome.to_owned(),
            ]);
        }
        table.render()
    }
}

impl Target {
    fn check(&self, report: &Report) -> Goal {
        let find =
            |who: &str, metric: &str| report.find(self.of.scenario, self.of.setting, who, metric);
        let ours = find(contender::SSH_POOL, self.of.metric);
        let theirs = match self.against {
            Against::Nothing => None,
            Against::Contender(names) => names
                .iter()
                .filter_map(|who| find(who, self.of.metric))
                .find(|series| series.median().is_some()),
            Against::Other(who, metric) => find(who, metric),
        };
        let measured = match (self.against, ours, theirs) {
            // Of a count the worst round counts.
            (Against::Nothing, Some(ours), _) if ours.is_count() => ours.largest(),
            (Against::Nothing, Some(ours), _) => ours.median(),
            (_, Some(ours), Some(theirs)) => Ratio::between(ours, theirs).map(|ratio| ratio.median),
            _ => None,
        };
        let outcome = match (measured, self.limit) {
            (None, _) => Outcome::NotMeasured,
            (Some(value), Limit::AtMost(limit)) if value <= limit => Outcome::Held,
            (Some(value), Limit::AtLeast(limit)) if value >= limit => Outcome::Held,
            _ => Outcome::NotHeld,
        };
        Goal {
            number: self.number,
            text: self.text(ours, theirs),
            limit: self.limit,
            measured,
            outcome,
        }
    }

    fn text(&self, ours: Option<&Series>, theirs: Option<&Series>) -> String {
        let Of {
            scenario,
            setting,
            metric,
        } = self.of;
        let place = match setting {
            Some(setting) => format!("{scenario}, {setting}: {metric}"),
            None => format!("{scenario}: {metric}"),
        };
        match (self.against, theirs) {
            (Against::Nothing, _) => match ours.map_or("", |ours| ours.unit.as_str()) {
                "" => place,
                unit => format!("{place}, {unit}"),
            },
            (Against::Contender(names), None) => {
                format!("{place} ÷ {}", names.first().copied().unwrap_or_default())
            }
            (Against::Contender(_), Some(theirs)) => format!("{place} ÷ {}", theirs.contender),
            (Against::Other(who, metric), _) => format!("{place} ÷ {who}, {metric}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::names::{metric, scenario};
    use crate::report::sample::report;

    fn found(report: &Report, text: &str) -> Goal {
        let goals = report.goals();
        goals
            .iter()
            .find(|goal| goal.text.contains(text))
            .unwrap_or_else(|| panic!("{text} is not in {goals:?}"))
            .clone()
    }

    #[test]
    fn a_ratio_is_held_or_not() {
        let held = found(&report(), "warm, 0 ms: p50 ÷ ssh, ControlMaster");
        assert_eq!((held.number, held.outcome), (1, Outcome::Held));
        assert!(
            held.measured
                .is_some_and(|ratio| (ratio - 1.1 / 4.6).abs() < 1e-9)
        );
        let missed = found(&report(), "cold, 40 ms: time ÷ ssh");
        assert_eq!((missed.number, missed.outcome), (5, Outcome::Held));
        let held = found(&report(), "bulk, down, default cipher: rate ÷ ssh");
        assert_eq!(
            (held.limit, held.outcome),
            (Limit::AtLeast(1.5), Outcome::Held)
        );
        let missed = found(&report(), "warm, 0 ms: p50 ÷ bare russh");
        assert_eq!(
            (missed.limit, missed.outcome),
            (Limit::AtMost(0.85), Outcome::Held)
        );
    }

    #[test]
    fn a_value_is_compared_by_itself_and_of_a_count_the_worst_round() {
        let mut report = report();
        assert_eq!(
            found(&report, "scale, 1,000 hosts: memory").outcome,
            Outcome::Held
        );
        assert_eq!(
            found(&report, "scale, 1,000 hosts: idle CPU").outcome,
            Outcome::NotHeld
        );
        assert_eq!(
            found(&report, "burst, cold: failures").outcome,
            Outcome::Held
        );
        for series in &mut report.series {
            if series.metric == metric::FAILURES && series.contender == contender::SSH_POOL {
                series.rounds = vec![Some(0.0), Some(0.0), Some(1.0)];
            }
        }
        assert_eq!(
            found(&report, "burst, cold: failures").outcome,
            Outcome::NotHeld
        );
    }

    #[test]
    fn memory_is_compared_with_the_master() {
        let goal = found(&report(), "÷ ssh, ControlMaster, master");
        assert_eq!((goal.number, goal.outcome), (3, Outcome::Held));
    }

    #[test]
    fn what_did_not_run_is_not_measured_and_not_in_the_table() {
        let mut report = report();
        report
            .series
            .retain(|series| series.scenario == scenario::SCALE);
        assert_eq!(found(&report, "warm, 0 ms").outcome, Outcome::NotMeasured);
        let table = report.goals_table();
        assert_eq!(table.lines().count(), 4, "{table}");
        assert!(table.contains("| 7: scale, 1,000 hosts: memory, MiB | ≤ 130 | 101 | held |"));
    }
}
