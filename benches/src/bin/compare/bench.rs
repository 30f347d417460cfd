//! One run of the comparison: what is measured, how often, and what has come of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ssh_pool_benches::order::shuffled;
use ssh_pool_benches::report::{Note, Report, Series};

use crate::contender::Contender;
use crate::scenario::Job;
use crate::worker::{self, Found, Spec};

/// How many different notes of one contender are kept.
const NOTES: usize = 4;

/// What is run, and what it has found so far.
pub(crate) struct Bench {
    pub(crate) began: Instant,
    pub(crate) quick: bool,
    /// Instead of what each scenario thinks right.
    pub(crate) rounds: Option<usize>,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) report: Report,
    /// ssh-pool has failed a command, or has hung.
    pub(crate) ours_failed: bool,
}

/// One measurement to be made.
pub(crate) struct Case {
    pub(crate) setting: String,
    pub(crate) contender: Contender,
    pub(crate) job: Job,
}

/// How all measurements of a scenario are made.
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    /// Names and units.
    pub(crate) metrics: &'static [(&'static str, &'static str)],
    /// After that a worker is killed.
    pub(crate) limit: Duration,
    /// Whether memory is watched meanwhile, which costs a little.
    pub(crate) watched: bool,
}

impl Bench {
    /// The rounds of a scenario: as many as asked for, or these.
    pub(crate) fn rounds(&self, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { quick } else { full })
    }

    /// The first in a quick run, else the second.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The contenders in the order of this round.
    pub(crate) fn drawn(&self) -> Vec<Contender> {
        shuffled(self.contenders.clone())
    }

    /// Makes one measurement, and writes down what it found.
    pub(crate) async fn measure(&mut self, plan: &Plan, case: Case) {
        self.measure_with(plan, case, |_| ()).await;
    }

    /// [`measure`](Self::measure), where the stage knows something that the worker does not.
    pub(crate) async fn measure_with(
        &mut self,
        plan: &Plan,
        case: Case,
        add: impl FnOnce(&mut Found),
    ) {
        self.progress(plan, &case);
        let spec = Spec {
            contender: case.contender,
            job: case.job,
        };
        let mut found = worker::run(spec, plan.limit, plan.watched).await;
        if let Ok(found) = &mut found {
            add(found);
        }
        self.record(plan, &case.setting, case.contender, found);
    }

    /// Makes measurements one after the other. A quick run makes them side by side where the line
    /// is so `long` that all do little but wait.
    pub(crate) async fn measure_all(&mut self, plan: &Plan, cases: Vec<Case>, long: bool) {
        if !self.quick || !long {
            for case in cases {
                self.measure(plan, case).await;
            }
            return;
        }
        let mut running = Vec::new();
        for case in cases {
            self.progress(plan, &case);
            let spec = Spec {
                contender: case.contender,
                job: case.job,
            };
            let task = tokio::spawn(worker::run(spec, plan.limit, plan.watched));
            running.push((case.setting, case.contender, task));
        }
        for (setting, contender, task) in running {
            let found = task.await.unwrap_or_else(|error| Err(error.into()));
            self.record(plan, &setting, contender, found);
        }
    }

    fn progress(&self, plan: &Plan, case: &Case) {
        eprintln!(
            "{:4} s  {}, {}: {}",
            self.began.elapsed().as_secs(),
            plan.scenario,
            case.setting,
            case.contender.name()
        );
    }

    fn record(
        &mut self,
        plan: &Plan,
        setting: &str,
        contender: Contender,
        found: anyhow::Result<Found>,
    ) {
        let found = found.unwrap_or_else(|error| {
            let error = format!("{error:#}");
            eprintln!("  {}: {error}", contender.name());
            Found {
                failures: vec![error],
                ..Found::default()
            }
        });
        for &(metric, unit) in plan.metrics {
            let names = [plan.scenario, setting, contender.name(), metric];
            self.push(names, unit, found.value(metric));
        }
        self.ours_failed |= contender == Contender::Pool && !found.failures.is_empty();
        let mut words: BTreeMap<String, usize> = BTreeMap::new();
        let failures = found.failures.iter().map(|line| ("failed: ", line));
        let noise = found.noise.iter().map(|line| ("", line));
        for (prefix, line) in failures.chain(noise) {
            *words
                .entry(format!("{prefix}{}", generic(line)))
                .or_default() += 1;
        }
        for (text, times) in words {
            self.note(plan.scenario, setting, contender, text, times);
        }
    }

    fn position(&self, wanted: [&str; 4]) -> Option<usize> {
        self.report.series.iter().position(|series| {
            let names = [
                &series.scenario,
                &series.setting,
                &series.contender,
                &series.metric,
            ];
            names.into_iter().eq(wanted)
        })
    }

    /// One more round of a figure: scenario, setting, contender and metric.
    fn push(&mut self, wanted: [&str; 4], unit: &str, value: Option<f64>) {
        let found = self.position(wanted);
        let all = &mut self.report.series;
        if let Some(series) = found.and_then(|index| all.get_mut(index)) {
            series.rounds.push(value);
            return;
        }
        let [scenario, setting, contender, metric] = wanted.map(str::to_owned);
        all.push(Series {
            scenario,
            setting,
            contender,
            metric,
            unit: unit.to_owned(),
            rounds: vec![value],
        });
    }

    /// Says something beside the figures; the same words again are counted.
    pub(crate) fn note(
        &mut self,
        scenario: &str,
        setting: &str,
        contender: Contender,
        text: String,
        times: usize,
    ) {
        let mut others = 0;
        for note in &mut self.report.notes {
            let place = [&note.scenario, &note.setting, &note.contender];
            if !place.into_iter().eq([scenario, setting, contender.name()]) {
                continue;
            }
            if note.text == text {
                note.times += times;
                return;
            }
            others += 1;
        }
        if others < NOTES {
            self.report.notes.push(Note {
                scenario: scenario.to_owned(),
                setting: setting.to_owned(),
                contender: contender.name().to_owned(),
                text,
                times,
            });
        }
    }
}

