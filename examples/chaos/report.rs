//! What happened, in numbers: a column for each kind of host.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use ssh_pool_examples::Timings;

use crate::fault::Fault;
use crate::host::{Kind, millis};
use crate::judge::{Evidence, Verdict, judge};
use crate::record::StreamState;
use crate::resource_sample::ResourceSample;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Count {
    pub(crate) hosts: u64,
    pub(crate) faults: u64,
    /// Of the time, in percent: what is lost then is taken for the doing of a fault.
    pub(crate) excused: u64,
    pub(crate) calls: u64,
    pub(crate) ok: u64,
    pub(crate) not_started: u64,
    pub(crate) unknown: u64,
    /// The caller went away.
    pub(crate) cancelled: u64,
    pub(crate) wrong: u64,
    pub(crate) hung: u64,
    /// Of those that failed: a deadline passed.
    pub(crate) timed_out: u64,
    /// Idempotent commands that succeeded after they had been lost.
    pub(crate) rescued: u64,
    pub(crate) dials: u64,
    /// Dials beyond the first of a host.
    pub(crate) reconnects: u64,
    pub(crate) failed_dials: u64,
    pub(crate) refused_opens: u64,
    /// Connections that have died.
    pub(crate) deaths: u64,
    /// Commands and streams that were on them.
    pub(crate) lost: u64,
    pub(crate) logins_refused: u64,
    /// Penalties that sshd 10.0 has noted, and connections that it has refused for them.
    pub(crate) penalties: u64,
    pub(crate) shut_out: u64,
    /// Of what succeeded, from the call to its end.
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) longest_ms: f64,
    #[serde(skip)]
    timings: Timings,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    /// Processors that the pool and its callers kept busy, and those that all did.
    pub(crate) pool_processors: f64,
    pub(crate) all_processors: f64,
    pub(crate) kinds: BTreeMap<Kind, Count>,
    pub(crate) faults: BTreeMap<Fault, Aftermath>,
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) gauges: BTreeMap<&'static str, ResourceSample>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Report {
    pub(crate) fn of(evidence: &Evidence, seed: u64, seconds: f64, used: (f64, f64)) -> Self {
        let Evidence {
            before,
            early,
            late,
            after,
            ..
        } = evidence;
        let gauges = [
            ("before", before),
            ("early", early),
            ("late", late),
            ("after", after),
        ];
        Self {
            seed,
            seconds,
            pool_processors: used.0 / seconds,
            all_processors: used.1 / seconds,
            kinds: count(evidence),
            faults: aftermaths(evidence),
            events: evidence
                .told
                .counts
                .iter()
                .map(|(kind, count)| (*kind, *count))
                .collect(),
            gauges: gauges
                .into_iter()
                .map(|(when, resource_sample)| (when, *resource_sample))
                .collect(),
            verdicts: judge(evidence),
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.verdicts
            .iter()
            .all(|verdict| verdict.broken_by.is_empty())
    }
}

fn count(evidence: &Evidence) -> BTreeMap<Kind, Count> {
    let mut kinds = BTreeMap::<Kind, Count>::new();
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    for (host, info) in evidence.hosts.iter().enumerate() {
        let count = kinds.entry(info.kind).or_default();
        count.hosts += 1;
        if let Some(counters) = evidence.counters.get(host) {
            count.dials += counters.dials;
            count.reconnects += counters.dials.saturating_sub(1);
            count.failed_dials += counters.failed_dials;
            count.refused_opens += counters.refused_opens;
        }
        if let Some(left) = evidence.left.get(host) {
            count.logins_refused += wide(left.failed_logins);
            count.penalties += wide(left.penalties);
            count.shut_out += wide(left.refused_for_penalties);
        }
    }
    let mut of_host = |host: usize, add: &dyn Fn(&mut Count)| {
        if let Some(info) = evidence.hosts.get(host) {
            add(kinds.entry(info.kind).or_default());
        }
    };
    for struck in &evidence.struck {
        of_host(struck.host, &|count| count.faults += 1);
    }
    for death in &evidence.told.deaths {
        of_host(death.host, &|count| {
            count.deaths += 1;
            count.lost += u64::from(death.lost);
        });
    }
    for record in &evidence.records {
        of_host(record.host, &|count| {
            count.calls += 1;
            count.timed_out += u64::from(record.timed_out);
            match record.stream_state {
                StreamState::Ok => {
                    count.ok += 1;
                    count.rescued += u64::from(record.attempts > 1);
                    count.timings.push(Duration::from_millis(record.took));
                }
                StreamState::Wrong => count.wrong += 1,
                StreamState::NotStarted => count.not_started += 1,
                StreamState::Unknown => count.unknown += 1,
                StreamState::Dropped => count.cancelled += 1,
                StreamState::Hung => count.hung += 1,
            }
        });
    }
    for (kind, percent) in excused(evidence) {
        kinds.entry(kind).or_default().excused = percent;
    }
    for count in kinds.values_mut() {
        count.p50_ms = count.timings.quantile_ms(0.5);
        count.p90_ms = count.timings.quantile_ms(0.9);
        count.p99_ms = count.timings.quantile_ms(0.99);
        count.longest_ms = count.timings.quantile_ms(1.0);
    }
    kinds
}

/// How often a fault struck, and the latest that something failed after it, in milliseconds from
/// when it was mended to when a caller was told: what was in doubt, and what was not started.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Aftermath {
    pub(crate) struck: u64,
    pub(crate) lost: u64,
    pub(crate) refused: u64,
}

