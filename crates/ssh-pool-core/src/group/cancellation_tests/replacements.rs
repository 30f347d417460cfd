//! Connections that are replaced while they are in use.

use super::*;
use crate::{EventKind, Events, Retirement};

const LIFETIME: Duration = Duration::from_secs(10);

fn on(script: Script) -> (Server, Pool, Host) {
    let server = Server::new(script);
    let timeouts = Timeouts::default().lifetime(LIFETIME);
    let (pool, host) = pool(&server, small(), timeouts);
    (server, pool, host)
}

/// What has happened to which connection: `"dialled 1"`.
fn case(events: &mut Events) -> Vec<String> {
    let words = |kind| match kind {
        EventKind::Dialled { .. } => "dialled",
        EventKind::DialFailed { .. } => "dial failed",
        EventKind::Retired {
            reason: Retirement::Lifetime,
        } => "retired",
        EventKind::Retired {
            reason: Retirement::Evicted,
        } => "evicted",
        EventKind::Closed => "closed",
        _ => "something else",
    };
    std::iter::from_fn(|| events.try_next())
        .map(|event| format!("{} {}", words(event.kind), event.connection.unwrap_or(0)))
        .collect()
}

/// One command after the other until then; the slowest of them says how long a caller has waited.
async fn work(host: &Host, for_so_long: Duration) -> Duration {
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < for_so_long {
        let asked = Instant::now();
        host.command("true").output().await.expect("served");
        slowest = slowest.max(asked.elapsed());
    }
    slowest
}

#[tokio::test(start_paused = true)]
async fn a_replacement_is_connected_before_the_old_connection_retires_and_no_caller_waits_for_it() {
    let handshake = Duration::from_secs(1);
    let (_server, pool, host) = on(Script {
        handshake,
        ..Script::default()
    });
    host.warm().await.expect("connected");
    let mut events = pool.events();
    let slowest = work(&host, LIFETIME * 3 / 2).await;
    let told = case(&mut events);
    assert_eq!(told, ["dialled 2", "retired 1", "closed 1"]);
    assert!(slowest < handshake / 2, "{slowest:?}");
    assert_eq!(host.status().peak_connections, 2);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_cannot_be_connected_affects_no_caller() {
    let (server, pool, host) = on(Script::default());
    host.warm().await.expect("connected");
    let mut events = pool.events();
    for _ in 0..20 {
        server.fail_next_connect(connection_refused());
    }
    // A minute and more of failures.
    let slowest = work(&host, Duration::from_secs(150)).await;
    let mut told = case(&mut events);
    // The breaker opens and closes over it.
    told.retain(|told| told != "something else 0");
    let failures = told.iter().filter(|told| *told == "dial failed 0").count();
    assert_eq!(failures, 20, "{told:?}");
    assert_eq!(told[20..22], ["dialled 2", "retired 1"], "{told:?}");
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
}

#[tokio::test(start_paused = true)]
async fn an_evicted_host_in_use_is_dialled_at_once_and_what_runs_there_finishes() {
    let (server, pool, host) = on(Script {
        runtime: Duration::from_secs(5),
        ..Script::default()
    });
    let running = tokio::spawn(host.command("true").output());
    while server.seen().running == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let mut events = pool.events();
    host.evict();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(case(&mut events), ["evicted 1", "dialled 2"]);
    running.await.expect("no panic").expect("it finishes");
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_began_before_an_evict_serves_no_caller() {
    let (_server, pool, host) = on(Script {
        handshake: Duration::from_secs(2),
        ..Script::default()
    });
    let mut events = pool.events();
    let first = tokio::spawn(host.command("true").output());
    sleep(Duration::from_secs(1)).await;
    host.evict();
    first.await.expect("no panic").expect("served");
    let told = case(&mut events);
    let expected = ["dialled 1", "evicted 1", "closed 1", "dialled 2"];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_began_before_an_evict_and_fails_after_it_fails_no_caller() {
    let (server, pool, host) = on(Script {
        handshake: Duration::from_secs(2),
        ..Script::default()
    });
    let mut events = pool.events();
    server.fail_next_connect(connection_refused());
    let first = tokio::spawn(host.command("true").output());
    sleep(Duration::from_secs(1)).await;
    host.evict();
    first.await.expect("no panic").expect("served");
    assert_eq!(case(&mut events), ["dial failed 0", "dialled 1"]);
    assert!(host.status().last_error.is_none());
}
