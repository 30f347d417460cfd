//! `Limits::buffered_bytes` bounds the memory that output takes. In a test binary of its own,
//! because it counts this process's heap.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::alloc::System;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cap::Cap;
use ssh_pool::{
    Child, Error, Event, EventKind, Host, HostKeyPolicy, Identity, Limits, Pool, Stdio,
};
use ssh_pool_tests::{Sshd, TestUser, eventually_async};
use tokio::task::JoinSet;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;
/// What a connection needs beside the output that is counted: packets on their way in and out, and
/// what it needs idle.
const CONNECTION: usize = 512 << 10;
/// What an isolated connection may hold beyond the limit.
const ISOLATED: usize = 128 << 10;

/// 30 commands at once, as in the case that was seen; together they write twice the limit.
const COMMANDS: usize = 30;
const LIMIT: usize = 64 * MIB;
/// A little more than a power of two, where a buffer that doubles is nearly twice as large.
const OUTPUT: usize = 4 * MIB + 300_000;

/// Runs a scenario in a process of its own, where nothing else has raised the highest heap so far.
fn alone<F: Future<Output = ()>>(name: &str, story: impl FnOnce() -> F) {
    const INSIDE: &str = "SSH_POOL_TEST_MEMORY";
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let story = async { tokio::time::timeout(3 * PATIENCE, story()).await };
        let ended = runtime.expect("a runtime").block_on(story);
        return ended.expect("hangs");
    }
    let mut inside = Command::new(std::env::current_exe().expect("this file"));
    inside
        .args(["--exact", "--nocapture", name])
        .env(INSIDE, "");
    let output = inside.output().expect("started");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}{}", said(&output.stdout), said(&output.stderr));
    assert!(output.status.success() && said(&output.stdout).contains("1 passed"));
}

/// A line that ends when this file is there.
fn until_open(gate: &Path) -> String {
    format!("until [ -e {} ]; do sleep 0.02; done", gate.display())
}

struct Stage {
    sshd: Sshd,
    host: Host,
    pool: Pool,
}

impl Stage {
    fn new(limits: Limits) -> Self {
        let sshd = Sshd::builder().user(TestUser::plain()).start();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(sshd.dir(), open).expect("chmod");
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
            .identity(Identity::key_file(sshd.client_key()))
            .limits(limits)
            .build()
            .expect("valid settings");
        let host = pool.host(sshd.target()).expect("target");
        Self { sshd, host, pool }
    }

    /// Runs that, and returns by how much the heap grew at most meanwhile, beyond what its
    /// connections may need.
    async fn peak(&self, what: impl Future<Output = ()>) -> usize {
        let before = HEAP.allocated();
        what.await;
        let grown = HEAP.max_allocated().saturating_sub(before);
        let connections = self.sshd.connections();
        println!("{connections} connections, {} KiB at most", grown >> 10);
        grown.saturating_sub(connections * CONNECTION)
    }

    /// Writes to one of its streams, or to both in turn.
    fn line(number: usize, bytes: usize) -> String {
        match number % 3 {
            0 => format!("head -c {bytes} /dev/zero"),
            1 => format!("head -c {bytes} /dev/zero >&2"),
            _ => format!(
                "for part in 1 2 3 4; do head -c {0} /dev/zero; head -c {0} /dev/zero >&2; done",
                bytes / 8
            ),
        }
    }

    /// Runs the commands at once. None ends by itself before as many have been cut off, or all have
    /// said everything.
    async fn run(&self, commands: usize, bytes: usize, cut_off: usize) {
        let gate = self.sshd.dir().join("gate");
        let open = || std::fs::write(&gate, "").expect("open the gate");
        let mut running = JoinSet::new();
        for number in 0..commands {
            let line = Self::line(number, bytes);
            let line = format!("{line}; {}", until_open(&gate));
            let output = self.host.shell(line).output();
            running.spawn(async move {
                match output.await {
                    Ok(output) => {
                        let length = output.stdout.len() + output.stderr.len();
                        assert!(length.abs_diff(bytes) < 8, "{length}");
                        false
                    }
                    Err(Error::OutputLimit { limit: LIMIT, .. }) => true,
                    Err(error) => panic!("{error:?}"),
                }
            });
        }
        if cut_off == 0 {
            // The parts of a line may be a few bytes short.
            let all = commands * (bytes - 8);
            let held = || gate.exists() || self.pool.status().buffered_bytes >= all;
            assert!(eventually_async(PATIENCE, held).await);
            open();
        }
        let mut ended = 0;
        while let Some(was_cut_off) = running.join_next().await {
            let was_cut_off = was_cut_off.expect("no panic");
            ended += 1;
            if ended <= cut_off {
                assert!(was_cut_off, "the gate is shut");
            }
            if ended == cut_off {
                open();
            }
            assert!(cut_off > 0 || !was_cut_off, "there is room for all");
        }
    }

