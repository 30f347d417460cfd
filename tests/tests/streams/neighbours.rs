//! The worst neighbours: a reader that does not read, a command that does not.

use std::time::{Duration, Instant};

use ssh_pool::{Host, Stdio};
use ssh_pool_tests::{Release, Sshd, TestUser, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::{SOON, on};

const COMMANDS: usize = 500;
const AT_ONCE: usize = 20;
/// How long the isolated stream is left alone, on each release.
const UNREAD: [(Release, Duration); 2] = [
    (Release::Installed, Duration::from_secs(30)),
    (Release::Trixie, Duration::from_secs(5)),
];

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
            let status = host.command("true").status().await.unwrap();
            assert!(status.success());
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
    for (release, unread) in UNREAD {
        let sshd = Sshd::builder().user(TestUser::plain()).release(release);
        stalled_streams_on(sshd.start(), unread).await;
    }
}

async fn stalled_streams_on(sshd: Sshd, unread: Duration) {
    let (sshd, pool, host) = on(sshd);
    storm(&host).await; // warm
    let mut quiet = Vec::new();
    for _ in 0..3 {
        quiet.push(storm(&host).await);
    }

    // Unread on a connection of its own, and unread on a shared one until its cap.
    let begun = Instant::now();
    let mut isolated = host.command("yes").spawn().await.unwrap();
    let shared = host.command("yes").shared().spawn().await.unwrap();
    // Eight megabytes for a command that reads nothing, isolated and shared.
    let mut feeds = Vec::new();
    let mut deaf = Vec::new();
    for share in [false, true] {
        let mut command = host.command("sleep");
        command.arg("60").stdin(Stdio::piped());
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
    quiet.sort_unstable();
    stalled.sort_unstable();
    println!("p99 of three runs each: quiet {quiet:?}, stalled {stalled:?}");
    // The machine has its moods; a stalled neighbour on a shared loop would cost seconds.
    assert!(
        stalled[1] < quiet[1] * 4 + Duration::from_millis(100),
        "quiet {quiet:?}, stalled {stalled:?}"
    );

    // The remote writer is held back: it writes no more.
    let written = || {
        let processes = sshd.session_processes();
        let writers = processes.iter().filter(|(_, line)| line == "yes");
        writers.filter_map(|(pid, _)| written_by(*pid)).max()
    };
    let before = written().unwrap();
    tokio::time::sleep(unread.saturating_sub(begun.elapsed())).await;
    assert_eq!(written(), Some(before), "it blocks");
    assert!(host.command("true").status().await.unwrap().success());

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
