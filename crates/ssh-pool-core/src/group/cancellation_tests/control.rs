//! Commands that are ended by scripts, while something else comes to its end.

use super::*;
use crate::transport::Signals;

const SECOND: Duration = Duration::from_secs(1);

/// Every command has a tag, and a script that looks for it finds it.
fn marked(runtime: Duration, control_runtime: Duration) -> Server {
    Server::new(Script {
        runtime,
        control_runtime,
        signals: Signals::Ignored,
        ..Script::default()
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_late_command_is_looked_for_as_long_as_a_signal_may_take_and_no_longer() {
    let server = marked(30 * SECOND, 30 * SECOND);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let began = Instant::now();
    let late = host.command("true").timeout(29 * SECOND).output();
    let error = late.await.expect_err("its time was up");
    assert!(error.is_timeout(), "{error:?}");
    // It ended by itself, in the time that it had to end.
    let took = began.elapsed();
    assert!(
        30 * SECOND < took && took <= (29 + 2 + 5 + 1) * SECOND,
        "{took:?}"
    );
    assert_eq!(server.seen().started, 3, "a signal, and one look");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_command_is_looked_for_however_long_it_took_to_end() {
    let server = marked(30 * SECOND, SECOND * 49 / 10);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    // Seven and a half seconds before it ends by itself.
    let late = host.command("true").timeout(SECOND * 45 / 2).output();
    let error = late.await.expect_err("its time was up");
    assert!(error.is_killed(), "{error:?}");
    assert!(server.seen().started >= 4, "two signals, and a look");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_closes_ends_what_it_has_begun_to_end() {
    let server = marked(3 * SECOND, SECOND / 2);
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let late = host.command("true").output();
    drop(tokio::time::timeout(SECOND * 29 / 10, late).await);
    // It has ended by itself, and what it has left has until its grace is over.
    sleep(SECOND).await;
    assert_eq!(host.status().running, 0);
    let before = server.seen().started;
    pool.close().await;
    assert!(server.seen().started > before, "it was ended");
    assert_eq!(server.seen().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_dials_no_more_to_end_anything() {
    let server = marked(3600 * SECOND, SECOND / 2);
    let timeouts = Timeouts::default().drain(SECOND);
    let (pool, host) = pool(&server, small(), timeouts);
    let mut child = host.command("true").spawn().await.expect("started");
    pool.close().await;
    let before = server.seen();
    assert_eq!(before.connections, 0);
    // It went with its connection.
    child.kill().await.expect_err("the server has not said so");
    child.signal("TERM").await.ok();
    settle().await;
    assert_eq!(server.seen(), before);
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_has_room_to_end_what_fills_it() {
    let server = marked(3600 * SECOND, SECOND / 2);
    let limits = small().connections(1).handshakes_per_host(1);
    let (pool, host) = pool(&server, limits, Timeouts::default());
    let fills = tokio::spawn(host.command("true").output());
    sleep(SECOND).await;
    // Those who wait for room have all handshakes with the address.
    let others: Vec<_> = (0..3)
        .map(|user| pool.host(format!("user-{user}@test:22")).expect("target"))
        .map(|host| tokio::spawn(host.command("true").output()))
        .collect();
    sleep(SECOND).await;
    assert_eq!(server.seen().started, 1);
    fills.abort();
    sleep(SECOND).await;
    assert_eq!(server.seen().started, 2, "it is signalled at once");
    for other in others {
        other.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_closed_gives_no_dial_up_before_all_are_closed() {
    let server = Server::new(Script {
        handshake: 60 * SECOND,
        ..Script::default()
    });
    let (pool, _) = pool(&server, small(), Timeouts::default());
    let hosts = ["anna", "bert", "cleo"]
        .map(|user| pool.host(format!("{user}@test:22")).expect("valid target"));
    let mut callers = JoinSet::new();
    for host in hosts.clone() {
        callers.spawn(async move { host.command("true").spawn().await.map(drop) });
    }
    sleep(SECOND).await;
    // The third waits: two may be unsure of being let in.
    assert_eq!(server.seen().dials, 2);
    let [first, ..] = &hosts;
    first.pools().close();
    let error = first.command("true").spawn().await.expect_err("closed");
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    settle().await;
    assert_eq!(server.seen().dials, 2);
    pool.close().await;
    assert_eq!(server.seen().dials, 2);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_that_is_not_polled_does_not_delay_close() {
    let server = Server::new(Script {
        runtime: 3600 * SECOND,
        ..Script::default()
    });
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let mut late = std::pin::pin!(host.command("true").timeout(SECOND).output());
    let moment = Duration::from_millis(1);
    let looked = tokio::time::timeout(SECOND + moment, &mut late).await;
    assert!(looked.is_err(), "it is being ended");
    let began = Instant::now();
    pool.close().await;
    let took = began.elapsed();
    assert!(took < 5 * SECOND, "{took:?}");
    assert!(late.await.expect_err("its time was up").is_killed());
}

#[tokio::test(start_paused = true)]
async fn a_helper_command_without_a_connection_permit_frees_none() {
    let server = marked(3 * SECOND, SECOND / 2);
    let (pool, host) = pool(&server, small().connections(1), Timeouts::default());
    let late = host.command("true").output();
    drop(tokio::time::timeout(SECOND * 29 / 10, late).await);
    sleep(10 * SECOND).await;
    host.command("true").output().await.expect("served");
    settle().await;
    // That of the helper command is idle for longest.
    assert_eq!(server.seen().connections, 2);
    let other = pool.host("other@test:22").expect("target");
    let began = Instant::now();
    other.warm().await.expect("there is room");
    let took = began.elapsed();
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_helper_command_does_not_wait_for_a_connect_that_waits_for_what_it_is_to_end() {
    let server = marked(3600 * SECOND, SECOND / 2);
    let limits = Limits::default().sessions_per_connection(1).connections(2);
    let (pool, host) = pool(&server, limits, Timeouts::default());
    let fills = tokio::spawn(host.command("true").output());
    sleep(SECOND).await;
    // A dial fails, and the next one shows for all others whether the host is there. It finds no room.
    server.fail_next_connect(connection_refused());
    let queued = tokio::spawn(host.command("true").output());
    while host.status().failed_dials == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let other = pool.host("other@other:22").expect("target");
    let other = tokio::spawn(other.command("true").output());
    sleep(4 * SECOND).await;
    assert_eq!((host.status().dialling, server.seen().started), (1, 2));
    fills.abort();
    sleep(2 * SECOND).await;
    assert_eq!(server.seen().started, 3, "it is signalled at once");
    queued.abort();
    other.abort();
}
