//! Deadlines: those that were kept, those that were missed, and what is said of them.

use super::*;
use crate::CommandState;
use crate::event::EventKind;

/// A server whose commands run for so long.
fn runs_for(seconds: u64) -> Server {
    Server::new(Script {
        runtime: Duration::from_secs(seconds),
        ..Script::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ended_in_time_has_ended_in_time_however_late_it_is_asked() {
    let server = runs_for(1);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let spawn = || host.command("true").timeout(Duration::from_secs(5)).spawn();
    let mut child = spawn().await.expect("started");
    sleep(Duration::from_secs(10)).await;
    let status = child.wait().await.expect("in time");
    assert!(status.success(), "{status}");
    let child = spawn().await.expect("started");
    sleep(Duration::from_secs(10)).await;
    let output = child.wait_with_output().await.expect("in time");
    assert_eq!(output.stdout, b"done");
}

#[tokio::test(start_paused = true)]
async fn a_child_is_late_if_its_deadline_has_ended_it_and_not_if_its_caller_has() {
    let server = runs_for(60);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let deadline = Duration::from_secs(5);
    let spawn = || host.command("true").timeout(deadline).spawn();
    let mut late = spawn().await.expect("started");
    let mut killed = spawn().await.expect("started");
    killed.kill().await.expect("it heeds signals");
    sleep(deadline * 2).await;
    let error = late.wait().await.expect_err("its time was up");
    assert!(error.is_timeout() && error.is_killed(), "{error:?}");
    assert_eq!(server.seen().running, 0, "no caller had to ask for that");
    let status = killed
        .wait()
        .await
        .expect("it ended before its time was up");
    assert_eq!(status.signal(), Some("TERM"));
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_deadline_is_served_like_any_other() {
    let server = Server::new(Script::default());
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    let timeouts = (Timeouts::default().acquire(year).connect(year))
        .patience(year)
        .keepalive_interval(year)
        .keepalive_misses(usize::MAX)
        .check_after(year)
        .check(year)
        .rekey(year)
        .idle(year)
        .lifetime(year)
        .limit_recovery(year)
        .auth_cooldown(year)
        .kill_grace(year)
        .drain(year);
    for timeouts in [Timeouts::default(), timeouts] {
        let (_pool, host) = pool(&server, small(), timeouts);
        let never = Duration::MAX;
        let mut command = host.command("true");
        command.timeout(never).exit_grace(never);
        command.output().await.expect("served");
        let mut child = command.spawn().await.expect("started");
        child.wait().await.expect("served");
        let shared = command.shared().spawn().await.expect("started");
        shared.wait_with_output().await.expect("served");
        drop(command.spawn().await.expect("started"));
        let status = command.idempotent().status().await.expect("served");
        assert!(status.success());
        for stream in [host.connect_tcp("db", 5432), host.subsystem("sftp")] {
            drop(stream.clone().timeout(never).await.expect("opened"));
            drop(stream.shared().timeout(never).await.expect("opened"));
        }
    }
}

const SOON: Duration = Duration::from_millis(500);

/// A deadline has passed before the server has answered.
fn assert_unanswered(error: &Error, asked: &str) {
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Channel, "{error:?}");
    assert_eq!(error.command_state(), CommandState::NotStarted, "{error:?}");
    let said = error.to_string();
    assert!(said.contains(asked), "{said}");
}

/// A host whose connection has served one command, and answers nothing any more after a while.
async fn silent(sessions: u32, after: Duration) -> (Server, Pool, Host) {
    let server = Server::new(Script::default());
    let limits = small().sessions_per_connection(sessions);
    let (pool, host) = pool(&server, limits, Timeouts::default());
    host.command("true").output().await.expect("served");
    sleep(after).await;
    server.forget_connections(true);
    (server, pool, host)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_not_one_whose_sessions_are_busy() {
    let (_server, _pool, host) = silent(3, Duration::from_secs(6)).await;
    let error = host.command("true").timeout(SOON).output().await;
    assert_unanswered(&error.expect_err("quiet"), "a sign of life");

    // One takes the idle channel, and does not come back.
    let (_server, _pool, host) = silent(3, Duration::ZERO).await;
    let spare = tokio::spawn(host.command("true").output());
    tokio::task::yield_now().await;
    let error = host.command("true").timeout(SOON).output().await;
    assert_unanswered(&error.expect_err("no answer to an open"), "a session");
    let stream = host.connect_tcp("db", 5432).shared().timeout(SOON);
    let error = stream.await.expect_err("no answer to an open");
    assert_unanswered(&error, "the stream");
    spare.abort();

    // With one session there is no idle channel, and it is free when a round trip has shown that it
    // is.
    let (_server, _pool, host) = silent(1, Duration::ZERO).await;
    let error = host.command("true").timeout(SOON).output().await;
    assert_unanswered(&error.expect_err("no round trip"), "a session");

    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let mut command = host.command("true");
    command.env("NAME", "value"); // to which this server says nothing
    let error = command.timeout(SOON).output().await;
    assert_unanswered(&error.expect_err("is it taken?"), "variables");
}

#[tokio::test(start_paused = true)]
async fn a_subsystem_that_is_not_accepted_in_time_was_sent_and_is_closed() {
    let (server, _pool, host) = silent(3, Duration::ZERO).await;
    let stream = host.subsystem("sftp").shared().timeout(SOON);
    let error = stream.await.expect_err("no answer");
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Exec);
    assert_eq!(error.command_state(), CommandState::Unknown);
    server.forget_connections(false);
    settle().await;
    assert_eq!(host.status().running, 0, "{:?}", host.status());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_holds_a_time_out_up_for_as_long_as_is_said() {
    let grace = Duration::from_secs(2); // Timeouts::kill_grace
    let runs = Duration::from_millis(100);
    // Before its request was answered, and after.
    for forgotten_after in [Duration::ZERO, runs / 2] {
        let server = runs_for(60);
        let (pool, host) = pool(&server, small(), Timeouts::default());
        host.warm().await.expect("warm");
        let mut events = pool.events();
        let began = Instant::now();
        let command = tokio::spawn(host.command("true").timeout(runs).output());
        tokio::task::yield_now().await;
        sleep(forgotten_after).await;
        server.forget_connections(true);
        let error = tokio::time::timeout(Duration::from_secs(600), command).await;
        let error = error.expect("in the end").expect("no panic");
        let error = error.expect_err("its time was up");
        assert!(error.is_timeout() && !error.is_killed(), "{error:?}");
        let late = began.elapsed() - runs;
        assert!(late <= grace + Duration::from_secs(14), "{late:?}");
        // Its channel is closed when something passes again, and then it is known to be left alone.
        let mut told = std::iter::from_fn(|| events.try_next());
        let mut leaked = || told.any(|event| matches!(event.kind, EventKind::Leaked { .. }));
        assert!(!leaked());
        server.forget_connections(false);
        settle().await;
        assert!(leaked());
    }
}

#[tokio::test(start_paused = true)]
async fn a_detached_child_lives_on_when_its_time_is_up() {
    let server = runs_for(60);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let mut command = host.command("true");
    command.detach().timeout(SOON);
    let mut child = command.spawn().await.expect("started");
    let error = child.wait().await.expect_err("its time was up");
    assert!(error.is_timeout() && !error.is_killed(), "{error:?}");
    settle().await;
    assert_eq!(server.seen().running, 1);
}

#[tokio::test(start_paused = true)]
async fn a_subsystem_without_a_caller_is_closed() {
    let server = runs_for(60);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    host.warm().await.expect("warm");
    let stream = host.subsystem("sftp").shared().into_future();
    drop(tokio::time::timeout(Duration::from_millis(3), stream).await);
    settle().await;
    assert_eq!(server.seen().started, 1);
    assert_eq!(host.status().running, 0, "{:?}", host.status());
}
