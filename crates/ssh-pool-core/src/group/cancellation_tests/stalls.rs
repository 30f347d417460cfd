//! Connections that take nothing that is sent: their queue is full, and stays so. No public call
//! waits for them past its deadline and the stated grace.

use super::*;
use crate::{Child, CommandState};

/// Of the calls that have one.
const DEADLINE: Duration = Duration::from_secs(3);
/// `Timeouts::acquire`, of those that have no other.
const ACQUIRE: Duration = Duration::from_secs(30);
/// `Command::timeout`: what a command that had been sent takes to be ended at most.
const GRACE: Duration = Duration::from_secs(2 + 14);

fn server() -> Server {
    Server::new(Script {
        runtime: Duration::from_secs(3600),
        ..Script::default()
    })
}

/// A host with a connection of each purpose, which take nothing any more, nor do later ones.
async fn stalled() -> (Server, Pool, Host) {
    let server = Server::new(Script::default());
    let limits = small().isolated_per_host(1);
    let (pool, host) = pool(&server, limits, Timeouts::default());
    let child = host.command("true").spawn().await.expect("started");
    child.wait_with_output().await.expect("served");
    host.command("true").output().await.expect("served");
    settle().await;
    server.stall_connections(true);
    server.stall_later_connections(true);
    (server, pool, host)
}

/// What a call returns, and how long it took on a clock that jumps.
async fn ends<T>(case: &str, most: Duration, call: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(100_000), call).await;
    let ended = ended.unwrap_or_else(|_| panic!("{case}: it never ends"));
    let took = began.elapsed();
    assert!(took <= most, "{case}: after {took:?}, not {most:?}");
    ended
}

