//! Failed connects and the errors that callers get, on paused time.

use super::*;
use crate::error::Cause;
use crate::event::EventKind;
use crate::transport::ConnectError;
use crate::transport::scripted::ConnectionEnding;
use crate::{Breaker, Events};

fn throttled() -> ConnectError {
    ConnectError {
        error: Error::Throttled {
            target: "tester@test:22".into(),
            message: "Exceeded MaxStartups".into(),
            source: Cause::new("closed"),
        },
        transient: true,
    }
}

fn rejected() -> ConnectError {
    ConnectError {
        error: Error::AuthRejected {
            target: "tester@test:22".into(),
            tried: Vec::new(),
            allowed: "publickey".into(),
            accepted: Box::default(),
            messages: Box::default(),
            cooldown: Duration::from_secs(60),
        },
        transient: false,
    }
}

/// A server whose handshakes take a second, so that there is time to look.
fn slow() -> (Server, Pool, Host) {
    let server = Server::new(Script {
        handshake: Duration::from_secs(1),
        ..Script::default()
    });
    let (pool, host) = pool(&server, Limits::default(), Timeouts::default());
    (server, pool, host)
}

/// What has happened to the breaker since the last look.
fn changes(events: &mut Events) -> Vec<&'static str> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::BreakerOpened { .. } => Some("opened"),
            EventKind::BreakerHalfOpen => Some("half-open"),
            EventKind::BreakerClosed => Some("closed"),
            _ => None,
        })
        .collect()
}

async fn fails(host: &Host) -> Error {
    host.command("true").output().await.expect_err("no way in")
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_costs_one_connect_and_the_first_caller_after_the_pause_reaches_it() {
    let (server, pool, host) = slow();
    let mut events = pool.events();
    server.fail_next_connect(connection_refused());
    let began = Instant::now();
    let callers: Vec<_> = (0..20)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    for caller in callers {
        caller.await.expect("no panic").expect_err("dead");
    }
    assert_eq!(began.elapsed().as_secs(), 1, "all at once");
    for _ in 0..20 {
        fails(&host).await;
    }
    assert_eq!(began.elapsed().as_secs(), 1, "no other caller waits");
    assert_eq!(server.seen().dials, 1);
    let Breaker::Open { retry_in } = host.status().breaker else {
        panic!("{:?}", host.status());
    };
    assert!(retry_in > Duration::from_millis(200), "{retry_in:?}");

    // It is back, and is not asked: no caller waits.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(server.seen().dials, 1);
    let retry_in = Duration::ZERO;
    assert_eq!(host.status().breaker, Breaker::Open { retry_in });
    let first = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(500)).await;
    assert_eq!(host.status().breaker, Breaker::HalfOpen);
    host.command("true")
        .output()
        .await
        .expect("shares its dial");
    first.await.expect("no panic").expect("let through");
    assert_eq!(host.status().breaker, Breaker::Closed);
    assert_eq!(server.seen().dials, 2);
    assert_eq!(changes(&mut events), ["opened", "half-open", "closed"]);
}

