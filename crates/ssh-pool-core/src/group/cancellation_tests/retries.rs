//! Commands that may run twice, and what becomes of them when their connections are lost.

use bytes::Bytes;

use super::*;
use crate::CommandState;
use crate::transport::Signals;

/// Longer than anything else here, so that a command runs when its connection is cut.
const LONG: Script = Script {
    hop: Duration::from_millis(2),
    handshake: Duration::from_millis(10),
    max_sessions: 10,
    runtime: Duration::from_secs(60),
    control_runtime: Duration::from_millis(10),
    heeds_signals: true,
    signals: Signals::Group,
    answers_variables: false,
    fatal: None,
    replies: true,
};

fn on(script: Script) -> (Server, Pool, Host) {
    let server = Server::new(script);
    let (pool, host) = pool(&server, small(), Timeouts::default());
    (server, pool, host)
}

/// Cuts the connections once `count` requests have gone out and the last of them runs.
async fn cut_at(server: &Server, count: u32) {
    while (server.seen().requested, server.seen().running) != (count, 1) {
        sleep(Duration::from_micros(100)).await;
    }
    server.kill_connections();
}

#[tokio::test(start_paused = true)]
async fn a_lost_command_that_may_not_run_twice_does_not() {
    let (server, _pool, host) = on(LONG);
    let command = tokio::spawn(host.command("true").output());
    cut_at(&server, 1).await;
    let error = command.await.expect("no panic").expect_err("lost");
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    assert_eq!(error.attempts(), 1);
    settle().await;
    assert_eq!(server.seen().requested, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_command_is_run_again_after_a_pause_and_says_how_often() {
    let script = Script {
        runtime: Duration::from_millis(500),
        ..LONG
    };
    for losses in 0..=2 {
        let (server, _pool, host) = on(script.clone());
        let command = tokio::spawn(host.command("true").idempotent().output());
        for loss in 1..=losses {
            cut_at(&server, loss).await;
            let lost = Instant::now();
            while server.seen().requested == loss {
                sleep(Duration::from_micros(100)).await;
            }
            let full = Duration::from_millis(100) * loss;
            let (pause, dial) = (lost.elapsed(), Duration::from_millis(30));
            assert!(pause >= full / 2 && pause <= full + dial, "{pause:?}");
        }
        let output = command.await.expect("no panic").expect("in the end");
        assert_eq!(output.attempts, losses + 1);
        assert_eq!(output.stdout, b"done", "of one attempt");
        settle().await;
        assert_eq!(server.seen().requested, losses + 1);
        assert_at_rest(&host, &server, &format!("{losses} losses"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_lost_three_times_is_not_run_a_fourth_time() {
    let (server, _pool, host) = on(LONG);
    let command = tokio::spawn(host.command("true").idempotent().status());
    for attempt in 1..=3 {
        cut_at(&server, attempt).await;
    }
    let error = command.await.expect("no panic").expect_err("lost for good");
    assert_eq!(error.attempts(), 3, "{error:?}");
    assert_eq!(error.command_state(), CommandState::Unknown);
    let Error::Repeated { source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*source, Error::ConnectionLost { .. }), "{source}");
    settle().await;
    assert_eq!(server.seen().requested, 3);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_gets_the_whole_input() {
    let (server, _pool, host) = on(LONG);
    let input = Bytes::from("x".repeat(100_000));
    let command = host
        .command("cat")
        .stdin(input.to_vec())
        .idempotent()
        .output();
    let command = tokio::spawn(command);
    for attempt in 1..=3 {
        cut_at(&server, attempt).await;
    }
    command.await.expect("no panic").expect_err("lost for good");
    assert!(
        server.inputs() == vec![input; 3],
        "{:?}",
        server.inputs().iter().map(Bytes::len).collect::<Vec<_>>()
    );
}

/// Cut at each half millisecond of its life: before its request went out it is one attempt, after
/// that two, and it always comes back.
#[tokio::test(start_paused = true)]
async fn wherever_its_connection_is_lost_an_idempotent_command_comes_back() {
    let mut attempts = [0, 0];
    for half_ms in 0..80 {
        let (server, _pool, host) = on(Script::default());
        host.warm().await.expect("warm");
        let command = tokio::spawn(host.command("true").idempotent().output());
        sleep(Duration::from_micros(500 * half_ms + 1)).await;
        server.kill_connections();
        let output = command.await.expect("no panic").expect("absorbed");
        assert_eq!(output.attempts, server.seen().requested, "{half_ms}");
        attempts[output.attempts as usize - 1] += 1;
        settle().await;
        assert_at_rest(&host, &server, &format!("cut at {half_ms}/2 ms"));
    }
    assert!(attempts[0] > 0 && attempts[1] > 10, "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_waited_for_that_could_not_begin_in_time() {
    let (server, _pool, host) = on(LONG);
    host.warm().await.expect("warm");
    let began = Instant::now();
    // The shortest pause takes 50 ms.
    let timeout = Duration::from_millis(50);
    let command = host.command("true").idempotent().timeout(timeout).output();
    let command = tokio::spawn(command);
    cut_at(&server, 1).await;
    let error = command.await.expect("no panic").expect_err("lost");
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    assert!(began.elapsed() < timeout, "{:?}", began.elapsed());
    settle().await;
    assert_eq!(server.seen().requested, 1);
}

#[tokio::test(start_paused = true)]
async fn all_attempts_have_one_deadline_together() {
    let (server, _pool, host) = on(LONG);
    let began = Instant::now();
    let timeout = Duration::from_secs(1);
    let command = host.command("true").idempotent().timeout(timeout).output();
    let command = tokio::spawn(command);
    cut_at(&server, 1).await;
    let error = command.await.expect("no panic").expect_err("too slow");
    let late = began.elapsed().saturating_sub(timeout);
    assert!(
        late < Duration::from_millis(20),
        "the signal takes {late:?}"
    );
    assert_eq!(
        (error.attempts(), error.is_timeout()),
        (2, true),
        "{error:?}"
    );
    settle().await;
    assert_eq!(server.seen().requested, 2);
    assert_at_rest(&host, &server, "the second was ended");
}

#[tokio::test(start_paused = true)]
async fn a_time_out_is_no_loss() {
    let (server, _pool, host) = on(LONG);
    let timeout = Duration::from_secs(1);
    let command = host.command("true").idempotent().timeout(timeout).output();
    let error = command.await.expect_err("too slow");
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    settle().await;
    assert_eq!(server.seen().requested, 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_lost_and_cannot_be_sent_again_may_have_run() {
    let (server, _pool, host) = on(LONG);
    let command = tokio::spawn(host.command("true").idempotent().output());
    for _ in 0..8 {
        server.fail_next_connect(connection_refused());
    }
    // The first dial fails as well, and that is no attempt.
    let error = command.await.expect("no panic").expect_err("no peer");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(error.command_state(), CommandState::NotStarted);

    let (server, _pool, host) = on(LONG);
    let command = tokio::spawn(host.command("true").idempotent().output());
    cut_at(&server, 1).await;
    for _ in 0..8 {
        server.fail_next_connect(connection_refused());
    }
    let error = command.await.expect("no panic").expect_err("no peer");
    assert_eq!(
        (error.attempts(), error.phase()),
        (2, Phase::Connect),
        "{error:?}"
    );
    assert_eq!(error.command_state(), CommandState::Unknown);
    assert!(error.is_transient());
}

/// Dropped at each half millisecond from its loss to the end of its second run.
#[tokio::test(start_paused = true)]
async fn dropped_between_two_attempts_or_in_the_second_it_leaves_nothing_behind() {
    let mut requested = [0, 0];
    for half_ms in 0..300 {
        let case = format!("dropped {half_ms}/2 ms after the loss");
        let (server, _pool, host) = on(LONG);
        let command = host.command("true").stdin("input").idempotent().output();
        let command = tokio::spawn(command);
        cut_at(&server, 1).await;
        sleep(Duration::from_micros(500 * half_ms)).await;
        command.abort();
        assert!(command.await.expect_err("dropped").is_cancelled());
        settle().await;
        assert_at_rest(&host, &server, &case);
        requested[server.seen().requested as usize - 1] += 1;
    }
    assert!(requested[0] > 90 && requested[1] > 30, "{requested:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_closed_between_two_attempts_ends_the_wait() {
    let (server, pool, host) = on(LONG);
    let command = tokio::spawn(host.command("true").idempotent().output());
    cut_at(&server, 1).await;
    sleep(Duration::from_millis(10)).await;
    let began = Instant::now();
    pool.close().await;
    let error = command.await.expect("no panic").expect_err("closed");
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_millis(10));
    assert_eq!(server.seen().requested, 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_a_closing_pool_cuts_off_is_not_run_again() {
    let server = Server::new(LONG);
    let timeouts = Timeouts::default().drain(Duration::from_secs(1));
    let (pool, host) = pool(&server, small(), timeouts);
    let command = tokio::spawn(host.command("true").idempotent().output());
    settle().await;
    pool.close().await;
    let error = command.await.expect("no panic").expect_err("cut off");
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
    assert_eq!(server.seen().requested, 1);
}

#[tokio::test(start_paused = true)]
async fn what_hands_out_streams_cannot_be_run_again() {
    let (server, _pool, host) = on(Script::default());
    let error = host.command("true").idempotent().spawn().await;
    let error = error.expect_err("not for spawn");
    assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    assert_eq!(server.seen().dials, 0);
}