fn assert_not_started(case: &str, error: &Error) {
    assert!(error.is_timeout(), "{case}: {error:?}");
    let state = error.command_state();
    assert_eq!(state, CommandState::NotStarted, "{case}: {error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_taken_before_the_deadline_has_not_started() {
    type Change = fn(&mut crate::Command) -> &mut crate::Command;
    let changes: [(&str, Change); 4] = [
        ("plain", |command| command),
        ("variables", |command| command.env("NAME", "value")),
        ("a terminal", |command| command.pty(crate::Pty::default())),
        ("input", |command| command.stdin("some input")),
    ];
    for (case, change) in changes {
        let (server, _pool, host) = stalled().await;
        let started = server.seen().started;
        let mut command = host.command("true");
        change(command.timeout(DEADLINE));
        let output = ends(case, DEADLINE, command.output()).await;
        assert_not_started(case, &output.expect_err("not taken"));
        let spawned = ends(case, DEADLINE, command.spawn()).await;
        assert_not_started(case, &spawned.expect_err("not taken"));
        let status = ends(case, DEADLINE, command.status()).await;
        assert_not_started(case, &status.expect_err("not taken"));
        // What was given up is not sent later.
        server.stall_connections(false);
        settle().await;
        assert_eq!(server.seen().started, started, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_connection_does_not_take_goes_to_another_one() {
    for asks in [false, true] {
        let server = Server::new(Script::default());
        let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
        host.command("true").output().await.expect("served");
        settle().await;
        server.stall_connections(true);
        let mut command = host.command("true");
        if asks {
            command.env("NAME", "value").verbatim();
        }
        let output = ends("elsewhere", ACQUIRE / 2, command.output()).await;
        assert_eq!(output.expect("elsewhere").stdout, b"done");
        assert_eq!(server.seen().dials, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_without_a_deadline_of_their_own_end_with_that_of_the_wait_for_a_channel() {
    let (_server, _pool, host) = stalled().await;
    for (case, stream) in [
        ("tcp", host.connect_tcp("db", 5432)),
        ("unix", host.connect_unix("/run/db")),
        ("subsystem", host.subsystem("sftp")),
    ] {
        for shared in [false, true] {
            let stream = stream.clone();
            let stream = if shared { stream.shared() } else { stream };
            let hasty = stream.clone().timeout(DEADLINE);
            let opened = ends(case, DEADLINE, hasty.into_future()).await;
            assert_not_started(case, &opened.expect_err("not taken"));
            let opened = ends(case, ACQUIRE, stream.into_future()).await;
            assert_not_started(case, &opened.expect_err("not taken"));
        }
    }
    let (_server, _pool, host) = stalled().await;
    let on = ("127.0.0.1", 0);
    let forwarded = ends("remote forward", ACQUIRE, host.forward_remote(on, on)).await;
    assert_not_started("remote forward", &forwarded.expect_err("not taken"));
    let warmed = ends("warm", ACQUIRE, host.warm()).await;
    assert_not_started("warm", &warmed.expect_err("not taken"));
}

/// A command that runs on a connection which takes nothing any more.
async fn running(timeout: Option<Duration>) -> (Server, Pool, Host, Child) {
    let server = server();
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let mut command = host.command("true");
    command.stdin(crate::Stdio::piped());
    if let Some(timeout) = timeout {
        command.timeout(timeout);
    }
    let child = command.spawn().await.expect("started");
    server.stall_connections(true);
    (server, pool, host, child)
}

#[tokio::test(start_paused = true)]
async fn a_running_command_is_given_up_in_time_whatever_its_connection_takes() {
    let (_server, _pool, _host, mut child) = running(Some(DEADLINE)).await;
    let ended = ends("wait", DEADLINE + GRACE, child.wait()).await;
    let error = ended.expect_err("its time was up");
    assert!(error.is_timeout() && !error.is_killed(), "{error:?}");
    assert_eq!(error.command_state(), CommandState::Unknown);

    let (_server, _pool, _host, child) = running(Some(DEADLINE)).await;
    let ended = ends("output", DEADLINE + GRACE, child.wait_with_output()).await;
    assert!(ended.expect_err("its time was up").is_timeout());

    let (_server, _pool, _host, mut child) = running(None).await;
    let killed = ends("kill", GRACE, child.kill()).await;
    assert!(matches!(killed, Err(Error::NotKilled { .. })), "{killed:?}");
    let ended = ends("wait", Duration::ZERO, child.wait()).await;
    ended.expect_err("nothing is known of it");

    let server = server();
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let mut command = host.command("true");
    let output = tokio::spawn(command.timeout(DEADLINE).output());
    sleep(Duration::from_secs(1)).await;
    server.stall_connections(true);
    let output = ends("output", DEADLINE + GRACE, output).await;
    let error = output.expect("no panic").expect_err("its time was up");
    assert_eq!(error.command_state(), CommandState::Unknown, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_connection_does_not_answer_is_given_up_soon() {
    let (server, _pool, _host, mut child) = running(None).await;
    server.stall_connections(false);
    server.forget_connections(true);
    let most = Duration::from_secs(1 + 2 + 1); // quiet, Timeouts::check, the channel's end
    let killed = ends("kill", most, child.kill()).await;
    assert!(matches!(killed, Err(Error::NotKilled { .. })), "{killed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_to_a_running_command_is_given_up_in_time() {
    let (_server, _pool, _host, child) = running(None).await;
    let sent = ends("signal", ACQUIRE, child.signal("HUP")).await;
    let error = sent.expect_err("not taken");
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.command_state(), CommandState::Unknown);
    ends("resize", ACQUIRE, child.resize(80, 25)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_closed_in_time_whatever_its_connections_take() {
    let drain = Duration::from_secs(30);
    for wanted in [false, true] {
        let (_server, pool, _host, child) = running(None).await;
        let _child = wanted.then_some(child);
        ends("close", drain + Duration::from_secs(2), pool.close()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_server_never_answers_fails_without_a_deadline_as_well() {
    let server = Server::new(Script {
        replies: false,
        ..Script::default()
    });
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let most = ACQUIRE + Duration::from_secs(3) + GRACE;
    let output = ends("output", most, host.command("true").output()).await;
    let error = output.expect_err("no answer");
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Exec);
    assert_eq!(error.command_state(), CommandState::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_open_that_a_talkative_server_never_answers_is_made_elsewhere_in_time() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    host.command("true").output().await.expect("served");
    settle().await;
    server.ignore_opens();
    let talks = server.clone();
    let talk = tokio::spawn(async move {
        loop {
            talks.talk();
            sleep(Duration::from_millis(500)).await;
        }
    });
    let mut commands = JoinSet::new();
    for _ in 0..5 {
        commands.spawn(host.command("true").output());
    }
    while let Some(output) = ends("elsewhere", ACQUIRE / 2, commands.join_next()).await {
        output.expect("no panic").expect("served");
    }
    assert!(server.seen().dials > 1, "{:?}", server.seen());
    talk.abort();
}
