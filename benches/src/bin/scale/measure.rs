//! The pool that is measured, in a process of its own; and what is made of its figures.

use std::io::Read;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Timeouts};
use ssh_pool_benches::report::names::{contender, scenario};
use ssh_pool_benches::report::{Note, Report, Series};

use crate::serve::Place;
use crate::{child, idle, working};

/// What one process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) place: Place,
    /// How many targets the pool knows.
    pub(crate) targets: usize,
    /// How many of them work, in [`Task::Work`].
    pub(crate) busy: usize,
    pub(crate) keepalive: Duration,
    pub(crate) task: Task,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Task {
    /// One command on each, all at once, and then nothing.
    Idle { window: Duration },
    /// Some of them run a command each, again and again.
    Work { window: Duration, every: Duration },
}

/// What one process has found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Metric, unit, value.
    pub(crate) figures: Vec<(String, String, f64)>,
    /// Commands that failed, in words.
    pub(crate) failures: Vec<String>,
}

impl Found {
    pub(crate) fn add(&mut self, metric: &str, unit: &str, value: f64) {
        self.figures
            .push((metric.to_owned(), unit.to_owned(), value));
    }
}

/// The child: reads its plan, does it, and says what it has found.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let plan: Plan = serde_json::from_str(&text)?;
    child::want_descriptors(plan.place.addresses.len() as u64 + 100)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        match plan.task {
            Task::Idle { window } => idle::measure(&plan, window).await,
            Task::Work { window, every } => working::measure(&plan, window, every).await,
        }
    })?;
    child::say(&found)
}

/// A pool that knows all the targets of a plan. There are more of them than servers: the same
/// address with another user is another target.
pub(crate) fn pool(plan: &Plan) -> anyhow::Result<(Pool, Vec<Host>)> {
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(&plan.place.known_hosts))
        .identity(Identity::key_file(&plan.place.key))
        .timeouts(Timeouts::default().keepalive_interval(plan.keepalive))
        .build()?;
    let hosts = (0..)
        .flat_map(|user| {
            let addresses = plan.place.addresses.iter();
            addresses.map(move |address| format!("user{user}@{address}"))
        })
        .take(plan.targets)
        .map(|target| pool.host(target))
        .collect::<Result<_, _>>()?;
    Ok((pool, hosts))
}

/// What all processes have found, round by round.
#[derive(Debug, Default)]
pub(crate) struct Findings(Report);

impl Findings {
    pub(crate) fn add(&mut self, setting: &str, found: Found) {
        for (metric, unit, value) in found.figures {
            let same = |series: &&mut Series| series.setting == setting && series.metric == metric;
            match self.0.series.iter_mut().find(same) {
                Some(series) => series.rounds.push(Some(value)),
                None => self.0.series.push(Series {
                    scenario: scenario::SCALE.to_owned(),
                    setting: setting.to_owned(),
                    contender: contender::SSH_POOL.to_owned(),
                    metric,
                    unit,
                    rounds: vec![Some(value)],
                }),
            }
        }
        for text in found.failures {
            let same = |note: &&mut Note| note.setting == setting && note.text == text;
            match self.0.notes.iter_mut().find(same) {
                Some(note) => note.times += 1,
                None => self.0.notes.push(Note {
                    scenario: scenario::SCALE.to_owned(),
                    setting: setting.to_owned(),
                    contender: contender::SSH_POOL.to_owned(),
                    text,
                    times: 1,
                }),
            }
        }
    }

    /// All of it, with the settings in this order and not in the drawn one.
    pub(crate) fn report(mut self, settings: &[&str]) -> Report {
        let place = |series: &Series| settings.iter().position(|one| *one == series.setting);
        self.0.series.sort_by_key(place);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_come_together_and_settings_keep_their_order() {
        let mut findings = Findings::default();
        for (setting, value) in [("second", 1.0), ("first", 2.0), ("second", 3.0)] {
            let mut found = Found::default();
            found.add("memory", "MiB", value);
            found.failures = vec!["queue: closed".to_owned()];
            findings.add(setting, found);
        }
        let report = findings.report(&["first", "second"]);
        let series: Vec<_> = report
            .series
            .iter()
            .map(|series| (series.setting.as_str(), series.rounds.as_slice()))
            .collect();
        assert_eq!(
            series,
            [
                ("first", [Some(2.0)].as_slice()),
                ("second", &[Some(1.0), Some(3.0)])
            ]
        );
        let times: Vec<usize> = report.notes.iter().map(|note| note.times).collect();
        assert_eq!(times, [2, 1]);
    }
}
