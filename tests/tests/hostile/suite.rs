//! The suite: every behaviour, several at a time, each on a runtime of its own.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use ssh_pool::{HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{Sshd, TestUser, eventually, eventually_async, procs};

use crate::behaviour::{self, Behaviour};
use crate::{HEAP, calls, record};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const AT_ONCE: usize = 20;
/// Of one behaviour, with seven calls of which each may make several connections.
const MOST_LINES: usize = 4_000;
const MOST_LOGGED: usize = 2 << 20;
/// Logins of one pool to one hostile host, in the few seconds that a behaviour takes.
const MOST_LOGINS: usize = 400;
/// What all behaviours that run at once may hold.
const HEAP_PEAK: usize = 256 << 20;
/// What may stay after all of them: caches of a few libraries, threads that are kept.
const HEAP_GROWTH: usize = 2 << 20;

/// What came of one behaviour.
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) problems: Vec<String>,
    logins: usize,
    accepted: usize,
    lines: usize,
    logged: usize,
    slowest: Duration,
    closing: Duration,
}

/// Runs one behaviour beside the healthy host.
pub(crate) fn run(behaviour: &Behaviour, healthy: &Sshd, key: &Path) -> Report {
    let said = record::begin();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let server = behaviour.start();
    let mut told = runtime.block_on(async {
        let told = beside(&server.target(), healthy, key).await;
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let mut told = told;
        if !eventually_async(PATIENCE, || tasks() == 0).await {
            told.problems.push(format!("{} tasks are left", tasks()));
        }
        told
    });
    drop(runtime);
    let (logins, accepted) = (server.logins(), server.accepted());
    drop(server);
    record::begin();
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    for line in &said.raw {
        told.problems.push(format!("it was logged raw: {line}"));
    }
    if said.lines > MOST_LINES || said.bytes > MOST_LOGGED {
        let (lines, bytes) = (said.lines, said.bytes);
        told.problems.push(format!(
            "{lines} lines were logged, {bytes} bytes: {:?}",
            said.first
        ));
    }
    if logins > MOST_LOGINS {
        told.problems.push(format!("{logins} logins"));
    }
    Report {
        name: behaviour.name,
        problems: told.problems,
        logins,
        accepted,
        lines: said.lines,
        logged: said.bytes,
        slowest: told.slowest,
        closing: told.closing,
    }
}

async fn beside(hostile: &str, healthy: &Sshd, key: &Path) -> calls::Told {
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::key_file(key))
        .limits(
            Limits::default()
                .output_bytes(1 << 20)
                .stream_bytes(1 << 20),
        )
        .timeouts(
            Timeouts::default()
                .connect(Duration::from_secs(4))
                .acquire(Duration::from_secs(6))
                .kill_grace(Duration::from_millis(300))
                .drain(Duration::from_secs(2)),
        )
        .in_current_runtime()
        .build()
        .expect("valid settings");
    let mut events = pool.events();
    let neighbour = pool.host(healthy.target()).expect("a target");
    // Many pools log in at once here, on a machine that may have other work.
    let started = Instant::now();
    while let Err(error) = neighbour.warm().await {
        assert!(started.elapsed() < PATIENCE, "the healthy host: {error:?}");
    }
    let done = AtomicBool::new(false);
    let commands = async {
        let mut problems = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let began = Instant::now();
            let call = neighbour.command("echo").arg("fine").output();
            match tokio::time::timeout(PATIENCE, call).await {
                Ok(Ok(output)) if output.stdout == b"fine\n" => {}
                result => problems.push(format!("the neighbour: {result:?}")),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            // No timer runs while something blocks the thread.
            if began.elapsed() > PATIENCE {
                problems.push(format!("the neighbour: held up for {:?}", began.elapsed()));
            }
        }
        problems
    };
    let hostile = pool.host(hostile).expect("a target");
    let calls = async {
        let told = calls::all(&hostile).await;
        done.store(true, Ordering::Relaxed);
        told
    };
    let (mut told, problems) = tokio::join!(calls, commands);
    told.problems.extend(problems);
    told.value("the pool", &pool.status());
    while let Some(event) = events.try_next() {
        calls::event(&mut told, &event);
    }
    let started = Instant::now();
    if tokio::time::timeout(PATIENCE, pool.close()).await.is_err() {
        told.problems.push("close has no end".into());
    }
    told.closing = started.elapsed();
    told
}

