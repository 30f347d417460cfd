//! What thousands of dropped commands leave behind: nothing. In a test binary of its own, because
//! it counts this process's descriptors, tasks and heap.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::alloc::System;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cap::Cap;
use ssh_pool::{Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{Sshd, TestUser, eventually_async, moment, procs};
use tokio::task::JoinSet;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);
const DROPPED: usize = 500;
const ROUNDS: usize = 20;
/// Less than a leak of one byte for each command that began in one round, which would show in each
/// round: some three in four are dropped before that.
const BREATH: usize = DROPPED / 8;
/// Now and then a buffer grows for good: a block of 32 messages in the queue to a session is 19 kB,
/// and tokio keeps one or two.
const GROWTHS: usize = 8;
const GROWN: usize = 64 << 10;
const _: () = assert!(BREATH < DROPPED && GROWTHS < ROUNDS / 2);

/// 500 commands, each dropped at a random moment, then ten at once on the one connection.
async fn drop_round(host: &Host, sshd: &Sshd) {
    let mut commands = JoinSet::new();
    for _ in 0..500 {
        let host = host.clone();
        commands.spawn(async move {
            let moment = moment(Duration::from_millis(40));
            // Dropped while it waits, opens, runs or ends; a few are even faster.
            drop(tokio::time::timeout(moment, host.shell("sleep 0.02").output()).await);
        });
        if commands.len() >= 50 {
            commands
                .join_next()
                .await
                .expect("one runs")
                .expect("no panic");
        }
    }
    while let Some(result) = commands.join_next().await {
        result.expect("no panic");
    }
    assert!(
        eventually_async(PATIENCE, || {
            let status = host.status();
            status.running + status.opening == 0 && status.waiting == 0
        })
        .await,
        "{:?}",
        host.status()
    );

    // Ten at once: each waits until it sees all ten.
    let gate = sshd.dir().join("gate");
    let gate = gate.to_str().expect("a plain path");
    let mut ten = JoinSet::new();
    host.shell(format!("rm -rf {gate}; mkdir -m 777 {gate}"))
        .output()
        .await
        .expect("ran");
    for number in 0..10 {
        let line = format!(
            "touch {gate}/{number}; while [ $(ls {gate} | wc -l) -lt 10 ]; do sleep 0.01; done"
        );
        ten.spawn(host.shell(line).timeout(PATIENCE).output());
    }
    while let Some(result) = ten.join_next().await {
        let output = result.expect("no panic").expect("all ten start at once");
        assert!(output.status.success(), "{output:?}");
    }
}

/// What this process holds.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    files: usize,
    tasks: usize,
    heap: usize,
}

impl Holdings {
    fn now() -> Self {
        Self {
            files: procs::open_files(),
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            heap: HEAP.allocated(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_commands_cost_no_session_no_descriptor_and_no_memory() {
    let sshd = Sshd::builder()
        .user(TestUser::plain())
        .option("MaxSessions 10")
        .start();
    std::fs::set_permissions(sshd.dir(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::key_file(sshd.client_key()))
        .limits(Limits::default().connections_per_host(1))
        // No connection is given up, and another one dialled, for an answer that comes late.
        .timeouts(Timeouts::default().check(PATIENCE))
        .in_current_runtime()
        .build()
        .expect("valid settings");
    let host = pool.host(sshd.target()).expect("target");

    let mut second: Option<Holdings> = None;
    let (mut highest, mut growths) = (0, 0);
    for round in 1..=ROUNDS {
        drop_round(&host, &sshd).await;
        let status = host.status();
        assert_eq!((status.dials, status.connections), (1, 1), "{status:?}");
        let Some(Holdings { files, tasks, .. }) = second else {
            if round == 2 {
                let now = Holdings::now();
                highest = now.heap;
                second = Some(now);
            }
            continue;
        };
        let none_left = || {
            let now = Holdings::now();
            now.files <= files && now.tasks <= tasks
        };
        let none_left = eventually_async(PATIENCE, none_left).await;
        let now = Holdings::now();
        assert!(none_left, "round {round}: {second:?} has become {now:?}");
        // What a task held may go a little later than the task.
        let flat = || HEAP.allocated() <= highest + BREATH;
        if !eventually_async(Duration::from_secs(1), flat).await {
            growths += 1;
        }
        highest = highest.max(HEAP.allocated());
    }
    let heap = second.map_or(0, |holdings| holdings.heap);
    println!(
        "round 2: {second:?}, round {ROUNDS}: {:?}, {growths} growths",
        Holdings::now()
    );
    assert!(
        growths <= GROWTHS && highest <= heap + GROWN,
        "{growths} times more, from {heap} to {highest}"
    );
}
