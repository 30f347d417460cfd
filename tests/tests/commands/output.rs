//! What commands write: complete, apart, and within the cap.

use std::fmt::Write as _;
use std::future::{Future as _, IntoFuture as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use ssh_pool::{CommandState, Error, Limits, Phase, Pool, Stream};
use ssh_pool_tests::{Sshd, eventually_async};
use tokio::time::timeout;

use crate::{Gate, Ledger, SOON, builder, dials, known, server, stops};

const CAP: usize = 64 << 10;

/// A command that writes more than the cap allows.
fn too_much() -> String {
    format!("head -c {} /dev/zero", 5 * CAP)
}

fn capped(sshd: &Sshd) -> Pool {
    let limits = Limits::default().output_bytes(CAP);
    builder(sshd, known(sshd)).limits(limits).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_are_complete_and_apart_when_both_are_large_and_interleaved() {
    let (_sshd, _pool, host) = server();
    // Four megabytes each, twice the window of a channel.
    let script = "x=$(printf %01000d 0); i=0\n\
        while [ $i -lt 4000 ]; do echo o$i$x; echo e$i$x >&2; i=$((i + 1)); done";
    let output = host.script(script).output().await.unwrap();
    assert!(output.status.success());
    for (start, stream) in [('o', output.stdout), ('e', output.stderr)] {
        let mut wanted = String::new();
        for i in 0..4000 {
            writeln!(wanted, "{start}{i}{:01000}", 0).unwrap();
        }
        assert_eq!(stream.len(), wanted.len(), "{start}");
        assert!(stream == wanted.as_bytes(), "{start}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_comes_after_the_end_of_the_command_is_kept() {
    let (_sshd, _pool, host) = server();
    // The shell ends at once; what it left behind still writes.
    let line = "(sleep 0.3; echo late; echo late >&2) & echo early";
    let output = host.shell(line).output().await.unwrap();
    assert_eq!(output.stdout, b"early\nlate\n");
    assert_eq!(output.stderr, b"late\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_past_the_cap_is_an_error_that_ends_the_command_and_harms_nobody() {
    let sshd = Sshd::start();
    let pool = capped(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    // Writes for ever, and slowly: should the cap fail, the machine must not.
    let endless = "while head -c 1000 /dev/zero; do :; done";
    for (line, wanted) in [
        (endless.to_owned(), Stream::Stdout),
        (format!("exec >&2; {endless}"), Stream::Stderr),
    ] {
        let running = host.shell(&line).output();
        let error = timeout(SOON, running).await.expect(&line).unwrap_err();
        let Error::OutputLimit { stream, limit, .. } = &error else {
            panic!("{line}: {error:?}")
        };
        assert_eq!((*stream, *limit), (wanted, CAP), "{line}");
        assert_eq!(error.command_state(), CommandState::Unknown);
        assert_eq!(error.phase(), Phase::Running);
        assert!(!error.is_transient());
        // The channel is closed, so the writer finds nobody there.
        stops(&sshd, endless).await;
        let output = host.command("echo").arg("ok").output().await.unwrap();
        assert_eq!(output.stdout, b"ok\n");
    }
    // A connection on which a channel was closed from this end is replaced, for what such a
    // channel leaves behind in it; the next command need not wait for that.
    assert!(dials(&pool) <= 3, "{:?}", pool.status());
    let left = || sshd.open_connections() <= 1;
    assert!(eventually_async(SOON, left).await, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_of_a_command_past_the_cap_does_not_feel_it() {
    let sshd = Sshd::start();
    let limits = Limits::default().output_bytes(CAP).connections_per_host(1);
    let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let (gate, ledger) = (Gate::new(), Ledger::new());
    let line = format!(
        "echo early; {}; {}; echo late",
        ledger.enter("x"),
        gate.pass()
    );
    let neighbour = tokio::spawn(host.shell(line).output());
    ledger.has(1).await;
    let error = host.shell(too_much()).output().await.unwrap_err();
    assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
    assert!(!neighbour.is_finished());
    gate.open();
    let output = neighbour.await.unwrap().unwrap();
    assert_eq!(output.stdout, b"early\nlate\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_is_exact_and_each_stream_has_its_own() {
    let sshd = Sshd::start();
    let pool = capped(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    let both = format!("head -c {CAP} /dev/zero; head -c {CAP} /dev/zero >&2");
    let output = host.shell(both).output().await.unwrap();
    assert!(output.status.success());
    assert_eq!((output.stdout.len(), output.stderr.len()), (CAP, CAP));
    let more = format!("head -c {} /dev/zero", CAP + 1);
    let error = host.shell(more).output().await.unwrap_err();
    assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_output_nobody_wants_has_no_cap() {
    let sshd = Sshd::start();
    let pool = capped(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    // More than any window, so it is drained, too.
    let line = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 5";
    let status = timeout(SOON, host.shell(line).status()).await.unwrap();
    assert_eq!(status.unwrap().code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_past_the_cap_leave_room_for_others() {
    let sshd = Sshd::start();
    let pool = capped(&sshd);
    let host = pool.host(sshd.target()).unwrap();
    // More than there are sessions on four connections: a lost slot would be missed.
    let floods: Vec<_> = (0..60)
        .map(|_| tokio::spawn(host.shell(too_much()).output()))
        .collect();
    for flood in floods {
        let error = flood.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
    }
    let others: Vec<_> = (0..60)
        .map(|_| tokio::spawn(host.command("true").status()))
        .collect();
    for other in others {
        assert!(other.await.unwrap().unwrap().success());
    }
}

/// Large outputs are joined one at a time; a caller that is not polled delays no other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_not_polled_holds_up_no_large_output() {
    const LARGE: usize = 20_000_000;
    let (_sshd, pool, host) = server();
    let line = format!("head -c {LARGE} /dev/zero");
    let mut left = Box::pin(host.shell(line).output().into_future());
    // Until its output is there and takes memory a second time.
    let joining = || pool.status().buffered_bytes > LARGE + LARGE / 4;
    poll_fn(|cx| match left.as_mut().poll(cx) {
        Poll::Pending if !joining() => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
    let others = async {
        let mut other = host.shell("head -c 1000000 /dev/zero");
        let output = other.timeout(SOON).output().await.unwrap();
        assert_eq!(output.stdout.len(), 1_000_000);
        // One that times out is ended, and what it has said is in the error.
        let mut other = host.shell("head -c 1000000 /dev/zero; exec sleep 600");
        let error = other.timeout(Duration::from_secs(2)).output().await;
        let error = error.unwrap_err();
        assert!(error.is_killed(), "{error:?}");
        assert_eq!(error.partial_output().unwrap().stdout.len(), 1_000_000);
    };
    timeout(SOON, others).await.expect("hangs");
    drop(left);
    assert!(eventually_async(SOON, || pool.status().buffered_bytes == 0).await);
}

/// What `wait` has kept is not there twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_fits_is_kept_whether_it_is_waited_for_first_or_not() {
    const LENGTH: usize = 12 << 20;
    let sshd = Sshd::start();
    let limits = Limits::default().buffered_bytes(16 << 20);
    let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    for waits in [false, true] {
        let line = format!("head -c {LENGTH} /dev/zero | tr '\\0' x; echo end >&2");
        let mut child = host.shell(line).spawn().await.unwrap();
        if waits {
            assert!(child.wait().await.unwrap().success());
        }
        let output = child.wait_with_output().await.unwrap();
        assert!(output.stdout.len() == LENGTH && output.stdout.iter().all(|byte| *byte == b'x'));
        assert_eq!(output.stderr, b"end\n");
        assert_eq!(pool.status().buffered_bytes, 0);
    }
}