/// The first line of a message, without what is different each time: paths, and numbers of
/// processes, ports and channels.
fn generic(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let words = line.split_whitespace().map(|word| {
        let bare = word.trim_end_matches(':');
        let number = bare.bytes().all(|byte| byte.is_ascii_digit());
        match word {
            path if path.contains('/') && path.len() > 1 => "…",
            _ if number && (bare.len() > 3 || bare != word) => "#",
            other => other,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        scenario: "burst",
        metrics: &[("time", "ms")],
        limit: Duration::ZERO,
        watched: false,
    };

    fn bench() -> Bench {
        Bench {
            began: Instant::now(),
            quick: true,
            rounds: None,
            contenders: Contender::ALL.to_vec(),
            report: Report::default(),
            ours_failed: false,
        }
    }

    #[test]
    fn a_round_that_failed_keeps_its_place() {
        let mut bench = bench();
        let mut found = Found::default();
        found.set("time", 7.0);
        bench.record(&PLAN, "cold", Contender::NewSsh, Ok(found.clone()));
        let hung = Err(anyhow::anyhow!("no end after 60 s"));
        bench.record(&PLAN, "cold", Contender::NewSsh, hung);
        bench.record(&PLAN, "cold", Contender::NewSsh, Ok(found));
        let [series] = bench.report.series.as_slice() else {
            panic!("{:?}", bench.report.series);
        };
        assert_eq!(series.rounds, [Some(7.0), None, Some(7.0)]);
        assert_eq!(bench.report.notes.len(), 1);
        assert!(!bench.ours_failed, "it was another one");
    }

    #[test]
    fn a_failure_of_ours_is_remembered_and_the_same_words_are_counted() {
        let mut bench = bench();
        for socket in ["/tmp/a1", "/tmp/b2"] {
            let line = format!("ControlSocket {socket} already exists, disabling multiplexing");
            let found = Found {
                failures: vec![line],
                ..Found::default()
            };
            bench.record(&PLAN, "cold", Contender::Pool, Ok(found));
        }
        assert!(bench.ours_failed);
        let [note] = bench.report.notes.as_slice() else {
            panic!("{:?}", bench.report.notes);
        };
        assert_eq!(note.times, 2);
        assert_eq!(
            note.text,
            "failed: ControlSocket … already exists, disabling multiplexing"
        );
    }
}
