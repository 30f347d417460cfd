//! What a pool tells of commands that were cut off, could not be ended, or are run again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::time::Duration;

use ssh_pool::{Error, Event, EventKind, Events, Limits, Pool, Stream, Timeouts};
use ssh_pool_tests::{Ledger, Sshd, TestUser};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

mod support;

use support::{SOON, builder, known};

const CAP: usize = 100_000;

fn pool(sshd: &Sshd) -> Pool {
    let limits = Limits::default().output_bytes(CAP).stream_bytes(CAP);
    let timeouts = Timeouts::default().kill_grace(Duration::from_millis(200));
    builder(sshd, known(sshd))
        .limits(limits)
        .timeouts(timeouts)
        .build()
        .unwrap()
}

/// The next event of that kind. Others may come before it.
async fn next(events: &mut Events, wanted: impl Fn(&EventKind) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.next().await.unwrap();
            if wanted(&event.kind) {
                return event;
            }
        }
    };
    timeout(SOON, found).await.unwrap()
}

/// How many of them have been told by now.
fn left(events: &mut Events, wanted: impl Fn(&EventKind) -> bool) -> usize {
    let mut left = 0;
    while let Some(event) = events.try_next() {
        left += usize::from(wanted(&event.kind));
    }
    left
}

fn is_overrun(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Overrun { .. })
}

async fn expect_overrun(events: &mut Events, sshd: &Sshd, wanted: Stream) {
    let event = next(events, is_overrun).await;
    assert_eq!(*event.target, *sshd.target());
    assert!(event.connection.is_some(), "{event:?}");
    let EventKind::Overrun { stream, limit } = event.kind else {
        panic!("{event:?}")
    };
    assert_eq!((stream, limit), (wanted, CAP));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_past_its_cap_is_told_once_whoever_has_it() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    let mut events = pool.events();

    let error = host.shell("exec >&2; yes").output().await.unwrap_err();
    assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
    expect_overrun(&mut events, &sshd, Stream::Stderr).await;

    // A shared child that nobody reads from, nor waits for.
    let mut child = host.command("yes").shared().spawn().await.unwrap();
    expect_overrun(&mut events, &sshd, Stream::Stdout).await;
    let error = child.wait().await.unwrap_err();
    assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
    let mut kept = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_end(&mut kept).await.unwrap_err();

    // One with a connection of its own has a cap when all of it is wanted.
    let child = host.command("yes").spawn().await.unwrap();
    let error = child.wait_with_output().await.unwrap_err();
    assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
    expect_overrun(&mut events, &sshd, Stream::Stdout).await;

    // Below the cap nothing is told, and of those above nothing more.
    let line = format!("head -c {CAP} /dev/zero");
    host.shell(line).output().await.unwrap();
    pool.close().await;
    assert_eq!(left(&mut events, is_overrun), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_stream_past_its_cap_is_told_though_nobody_reads_it() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    let mut events = pool.events();
    let source = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = source.local_addr().unwrap().port();
    let mut stream = host.connect_tcp("127.0.0.1", port).shared().await.unwrap();
    let (mut far, _) = source.accept().await.unwrap();
    // It may be cut off before all of it is written.
    let writing = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut far, &vec![0; 2 * CAP])
            .await
            .ok();
        far
    });
    expect_overrun(&mut events, &sshd, Stream::Stdout).await;
    let mut kept = Vec::new();
    stream.read_to_end(&mut kept).await.unwrap_err();
    drop((stream, writing.await.unwrap()));
    pool.close().await;
    assert_eq!(left(&mut events, is_overrun), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_could_not_be_ended_is_told_once_and_one_that_was_is_not() {
    let is_leak = |kind: &EventKind| matches!(kind, EventKind::Leaked { .. });
    let sshd = Sshd::builder()
        .user(TestUser::plain())
        .option("ForceCommand trap '' TERM; sleep 4761")
        .start();
    let pool = pool(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    let mut events = pool.events();
    let mut child = host.command("anything").spawn().await.unwrap();
    let error = child.kill().await.unwrap_err();
    assert!(matches!(error, Error::NotKilled { .. }), "{error:?}");
    let event = next(&mut events, is_leak).await;
    assert_eq!(*event.target, *sshd.target());
    assert!(event.connection.is_some(), "{event:?}");
    let EventKind::Leaked { after } = event.kind else {
        panic!("{event:?}")
    };
    assert!(after >= Duration::from_millis(200), "{after:?}");
    child.kill().await.unwrap_err();
    drop(child);
    // The same of one that is dropped.
    let running = host.command("anything").spawn().await.unwrap();
    drop(running);
    next(&mut events, is_leak).await;
    pool.close().await;
    assert_eq!(left(&mut events, is_leak), 0);

    let honest = Sshd::builder().user(TestUser::plain()).start();
    let pool = crate::pool(&honest);
    let host = pool.host(honest.target()).unwrap();
    let mut events = pool.events();
    let mut child = host.command("sleep").arg("4762").spawn().await.unwrap();
    child.kill().await.unwrap();
    pool.close().await;
    assert_eq!(left(&mut events, is_leak), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_command_that_is_run_again_is_told() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    let mut events = pool.events();
    // Not by its process, for the first one outlives its connection.
    let ledger = Ledger::new();
    let line = format!("{}; sleep 4763", ledger.enter("it runs"));
    let running = tokio::spawn(host.shell(line).idempotent().output());
    ledger.has(1).await;
    sshd.kill_connections();
    let is_rerun = |kind: &EventKind| matches!(kind, EventKind::Rerun { .. });
    let event = next(&mut events, is_rerun).await;
    assert_eq!(*event.target, *sshd.target());
    let EventKind::Rerun {
        attempts,
        error,
        pause,
    } = event.kind
    else {
        panic!("{event:?}")
    };
    assert_eq!(attempts, 1);
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    assert!(!pause.is_zero());
    ledger.has(2).await;
    running.abort();
}
