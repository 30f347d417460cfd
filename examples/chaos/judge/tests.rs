use std::path::PathBuf;

use super::*;
use crate::caller::LIMIT;
use crate::host::{ALLOWANCE, BUSY};
use crate::watch::Death;

const BEGAN: u64 = 1_000_000;

/// A run in which everything went well: two hosts, of which the second was reset, and one call in
/// each way on each.
fn good() -> Evidence {
    let host = |name: &str| HostInfo {
        name: name.to_owned(),
        kind: Kind::Sshd,
        target: String::new(),
        client_key: PathBuf::new(),
        known_hosts: PathBuf::new(),
        ledger: PathBuf::new(),
        tcp: None,
        unix: None,
    };
    let mut records = Vec::new();
    let mut ledgers = vec![HashMap::new(), HashMap::new()];
    for (host, ledger) in ledgers.iter_mut().enumerate() {
        for (number, way) in Way::ALL.into_iter().enumerate() {
            let record = record(&format!("{host}-{number}"), host, way);
            if way.is_command() {
                ledger.insert(record.id.clone(), 1);
            }
            records.push(record);
        }
        ledger.insert(format!("last-{host}"), 1);
        records.push(record(&format!("last-{host}"), host, Way::Output));
    }
    // Long before everything else, but for one.
    let mut struck: Vec<_> = (Fault::ALL.into_iter())
        .map(|fault| Struck {
            host: 1,
            fault,
            from: 1_000,
            until: 2_000,
        })
        .collect();
    struck.push(Struck {
        host: 1,
        fault: Fault::Reset,
        from: BEGAN,
        until: BEGAN,
    });
    let resource_sample = ResourceSample {
        heap: 1_000_000,
        resident: 9_000_000,
        tasks: 3,
        descriptors: 10,
        threads: 4,
    };
    Evidence {
        hosts: vec![host("first"), host("second")],
        records,
        ledgers,
        struck,
        unstruck: Vec::new(),
        told: Told {
            counters: HashMap::from([(0, counters(1)), (1, counters(2))]),
            ..Told::default()
        },
        counters: vec![counters(1), counters(2)],
        left: vec![Left::default(), Left::default()],
        kill_grace: Duration::from_millis(500),
        is_closed: true,
        before: resource_sample,
        early: resource_sample,
        late: resource_sample,
        after: resource_sample,
        last_round: "last",
    }
}

fn counters(dials: u64) -> Counters {
    Counters {
        dials,
        ..Counters::default()
    }
}

fn record(id: &str, host: usize, way: Way) -> Record {
    Record {
        id: id.to_owned(),
        host,
        way,
        stream_state: StreamState::Ok,
        attempts: 1,
        timed_out: false,
        blame: None,
        began: BEGAN,
        ended: BEGAN + 100,
        took: 100,
        limit: millis(LIMIT),
        text: None,
    }
}

/// What is broken when that is done to a good run.
fn broken(spoil: impl Fn(&mut Evidence)) -> Vec<&'static str> {
    let mut evidence = good();
    spoil(&mut evidence);
    let broken = judge(&evidence)
        .into_iter()
        .filter(|verdict| !verdict.broken_by.is_empty());
    broken.map(|verdict| verdict.promise).collect()
}

/// The first call of a host.
fn first(evidence: &mut Evidence, host: usize) -> (&mut Record, &mut usize) {
    let id = format!("{host}-0");
    let ran = evidence.ledgers[host].get_mut(&id).unwrap();
    let record = evidence.records.iter_mut().find(|record| record.id == id);
    (record.unwrap(), ran)
}

fn spoiled(
    host: usize,
    stream_state: StreamState,
    attempts: u32,
    times: usize,
) -> Vec<&'static str> {
    broken(|evidence| {
        let (record, ran) = first(evidence, host);
        (record.stream_state, record.attempts, *ran) = (stream_state, attempts, times);
    })
}

const RAN: &str = "what succeeded has run, and no more often than it was tried";
const NOT_STARTED: &str = "what is called not started has not run";
const IN_DOUBT: &str = "what is in doubt has run no more often than it was tried";
const LOST: &str = "what was lost was lost by a fault";
const REFUSED: &str = "what failed before it was sent was refused by a fault";
const LATE: &str = "no call takes longer than its time and the allowance";

#[test]
fn a_good_run_breaks_nothing() {
    assert!(broken(|_| {}).is_empty());
}

