//! Ten thousand commands in one queue: what each costs, in which order they run, what dropping most
//! of them takes. In a test binary of its own, because it counts this process's heap.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::alloc::System;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cap::Cap;
use futures_util::FutureExt;
use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Limits, Output, Phase, Pool, Timeouts};
use ssh_pool_tests::{Release, Sshd, TestUser, eventually_async};
use tokio::task::JoinHandle;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(120);
const SESSIONS: usize = 2;
const FIRST: usize = 2_000;
const QUEUED: usize = 10_000;
/// One in so many is not dropped.
const KEPT: usize = 10;
/// What a queued command may cost, with its task.
const BYTES: usize = 4 << 10;

type Queued = JoinHandle<Result<Output, Error>>;

/// Where the commands write, and what they wait for.
struct Stage {
    host: Host,
    ledger: PathBuf,
    gate: PathBuf,
}

impl Stage {
    /// A command that enters its number in the ledger when it starts, and ends when the gate is
    /// open.
    fn command(&self, number: usize) -> Queued {
        let line = format!(
            "echo {number} >> {}; until [ -e {} ]; do sleep 0.02; done",
            self.ledger.display(),
            self.gate.display()
        );
        let mut command = Box::pin(self.host.shell(line).output());
        // Called here, in this order, and not when the runtime comes to the task.
        assert!((&mut command).now_or_never().is_none());
        tokio::spawn(command)
    }

    fn started(&self) -> Vec<usize> {
        let text = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// Drops these, and says how long that took until the pool knew of it.
async fn drop_all(pool: &Pool, dropped: Vec<Queued>) -> Duration {
    let left = pool.status().waiting - dropped.len();
    let began = Instant::now();
    dropped.iter().for_each(JoinHandle::abort);
    assert!(eventually_async(PATIENCE, || pool.status().waiting == left).await);
    began.elapsed()
}

async fn story(release: Release) {
    let sshd = Sshd::builder()
        .user(TestUser::plain())
        .release(release)
        .option(format!("MaxSessions {SESSIONS}"))
        .start();
    std::fs::set_permissions(sshd.dir(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let limits = Limits::default().connections_per_host(1);
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::key_file(sshd.client_key()))
        .limits(limits.queued_commands(QUEUED))
        .timeouts(Timeouts::default().acquire(10 * PATIENCE))
        .build()
        .expect("valid settings");
    let stage = Stage {
        host: pool.host(sshd.target()).expect("target"),
        ledger: sshd.dir().join("ledger"),
        gate: sshd.dir().join("gate"),
    };
    stage.host.warm().await.expect("warm");
    let running: Vec<_> = (0..SESSIONS).map(|number| stage.command(number)).collect();
    assert!(eventually_async(PATIENCE, || stage.started().len() == SESSIONS).await);
    assert_eq!(pool.status().waiting, 0);

    // All of them wait, and no one costs more than the others.
    let began = Instant::now();
    let numbers = SESSIONS..SESSIONS + QUEUED;
    let mut queued: Vec<Queued> = Vec::with_capacity(QUEUED);
    queued.extend(numbers.clone().take(FIRST).map(|n| stage.command(n)));
    assert!(eventually_async(PATIENCE, || pool.status().waiting == FIRST).await);
    let first = HEAP.allocated();
    queued.extend(numbers.clone().skip(FIRST).map(|n| stage.command(n)));
    assert!(eventually_async(PATIENCE, || pool.status().waiting == QUEUED).await);
    let queueing = began.elapsed();
    let each = (HEAP.allocated() - first) / (QUEUED - FIRST);
    let future = size_of_val(&stage.host.command("true").output());
    println!("{release:?}: {each} bytes for each, of which {future} are its future");
    assert!(each <= BYTES, "{each} bytes for each that waits");

    // One more is turned away, and nobody else notices.
    let refused = stage.host.command("true").output().now_or_never();
    let error = refused.expect("at once").expect_err("the queue is full");
    assert!(
        matches!(error, Error::QueueFull { limit: QUEUED, .. }),
        "{error:?}"
    );
    assert_eq!(error.phase(), Phase::Queue);
    assert_eq!(stage.started().len(), SESSIONS);

    // Most of them are dropped: from the front, from the back, from anywhere.
    let mut kept = Vec::new();
    let mut dropped = Vec::new();
    for (number, command) in numbers.zip(queued) {
        let which = if number % KEPT == 0 {
            &mut kept
        } else {
            &mut dropped
        };
        which.push((number, command));
    }
    let third = dropped.len() / 3;
    let mut back = dropped.split_off(2 * third);
    back.reverse();
    let mut anywhere = dropped.split_off(third);
    fastrand::shuffle(&mut anywhere);
    let mut dropping = Duration::ZERO;
    for group in [dropped, back, anywhere] {
        let group = group.into_iter().map(|(_, command)| command).collect();
        dropping += drop_all(&pool, group).await;
    }
    // A figure, and no promise: drop_all has a guard against what would hang.
    println!("{release:?}: queued in {queueing:?}, dropped in {dropping:?}");
    assert_eq!(pool.status().waiting, kept.len());

    // The others run, in the order in which they were called.
    std::fs::write(&stage.gate, "").expect("open the gate");
    let mut expected: Vec<usize> = (0..SESSIONS).collect();
    for command in running {
        command.await.expect("no panic").expect("it ran");
    }
    for (number, command) in kept {
        let output = command.await.expect("no panic").expect("it ran");
        assert!(output.status.success(), "{output:?}");
        expected.push(number);
    }
    let started = stage.started();
    assert_eq!(
        started.len(),
        expected.len(),
        "each once, and no dropped one"
    );
    // Two run at once, so a shell that is slow to begin may miss its turn; but only those that run
    // beside it can be ahead of it.
    let mut missing: BTreeSet<usize> = expected.iter().copied().collect();
    for number in started {
        assert!(
            missing.remove(&number),
            "{number} is there twice, or was dropped"
        );
        let overtaken = missing.range(..number).count();
        assert!(overtaken < SESSIONS, "{number} is ahead of {overtaken}");
    }
    assert_eq!(pool.status().waiting, 0);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_wait_cheaply_in_order_and_are_dropped_at_once() {
    for release in [Release::Installed, Release::Trixie] {
        story(release).await;
    }
}