fn aftermaths(evidence: &Evidence) -> BTreeMap<Fault, Aftermath> {
    let mut faults = BTreeMap::<Fault, Aftermath>::new();
    for struck in &evidence.struck {
        faults.entry(struck.fault).or_default().struck += 1;
    }
    for record in &evidence.records {
        let before = (evidence.struck.iter())
            .filter(|struck| struck.host == record.host && struck.from <= record.ended)
            .max_by_key(|struck| struck.from);
        let Some(struck) = before.filter(|_| !record.is_short()) else {
            continue;
        };
        let after = record.ended.saturating_sub(struck.until);
        let aftermath = faults.entry(struck.fault).or_default();
        match record.stream_state {
            StreamState::Unknown => aftermath.lost = aftermath.lost.max(after),
            StreamState::NotStarted => aftermath.refused = aftermath.refused.max(after),
            _ => {}
        }
    }
    faults
}

/// For each kind of host, how much of the time a loss is excused, in percent.
fn excused(evidence: &Evidence) -> BTreeMap<Kind, u64> {
    let struck = &evidence.struck;
    let begin = struck.iter().map(|one| one.from).min().unwrap_or_default();
    let end = struck.iter().map(|one| one.until).max().unwrap_or_default();
    let mut sums = BTreeMap::<Kind, (u64, u64)>::new();
    for (host, info) in evidence.hosts.iter().enumerate() {
        let (excused, all) = sums.entry(info.kind).or_default();
        *all += end - begin;
        // They do not overlap: a host rests for longer after each.
        for one in struck.iter().filter(|one| one.host == host) {
            let after = one.fault.harm(info.kind).loses;
            *excused += after.map_or(0, |after| one.until - one.from + millis(after));
        }
    }
    let percent = |(kind, (excused, all)): (Kind, (u64, u64))| (kind, 100 * excused / all.max(1));
    sums.into_iter().map(percent).collect()
}

/// A row: its name, and its number.
type Row = (&'static str, fn(&Count) -> u64);

const ROWS: [Row; 21] = [
    ("hosts", |c| c.hosts),
    ("faults", |c| c.faults),
    ("  excuse a loss, % of time", |c| c.excused),
    ("calls", |c| c.calls),
    ("  succeeded", |c| c.ok),
    ("    after they were lost", |c| c.rescued),
    ("  not started", |c| c.not_started),
    ("  in doubt", |c| c.unknown),
    ("  given up by the caller", |c| c.cancelled),
    ("  wrong", |c| c.wrong),
    ("  hung", |c| c.hung),
    ("  out of time", |c| c.timed_out),
    ("dials", |c| c.dials),
    ("  after the first", |c| c.reconnects),
    ("  failed", |c| c.failed_dials),
    ("sessions refused", |c| c.refused_opens),
    ("connections that died", |c| c.deaths),
    ("  with so much on them", |c| c.lost),
    ("logins refused", |c| c.logins_refused),
    ("penalties", |c| c.penalties),
    ("connections shut out", |c| c.shut_out),
];

type Time = fn(&Count) -> f64;

const TIMES: [(&str, Time); 4] = [
    ("median, ms", |c| c.p50_ms),
    ("p90, ms", |c| c.p90_ms),
    ("p99, ms", |c| c.p99_ms),
    ("longest, ms", |c| c.longest_ms),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:26}", "")?;
        for kind in self.kinds.keys() {
            write!(f, " {kind:>10}")?;
        }
        writeln!(f)?;
        for (name, number) in ROWS {
            write!(f, "{name:26}")?;
            for count in self.kinds.values() {
                write!(f, " {:10}", number(count))?;
            }
            writeln!(f)?;
        }
        for (name, number) in TIMES {
            write!(f, "{name:26}")?;
            for count in self.kinds.values() {
                write!(f, " {:10.0}", number(count))?;
            }
            writeln!(f)?;
        }
        let show = |counts: Vec<String>| counts.join(", ");
        let faults = (self.faults.iter()).map(|(fault, after)| {
            let Aftermath {
                struck,
                lost,
                refused,
            } = after;
            format!("{fault} {struck} ({lost}, {refused})")
        });
        writeln!(
            f,
            "\nfaults (ms to the last loss and the last refusal after their end): {}",
            show(faults.collect())
        )?;
        let events = self
            .events
            .iter()
            .map(|(event, count)| format!("{event} {count}"));
        writeln!(f, "events: {}", show(events.collect()))?;
        for (when, resource_sample) in &self.gauges {
            let ResourceSample {
                heap,
                resident,
                tasks,
                descriptors,
                threads,
            } = resource_sample;
            let (heap, resident) = (heap / 1024, resident / 1024);
            writeln!(
                f,
                "{when:6}: heap {heap:6} KiB, resident {resident:6} KiB, {tasks:4} tasks, \
                 {descriptors:4} descriptors, {threads} threads"
            )?;
        }
        writeln!(
            f,
            "{:.0} s; {:.2} processors busy with the pool and its callers, {:.2} with everything\n",
            self.seconds, self.pool_processors, self.all_processors
        )?;
        for Verdict { promise, broken_by } in &self.verdicts {
            if broken_by.is_empty() {
                writeln!(f, "kept    {promise}")?;
                continue;
            }
            writeln!(f, "BROKEN  {promise}: {} times", broken_by.len())?;
            for offender in broken_by.iter().take(SHOWN) {
                writeln!(f, "          {offender}")?;
            }
        }
        Ok(())
    }
}

/// Of what has broken one promise; the rest is in the JSON.
const SHOWN: usize = 20;