#[test]
fn a_success_has_to_be_in_the_ledger_once_for_each_try_at_most() {
    assert_eq!(spoiled(0, StreamState::Ok, 1, 0), [RAN]);
    assert_eq!(spoiled(0, StreamState::Ok, 1, 2), [RAN]);
    assert!(spoiled(0, StreamState::Ok, 2, 2).is_empty());
    assert_eq!(spoiled(0, StreamState::Ok, 2, 3), [RAN]);
}

#[test]
fn what_was_not_started_must_not_be_in_the_ledger() {
    assert_eq!(spoiled(0, StreamState::NotStarted, 1, 0), [REFUSED]);
    assert_eq!(
        spoiled(0, StreamState::NotStarted, 1, 1),
        [NOT_STARTED, REFUSED]
    );
}

#[test]
fn what_is_in_doubt_may_be_in_the_ledger_once_for_each_try() {
    for stream_state in [StreamState::Unknown, StreamState::Dropped] {
        assert!(spoiled(1, stream_state, 1, 0).is_empty());
        assert!(spoiled(1, stream_state, 1, 1).is_empty());
        assert_eq!(spoiled(1, stream_state, 1, 2), [IN_DOUBT]);
        assert!(spoiled(1, stream_state, 3, 3).is_empty());
        assert_eq!(spoiled(1, stream_state, 3, 4), [IN_DOUBT]);
    }
}

#[test]
fn a_command_of_another_host_is_a_stranger() {
    let broken = broken(|evidence| {
        evidence.ledgers[0].insert("1-0".to_owned(), 1);
    });
    assert_eq!(broken, ["nothing has run that nobody asked for there"]);
}

#[test]
fn a_wrong_answer_and_a_late_one_are_found() {
    assert_eq!(
        spoiled(0, StreamState::Wrong, 1, 1),
        ["what has ended has its own output"]
    );
    assert_eq!(spoiled(0, StreamState::Hung, 1, 1), [LATE]);
    let late = |more: u64| {
        broken(|evidence| {
            let allowance = evidence.kill_grace + ALLOWANCE;
            let (record, _) = first(evidence, 1);
            record.took = record.limit + millis(allowance) + more;
        })
    };
    assert!(late(0).is_empty());
    assert_eq!(late(1), [LATE]);
    // Nothing has to be ended on the server.
    let refused = |more: u64| {
        broken(|evidence| {
            evidence.struck.last_mut().unwrap().fault = Fault::Down;
            let (record, ran) = first(evidence, 1);
            (record.stream_state, *ran) = (StreamState::NotStarted, 0);
            record.took = record.limit + millis(BUSY) + more;
        })
    };
    assert!(refused(0).is_empty());
    assert_eq!(refused(1), [LATE]);
}

#[test]
fn what_takes_long_needs_a_fault() {
    let slow = |host, more: u64| {
        broken(move |evidence| first(evidence, host).0.took = millis(WELL) + more)
    };
    assert!(slow(0, 0).is_empty());
    assert_eq!(slow(0, 1), ["where nothing is broken, nothing takes long"]);
    assert!(slow(1, 1).is_empty());
}

#[test]
fn a_failure_needs_a_fault_that_can_cause_it() {
    // The second host was reset: that loses what was sent, and refuses nothing.
    assert_eq!(spoiled(0, StreamState::Unknown, 1, 1), [LOST]);
    assert!(spoiled(1, StreamState::Unknown, 1, 1).is_empty());
    assert_eq!(spoiled(1, StreamState::NotStarted, 1, 0), [REFUSED]);
    let refused = |evidence: &mut Evidence| {
        let (record, ran) = first(evidence, 1);
        (record.stream_state, *ran) = (StreamState::NotStarted, 0);
        evidence.struck.last_mut().unwrap().fault = Fault::Down;
    };
    assert!(broken(refused).is_empty());
    // The last moment, and one too late.
    let before = |more: u64| {
        broken(|evidence| {
            refused(evidence);
            let after = Fault::Down.harm(Kind::Sshd).refuses.unwrap();
            let ended = first(evidence, 1).0.ended;
            let last = evidence.struck.last_mut().unwrap();
            last.until = ended - millis(after) - more;
            last.from = last.until;
        })
    };
    assert!(before(0).is_empty());
    assert_eq!(before(1), [REFUSED]);
    // What is lost in the very millisecond in which it was cut.
    let just = |less: u64| {
        broken(|evidence| {
            let (record, _) = first(evidence, 1);
            record.stream_state = StreamState::Unknown;
            let ended = record.ended;
            let last = evidence.struck.last_mut().unwrap();
            (last.from, last.until) = (ended + less, ended + less);
        })
    };
    assert!(just(0).is_empty());
    assert_eq!(just(1), [LOST]);
}

