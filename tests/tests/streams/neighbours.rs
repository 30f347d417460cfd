//! The worst neighbours: a reader that does not read, a command that does not.

use std::time::{Duration, Instant};

use ssh_pool::{Host, Stdio};
use ssh_pool_tests::{Sshd, TestUser, eventually_async, procs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{RELEASES, SOON, on};

const COMMANDS: usize = 500;
const AT_ONCE: usize = 20;

/// A stalled neighbour on a shared loop would hold it up for as long as it is stalled.
async fn run(host: &Host) {
    let run = timeout(SOON, host.command("true").status()).await;
    assert!(run.unwrap().unwrap().success());
}

/// What `storm` does: so many commands, some at a time. Their 99th percentile.
async fn storm(host: &Host) -> Duration {
    let mut running = JoinSet::new();
    let mut times = Vec::new();
    for _ in 0..COMMANDS {
        if running.len() == AT_ONCE {
            times.push(running.join_next().await.unwrap().unwrap());
        }
        let host = host.clone();
        running.spawn(async move {
            let started = Instant::now();
            run(&host).await;
            started.elapsed()
        });
    }
    while let Some(time) = running.join_next().await {
        times.push(time.unwrap());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_streams_do_not_slow_five_hundred_commands_and_lose_no_byte() {
    for release in RELEASES {
        let sshd = Sshd::builder().user(TestUser::plain()).release(release);
        stalled_streams_on(sshd.start()).await;
    }
}

async fn stalled_streams_on(sshd: Sshd) {
    let (sshd, pool, host) = on(sshd);
    storm(&host).await; // warm
    let quiet = storm(&host).await;

    // Unread on a connection of its own, and unread on a shared one until its cap.
    let mut isolated = host.command("yes").spawn().await.unwrap();
    let shared = host.command("yes").shared().spawn().await.unwrap();
    // Eight megabytes for a command that reads nothing, isolated and shared.
    let mut feeds = Vec::new();
    let mut deaf = Vec::new();
    for share in [false, true] {
        let mut command = host.command("sleep");
        command.arg("600").stdin(Stdio::piped());
        if share {
            command.shared();
        }
        let mut child = command.spawn().await.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        feeds.push(tokio::spawn(async move {
            stdin.write_all(&vec![b'x'; 8 << 20]).await
        }));
        deaf.push(child);
    }
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(storm(&host).await);
    }
    assert!(feeds.iter().all(|feed| !feed.is_finished()), "nobody reads");
    println!("p99: quiet {quiet:?}, stalled {stalled:?}");

    // The remote writer is held back: it waits, and writes no more while others come and go.
    let writers = || -> Vec<_> {
        let processes = sshd.session_processes().into_iter();
        let writers = processes.filter(|(_, line)| line == "yes");
        let state = |(pid, _)| (procs::waits(pid), written_by(pid));
        writers.map(state).collect()
    };
    let blocks = async {
        loop {
            let before = writers();
            for _ in 0..AT_ONCE {
                run(&host).await;
            }
            let wait = before.iter().all(|(waits, _)| *waits);
            if wait && !before.is_empty() && writers() == before {
                return;
            }
        }
    };
    let blocked = timeout(SOON, blocks).await;
    assert!(blocked.is_ok(), "{:?}", writers());

    // Read again, every byte is there and in order.
    let mut stdout = isolated.stdout.take().unwrap();
    let mut read = 0;
    let mut bytes = vec![0; 64 << 10];
    while read < 64 << 20 {
        let count = stdout.read(&mut bytes).await.unwrap();
        let wanted = |at: usize| if at.is_multiple_of(2) { b'y' } else { b'\n' };
        assert!(
            (0..count).all(|i| bytes[i] == wanted(read + i)),
            "at {read}"
        );
        read += count;
    }
    drop((isolated, shared, deaf));
    for feed in feeds {
        feed.await.unwrap().unwrap_err();
    }
    let gone = || sshd.session_processes().is_empty();
    let gone = || gone() || host.status().isolated_busy + host.status().running == 0;
    assert!(eventually_async(SOON, gone).await, "{:?}", pool.status());
    sshd.assert_no_penalty();
}

/// Bytes that a process has written.
fn written_by(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "))?;
    line.trim().parse().ok()
}