#[tokio::test(start_paused = true)]
async fn of_those_who_come_to_a_host_that_stays_dead_one_pays_for_each_dial() {
    let (server, _pool, host) = slow();
    let mut paid = 0;
    for round in 1..=6 {
        server.fail_next_connect(connection_refused());
        while let Breaker::Open { retry_in } = host.status().breaker
            && !retry_in.is_zero()
        {
            sleep(retry_in).await;
        }
        let began = Instant::now();
        let callers: Vec<_> = (0..10)
            .map(|_| {
                let host = host.clone();
                tokio::spawn(async move {
                    fails(&host).await;
                    began.elapsed()
                })
            })
            .collect();
        let mut waited = 0;
        for caller in callers {
            waited += u32::from(!caller.await.expect("no panic").is_zero());
        }
        assert_eq!(server.seen().dials, round);
        assert_eq!(waited, if round <= 3 { 10 } else { 1 }, "round {round}");
        paid += waited;
    }
    assert_eq!(paid, 33);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_one_attempt_whatever_the_callers_want_a_connection_for() {
    let (server, _pool, host) = slow();
    server.fail_next_connect(rejected());
    let mut callers = JoinSet::new();
    for _ in 0..10 {
        let outputs = host.command("true").output();
        callers.spawn(async move { outputs.await.map(drop) });
        let host = host.clone();
        callers.spawn(async move { host.command("true").spawn().await.map(drop) });
    }
    while let Some(result) = callers.join_next().await {
        let error = result.expect("no panic").expect_err("refused");
        assert!(matches!(error, Error::AuthRejected { .. }), "{error}");
    }
    assert_eq!(server.seen().dials, 1);
    let status = host.status();
    assert_eq!((status.failed_dials, status.dialling), (1, 0), "{status:?}");
    sleep(Duration::from_secs(59)).await;
    fails(&host).await;
    assert_eq!(server.seen().dials, 1);
    sleep(Duration::from_secs(1)).await;
    drop(host.command("true").spawn().await.expect("another try"));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_on_a_lost_connection_fails_at_once_if_there_is_no_other() {
    let script = Script {
        runtime: Duration::from_secs(20),
        max_sessions: 1,
        ..Script::default()
    };
    let server = Server::new(script);
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let running = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(100)).await;
    // The second connection that the queue asks for is not let in.
    server.fail_next_connect(rejected());
    let queued = tokio::spawn(host.command("true").output());
    sleep(Duration::from_secs(2)).await;
    assert!(!queued.is_finished(), "it may still be served by the first");
    assert_eq!(server.seen().dials, 2);
    let began = Instant::now();
    server.kill_connections();
    let error = queued.await.expect("no panic").expect_err("told");
    assert!(matches!(error, Error::AuthRejected { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1), "at once");
    assert_eq!(server.seen().dials, 2);
    running.await.expect("no panic").expect_err("lost");
}

#[tokio::test(start_paused = true)]
async fn while_a_server_throttles_one_connects_at_a_time_whatever_the_identity() {
    let (server, pool, first) = slow();
    let others: Vec<Host> = (0..3)
        .map(|user| pool.host(format!("user-{user}@test:22")).expect("target"))
        .collect();
    server.fail_next_connect(throttled());
    let first = tokio::spawn(first.command("true").output());
    sleep(Duration::from_millis(1001)).await;
    assert_eq!(server.seen().dials, 1);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for host in &others {
        callers.spawn(host.command("true").output());
    }
    // Other callers do not connect before the pause is over either.
    sleep(Duration::from_millis(40)).await;
    assert_eq!(server.seen().dials, 1);
    let mut most = 0;
    while !callers.is_empty() {
        let under_way = server.seen().dials - 1 - server.seen().connections;
        most = most.max(under_way);
        tokio::select! {
            Some(done) = callers.join_next() => drop(done.expect("no panic").expect("served")),
            () = sleep(Duration::from_millis(10)) => {}
        }
    }
    first.await.expect("no panic").expect("served");
    assert_eq!((most, server.seen().dials), (1, 5));
    assert!(began.elapsed() >= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_turns_everybody_away_is_tried_once_a_second_while_it_is_awaited() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    server.end_each(ConnectionEnding::Throttles);
    let wait = host.wait_until_ready(Duration::from_secs(60)).await;
    let error = wait.expect_err("turned away").to_string();
    assert!(error.contains("Exceeded MaxStartups"), "{error}");
    let changes = server.up();
    let begun = changes.iter().filter(|(_, change)| *change > 0);
    let begun: Vec<Instant> = begun.map(|(at, _)| *at).collect();
    let mut gaps = begun.windows(2).map(|two| two[1] - two[0]);
    assert!(gaps.all(|gap| gap < Duration::from_millis(1100)));
    assert!(begun.len() >= 55 && begun.len() <= 125, "{}", begun.len());
}

#[tokio::test(start_paused = true)]
async fn a_pause_without_waiters_ends_without_a_connect() {
    let (server, pool, host) = slow();
    let other = pool.host("other@test:22").expect("target");
    server.fail_next_connect(throttled());
    let first = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(1001)).await;
    // Its dial is asked for, and waits for the pause of the address to end.
    let second = tokio::spawn(other.command("true").output());
    sleep(Duration::from_millis(10)).await;
    assert_eq!((other.status().dialling, server.seen().dials), (1, 1));
    first.abort();
    second.abort();
    settle().await;
    assert_eq!(server.seen().dials, 1);
    for host in [host, other] {
        assert_at_rest(&host, &server, "given up");
        host.command("true").output().await.expect("served");
        settle().await;
        host.evict();
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn evicting_a_host_closes_its_breaker_and_what_is_under_way_counts_no_more() {
    let (server, pool, host) = slow();
    let mut events = pool.events();
    server.fail_next_connect(rejected());
    fails(&host).await;
    host.evict();
    assert_eq!(host.status().breaker, Breaker::Closed);
    server.fail_next_connect(rejected());
    let caller = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(500)).await;
    host.evict();
    caller.await.expect("no panic").expect("tried again");
    assert_eq!(server.seen().dials, 3);
    assert_eq!(changes(&mut events), ["opened", "closed"]);
}

#[tokio::test(start_paused = true)]
async fn what_has_failed_is_forgotten_once_for_all_groups_of_a_host() {
    let (server, _pool, host) = slow();
    server.fail_next_connect(rejected());
    let caller = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(500)).await;
    // The rest of an evict that had begun before that dial.
    host.pools().isolated().evict();
    caller.await.expect("no panic").expect_err("refused");
    assert_eq!(server.seen().dials, 1);
    assert_ne!(host.status().breaker, Breaker::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_cut_off_by_the_end_of_the_pool_is_no_failure() {
    let (server, pool, host) = slow();
    let mut events = pool.events();
    let caller = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(500)).await;
    pool.close().await;
    let error = caller.await.expect("no panic").expect_err("closed");
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    let status = host.status();
    assert_eq!((status.failed_dials, status.dialling), (0, 0), "{status:?}");
    assert_eq!((status.last_error, status.breaker), (None, Breaker::Closed));
    assert_eq!(changes(&mut events), [""; 0]);
    assert_eq!(server.seen().dials, 1);
}

/// On a real clock and several threads: one that closes, and others that would dial meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_ends_begins_no_dial_in_the_place_of_those_it_gives_up() {
    for round in 0..20 {
        let server = Server::new(Script {
            handshake: Duration::from_secs(60),
            ..Script::default()
        });
        let (pool, _) = pool(&server, Limits::default(), Timeouts::default());
        let mut callers = JoinSet::new();
        for user in 0..100 {
            let host = pool.host(format!("user-{user}@test:22")).expect("target");
            let output = host.command("true").output();
            callers.spawn(async move { output.await.map(drop) });
            callers.spawn(async move { host.command("true").spawn().await.map(drop) });
        }
        // As many as may be unsure of being let in; all others wait for them.
        while server.seen().dials < 2 {
            tokio::task::yield_now().await;
        }
        pool.close().await;
        while let Some(result) = callers.join_next().await {
            let error = result.expect("no panic").expect_err("closed");
            assert!(matches!(error, Error::Closed { .. }), "{error}");
        }
        assert_eq!(server.seen().dials, 2, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_two_connections_of_a_pool_have_the_same_number() {
    let server = Server::new(Script::default());
    let (pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let other = pool.host("other@test:22").expect("valid target");
    let mut events = pool.events();
    let mut children = Vec::new();
    for host in [&host, &other] {
        host.command("true").output().await.expect("served");
        for _ in 0..2 {
            children.push(host.command("true").spawn().await.expect("started"));
        }
    }
    let mut told: Vec<_> = std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event.kind, EventKind::Dialled { .. }))
        .map(|event| event.connection.expect("a connection"))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4, 5, 6]);
    let shown = |host: &Host| host.status().each_connection;
    let mut shown: Vec<_> = [&host, &other]
        .into_iter()
        .flat_map(shown)
        .map(|connection| connection.number)
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, told);
    drop(children);
}
