//! What waiting callers wait for, on paused time.

use std::sync::Arc;

use super::*;
use crate::group::{ChannelGuard, ConnectionGroup};

/// Takes a channel, and says what was waited for: which is all the time that has passed.
async fn checkout(group: &Arc<ConnectionGroup>) -> (Result<ChannelGuard, Error>, Waited) {
    let begun = Instant::now();
    let (mut admission, mut waited) = (Admission::default(), Waited::default());
    let deadline = group.acquire_deadline(None);
    let guard = group.checkout(&mut admission, deadline, &mut waited).await;
    assert_eq!(waited.total(), begun.elapsed(), "{waited:?}");
    (guard, waited)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Timers go off up to a millisecond late.
fn about(waited: Duration, expected: u64, timers: u64) -> bool {
    waited >= ms(expected) && waited <= ms(expected + timers)
}

/// A command for as long as the test is interested.
fn hold(host: &Host) -> tokio::task::JoinHandle<Result<crate::Output, Error>> {
    tokio::spawn(host.command("true").output())
}

#[tokio::test(start_paused = true)]
async fn a_cold_host_is_waited_for_as_a_dial_and_as_a_channel() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let (guard, waited) = checkout(host.pools().shared()).await;
    guard.expect("served");
    assert!(about(waited.dial, 10, 1), "{waited:?}");
    assert!(about(waited.channel, 4, 2), "{waited:?}");
    assert_eq!((waited.queue, waited.back_off), (ms(0), ms(0)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_channel_is_not_waited_for() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    host.warm().await.expect("warm");
    let (guard, waited) = checkout(host.pools().shared()).await;
    guard.expect("served");
    assert_eq!(waited, Waited::default());
}

#[tokio::test(start_paused = true)]
async fn a_command_says_what_it_waited_for_until_its_request_was_out() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let cold = host.command("true").output().await.expect("served");
    let begun = Instant::now();
    let warm = host.command("true").output().await.expect("served");
    let ran = begun.elapsed() - warm.waited.total();
    // This server takes a moment for a request to go out, and nothing else.
    assert!(about(warm.waited.channel, 1, 1), "{warm:?}");
    assert_eq!(warm.waited.total(), warm.waited.channel);
    assert_eq!(cold, warm, "that they waited makes no difference");
    settle().await;
    host.evict();
    settle().await;
    let begun = Instant::now();
    let child = host.command("true").shared().spawn().await;
    let mut child = child.expect("served");
    let waited = child.waited();
    assert!(about(waited.dial, 10, 1), "{waited:?}");
    assert!(about(waited.channel, 5, 3), "{waited:?}");
    child.wait().await.expect("ended");
    let all = begun.elapsed();
    assert!(all - waited.total() <= ran + ms(2), "{all:?}, {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn while_no_dial_is_allowed_it_is_the_back_off_that_is_waited_for() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    host.warm().await.expect("up");
    server.kill_connections();
    for _ in 0..3 {
        server.fail_next_connect(connection_refused());
    }
    let output = host.command("true").output().await.expect("absorbed");
    let waited = output.waited;
    assert!(about(waited.dial, 4 * 10, 4), "{waited:?}");
    // 100, 200 and 400 ms, half of it jitter.
    assert!(about(waited.back_off, 350, 350 + 3), "{waited:?}");
    assert!(waited.queue <= ms(3), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn where_every_session_is_busy_it_is_the_queue_that_is_waited_for() {
    let server = Server::new(Script {
        max_sessions: 1,
        runtime: Duration::from_secs(1),
        ..Script::default()
    });
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let first = hold(&host);
    tokio::task::yield_now().await;
    let second = host.command("true").output().await.expect("served");
    let waited = second.waited;
    assert!(about(waited.dial, 10, 1), "they began together: {waited:?}");
    assert!(waited.queue >= ms(1000), "{waited:?}");
    assert!(about(waited.channel, 5, 3), "{waited:?}");
    assert_eq!(waited.back_off, ms(0));
    let first = first.await.expect("no panic").expect("served").waited;
    assert!(first.queue <= ms(1), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_came_to_nothing_is_in_its_error() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(60),
        ..Script::default()
    });
    let limits = small().sessions_per_connection(1);
    let timeouts = Timeouts::default().acquire(Duration::from_secs(2));
    let (pool, host) = pool(&server, limits, timeouts);
    let running = hold(&host);
    sleep(ms(100)).await;
    let error = host.command("true").output().await.expect_err("no room");
    assert_eq!(error.phase(), Phase::Queue);
    assert!(about(error.waited().queue, 2000, 1), "{error:?}");
    assert_eq!(error.waited().total(), error.waited().queue);
    let error = host.warm().await.expect_err("no room");
    assert!(about(error.waited().queue, 2000, 1), "{error:?}");
    let queued = hold(&host);
    sleep(ms(500)).await;
    let closing = pool.close();
    let error = queued.await.expect("no panic").expect_err("closed");
    assert!(matches!(error, Error::Closed { .. }), "{error:?}");
    assert!(about(error.waited().queue, 500, 1), "{error:?}");
    running.abort();
    closing.await;
}

#[tokio::test(start_paused = true)]
async fn those_who_share_a_failed_dial_have_waits_of_their_own() {
    let server = Server::new(Script {
        handshake: ms(100),
        ..Script::default()
    });
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    server.fail_next_connect(connection_refused());
    let mut callers = Vec::new();
    for _ in 0..4 {
        callers.push(hold(&host));
        sleep(ms(20)).await;
    }
    for (late, caller) in callers.into_iter().enumerate() {
        let error = caller.await.expect("no panic").expect_err("no listener");
        let waited = error.waited();
        assert!(
            about(waited.dial, 100 - 21 * late as u64, 5),
            "{late}: {waited:?}"
        );
        assert_eq!(waited.total(), waited.dial, "{late}");
    }
    let error = host.command("true").output().await.expect_err("too soon");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(error.waited(), Waited::default(), "it was told at once");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_share_of_the_handshakes_is_part_of_the_dial() {
    let server = Server::new(Script::default());
    let (pool, host) = pool(&server, small().handshakes(1), Timeouts::default());
    let other = pool.host("tester@other:22").expect("valid target");
    let first = hold(&host);
    tokio::task::yield_now().await;
    let second = other.command("true").output().await.expect("served");
    assert!(about(second.waited.dial, 2 * 10, 2), "{second:?}");
    assert_eq!(second.waited.queue, ms(0));
    first.await.expect("no panic").expect("served");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_share_of_the_connections_is_part_of_the_dial() {
    let server = Server::new(Script {
        runtime: ms(1000),
        ..Script::default()
    });
    let (pool, host) = pool(&server, small().connections(1), Timeouts::default());
    let other = pool.host("tester@other:22").expect("valid target");
    let first = hold(&host);
    tokio::task::yield_now().await;
    let waited = other.command("true").output().await.expect("served").waited;
    assert!(waited.dial >= ms(1000), "{waited:?}");
    assert_eq!((waited.queue, waited.back_off), (ms(0), ms(0)));
    first.await.expect("no panic").expect("served");
}

/// Waits until all connections have been quiet for so long that they are asked for a sign of life.
async fn grow_quiet() {
    sleep(Duration::from_secs(6)).await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_sign_of_life_is_part_of_that_for_the_channel() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    host.command("true").output().await.expect("served");
    grow_quiet().await;
    let there = host.command("true").output().await.expect("served").waited;
    assert!(about(there.channel, 4 + 1, 3), "{there:?}");
    assert_eq!(there.total(), there.channel, "{there:?}");

    grow_quiet().await;
    server.forget_connections(true);
    let gone = host.command("true").output().await.expect("elsewhere");
    let gone = gone.waited;
    assert!(about(gone.channel, 2000 + 4 + 1, 4), "{gone:?}");
    assert!(about(gone.dial, 10, 1), "{gone:?}");

    grow_quiet().await;
    server.forget_connections(true);
    let begun = Instant::now();
    let stream = host.connect_tcp("db", 5432).shared().timeout(ms(500));
    let error = stream.await.expect_err("no answer");
    assert_eq!(error.waited().channel, begun.elapsed(), "{error:?}");
    let begun = Instant::now();
    let command = host.command("true").timeout(ms(500)).output();
    let error = command.await.expect_err("no answer");
    assert_eq!(error.waited().channel, begun.elapsed(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn who_needs_a_connection_of_their_own_waits_for_its_dial_and_not_for_the_others() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(60),
        ..Script::default()
    });
    let limits = Limits::default().isolated_per_host(2);
    let (_pool, host) = pool(&server, limits, Timeouts::default());
    let mut children = Vec::new();
    for number in 0..2 {
        let child = host.command("true").spawn().await.expect("served");
        let waited = child.waited();
        assert!(about(waited.dial, 10, 1), "{number}: {waited:?}");
        assert!(waited.queue <= ms(1), "{number}: {waited:?}");
        children.push(child);
    }
    let deadline = Duration::from_secs(5);
    let third = host.command("true").timeout(deadline).spawn().await;
    let waited = third.expect_err("no room").waited();
    assert_eq!((waited.dial, waited.back_off), (ms(0), ms(0)));
    assert!(about(waited.queue, 5000, 1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_waits_of_all_attempts_are_one() {
    let server = Server::new(Script {
        runtime: ms(500),
        ..Script::default()
    });
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let command = tokio::spawn(host.command("true").idempotent().output());
    while server.seen().running == 0 {
        sleep(ms(1)).await;
    }
    server.kill_connections();
    let output = command.await.expect("no panic").expect("in the end");
    assert_eq!(output.attempts, 2);
    let waited = output.waited;
    assert!(about(waited.dial, 2 * 10, 2), "{waited:?}");
    assert!(about(waited.back_off, 50, 51), "{waited:?}");
    assert!(about(waited.channel, 2 * 5, 6), "{waited:?}");
    // Lost for good, and for once the last attempt waited for nothing.
    let command = tokio::spawn(host.command("true").idempotent().output());
    for attempt in 3..=5 {
        while (server.seen().requested, server.seen().running) != (attempt, 1) {
            sleep(ms(1)).await;
        }
        server.kill_connections();
    }
    let error = command.await.expect("no panic").expect_err("lost for good");
    let waited = error.waited();
    assert_eq!(error.attempts(), 3);
    assert!(about(waited.dial, 2 * 10, 2), "{waited:?}");
    assert!(about(waited.back_off, 150, 152), "{waited:?}");
}
