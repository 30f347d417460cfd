//! Connections that were quiet for a while, and the callers that use one next.

use super::*;
use crate::{CommandState, EventKind, Events, Purpose, Retirement};

/// Longer than `Timeouts::check_after`, with a check for each command.
const QUIET: Duration = Duration::from_secs(6);
/// `Timeouts::check`.
const CHECK: Duration = Duration::from_secs(2);

/// A server with a connection to it that has an idle channel and was quiet for a while.
async fn quiet(limits: Limits) -> (Server, Pool, Host) {
    let server = Server::new(Script::default());
    let (pool, host) = pool(&server, limits, Timeouts::default());
    host.command("true").output().await.expect("served");
    sleep(QUIET).await;
    assert_eq!(host.status().spare, 1);
    server.take_asked();
    (server, pool, host)
}

/// Why connections were retired, as far as it was told.
fn retirements(events: &mut Events) -> Vec<Retirement> {
    let events = std::iter::from_fn(|| events.try_next());
    let reason = |event: crate::Event| match event.kind {
        EventKind::Retired { reason } => Some(reason),
        EventKind::Died { cause, .. } => panic!("{cause}"),
        _ => None,
    };
    events.filter_map(reason).collect()
}

fn took(began: Instant, time: Duration) -> bool {
    (time..time + Duration::from_millis(100)).contains(&began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn only_a_connection_that_was_quiet_is_asked_before_a_command_goes_out_on_it() {
    let (server, _pool, host) = quiet(small()).await;
    host.command("true").output().await.expect("served");
    let first = server.take_asked();
    assert_eq!(first, [Asked::Open, Asked::Ping, Asked::Start]);
    for _ in 0..3 {
        sleep(CHECK).await;
        host.command("true").output().await.expect("served");
        assert_eq!(server.take_asked(), [Asked::Start, Asked::Open]);
    }
    sleep(QUIET).await;
    host.warm().await.expect("warm");
    let asked = server.take_asked();
    assert_eq!(asked, [Asked::Open, Asked::Ping], "to warm is to use");
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_is_found_out_before_anything_is_sent() {
    let (server, pool, host) = quiet(small()).await;
    let mut events = pool.events();
    server.forget_connections(true);
    let began = Instant::now();
    host.command("true").output().await.expect("elsewhere");
    assert!(took(began, CHECK), "{:?}", began.elapsed());
    assert_eq!((server.seen().requested, server.seen().dials), (2, 2));
    assert_eq!(retirements(&mut events), [Retirement::Unresponsive]);
    settle().await;
    assert_at_rest(&host, &server, "on the second connection");
    assert_eq!(server.seen().connections, 1, "the first is gone");
}

#[tokio::test(start_paused = true)]
async fn whatever_runs_on_a_connection_that_does_not_answer_is_left_to_the_keepalive() {
    let script = Script {
        runtime: Duration::from_secs(60),
        ..Script::default()
    };
    let server = Server::new(script);
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let mut events = pool.events();
    let running: Vec<_> = (0..2)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    sleep(QUIET).await;
    server.forget_connections(true);
    let third = tokio::spawn(host.command("true").output());
    sleep(CHECK * 2).await;
    let status = host.status();
    assert_eq!((status.connections, status.retiring), (1, 1), "{status:?}");
    assert_eq!((server.seen().dials, server.seen().running), (2, 3));
    server.forget_connections(false);
    for command in running {
        command.await.expect("no panic").expect("it ran on");
    }
    third.await.expect("no panic").expect("elsewhere");
    assert_eq!(retirements(&mut events), [Retirement::Unresponsive]);
    settle().await;
    assert_at_rest(&host, &server, "when all have ended");
}

/// With one connection there is nowhere else to go before it is given up.
#[tokio::test(start_paused = true)]
async fn an_open_or_a_round_trip_without_an_answer_delays_no_other_caller() {
    for sessions in [3, 1] {
        let server = Server::new(Script::default());
        let limits = small().sessions_per_connection(sessions);
        let (pool, host) = pool(&server, limits, Timeouts::default());
        let mut events = pool.events();
        host.command("true").output().await.expect("served");
        // With one session its slot is being released now, which takes a round trip to see. With
        // three there is an idle channel: the second command takes that, and the third one asks for
        // a channel.
        server.forget_connections(true);
        let sent = (sessions > 1).then(|| tokio::spawn(host.command("true").output()));
        tokio::task::yield_now().await;
        let began = Instant::now();
        host.command("true").output().await.expect("elsewhere");
        let case = format!("{sessions} sessions: {:?}", began.elapsed());
        assert!(took(began, CHECK), "{case}");
        assert_eq!(retirements(&mut events), [Retirement::Unresponsive]);
        server.forget_connections(false);
        if let Some(sent) = sent {
            sent.await.expect("no panic").expect("it had been sent");
        }
        settle().await;
        assert_at_rest(&host, &server, &case);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_do_not_wait_for_the_answer_find_out_together() {
    let (server, _pool, host) = quiet(small()).await;
    server.forget_connections(true);
    let patience = CHECK / 4;
    for _ in 0..4 {
        let command = host.command("true").timeout(patience).output();
        let error = command.await.expect_err("no answer yet");
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.command_state(), CommandState::NotStarted);
    }
    let command = host.command("true").timeout(patience).output();
    command.await.expect("the connection was given up");
    assert_eq!((server.seen().requested, server.seen().dials), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_dies_while_it_is_asked_or_answers_late_is_what_it_is() {
    let (server, _pool, host) = quiet(small()).await;
    server.forget_connections(true);
    let began = Instant::now();
    let command = tokio::spawn(host.command("true").output());
    sleep(CHECK / 2).await;
    server.kill_connections();
    command.await.expect("no panic").expect("elsewhere");
    assert!(took(began, CHECK / 2), "{:?}", began.elapsed());
    assert_eq!(server.seen().dials, 2);

    let (server, pool, host) = quiet(small()).await;
    let mut events = pool.events();
    server.forget_connections(true);
    let command = tokio::spawn(host.command("true").output());
    sleep(CHECK - Duration::from_millis(10)).await;
    server.forget_connections(false);
    command.await.expect("no panic").expect("in time");
    assert_eq!(server.seen().dials, 1);
    assert_eq!(retirements(&mut events), []);
}

#[tokio::test(start_paused = true)]
async fn when_one_does_not_answer_the_others_are_asked_at_once() {
    let script = Script {
        runtime: Duration::from_secs(1),
        ..Script::default()
    };
    let server = Server::new(script);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(host.command("true").spawn().await.expect("started"));
    }
    for child in children {
        child.wait_with_output().await.expect("served");
    }
    sleep(QUIET).await;
    assert_eq!(host.status().isolated, 5);
    server.forget_connections(true);
    let began = Instant::now();
    let child = host.command("true").spawn().await.expect("on a sixth");
    assert!(took(began, CHECK * 2), "{:?}", began.elapsed());
    child.wait_with_output().await.expect("served");
    assert_eq!(server.seen().dials, 6);
    assert_eq!(host.status().isolated, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_does_not_go_to_a_connection_that_is_not_there() {
    for shared in [true, false] {
        let server = Server::new(Script::default());
        let (pool, host) = pool(&server, small(), Timeouts::default());
        let connect = || {
            let stream = host.connect_tcp("localhost", 80);
            if shared { stream.shared() } else { stream }
        };
        drop(connect().await.expect("opened"));
        sleep(QUIET).await;
        let mut events = pool.events();
        server.forget_connections(true);
        let began = Instant::now();
        let stream = connect().await.expect("elsewhere");
        assert!(took(began, CHECK), "{:?}", began.elapsed());
        assert_eq!(server.seen().dials, 2);
        assert_eq!(retirements(&mut events), [Retirement::Unresponsive]);
        drop(stream);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_an_answer_is_opened_elsewhere() {
    let server = Server::new(Script::default());
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let mut events = pool.events();
    host.command("true").output().await.expect("served");
    server.forget_connections(true);
    let began = Instant::now();
    // The server may be waiting for the other side of it, so first it is given time.
    let stream = host.connect_tcp("localhost", 80).shared().await;
    drop(stream.expect("elsewhere"));
    assert!(began.elapsed() < QUIET + CHECK * 2, "{:?}", began.elapsed());
    assert_eq!(server.seen().dials, 2);
    assert_eq!(retirements(&mut events), [Retirement::Unresponsive]);
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_how_quiet_a_connection_was_and_that_it_is_asked() {
    let (server, _pool, host) = quiet(small()).await;
    let look = || {
        let connections = host.status().each_connection;
        let [connection] = connections.as_slice() else {
            panic!("{connections:?}")
        };
        connection.clone()
    };
    let idle = look();
    assert_eq!((idle.number, idle.purpose), (1, Purpose::Shared));
    assert_eq!((idle.running, idle.spare, idle.streams), (0, 1, 0));
    assert!(!idle.retiring && !idle.checking);
    assert!(idle.last_heard >= QUIET - Duration::from_millis(1) && idle.age > idle.last_heard);
    server.forget_connections(true);
    let command = tokio::spawn(host.command("true").output());
    sleep(CHECK / 2).await;
    let asked = look();
    assert!(asked.checking && !asked.retiring, "{asked:?}");
    assert_eq!(asked.last_heard, idle.last_heard + CHECK / 2);
    server.forget_connections(false);
    command.await.expect("no panic").expect("served");
    let heard = look();
    assert!(!heard.checking, "{heard:?}");
    assert!(heard.last_heard < Duration::from_millis(10), "{heard:?}");
    // Reading the status sends nothing.
    server.take_asked();
    for _ in 0..10 {
        sleep(Duration::from_secs(1)).await;
        look();
    }
    assert_eq!(server.take_asked(), []);
}

/// Dropped at each half millisecond of a check, also while it is given up, alone and with others
/// behind it.
#[tokio::test(start_paused = true)]
async fn dropped_at_any_moment_of_a_check_a_command_leaves_nothing_behind() {
    let around_its_end = 2 * 1990..2 * 2030;
    for forgotten in [false, true] {
        for others in [0, 4] {
            for half_ms in (0..40).chain(around_its_end.clone().filter(|_| forgotten)) {
                let case = format!("forgotten: {forgotten}, {others} others, at {half_ms}/2 ms");
                let (server, pool, host) = quiet(small()).await;
                server.forget_connections(forgotten);
                let after = Duration::from_micros(500 * half_ms);
                let command = host.command("true").output();
                let command = tokio::spawn(tokio::time::timeout(after, command));
                tokio::task::yield_now().await;
                let mut neighbours = JoinSet::new();
                for _ in 0..others {
                    neighbours.spawn(host.command("true").output());
                }
                drop(command.await.expect("no panic"));
                while let Some(done) = neighbours.join_next().await {
                    let output = done.expect("no panic");
                    assert!(output.is_ok(), "{case}: a neighbour failed: {output:?}");
                }
                sleep(CHECK * 2).await;
                assert_at_rest(&host, &server, &case);
                assert_full_strength(&host, &server, 3, &case).await;
                settle().await;
                assert_at_rest(&host, &server, &case);
                let dials = server.seen().dials;
                assert_eq!(dials, 1 + u32::from(forgotten), "{case}: as many as needed");
                pool.close().await;
                assert_eq!(server.seen().connections, 0, "{case}: said goodbye");
            }
        }
    }
}