    async fn spawn(&self, line: String, shared: bool) -> Child {
        let mut command = self.host.shell(line);
        command.stdin(Stdio::null());
        if shared {
            command.shared();
        }
        command.spawn().await.expect("started")
    }
}

#[test]
fn commands_that_write_more_than_the_limit_take_no_more_memory_than_it() {
    alone(
        "commands_that_write_more_than_the_limit_take_no_more_memory_than_it",
        || async {
            let stage = Stage::new(Limits::default().buffered_bytes(LIMIT));
            let peak = stage.peak(stage.run(COMMANDS, OUTPUT, COMMANDS / 3)).await;
            // One output is joined at a time, also in a full pool.
            assert!(peak <= LIMIT + OUTPUT, "{peak}");
            assert_eq!(stage.pool.status().buffered_bytes, 0);
            // And what fits is kept.
            stage.run(3, OUTPUT, 0).await;
        },
    );
}

#[test]
fn outputs_within_the_limit_take_little_more_memory_than_their_length() {
    alone(
        "outputs_within_the_limit_take_little_more_memory_than_their_length",
        || async {
            let stage = Stage::new(Limits::default());
            let peak = stage.peak(stage.run(COMMANDS, OUTPUT, 0)).await;
            let most = COMMANDS * OUTPUT;
            assert!(peak <= most + most / 8, "{peak}");
        },
    );
}

#[test]
fn streams_that_are_not_read_stay_within_the_limit_and_take_no_output_from_commands() {
    alone(
        "streams_that_are_not_read_stay_within_the_limit_and_take_no_output_from_commands",
        || async {
            const SMALL: usize = 8 * MIB;
            let stage = Stage::new(Limits::default().buffered_bytes(SMALL));
            let is_overrun = |event: &Event| matches!(event.kind, EventKind::Overrun { .. });
            let mut cut = stage.pool.events();
            let peak = stage.peak(async {
                let mut children = Vec::new();
                for number in 0..16 {
                    let child = stage.spawn(Stage::line(number, LIMIT), false).await;
                    children.push(child);
                }
                for _ in 0..4 {
                    let child = stage.spawn(Stage::line(0, LIMIT), true).await;
                    children.push(child);
                }
                let held = || stage.pool.status().buffered_bytes;
                assert!(eventually_async(PATIENCE, || held() >= SMALL / 4).await);
                // A shared stream that is not read is cut off, and gives back what it had once it is
                // dropped. To wait for its child is to read it, so not before it is cut off.
                for _ in 0..4 {
                    while !matches!(cut.next().await, Some(event) if is_overrun(&event)) {}
                }
                for child in children.iter_mut().skip(16) {
                    let error = child.wait().await.expect_err("nothing is read");
                    assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
                }
                children.truncate(16);
                let line = format!("head -c {} /dev/zero", SMALL / 2);
                let output = stage.host.shell(line).output().await;
                assert_eq!(output.expect("undisturbed").stdout.len(), SMALL / 2);
                // All of each comes, once it is read.
                let mut stdout = children[0].stdout.take().expect("piped");
                let copied = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
                assert_eq!(copied.expect("all of it"), LIMIT as u64);
            });
            let peak = peak.await;
            assert!(peak <= SMALL + 16 * ISOLATED, "{peak}");
        },
    );
}

#[test]
fn children_that_are_waited_for_with_their_output_count_like_commands() {
    alone(
        "children_that_are_waited_for_with_their_output_count_like_commands",
        || async {
            let stage = Stage::new(Limits::default().buffered_bytes(LIMIT));
            let peak = stage.peak(async {
                let gate = stage.sshd.dir().join("gate");
                let mut running = JoinSet::new();
                for number in 0..COMMANDS {
                    let line = Stage::line(number, 2 * OUTPUT);
                    // None ends while others still write.
                    let line = format!("{line}; {}", until_open(&gate));
                    let child = stage.spawn(line, number % 2 == 0).await;
                    running.spawn(async {
                        // Not kept: what has been handed over is no longer counted.
                        match child.wait_with_output().await.map(drop) {
                            Ok(()) => false,
                            Err(Error::OutputLimit { .. }) => true,
                            Err(error) => panic!("{error:?}"),
                        }
                    });
                }
                for _ in 0..COMMANDS / 3 {
                    let ended = tokio::time::timeout(PATIENCE, running.join_next()).await;
                    let ended = ended
                        .expect("the limit cuts them off")
                        .expect("one of many");
                    assert!(ended.expect("no panic"), "the gate is shut");
                }
                std::fs::write(&gate, "").expect("open the gate");
                running.join_all().await;
            });
            let peak = peak.await;
            // One output is joined at a time, also in a full pool.
            assert!(peak <= LIMIT + OUTPUT + 16 * ISOLATED, "{peak}");
            assert_eq!(stage.pool.status().buffered_bytes, 0);
        },
    );
}