/// Runs these, several at a time.
pub(crate) fn run_all(behaviours: Vec<Behaviour>, healthy: &Sshd) -> Vec<Report> {
    let key = healthy.client_key();
    let queue = Mutex::new(VecDeque::from(behaviours));
    let reports = Mutex::new(Vec::new());
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(behaviour) = next() {
                    let report = run(&behaviour, healthy, key);
                    reports
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One test at a time: heap, descriptors, log and panics are the whole process's.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    static LISTENS: Once = Once::new();
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    LISTENS.call_once(record::install);
    guard
}

/// A real sshd that many pools at once may log in to.
pub(crate) fn healthy() -> Sshd {
    Sshd::builder()
        .user(TestUser::plain())
        .option("MaxStartups 100")
        .start()
}

/// The problems of all reports, in words.
pub(crate) fn problems(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        for problem in &report.problems {
            writeln!(text, "{}: {problem}", report.name).expect("a string");
        }
    }
    for panic in record::panics() {
        writeln!(text, "a panic: {panic}").expect("a string");
    }
    text
}

/// Samples the heap until it is told to stop.
fn watch_heap(done: &AtomicBool, peak: &AtomicUsize) {
    while !done.load(Ordering::Relaxed) {
        peak.fetch_max(HEAP.allocated(), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_hostile_server_harms_only_the_calls_to_itself() {
    let _alone = alone();
    let healthy = healthy();
    let only = std::env::var("HOSTILE_ONLY").unwrap_or_default();
    let behaviours: Vec<_> = behaviour::all()
        .into_iter()
        .filter(|behaviour| behaviour.name.contains(&only))
        .collect();
    let mut names: Vec<_> = behaviours.iter().map(|behaviour| behaviour.name).collect();
    names.sort_unstable();
    assert!(
        names.windows(2).all(|two| two[0] != two[1]),
        "a name is used twice: {names:?}"
    );
    assert!(
        !only.is_empty() || names.len() >= 100,
        "{} behaviours",
        names.len()
    );

    // What is allocated once for the process.
    let quiet = vec![Behaviour::tricks("nothing", Vec::new()); AT_ONCE];
    let reports = run_all(quiet, &healthy);
    assert_eq!(
        problems(&reports),
        "",
        "a server that keeps to the protocol"
    );
    let (heap, files) = (HEAP.allocated(), procs::open_files());

    let started = Instant::now();
    let (done, peak) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut reports = std::thread::scope(|scope| {
        scope.spawn(|| watch_heap(&done, &peak));
        let reports = run_all(behaviours, &healthy);
        done.store(true, Ordering::Relaxed);
        reports
    });
    let took = started.elapsed();
    reports.sort_by_key(|report| report.slowest);
    for report in &reports {
        println!(
            "{:6.1} s {:5.1} s to close {:3} connections {:3} logins {:5} lines {:8} bytes  {}",
            report.slowest.as_secs_f32(),
            report.closing.as_secs_f32(),
            report.accepted,
            report.logins,
            report.lines,
            report.logged,
            report.name
        );
    }
    let peak = peak.load(Ordering::Relaxed).saturating_sub(heap);
    println!(
        "{} behaviours in {took:?}; {} kB of heap at most",
        reports.len(),
        peak >> 10
    );
    let found = problems(&reports);
    assert!(found.is_empty(), "\n{found}");
    assert!(peak < HEAP_PEAK, "{} MB of heap", peak >> 20);
    drop(reports);
    let settled = eventually(PATIENCE, || {
        HEAP.allocated() < heap + HEAP_GROWTH && procs::open_files() <= files
    });
    let (now, open) = (HEAP.allocated(), procs::open_files());
    assert!(
        settled,
        "heap: from {heap} to {now}; descriptors: from {files} to {open}"
    );
}
