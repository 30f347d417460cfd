//! What thousands of children and streams leave behind: nothing, however they ended. In a test
//! binary of its own, because it counts this process's descriptors, tasks and heap.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::alloc::System;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cap::Cap;
use ssh_pool::{
    ChannelStream, Child, Command, Host, HostKeyPolicy, Identity, Limits, Pool, Stdio, Timeouts,
};
use ssh_pool_tests::{Sshd, TestUser, eventually_async, moment, moment_passes, procs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time: what is counted belongs to the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);
const CYCLES: usize = 500;
const AT_ONCE: usize = 10;
const WARM_UP: usize = 2;
/// After the warm-up.
const ROUNDS: usize = 10;
/// Less than a leak of one byte a cycle in one round, which would show in each round.
const BREATH: usize = CYCLES / 2;
/// Now and then a buffer grows for good.
const GROWTHS: usize = 6;
const GROWN: usize = 64 << 10;
const _: () = assert!(BREATH < CYCLES && GROWTHS < ROUNDS - 2);
/// Isolated connections, all of which are made at the beginning.
const ISOLATED: u32 = 5;

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

/// Runs `cycle` 500 times, ten at once, a dozen times over. From the second time on there are no
/// more files and tasks than then, and the heap is not more after each time than it ever was. No
/// connection is replaced for it: what one keeps would go with it.
async fn stays_flat<F, C>(host: &Host, cycle: F)
where
    F: Fn(Host, usize) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    connect(host).await;
    let mut warm: Option<Holdings> = None;
    let (mut highest, mut growths) = (0, 0);
    for round in 1..=WARM_UP + ROUNDS {
        let mut cycles = JoinSet::new();
        for number in 0..CYCLES {
            cycles.spawn(cycle(host.clone(), number));
            if cycles.len() >= AT_ONCE {
                cycles.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(done) = cycles.join_next().await {
            done.unwrap();
        }
        settle(host).await;
        let status = host.status();
        let all = (status.connections, status.isolated, status.dials);
        assert_eq!(all, (1, ISOLATED, u64::from(1 + ISOLATED)), "{status:?}");
        let Some(warm) = warm else {
            if round == WARM_UP {
                let now = Holdings::now();
                highest = now.heap;
                warm = Some(now);
            }
            continue;
        };
        let none_left = || {
            let now = Holdings::now();
            now.files <= warm.files && now.tasks <= warm.tasks
        };
        let none_left = eventually_async(PATIENCE, none_left).await;
        let now = Holdings::now();
        assert!(none_left, "round {round}: {warm:?} has become {now:?}");
        // What a task held may go a little later than the task.
        let flat = || HEAP.allocated() <= highest + BREATH;
        if !eventually_async(Duration::from_secs(1), flat).await {
            growths += 1;
        }
        highest = highest.max(HEAP.allocated());
    }
    let warm = warm.unwrap();
    println!(
        "{warm:?} after the warm-up, {:?} in the end",
        Holdings::now()
    );
    assert!(
        growths <= GROWTHS && highest <= warm.heap + GROWN,
        "{growths} times more, from {} to {highest}",
        warm.heap
    );
}

/// Makes every connection that there may be.
async fn connect(host: &Host) {
    let mut children = Vec::new();
    for _ in 0..ISOLATED {
        children.push(
            host.command("cat")
                .stdin(Stdio::piped())
                .spawn()
                .await
                .unwrap(),
        );
    }
    for mut child in children {
        finish(&mut child).await;
    }
    host.warm().await.unwrap();
}

/// Waits until nothing is under way.
async fn settle(host: &Host) {
    let settled = || {
        let status = host.status();
        status.running + status.opening + status.streams == 0
            && status.isolated_busy == 0
            && status.waiting + status.isolated_waiting == 0
    };
    assert!(
        eventually_async(PATIENCE, settled).await,
        "{:?}",
        host.status()
    );
    // One idle channel, as always.
    host.warm().await.unwrap();
}

async fn finish(child: &mut Child) {
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
}

/// Half of them share one connection, half have one to themselves.
fn halves(mut command: Command, number: usize) -> Command {
    if number.is_multiple_of(2) {
        command.shared();
    }
    command
}

/// How late something is dropped, at most.
const LATE: Duration = Duration::from_millis(20);

/// Runs a test on a stock sshd, when no other one runs, on a runtime of its own.
fn alone(test: impl AsyncFnOnce(&Sshd, &Host)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let sshd = Sshd::builder().user(TestUser::plain()).start();
        let limits = Limits::default()
            .connections_per_host(1)
            .isolated_per_host(ISOLATED);
        // No connection is given up, and another one dialled, for an answer that comes late.
        let timeouts = Timeouts::default().check(PATIENCE);
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
            .identity(Identity::key_file(sshd.client_key()))
            .limits(limits)
            .timeouts(timeouts)
            .in_current_runtime()
            .build()
            .unwrap();
        let host = pool.host(sshd.target()).unwrap();
        test(&sshd, &host).await;
    });
}

