//! The report as text that can be pasted into a README.

use std::fmt::Write;

use super::names::{contender, metric, unit};
use super::table::{Table, count, escaped, number, times};
use super::{Note, Report, Series};

/// Where nothing was measured, or nothing succeeded.
const NOTHING: &str = "–";
/// One cell holds all of them.
const QUANTILES: [&str; 3] = [metric::P50, metric::P90, metric::P99];
/// Words of a program that failed: more of them help nobody.
const LONGEST_NOTE: usize = 200;

/// One column: some metrics of one setting, in one unit.
struct Column<'a> {
    setting: &'a str,
    metrics: Vec<&'a str>,
    unit: &'a str,
}

impl Report {
    /// The report in Markdown: the machine, a table for each scenario, and what has to be said.
    ///
    /// A figure is the median of its rounds, a count the largest of them. What follows in brackets
    /// is the multiple of ours: the median of the ratios of each round.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = self.header();
        for scenario in distinct(self.series.iter().map(|series| series.scenario.as_str())) {
            let of_it = |series: &&Series| series.scenario == scenario;
            let all: Vec<&Series> = self.series.iter().filter(of_it).collect();
            let contenders = ours_first(&all);
            let table = match contenders.as_slice() {
                [who] => upright(&all, who),
                _ => self.side_by_side(&all, &contenders),
            };
            // Writing to a String cannot fail.
            let _ = write!(out, "\n**{}**\n\n{}", escaped(scenario), table.render());
            let notes = self.notes.iter().filter(|note| note.scenario == scenario);
            let notes: String = notes.map(line).collect();
            if !notes.is_empty() {
                out.push('\n');
                out.push_str(&notes);
            }
        }
        out
    }

    fn header(&self) -> String {
        let facts = self.machine.iter();
        let facts: Vec<String> = facts
            .map(|(what, value)| format!("{} {}", escaped(what), escaped(value)))
            .collect();
        let mut out = String::new();
        if !facts.is_empty() {
            out = format!("{}.\n\n", facts.join("; "));
        }
        out + &format!("```sh\n{}\n```\n", self.command)
    }

    /// A row for each contender.
    fn side_by_side(&self, all: &[&Series], contenders: &[&str]) -> Table {
        let columns = columns(all);
        let (corner, titles) = titles(&columns);
        let mut table = Table::new(std::iter::once(corner).chain(titles));
        for who in contenders {
            let name = match *who {
                contender::SSH_POOL => format!("**{who}**"),
                _ => escaped(who),
            };
            let cells = columns.iter().map(|column| self.cell(all, who, column));
            table.row(std::iter::once(name).chain(cells));
        }
        table
    }

    fn cell(&self, all: &[&Series], who: &str, column: &Column<'_>) -> String {
        let find = |metric: &&str| {
            all.iter().find(|series| {
                series.contender == who
                    && series.setting == column.setting
                    && series.metric == **metric
            })
        };
        let values: Vec<String> = column
            .metrics
            .iter()
            .map(|metric| find(metric).map_or_else(|| NOTHING.to_owned(), |series| figure(series)))
            .collect();
        if values.iter().all(|value| value == NOTHING) {
            return NOTHING.to_owned();
        }
        let values = values.join(" / ");
        let first = column.metrics.first().and_then(find);
        match first.filter(|series| who != contender::SSH_POOL && !series.is_count()) {
            Some(series) => match self.times_ours(series) {
                Some(ratio) => format!("{values} ({})", times(ratio.median)),
                None => values,
            },
            None => values,
        }
    }
}

impl Column<'_> {
    fn what(&self) -> String {
        with_unit(&self.metrics.join(" / "), self.unit)
    }
}

