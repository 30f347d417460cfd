//! Connections that nobody has used for a while.

use std::time::{Duration, Instant};

use ssh_pool::{EventKind, Limits, Purpose, Retirement, Timeouts};
use ssh_pool_tests::{Release, Sshd, eventually_async};
use tokio::net::TcpListener;

use crate::{RELEASES, SOON, Scene, is_death};

const QUIET: Duration = Duration::from_millis(500);

/// Keepalives as they are by default: no help for a minute.
fn timeouts() -> Timeouts {
    Timeouts::default().check_after(QUIET)
}

/// How often this server was asked for a sign of life.
fn asked(sshd: &Sshd) -> usize {
    let log = sshd.log();
    log.matches("rtype keepalive@openssh.com").count()
}

fn talkative(release: Release) -> Sshd {
    let builder = Sshd::builder().release(release);
    builder.option("LogLevel DEBUG").start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_silently_dropped_while_it_was_idle_is_replaced_and_nobody_notices() {
    for release in RELEASES {
        let mut scene = Scene::new(release, Limits::default(), timeouts());
        let host = scene.host.clone();
        for round in 1..=3 {
            host.command("true").output().await.expect("served");
            assert_eq!(host.status().dials, round, "{release:?}");
            scene.quiet_for(QUIET).await;
            scene.happened();
            scene.proxy.forget();
            let began = Instant::now();
            let output = host.shell("echo alive").output().await;
            assert_eq!(output.expect("elsewhere").stdout, b"alive\n");
            assert!(began.elapsed() < SOON, "{release:?}: by a keepalive");
            let happened = scene.happened();
            assert!(!happened.iter().any(is_death), "{release:?}: {happened:?}");
            let retired = |event: &EventKind| {
                let reason = Retirement::Unresponsive;
                matches!(event, EventKind::Retired { reason: why } if *why == reason)
            };
            assert_eq!(happened.iter().filter(|e| retired(e)).count(), 1);
        }
        assert_eq!(scene.sshd.accepted(), 4, "{release:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_and_streams_do_not_go_to_a_connection_that_was_silently_dropped() {
    for release in RELEASES {
        let scene = Scene::new(release, Limits::default(), timeouts());
        let host = scene.host.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let child = host.command("true").spawn().await.expect("started");
        child.wait_with_output().await.expect("served");
        host.command("true").output().await.expect("served");
        for round in 0..3 {
            scene.quiet_for(QUIET).await;
            let dials = host.status().dials;
            scene.proxy.forget();
            match round {
                0 => {
                    let child = host.shell("echo alive").spawn().await.expect("elsewhere");
                    let output = child.wait_with_output().await.expect("served");
                    assert_eq!(output.stdout, b"alive\n");
                }
                1 => drop(host.connect_tcp("127.0.0.1", address.port()).await.unwrap()),
                _ => {
                    let stream = host.connect_tcp("127.0.0.1", address.port()).shared();
                    drop(stream.await.expect("elsewhere"));
                }
            }
            assert_eq!(host.status().dials, dials + 1, "{release:?}, {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalives_go_to_a_quiet_connection_and_not_to_a_busy_one() {
    for release in RELEASES {
        let interval = Duration::from_secs(2);
        let timeouts = Timeouts::default().keepalive_interval(interval);
        let scene = Scene::before(talkative(release), Limits::default(), timeouts);
        // Far more often than the interval, for longer than two of them.
        let busy = "for i in $(seq 100); do echo $i; sleep 0.05; done";
        let output = scene.host.shell(busy).output().await.expect("served");
        assert!(output.stdout.ends_with(b"100\n"));
        assert_eq!(asked(&scene.sshd), 0, "{release:?}: while it was busy");
        let asks = || asked(&scene.sshd) > 1;
        assert!(eventually_async(SOON, asks).await, "{release:?}: quiet");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_connection_that_was_quiet_is_asked_before_it_is_used() {
    for release in RELEASES {
        let timeouts = Timeouts::default().check_after(Duration::from_secs(2));
        let scene = Scene::before(talkative(release), Limits::default(), timeouts);
        for _ in 0..20 {
            scene.host.command("true").output().await.expect("served");
        }
        assert_eq!(asked(&scene.sshd), 0, "{release:?}: in use");
        scene.quiet_for(Duration::from_secs(2)).await;
        assert_eq!(asked(&scene.sshd), 0, "{release:?}: nobody wants it");
        scene.host.command("true").output().await.expect("served");
        assert_eq!(asked(&scene.sshd), 1, "{release:?}: after a while");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_each_connection_and_asks_nobody() {
    for release in RELEASES {
        let scene = Scene::before(talkative(release), Limits::default(), Timeouts::default());
        let host = &scene.host;
        let child = host.command("sleep").arg("600").spawn().await.unwrap();
        host.command("true").output().await.expect("served");
        let spare = || host.status().spare == 1;
        assert!(eventually_async(SOON, spare).await, "{scene:?}");
        // Whoever looks as often as they can is told that nothing was heard.
        scene.quiet_for(Duration::from_secs(1)).await;
        assert_eq!(asked(&scene.sshd), 0, "{release:?}");
        let connections = host.status().each_connection;
        let seen: Vec<_> = (connections.iter())
            .map(|c| (c.purpose, c.number, c.running, c.spare, c.streams))
            .collect();
        let expected = [
            (Purpose::Shared, 1, 0, 1, 0),
            (Purpose::Isolated, 1, 1, 0, 0),
        ];
        assert_eq!(seen, expected, "{release:?}");
        for connection in &connections {
            assert!(connection.last_heard <= connection.age, "{connection:?}");
            assert!(!connection.retiring && !connection.checking);
        }
        host.command("true").output().await.expect("served");
        let heard = &host.status().each_connection[0];
        assert!(heard.last_heard < connections[0].last_heard, "{heard:?}");
        host.evict();
        let retiring: Vec<_> = (host.status().each_connection.iter())
            .filter(|c| c.purpose == Purpose::Isolated)
            .map(|c| c.retiring)
            .collect();
        assert_eq!(retiring, [true], "{release:?}: it runs something");
        drop(child);
    }
}