#[test]
fn children_that_finish_leave_nothing() {
    alone(async |_, host| {
        stays_flat(host, |host, number| async move {
            let mut command = halves(host.command("true"), number);
            let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
            match number / 2 % 3 {
                0 => finish(&mut child).await,
                1 => assert!(child.wait_with_output().await.unwrap().status.success()),
                _ => {
                    // Its streams go in their own time.
                    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
                    finish(&mut child).await;
                    drop((child, streams));
                }
            }
        })
        .await;
    });
}

#[test]
fn children_that_are_cancelled_leave_nothing() {
    alone(async |sshd, host| {
        stays_flat(host, |host, number| async move {
            let mut command = halves(host.shell("exec sleep 4801"), number);
            command.stdin(Stdio::piped());
            match number / 2 % 4 {
                0 => {
                    // Dropped while it waits, is accepted, or runs.
                    let spawned = tokio::time::timeout(moment(LATE), command.spawn()).await;
                    drop(spawned);
                }
                1 => {
                    let child = command.spawn().await.unwrap();
                    moment_passes(LATE).await;
                    drop(child);
                }
                2 => {
                    let mut child = command.spawn().await.unwrap();
                    moment_passes(LATE).await;
                    child.kill().await.unwrap();
                }
                _ => {
                    let mut child = command.spawn().await.unwrap();
                    let waited = tokio::time::timeout(moment(LATE), child.wait()).await;
                    assert!(waited.is_err(), "{waited:?}");
                }
            }
        })
        .await;
        let left = || {
            let mut left = sshd.session_processes();
            left.retain(|(_, line)| line.contains("4801"));
            left
        };
        let none = eventually_async(PATIENCE, || left().is_empty()).await;
        assert!(none, "{:?}", left());
    });
}

/// So much is written to a stream, and comes back.
const LETTER: usize = 3000;

/// A socket that echoes, in the server's folder.
fn echo(folder: &Path) -> PathBuf {
    let path = folder.join("echo");
    let open = |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777));
    open(folder).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    open(&path).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { converse(stream).await.ok() });
        }
    });
    path
}

/// Echoes to the end of what it hears; if that begins with a goodbye, one letter only.
async fn converse(mut stream: UnixStream) -> io::Result<()> {
    let mut letter = [0; LETTER];
    loop {
        let count = stream.read(&mut letter).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&letter[..count]).await?;
        if letter[0] == b'g' {
            stream.read_exact(&mut letter[count..]).await?;
            return stream.write_all(&letter[count..]).await;
        }
    }
}

async fn talk(mut stream: ChannelStream, number: usize) -> io::Result<()> {
    let goodbye = number / 2 % 4 == 1;
    let letter = [if goodbye { b'g' } else { b'h' }; LETTER];
    let mut back = [0; LETTER];
    match number / 2 % 4 {
        // We end it first.
        0 => {
            stream.write_all(&letter).await?;
            stream.read_exact(&mut back).await?;
            assert_eq!(back, letter);
            stream.shutdown().await?;
            assert_eq!(stream.read(&mut back).await?, 0);
        }
        // The other side ends it first.
        1 => {
            stream.write_all(&letter).await?;
            stream.read_exact(&mut back).await?;
            assert_eq!(back, letter);
            assert_eq!(stream.read(&mut back).await?, 0);
        }
        // Dropped in the middle.
        2 => {
            stream.write_all(&letter).await?;
            stream.read_exact(&mut back[..LETTER / 2]).await?;
        }
        // Dropped at any moment.
        _ => {
            let talk = async {
                loop {
                    stream.write_all(&letter).await?;
                    stream.read_exact(&mut back).await?;
                }
            };
            let talked: Result<io::Result<()>, _> = tokio::time::timeout(moment(LATE), talk).await;
            if let Ok(ended) = talked {
                return ended;
            }
        }
    }
    Ok(())
}

#[test]
fn streams_leave_nothing_whoever_ends_them() {
    alone(async |sshd, host| {
        let path = echo(sshd.dir());
        stays_flat(host, |host, number| {
            let connect = host.connect_unix(&path);
            async move {
                let connect = if number.is_multiple_of(2) {
                    connect.shared()
                } else {
                    connect
                };
                let talk = talk(connect.await.unwrap(), number);
                tokio::time::timeout(PATIENCE, talk).await.unwrap().unwrap();
            }
        })
        .await;
    });
}
