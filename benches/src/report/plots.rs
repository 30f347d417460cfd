//! Which plots there are, and what is on them.

mod figure;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::markdown::distinct;
use super::names::{contender, metric, scenario, unit};
use super::{Report, Series};
use figure::{Bar, Figure, Panel};

/// One file.
struct Plot {
    scenario: &'static str,
    title: &'static str,
    /// Each of them a panel in every setting.
    metrics: &'static [&'static str],
}

const PLOTS: [Plot; 6] = [
    Plot {
        scenario: scenario::WARM,
        title: "One command on a warm connection, by the line's round trip",
        metrics: &[metric::P50],
    },
    Plot {
        scenario: scenario::BURST,
        title: "A burst of 200 commands, 50 at once",
        metrics: &[metric::TIME, metric::FAILURES],
    },
    Plot {
        scenario: scenario::COST,
        title: "What 1,000 commands and an idle connection cost the client",
        metrics: &[metric::CPU, metric::PEAK_MEMORY, metric::IDLE_CONNECTION],
    },
    Plot {
        scenario: scenario::BULK,
        title: "1 GiB in one command",
        metrics: &[metric::RATE],
    },
    Plot {
        scenario: scenario::COLD,
        title: "From nothing to the first result, by the line's round trip",
        metrics: &[metric::TIME],
    },
    Plot {
        scenario: scenario::FLEET,
        title: "100 hosts at once",
        metrics: &[metric::TIME],
    },
];

impl Report {
    /// Draws the report into a folder, made if it is not there: an SVG file for each scenario that
    /// was run, named after it. Gives back what it has written.
    ///
    /// # Errors
    ///
    /// A folder or file that cannot be written.
    pub fn plots(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let mut written = Vec::new();
        for plot in &PLOTS {
            let panels = plot.panels(self);
            if panels.is_empty() {
                continue;
            }
            let figure = Figure {
                title: plot.title.to_owned(),
                panels,
            };
            let path = folder.join(plot.scenario).with_extension("svg");
            fs::write(&path, figure.svg()?).with_context(|| format!("write {}", path.display()))?;
            written.push(path);
        }
        Ok(written)
    }
}

impl Plot {
    fn panels(&self, report: &Report) -> Vec<Panel> {
        let all = report.series.iter();
        let all: Vec<&Series> = all.filter(|one| one.scenario == self.scenario).collect();
        let settings = distinct(all.iter().map(|series| series.setting.as_str()));
        let places = self.metrics.iter().flat_map(|metric| {
            let settings = settings.iter();
            settings.map(move |setting| (*metric, *setting))
        });
        places
            .filter_map(|(metric, setting)| panel(&all, metric, setting, settings.len() > 1))
            .collect()
    }
}

fn panel(all: &[&Series], metric: &str, setting: &str, named: bool) -> Option<Panel> {
    let find = |who: &str, metric: &str| {
        let here = |series: &&&Series| {
            series.contender == who && series.setting == setting && series.metric == metric
        };
        all.iter().find(here).copied()
    };
    let unit = all.iter().find(|one| one.metric == metric)?.unit.clone();
    // Bars stand from below.
    let bars: Vec<Bar> = contender::ORDER
        .iter()
        .rev()
        .filter_map(|who| {
            // What an idle connection costs ssh is the master that holds it.
            let master = match metric {
                metric::IDLE_CONNECTION => find(who, metric::MASTER),
                _ => None,
            };
            let (name, series) = match master {
                Some(master) => (format!("{who}: master"), master),
                None => ((*who).to_owned(), find(who, metric)?),
            };
            let count = series.is_count();
            let value = if count {
                series.largest()
            } else {
                series.median()
            };
            Some(Bar {
                name,
                value,
                ours: *who == contender::SSH_POOL,
                // A login for each command: nobody asks by how much that is slower. What of them
                // fails is another matter.
                may_be_cut: *who == contender::SSH && !count,
            })
        })
        .collect();
    if bars.iter().all(|bar| bar.value.is_none()) {
        return None;
    }
    let setting = if named { setting } else { "" };
    let title: Vec<&str> = match metric {
        // It is the only one of its plot, and the axis names it.
        metric::P50 | metric::RATE => vec![setting],
        _ => vec![setting, metric],
    };
    let title: Vec<&str> = title.into_iter().filter(|part| !part.is_empty()).collect();
    Some(Panel {
        title: title.join(": "),
        axis: axis(metric, &unit),
        unit,
        bars,
    })
}

/// What the axis shows, and which end of it is the good one.
fn axis(metric: &str, unit: &str) -> String {
    let better = if unit == unit::RATE { "more" } else { "less" };
    match (metric, unit) {
        (_, unit::NONE) => "commands".to_owned(),
        (metric::P50, unit) => format!("median, {unit} ({better} is better)"),
        (_, unit) => format!("{unit} ({better} is better)"),
    }
}

#[cfg(test)]
mod tests {
    use ssh_pool_tests::TempDir;

    use super::*;
    use crate::report::sample::report;

    #[test]
    fn each_scenario_that_ran_is_a_file() {
        let dir = TempDir::new();
        let folder = dir.path().join("plots");
        let written = report().plots(&folder).unwrap();
        let names: Vec<_> = written
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["warm.svg", "burst.svg", "cost.svg", "bulk.svg", "cold.svg"]
        );
        for path in written {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("<svg"), "{text}");
            assert!(text.contains("ssh-pool") && text.contains("ssh, ControlMaster"));
            assert!(
                !text.contains("NaN") && !text.contains("inf"),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn one_who_failed_keeps_a_place_and_one_who_did_not_run_has_none() {
        let report = report();
        let all: Vec<&Series> = report.series.iter().collect();
        let panel = panel(&all, metric::RATE, "up, default cipher", true).unwrap();
        let failed = panel.bars.iter().find(|bar| bar.name == "async-ssh2-tokio");
        assert_eq!(failed.unwrap().value, None);
        let panel = super::panel(&all, metric::IDLE_CONNECTION, "1,000 commands", false).unwrap();
        let names: Vec<&str> = panel.bars.iter().map(|bar| bar.name.as_str()).collect();
        assert!(names.contains(&"ssh, ControlMaster: master"), "{names:?}");
        assert!(!names.contains(&"ssh"), "{names:?}");
    }
}