/// The corner, and a title for each column. What all of them have in common goes into the corner.
fn titles(columns: &[Column<'_>]) -> (String, Vec<String>) {
    let settings: Vec<String> = columns.iter().map(|one| escaped(one.setting)).collect();
    let whats: Vec<String> = columns.iter().map(Column::what).collect();
    match (common(&settings), common(&whats)) {
        (Some(corner), _) => (corner, whats),
        (None, Some(corner)) => (corner, settings),
        (None, None) => {
            let both = settings.iter().zip(&whats);
            let titles = both.map(|(setting, what)| format!("{setting}: {what}"));
            (String::new(), titles.collect())
        }
    }
}

fn common(names: &[String]) -> Option<String> {
    let (first, others) = names.split_first()?;
    others
        .iter()
        .all(|name| name == first)
        .then(|| first.clone())
}

/// One contender alone: a row for each metric, a column for each setting.
fn upright(all: &[&Series], who: &str) -> Table {
    let settings = distinct(all.iter().map(|series| series.setting.as_str()));
    let titles = settings.iter().map(|setting| escaped(setting));
    let mut table = Table::new(std::iter::once(format!("**{}**", escaped(who))).chain(titles));
    for metric in distinct(all.iter().map(|series| series.metric.as_str())) {
        let of_it = |series: &&&Series| series.metric == metric;
        let unit = all.iter().find(of_it).map_or("", |series| &series.unit);
        let cells = settings.iter().map(|setting| {
            let found = all.iter().filter(of_it).find(|one| one.setting == *setting);
            found.map_or_else(|| NOTHING.to_owned(), |series| figure(series))
        });
        table.row(std::iter::once(with_unit(metric, unit)).chain(cells));
    }
    table
}

/// What is shown of a series.
fn figure(series: &Series) -> String {
    let shown = if series.is_count() {
        series.largest().map(count)
    } else {
        series.median().map(number)
    };
    shown.unwrap_or_else(|| NOTHING.to_owned())
}

fn with_unit(title: &str, unit: &str) -> String {
    match unit {
        unit::NONE => escaped(title),
        unit => format!("{}, {}", escaped(title), escaped(unit)),
    }
}

fn columns<'a>(all: &[&'a Series]) -> Vec<Column<'a>> {
    let mut columns: Vec<Column<'a>> = Vec::new();
    for series in all {
        let quantile = QUANTILES.contains(&series.metric.as_str());
        let place = columns.iter_mut().find(|column| {
            column.setting == series.setting
                && (column.metrics.contains(&series.metric.as_str())
                    || quantile && column.metrics.iter().any(|one| QUANTILES.contains(one)))
        });
        match place {
            Some(column) if column.metrics.contains(&series.metric.as_str()) => {}
            Some(column) => column.metrics.push(&series.metric),
            None => columns.push(Column {
                setting: &series.setting,
                metrics: vec![&series.metric],
                unit: &series.unit,
            }),
        }
    }
    // Contenders are measured in a drawn order, and the first one names the columns.
    let settings = distinct(columns.iter().map(|column| column.setting));
    columns.sort_by_key(|column| settings.iter().position(|one| *one == column.setting));
    columns
}

fn line(note: &Note) -> String {
    let text: String = note.text.chars().take(LONGEST_NOTE).collect();
    let place = [note.contender.as_str(), note.setting.as_str()];
    let place: Vec<&str> = place.into_iter().filter(|part| !part.is_empty()).collect();
    let often = match note.times {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    format!(
        "- {}, {often}: {}\n",
        escaped(&place.join(", ")),
        escaped(&text)
    )
}

fn ours_first<'a>(all: &[&'a Series]) -> Vec<&'a str> {
    let mut names = distinct(all.iter().map(|series| series.contender.as_str()));
    names.sort_by_key(|name| {
        contender::ORDER
            .iter()
            .position(|one| one == name)
            .unwrap_or(99)
    });
    names
}

/// Each once, in the order in which they come.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use crate::report::Report;
    use crate::report::sample::{report, series};

    #[test]
    fn contenders_stand_below_us_with_their_multiple() {
        let text = report().markdown();
        for header in [
            "| p50 / p90 / p99, ms | 0 ms | 10 ms | 40 ms | 100 ms |\n",
            "| 1,000 commands | CPU, s | peak memory, MiB | memory per idle connection, KiB |",
            "|  | cold: time, ms | cold: failures | cold: logins | warm: time, ms |",
        ] {
            assert!(text.contains(header), "{text}");
        }
        assert!(
            text.contains("| **ssh-pool** | 1.21 / 1.45 / 2.30 |"),
            "{text}"
        );
        assert!(
            text.contains("| ssh, ControlMaster | 5.06 / 6.07 / 9.61 (4.2 ×) |"),
            "{text}"
        );
    }

    #[test]
    fn what_failed_is_a_dash_and_its_words_are_quoted() {
        let text = report().markdown();
        let row = text
            .lines()
            .find(|line| line.contains("640"))
            .unwrap_or(&text);
        assert!(!row.contains("NaN"), "{row}");
        assert!(
            text.contains("| async-ssh2-tokio | 541 (0.89 ×) | – |"),
            "{text}"
        );
        let note = "- ssh, ControlMaster, cold, 12 times: \
                    mux\\_client\\_request\\_session: \\<refused\\> \\| by \\*peer\\*\n";
        assert!(text.contains(note), "{text}");
    }

    #[test]
    fn who_is_alone_gets_a_row_for_each_metric() {
        let report = Report {
            series: vec![
                series("scale", "a", "ssh-pool", "memory", "MiB", &[101.0]),
                series("scale", "b", "ssh-pool", "failures", "", &[0.0, 2.0]),
            ],
            ..Report::default()
        };
        let text = report.markdown();
        let table = "| **ssh-pool** | a | b |\n| --- | ---: | ---: |\n| memory, MiB | 101 | – |\n\
                     | failures | – | 2 |\n";
        assert!(text.ends_with(table), "{text}");
    }
}
