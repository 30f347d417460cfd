//! What was promised, held against what was written down: by the callers, by the servers, and by
//! whoever broke things.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use ssh_pool::HostStatus;

use crate::caller::LIMIT;
use crate::fault::{Fault, Harm};
use crate::gauge::Gauge;
use crate::host::{ALLOWANCE, HostInfo, millis};
use crate::record::{Fate, Record};
use crate::stage::{Left, Struck};
use crate::watch::Told;
use crate::work::Way;

/// All that is known in the end.
pub(crate) struct Evidence {
    pub(crate) hosts: Vec<HostInfo>,
    pub(crate) records: Vec<Record>,
    /// How often which command has begun, for each host.
    pub(crate) ledgers: Vec<HashMap<String, usize>>,
    pub(crate) struck: Vec<Struck>,
    /// Faults that could not be made.
    pub(crate) unstruck: Vec<String>,
    pub(crate) told: Told,
    /// What the pool has counted of each host.
    pub(crate) counters: Vec<Counters>,
    pub(crate) left: Vec<Left>,
    /// Whether `Pool::close` came back in time.
    pub(crate) is_closed: bool,
    pub(crate) kill_grace: Duration,
    /// Before the pool was there.
    pub(crate) before: Gauge,
    pub(crate) early: Gauge,
    pub(crate) late: Gauge,
    /// When it had gone.
    pub(crate) after: Gauge,
    /// The beginning of the ids of the last round.
    pub(crate) last_round: &'static str,
}

/// What the status of a host says in the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) dials: u64,
    pub(crate) failed_dials: u64,
    pub(crate) refused_opens: u64,
}

impl Counters {
    pub(crate) fn of(status: &HostStatus) -> Self {
        Self {
            dials: status.dials,
            failed_dials: status.failed_dials,
            refused_opens: status.refused_opens,
        }
    }
}

/// A promise, and what has broken it.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) promise: &'static str,
    pub(crate) broken_by: Vec<String>,
}

/// The heap may grow by one part in this many.
const GROWTH: usize = 20;

pub(crate) fn judge(evidence: &Evidence) -> Vec<Verdict> {
    let records = &evidence.records;
    let verdict = |promise, broken_by: Vec<String>| Verdict { promise, broken_by };
    let of_records = |promise, breaks: &dyn Fn(&Record) -> bool| {
        let broken_by = records.iter().filter(|record| breaks(record));
        verdict(
            promise,
            broken_by.map(|record| evidence.show(record)).collect(),
        )
    };
    vec![
        of_records(
            "what succeeded has run, and no more often than it was tried",
            &|record| {
                record.fate == Fate::Ok
                    && record.way.is_command()
                    && !(1..=record.attempts).contains(&evidence.ran(record))
            },
        ),
        of_records("what is called not started has not run", &|record| {
            record.fate == Fate::NotStarted && evidence.ran(record) > 0
        }),
        of_records(
            "what is in doubt has run no more often than it was tried",
            &|record| {
                matches!(
                    record.fate,
                    Fate::Unknown | Fate::Dropped | Fate::Hung | Fate::Wrong
                ) && evidence.ran(record) > record.attempts
            },
        ),
        verdict(
            "nothing has run that nobody asked for there",
            evidence.strangers(),
        ),
        of_records("what has ended has its own output", &|record| {
            record.fate == Fate::Wrong
        }),
        of_records(
            "no call takes longer than its time and the allowance",
            &|record| record.is_late(ALLOWANCE + evidence.kill_grace),
        ),
        of_records(
            "what failed before it was sent was refused by a fault",
            &|record| {
                record.fate == Fate::NotStarted
                    && !evidence.is_short(record)
                    && !evidence.is_explained(record, |harm| harm.refuses)
            },
        ),
        of_records("what was lost was lost by a fault", &|record| {
            record.fate == Fate::Unknown
                && !evidence.is_short(record)
                && !evidence.is_explained(record, |harm| harm.loses || harm.refuses)
        }),
        verdict(
            "no connection dies without a fault",
            evidence.unexplained_deaths(),
        ),
        verdict(
            "no login fails without a fault",
            evidence.unexplained_logins(),
        ),
        verdict("in the end every host serves", evidence.unserved()),
        verdict("the heap stays as it is", evidence.growth()),
        verdict("tasks and descriptors go with the pool", evidence.remains()),
        verdict("nothing is left on the servers", evidence.left_behind()),
        verdict(
            "events tell what is counted, and none is missed",
            evidence.untold(),
        ),
        verdict(
            "every fault has struck, and the pool was used in every way",
            evidence.unmet(),
        ),
    ]
}

impl Evidence {
    /// How often it has begun.
    fn ran(&self, record: &Record) -> u32 {
        let ledger = self.ledgers.get(record.host);
        let ran = ledger.and_then(|ledger| ledger.get(&record.id)).copied();
        u32::try_from(ran.unwrap_or_default()).unwrap_or(u32::MAX)
    }

    /// It had less time than it needed.
    fn is_short(&self, record: &Record) -> bool {
        record.timed_out && record.limit < millis(LIMIT)
    }

    fn explains(&self, host: usize, from: u64, until: u64, harm: fn(Harm) -> bool) -> bool {
        let Some(kind) = self.hosts.get(host).map(|info| info.kind) else {
            return false;
        };
        (self.struck.iter())
            .any(|struck| harm(struck.fault.harm()) && struck.touches(host, kind, from, until))
    }

