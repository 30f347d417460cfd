//! Why a command waited, on real servers.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::time::{Duration, Instant};

use ssh_pool::{Host, HostKeyPolicy, Limits, Output, Pool, Target, Waited};
use ssh_pool_tests::{Proxy, Sshd, TempDir, eventually_async};

mod support;

use support::{SOON, builder, known};

/// A command, how long it took as a whole, and what it says that it had waited for.
async fn timed(host: &Host, line: &str) -> (Output, Duration, Waited) {
    let begun = Instant::now();
    let output = host.shell(line).output().await.unwrap();
    let waited = output.waited;
    (output, begun.elapsed(), waited)
}

/// That part is what was waited for, more than all the others together.
fn dominates(part: Duration, waited: &Waited) {
    assert!(part > waited.total() / 2, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_shows_in_the_dial_and_then_not_at_all() {
    const ONE_WAY: Duration = Duration::from_millis(40);
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.addr());
    proxy.delay(ONE_WAY);
    let dir = TempDir::new();
    let known_hosts = dir.path().join("known_hosts");
    let line = proxy.known_hosts_line(&sshd.host_public_key("ed25519"));
    std::fs::write(&known_hosts, line).unwrap();
    let pool = builder(&sshd, HostKeyPolicy::known_hosts_file(known_hosts))
        .build()
        .unwrap();
    let target: Target = format!("{}@{}", sshd.user(), proxy.addr()).parse().unwrap();
    let host = pool.host(target).unwrap();
    let (_, took, waited) = timed(&host, "true").await;
    // The channel is no small part where sshd is slow to begin a session.
    dominates(waited.dial + waited.channel, &waited);
    // A login is four round trips at the least, the channel one more.
    assert!(waited.dial >= ONE_WAY * 2 * 4, "{waited:?}");
    assert!(waited.channel >= ONE_WAY * 2, "{waited:?}");
    assert!(
        waited.total() <= took - ONE_WAY * 2,
        "{waited:?} of {took:?}"
    );
    host.warm().await.unwrap();
    let (output, took, waited) = timed(&host, "true").await;
    assert_eq!(waited, Waited::default(), "{took:?}");
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_one_session_shows_in_the_queue() {
    let sshd = Sshd::builder().option("MaxSessions 1").start();
    let limits = Limits::default().connections_per_host(1);
    let pool: Pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    host.warm().await.unwrap();
    let dir = TempDir::new();
    let gate = dir.path().join("gate");
    let line = format!("until test -e {}; do sleep 0.02; done", gate.display());
    let long = tokio::spawn({
        let host = host.clone();
        async move { timed(&host, &line).await }
    });
    let taken = || host.status().running == 1;
    assert!(eventually_async(SOON, taken).await);
    // It is over when the other one has queued for longer than a channel takes to open.
    let queueing = Duration::from_secs(2);
    let ends = async {
        let waits = || host.status().waiting == 1;
        assert!(eventually_async(SOON, waits).await);
        tokio::time::sleep(queueing).await;
        std::fs::write(&gate, "").unwrap();
    };
    let ((_, took, waited), ()) = tokio::join!(timed(&host, "true"), ends);
    dominates(waited.queue, &waited);
    assert_eq!(
        (waited.dial, waited.back_off),
        (Duration::ZERO, Duration::ZERO)
    );
    assert!(waited.queue >= queueing, "{waited:?}");
    assert!(waited.total() <= took, "{waited:?} of {took:?}");
    let (_, took, waited) = long.await.unwrap();
    assert!(
        waited.queue < took / 2,
        "it was first: {waited:?} of {took:?}"
    );
    // Who gives up in the queue is told the same.
    let blocker = tokio::spawn(host.command("sleep").arg("60").output());
    assert!(eventually_async(SOON, taken).await);
    let after = Duration::from_millis(300);
    let error = host
        .command("true")
        .timeout(after)
        .output()
        .await
        .unwrap_err();
    assert_eq!(error.target(), Some(&*sshd.target()));
    dominates(error.waited().queue, &error.waited());
    // Its time had begun a little before its wait.
    let total = error.waited().total();
    assert!(total >= after / 2, "{:?}", error.waited());
    blocker.abort();
}
