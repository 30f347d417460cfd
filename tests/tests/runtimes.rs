//! One pool and many runtimes: each caller may have one of its own, that ends before the pool does,
//! or none.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use ssh_pool::{CommandState, Error, Phase, Pool, Stdio};
use ssh_pool_tests::{Ledger, Sshd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

#[path = "support/mod.rs"]
mod support;

use support::{SOON, builder, known};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls without any runtime.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(thread::current())).into();
    let (mut work, mut cx) = (pin!(work), Context::from_waker(&waker));
    loop {
        match work.as_mut().poll(&mut cx) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

static POOL: OnceLock<Pool> = OnceLock::new();

#[test]
fn a_pool_in_a_static_serves_one_runtime_after_the_other_on_one_connection() {
    let sshd = Sshd::start();
    for make in [current_thread, multi_thread, current_thread] {
        make().block_on(async {
            // Made in the first of them.
            let pool = POOL.get_or_init(|| builder(&sshd, known(&sshd)).build().unwrap());
            let host = pool.host(sshd.target()).unwrap();
            let output = tokio::time::timeout(SOON, host.command("true").output());
            assert!(output.await.expect("in time").unwrap().status.success());
            assert_eq!(host.status().dials, 1, "{:?}", host.status());
        });
    }
    let host = POOL.get().unwrap().host(sshd.target()).unwrap();
    block_on(host.command("true").output()).unwrap();
    assert_eq!(host.status().dials, 1, "{:?}", host.status());
    block_on(POOL.get().unwrap().close());
}

#[test]
fn a_runtime_that_ends_takes_no_command_of_another_one_with_it() {
    let sshd = Sshd::start();
    let ledger = Ledger::new();
    let first = current_thread();
    let host = first.block_on(async {
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        host.warm().await.unwrap();
        host
    });
    let other = thread::spawn({
        let host = host.clone();
        let line = format!("{}; sleep 1; echo done", ledger.enter("begun"));
        move || current_thread().block_on(host.shell(line).output())
    });
    assert!(ssh_pool_tests::eventually(SOON, || ledger.lines() == ["begun"]));
    drop(first);
    let output = other.join().unwrap().unwrap();
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn a_synchronous_program_needs_no_runtime_and_no_timers_of_its_own() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let without_timers = || Builder::new_current_thread().build().unwrap();
    without_timers().block_on(host.warm()).unwrap();
    let mut command = host.command("echo");
    command.arg("x").timeout(SOON);
    assert_eq!(block_on(command.output()).unwrap().stdout, b"x\n");
    let output = without_timers().block_on(command.output()).unwrap();
    assert_eq!(output.stdout, b"x\n");
    let late = block_on(
        host.shell("sleep 30")
            .timeout(Duration::from_millis(500))
            .output(),
    );
    assert!(late.unwrap_err().is_timeout());

    // What one runtime has begun another one ends.
    let mut cat = host.command("cat");
    cat.stdin(Stdio::piped());
    let mut child = current_thread().block_on(cat.spawn()).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    block_on(stdin.write_all(b"across")).unwrap();
    drop(stdin);
    let output = without_timers().block_on(child.wait_with_output()).unwrap();
    assert_eq!(output.stdout, b"across");
    let mut sleeper = block_on(host.command("sleep").arg("30").spawn()).unwrap();
    block_on(sleeper.signal("USR1")).unwrap();
    let status = block_on(sleeper.wait()).unwrap();
    assert_eq!(status.signal(), Some("USR1"));
    let mut sleeper = block_on(host.command("sleep").arg("30").spawn()).unwrap();
    block_on(sleeper.kill()).unwrap();

    let forward = block_on(host.forward_local(("127.0.0.1", 0), ("127.0.0.1", sshd.port())));
    let forward = forward.unwrap();
    let greeting = current_thread().block_on(async {
        let mut tcp = tokio::net::TcpStream::connect(forward.address().to_string())
            .await
            .unwrap();
        let mut greeting = [0; 8];
        tcp.read_exact(&mut greeting).await.unwrap();
        greeting
    });
    assert_eq!(&greeting, b"SSH-2.0-");
    drop(forward);
    block_on(pool.close());
}

#[test]
fn callers_in_many_short_runtimes_are_all_served() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let callers: Vec<_> = (0..8)
        .map(|number| {
            let host = host.clone();
            thread::spawn(move || {
                for round in 0..10 {
                    let make = if round % 2 == 0 {
                        current_thread
                    } else {
                        multi_thread
                    };
                    let output =
                        make().block_on(host.command("echo").arg(number.to_string()).output());
                    assert_eq!(output.unwrap().stdout, format!("{number}\n").into_bytes());
                }
            })
        })
        .collect();
    callers
        .into_iter()
        .for_each(|caller| caller.join().unwrap());
    let status = host.status();
    assert_eq!(status.failed_dials, 0, "{status:?}");
}

#[test]
fn a_pool_that_is_to_end_with_its_runtime_says_so_at_once() {
    let sshd = Sshd::start();
    let ledger = Ledger::new();
    let runtime = multi_thread();
    let (pool, host) = runtime.block_on(async {
        let settings = builder(&sshd, known(&sshd)).in_current_runtime();
        let pool = settings.build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        host.command("true").output().await.unwrap();
        (pool, host)
    });
    let line = format!("{}; sleep 30", ledger.enter("begun"));
    let running = thread::spawn({
        let host = host.clone();
        move || current_thread().block_on(host.shell(line).output())
    });
    assert!(ssh_pool_tests::eventually(SOON, || ledger.lines() == ["begun"]));
    drop(runtime);
    let lost = running.join().unwrap().unwrap_err();
    assert_eq!(lost.command_state(), CommandState::Unknown, "{lost}");

    let other = current_thread();
    for _ in 0..3 {
        let output = host.command("true").output();
        let output = other.block_on(async { tokio::time::timeout(SOON, output).await });
        let output = output.expect("at once");
        let error = output.unwrap_err();
        assert!(matches!(error, Error::RuntimeEnded { .. }), "{error:?}");
        assert_eq!(error.phase(), Phase::Closed);
        assert_eq!(error.command_state(), CommandState::NotStarted);
        assert!(!error.is_transient() && !error.is_timeout());
    }
    let error = pool.host(sshd.target()).unwrap_err();
    assert!(matches!(error, Error::RuntimeEnded { .. }), "{error:?}");
    block_on(pool.close());

    let nowhere = builder(&sshd, known(&sshd)).in_current_runtime().build();
    assert!(matches!(nowhere, Err(Error::InvalidInput { .. })));
}
