//! A gigabyte each way: exact, and with a bounded memory. In a test binary of its own, because it
//! measures this process's memory.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::time::Instant;

use sha2::{Digest, Sha256};
use ssh_pool::{Host, Pool, Stdio};
use ssh_pool_tests::{Sshd, TestUser, eventually_async, procs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "support/mod.rs"]
mod support;

use support::{SOON, builder, known};

/// A pool for that sshd, and the host in the pool.
fn on(sshd: Sshd) -> (Sshd, Pool, Host) {
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    (sshd, pool, host)
}

const GIGABYTE: usize = 1 << 30;
const MOST: usize = 32 << 20;

/// Bytes that repeat after a prime, so that a lost or doubled block shows.
fn pattern() -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..1_048_573).map(|_| next()).collect()
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

struct Peak(usize);

impl Peak {
    fn now() -> Self {
        Self(procs::resident_bytes())
    }

    fn grown(&self) -> usize {
        procs::resident_bytes().saturating_sub(self.0)
    }
}

async fn up(host: &Host, block: &[u8]) -> (String, String, usize) {
    let mut command = host.command("sha256sum");
    let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut hash = Sha256::new();
    let (mut left, mut most) = (GIGABYTE, 0);
    let before = Peak::now();
    while left > 0 {
        let part = &block[..block.len().min(left)];
        stdin.write_all(part).await.unwrap();
        hash.update(part);
        left -= part.len();
        most = most.max(before.grown());
    }
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let there = String::from_utf8(output.stdout).unwrap();
    (hex(hash), there[..64].to_owned(), most)
}

async fn down(host: &Host) -> (String, String, usize) {
    // The hash goes to standard error when all bytes have gone to standard output.
    let line = format!(
        "yes 'all work and no play' | head -c {GIGABYTE} | {{ tee /dev/fd/3 | sha256sum >&2; }} 3>&1"
    );
    let mut child = host.shell(line).spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 256 << 10];
    let (mut read, mut most) = (0, 0);
    let before = Peak::now();
    loop {
        let count = stdout.read(&mut bytes).await.unwrap();
        if count == 0 {
            break;
        }
        hash.update(&bytes[..count]);
        read += count;
        most = most.max(before.grown());
    }
    assert_eq!(read, GIGABYTE);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let there = String::from_utf8(output.stderr).unwrap();
    (hex(hash), there[..64].to_owned(), most)
}

async fn gigabyte() {
    let (_sshd, _pool, host) = on(Sshd::builder().user(TestUser::plain()).start());
    let block = pattern();
    host.command("true")
        .spawn()
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    let started = Instant::now();
    let (here, there, most) = up(&host, &block).await;
    println!("up: {:?}, {most} bytes more at most", started.elapsed());
    assert_eq!(here, there);
    assert!(most < MOST, "{most}");
    let started = Instant::now();
    let (here, there, most) = down(&host).await;
    println!("down: {:?}, {most} bytes more at most", started.elapsed());
    assert_eq!(here, there);
    assert!(most < MOST, "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_each_way_is_exact_and_a_slow_reader_blocks_the_writer_and_not_our_memory() {
    gigabyte().await;
    slow_reader().await;
}

async fn slow_reader() {
    let (sshd, _pool, host) = on(Sshd::builder().user(TestUser::plain()).start());
    let before = Peak::now();
    let mut child = host.command("yes").spawn().await.unwrap();
    let blocked = || {
        let processes = sshd.session_processes();
        let writer = processes.iter().find(|(_, line)| line == "yes");
        // Its place in the kernel: it waits for room in a pipe or a socket.
        writer.is_some_and(|(pid, _)| waits_to_write(*pid))
    };
    assert!(eventually_async(SOON, blocked).await);
    assert!(before.grown() < MOST, "{}", before.grown());
    child.kill().await.unwrap();
    assert_eq!(child.wait().await.unwrap().signal(), Some("TERM"));
}

/// Asleep in the middle of a write, at two looks in a row.
fn waits_to_write(pid: u32) -> bool {
    let look = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat.rsplit(") ").next()?.chars().next()?;
        let written = io
            .lines()
            .find(|line| line.starts_with("wchar"))?
            .to_owned();
        Some((state, written))
    };
    let first = look();
    std::thread::yield_now();
    matches!(&first, Some(('S', _))) && first == look()
}