    fn is_explained(&self, record: &Record, harm: fn(Harm) -> bool) -> bool {
        self.explains(record.host, record.began, record.ended(), harm)
    }

    fn name(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("no host", |info| &info.name)
    }

    fn show(&self, record: &Record) -> String {
        let faults: Vec<_> = (self.struck.iter())
            .filter(|struck| struck.host == record.host)
            .filter(|struck| struck.from <= record.ended() && struck.until + 30_000 > record.began)
            .map(|struck| {
                let (from, until) = (struck.from, struck.until);
                let since = |at: u64| i128::from(at) - i128::from(record.began);
                format!(
                    "{} from {} to {} ms",
                    struck.fault,
                    since(from),
                    since(until)
                )
            })
            .collect();
        format!(
            "{} ({:?} on {}): {:?} after {} ms of {}, {} tries, ran {} times; faults there: [{}]; {}",
            record.id,
            record.way,
            self.name(record.host),
            record.fate,
            record.took,
            record.limit,
            record.attempts,
            self.ran(record),
            faults.join(", "),
            record.text.as_deref().unwrap_or("no error"),
        )
    }

    fn strangers(&self) -> Vec<String> {
        let asked: HashSet<(usize, &str)> = (self.records.iter())
            .map(|record| (record.host, record.id.as_str()))
            .collect();
        let mut strangers = Vec::new();
        for (host, ledger) in self.ledgers.iter().enumerate() {
            let unasked = ledger
                .keys()
                .filter(|id| !asked.contains(&(host, id.as_str())));
            strangers.extend(unasked.map(|id| format!("{id} on {}", self.name(host))));
        }
        strangers
    }

    fn unexplained_deaths(&self) -> Vec<String> {
        let deaths = self.told.deaths.iter().filter(|death| {
            !self.explains(death.host, death.at, death.at, |harm| {
                harm.loses || harm.refuses
            })
        });
        deaths
            .map(|death| {
                let (name, lost) = (self.name(death.host), death.lost);
                format!(
                    "{name}, at {}: {}, {lost} were on it",
                    death.at, death.cause
                )
            })
            .collect()
    }

    fn unexplained_logins(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (host, left) in self.left.iter().enumerate() {
            // A login that a fault cuts off counts as a failure too.
            let cuts = |struck: &Struck| struck.host == host && struck.fault.harm().loses;
            if left.failed_logins > 0 && !self.struck.iter().any(cuts) {
                found.push(format!("{}: {}", self.name(host), left.failed_logins));
            }
        }
        found
    }

    fn unserved(&self) -> Vec<String> {
        let serves = |host: &usize| {
            self.records.iter().any(|record| {
                record.host == *host
                    && record.fate == Fate::Ok
                    && record.id.starts_with(self.last_round)
            })
        };
        let unserved = (0..self.hosts.len()).filter(|host| !serves(host));
        unserved.map(|host| self.name(host).to_owned()).collect()
    }

    fn untold(&self) -> Vec<String> {
        let missed = (self.told.missed > 0).then(|| format!("{} events missed", self.told.missed));
        let mut untold: Vec<_> = missed.into_iter().collect();
        for (host, counters) in self.counters.iter().enumerate() {
            let told = self.told.dialled.get(&host).copied().unwrap_or_default();
            if told != counters.dials {
                let (name, counted) = (self.name(host), counters.dials);
                untold.push(format!(
                    "{name}: {counted} dials, and {told} events of them"
                ));
            }
        }
        untold
    }

    fn growth(&self) -> Vec<String> {
        let (early, late) = (self.early.heap, self.late.heap);
        if late <= early + early / GROWTH {
            return Vec::new();
        }
        vec![format!("{early} bytes have become {late}")]
    }

    fn remains(&self) -> Vec<String> {
        let Self { before, after, .. } = self;
        let open = (!self.is_closed).then(|| "the pool does not close".to_owned());
        let more = [
            ("tasks", before.tasks, after.tasks),
            ("descriptors", before.descriptors, after.descriptors),
        ]
        .into_iter()
        .filter(|(_, before, after)| after > before)
        .map(|(what, before, after)| format!("{before} {what} have become {after}"));
        open.into_iter().chain(more).collect()
    }

    fn left_behind(&self) -> Vec<String> {
        let mut found = self.unstruck.clone();
        for (host, left) in self.left.iter().enumerate() {
            let name = self.name(host);
            if left.open > 0 {
                found.push(format!("{name}: {} connections", left.open));
            }
            found.extend(left.processes.iter().map(|line| format!("{name}: {line}")));
        }
        found
    }

    fn unmet(&self) -> Vec<String> {
        let met: HashSet<Fault> = self.struck.iter().map(|struck| struck.fault).collect();
        let used: HashSet<Way> = self.records.iter().map(|record| record.way).collect();
        let faults = Fault::ALL.into_iter().filter(|fault| !met.contains(fault));
        let ways = Way::ALL.into_iter().filter(|way| !used.contains(way));
        (faults.map(|fault| fault.to_string()))
            .chain(ways.map(|way| format!("{way:?}")))
            .collect()
    }
}

#[cfg(test)]
mod tests;