#[test]
fn an_error_needs_the_fault_that_makes_it() {
    let failed = |fault, blame| {
        broken(move |evidence| {
            let (record, ran) = first(evidence, 1);
            (record.stream_state, record.blame, *ran) = (StreamState::NotStarted, Some(blame), 0);
            evidence.struck.last_mut().unwrap().fault = fault;
        })
    };
    assert!(failed(Fault::Down, Blame::Way).is_empty());
    assert!(failed(Fault::KeyRefused, Blame::Login).is_empty());
    assert!(failed(Fault::Garbage, Blame::NotSsh).is_empty());
    assert_eq!(failed(Fault::Down, Blame::Login), [REFUSED]);
    assert_eq!(failed(Fault::Down, Blame::NotSsh), [REFUSED]);
    assert_eq!(failed(Fault::Down, Blame::Us), [REFUSED]);
}

#[test]
fn a_short_time_excuses_its_own_end_and_no_other_failure() {
    let spoil = |timed_out, limit| {
        broken(move |evidence| {
            let (record, _) = first(evidence, 0);
            (record.stream_state, record.timed_out, record.limit) =
                (StreamState::Unknown, timed_out, limit);
        })
    };
    assert!(spoil(true, 200).is_empty());
    assert_eq!(spoil(false, 200), [LOST]);
    assert_eq!(spoil(true, millis(LIMIT)), [LOST]);
}

#[test]
fn connections_that_die_and_logins_that_fail_need_a_fault_too() {
    let death = |host| {
        broken(move |evidence| {
            evidence.told.deaths.push(Death {
                host,
                at: BEGAN + 10,
                cause: "reset".to_owned(),
                lost: 1,
            });
        })
    };
    assert_eq!(death(0), ["no connection dies without a fault"]);
    assert!(death(1).is_empty());
    let logins =
        |host: usize, failed| broken(move |evidence| evidence.left[host].failed_logins = failed);
    assert_eq!(logins(0, 1), ["no login fails without a fault"]);
    // The key was refused there once.
    assert!(logins(1, 2).is_empty());
    assert_eq!(logins(1, 3), ["no login fails without a fault"]);
}

#[test]
fn a_host_that_does_not_serve_in_the_end_is_found() {
    let broken = broken(|evidence| {
        evidence.records.retain(|record| record.id != "last-1");
        evidence.ledgers[1].remove("last-1");
    });
    assert_eq!(broken, ["in the end every host serves"]);
}

#[test]
fn what_stays_behind_is_found() {
    let promise = ["the heap stays as it is"];
    assert!(broken(|evidence| evidence.late.heap += 50_000).is_empty());
    assert_eq!(broken(|evidence| evidence.late.heap += 50_001), promise);
    let promise = ["tasks and descriptors go with the pool"];
    assert_eq!(broken(|evidence| evidence.after.tasks += 1), promise);
    assert_eq!(broken(|evidence| evidence.after.descriptors += 1), promise);
    assert_eq!(broken(|evidence| evidence.is_closed = false), promise);
    let promise = ["nothing is left on the servers"];
    assert_eq!(broken(|evidence| evidence.left[0].open = 1), promise);
    let process = "sleep 5".to_owned();
    assert_eq!(
        broken(|evidence| evidence.left[1].processes.push(process.clone())),
        promise
    );
    assert_eq!(
        broken(|evidence| evidence.unstruck.push(String::new())),
        promise
    );
}

#[test]
fn events_that_are_missed_or_do_not_add_up_are_found() {
    let promise = ["events tell what is counted, and none is missed"];
    assert_eq!(broken(|evidence| evidence.told.missed = 1), promise);
    assert_eq!(broken(|evidence| evidence.counters[0].dials += 1), promise);
    let refused = |evidence: &mut Evidence| evidence.counters[0].refused_opens += 1;
    assert_eq!(broken(refused), promise);
}

#[test]
fn a_run_that_has_met_less_than_everything_proves_less() {
    let promise = ["every fault has struck, and the pool was used in every way"];
    let no_fin = |evidence: &mut Evidence| evidence.struck.retain(|one| one.fault != Fault::Fin);
    assert_eq!(broken(no_fin), promise);
    let no_streams = |evidence: &mut Evidence| evidence.records.retain(|one| one.way != Way::Tcp);
    assert_eq!(broken(no_streams), promise);
}
