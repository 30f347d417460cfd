//! What was promised, held against what was written down: by the callers, by the servers, and by
//! whoever broke things.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use ssh_pool::HostStatus;

use crate::fault::Fault;
use crate::host::{HostInfo, Kind, millis};
use crate::record::{Blame, Record, StreamState};
use crate::resource_sample::ResourceSample;
use crate::supervisor::{Left, Struck};
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
    pub(crate) before: ResourceSample,
    pub(crate) early: ResourceSample,
    pub(crate) late: ResourceSample,
    /// When it had gone.
    pub(crate) after: ResourceSample,
    /// The beginning of the ids of the last round.
    pub(crate) last_round: &'static str,
}

/// What the status of a host says in the end, or its events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
/// A call takes no longer where nothing has been broken, and has not been for longer than anything
/// shows: many wait for one another where a connection holds one session.
const WELL: Duration = Duration::from_secs(20);
/// What lies further back is not shown with what is broken.
const SHOWN: Duration = Duration::from_secs(30);

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
                record.stream_state == StreamState::Ok
                    && record.way.is_command()
                    && !(1..=record.attempts).contains(&evidence.ran(record))
            },
        ),
        of_records("what is called not started has not run", &|record| {
            record.stream_state == StreamState::NotStarted && evidence.ran(record) > 0
        }),
        of_records(
            "what is in doubt has run no more often than it was tried",
            &|record| {
                matches!(
                    record.stream_state,
                    StreamState::Unknown
                        | StreamState::Dropped
                        | StreamState::Hung
                        | StreamState::Wrong
                ) && evidence.ran(record) > record.attempts
            },
        ),
        verdict(
            "nothing has run that nobody asked for there",
            evidence.strangers(),
        ),
        of_records("what has ended has its own output", &|record| {
            record.stream_state == StreamState::Wrong
        }),
        of_records(
            "no call takes longer than its time and the allowance",
            &|record| record.is_late(evidence.kill_grace),
        ),
        of_records("where nothing is broken, nothing takes long", &|record| {
            record.took > millis(WELL) && evidence.is_untouched(record)
        }),
        of_records(
            "what failed before it was sent was refused by a fault",
            &|record| {
                record.stream_state == StreamState::NotStarted
                    && !record.is_short()
                    && !evidence.is_explained(record, refuses)
            },
        ),
        of_records("what was lost was lost by a fault", &|record| {
            let excuse: Excuse = match record.way {
                Way::Idempotent => loses_or_refuses,
                _ => loses,
            };
            record.stream_state == StreamState::Unknown
                && !record.is_short()
                && !evidence.is_explained(record, excuse)
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

/// Until how long after its end a fault may be why something fails with that.
type Excuse = fn(Fault, Kind, Option<Blame>) -> Option<Duration>;

fn refuses(fault: Fault, kind: Kind, blame: Option<Blame>) -> Option<Duration> {
    let refuses = fault.harm(kind).refuses;
    match blame {
        Some(Blame::Login) => refuses.filter(|_| fault == Fault::KeyRefused),
        Some(Blame::NotSsh) => refuses.filter(|_| fault == Fault::Garbage),
        Some(Blame::Way) | None => refuses,
        Some(Blame::Us) => None,
    }
}

fn loses(fault: Fault, kind: Kind, blame: Option<Blame>) -> Option<Duration> {
    let loses = fault.harm(kind).loses;
    loses.filter(|_| blame != Some(Blame::Us))
}

/// It was lost, and refused when it was tried again.
fn loses_or_refuses(fault: Fault, kind: Kind, blame: Option<Blame>) -> Option<Duration> {
    loses(fault, kind, blame).max(refuses(fault, kind, blame))
}

impl Evidence {
    /// How often it has begun.
    fn ran(&self, record: &Record) -> u32 {
        let ledger = self.ledgers.get(record.host);
        let ran = ledger.and_then(|ledger| ledger.get(&record.id)).copied();
        u32::try_from(ran.unwrap_or_default()).unwrap_or(u32::MAX)
    }

    fn explains(
        &self,
        host: usize,
        (from, until): (u64, u64),
        blame: Option<Blame>,
        excuse: Excuse,
    ) -> bool {
        let Some(kind) = self.hosts.get(host).map(|info| info.kind) else {
            return false;
        };
        (self.struck.iter().filter(|struck| struck.host == host)).any(|struck| {
            excuse(struck.fault, kind, blame)
                .is_some_and(|after| struck.touches(from, until, after))
        })
    }

    fn is_explained(&self, record: &Record, excuse: Excuse) -> bool {
        // What was tried again was lost before.
        let from = match record.way {
            Way::Idempotent => record.began,
            _ => record.ended,
        };
        self.explains(record.host, (from, record.ended), record.blame, excuse)
    }

    /// Nothing was wrong with its host while it was under way, or for long before.
    fn is_untouched(&self, record: &Record) -> bool {
        let of_host = |struck: &&Struck| struck.host == record.host;
        !(self.struck.iter().filter(of_host))
            .any(|struck| struck.touches(record.began, record.ended, SHOWN))
    }

    fn name(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("no host", |info| &info.name)
    }

    fn show(&self, record: &Record) -> String {
        let faults: Vec<_> = (self.struck.iter())
            .filter(|struck| struck.host == record.host)
            .filter(|struck| {
                // A bit of what comes after, too: clocks are read one after the other.
                struck.touches(record.began, record.ended + 1_000, SHOWN)
            })
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
            record.stream_state,
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
        let deaths = (self.told.deaths.iter())
            .filter(|death| !self.explains(death.host, (death.at, death.at), None, loses));
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

    /// A refused key makes a login or two fail before the cool-down; where a login that is cut off
    /// is logged as one that failed, so does everything that cuts.
    fn unexplained_logins(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (host, (left, info)) in self.left.iter().zip(&self.hosts).enumerate() {
            let may_fail = |struck: &&Struck| match info.kind {
                Kind::Sshd | Kind::Sshd10 => struck.fault == Fault::KeyRefused,
                Kind::Dropbear | Kind::Embedded => struck.fault.harm(info.kind).loses.is_some(),
            };
            let of_host = self.struck.iter().filter(|struck| struck.host == host);
            let most = 2 * of_host.filter(may_fail).count();
            if left.failed_logins > most {
                let (name, failed) = (&info.name, left.failed_logins);
                found.push(format!("{name}: {failed}, and not {most} at most"));
            }
        }
        found
    }

    fn unserved(&self) -> Vec<String> {
        let serves = |host: &usize| {
            self.records.iter().any(|record| {
                record.host == *host
                    && record.stream_state == StreamState::Ok
                    && record.id.starts_with(self.last_round)
            })
        };
        let unserved = (0..self.hosts.len()).filter(|host| !serves(host));
        unserved.map(|host| self.name(host).to_owned()).collect()
    }

    fn untold(&self) -> Vec<String> {
        let missed = (self.told.missed > 0).then(|| format!("{} events missed", self.told.missed));
        let mut untold: Vec<_> = missed.into_iter().collect();
        for (host, counted) in self.counters.iter().enumerate() {
            let told = self.told.counters.get(&host).copied().unwrap_or_default();
            if told != *counted {
                let name = self.name(host);
                untold.push(format!("{name}: {counted:?}, and events of {told:?}"));
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
