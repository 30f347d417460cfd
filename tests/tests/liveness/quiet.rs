//! Connections that nobody has used for a while.

use std::time::{Duration, Instant};

use ssh_pool::{EventKind, Host, Limits, Purpose, Retirement, Timeouts};
use ssh_pool_tests::{Release, Sshd, eventually_async};
use tokio::io::AsyncReadExt;
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
            // Nothing more arrives, so what is quiet now stays quiet.
            scene.proxy.forget();
            scene.quiet_for(QUIET).await;
            scene.happened();
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
            scene.proxy.forget();
            scene.quiet_for(QUIET).await;
            let dials = host.status().dials;
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

/// Whoever was quiet for so long is asked for a sign of life.
const LULL: Duration = Duration::from_secs(2);
/// A machine that is never calm for a few seconds in so many rounds is none to test on.
const ROUNDS: usize = 10;

/// Moments between every two of which something was heard of a busy connection.
struct Marks {
    last: [Instant; 2],
    longest: Duration,
}

impl Marks {
    fn begin() -> Self {
        Self {
            last: [Instant::now(); 2],
            longest: Duration::ZERO,
        }
    }

    /// From one thing that was heard to the next it is less than from a mark to the next but one.
    fn mark(&mut self) {
        let [before, last] = self.last;
        let now = Instant::now();
        self.longest = self.longest.max(now - before);
        self.last = [last, now];
    }
}

/// A scene whose connection was busy all the time, and was asked for no sign of life. Where this
/// machine was held up there may have been a lull: that says nothing, and there is another round.
async fn while_busy(
    release: Release,
    timeouts: &Timeouts,
    busy: impl AsyncFn(&Host, &mut Marks),
) -> Scene {
    for _ in 0..ROUNDS {
        // With a log of its own, to which no line of an earlier round comes late.
        let scene = Scene::before(talkative(release), Limits::default(), timeouts.clone());
        let mut marks = Marks::begin();
        busy(&scene.host, &mut marks).await;
        let asked = asked(&scene.sshd);
        marks.mark();
        if marks.longest < LULL {
            assert_eq!(asked, 0, "{release:?}: while it was busy");
            return scene;
        }
    }
    panic!("{release:?}: this machine is never calm");
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalives_go_to_a_quiet_connection_and_not_to_a_busy_one() {
    for release in RELEASES {
        let timeouts = Timeouts::default().keepalive_interval(LULL);
        let writes = async |host: &Host, marks: &mut Marks| {
            // Far more often than the interval, for longer than two of them.
            let busy = "for i in $(seq 100); do echo $i; sleep 0.05; done";
            let mut child = host.shell(busy).shared().spawn().await.expect("started");
            let mut stdout = child.stdout.take().expect("piped");
            let mut said = Vec::with_capacity(1 << 10);
            while stdout.read_buf(&mut said).await.expect("served") > 0 {
                marks.mark();
            }
            assert!(said.ends_with(b"100\n"));
            assert!(child.wait().await.expect("served").success());
        };
        let scene = while_busy(release, &timeouts, writes).await;
        let asks = || asked(&scene.sshd) > 1;
        assert!(eventually_async(SOON, asks).await, "{release:?}: quiet");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_connection_that_was_quiet_is_asked_before_it_is_used() {
    for release in RELEASES {
        let timeouts = Timeouts::default().check_after(LULL);
        let runs = async |host: &Host, marks: &mut Marks| {
            for _ in 0..20 {
                host.command("true").output().await.expect("served");
                marks.mark();
            }
        };
        let scene = while_busy(release, &timeouts, runs).await;
        scene.quiet_for(LULL).await;
        assert_eq!(asked(&scene.sshd), 0, "{release:?}: nobody wants it");
        scene.host.command("true").output().await.expect("served");
        // The server may write it down after it has answered.
        let asked = || asked(&scene.sshd) == 1;
        assert!(
            eventually_async(SOON, asked).await,
            "{release:?}: after a while"
        );
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
        let before = Instant::now();
        let seen: Vec<_> = (connections.iter())
            .map(|c| (c.purpose, c.number, c.running, c.spare, c.streams))
            .collect();
        let expected = [
            (Purpose::Shared, 2, 0, 1, 0),
            (Purpose::Isolated, 1, 1, 0, 0),
        ];
        assert_eq!(seen, expected, "{release:?}");
        for connection in &connections {
            assert!(connection.last_heard <= connection.age, "{connection:?}");
            assert!(!connection.retiring && !connection.checking);
        }
        host.command("true").output().await.expect("served");
        let heard = &host.status().each_connection[0];
        // Had it heard nothing since, it would have been quiet for all this time more.
        let quiet = connections[0].last_heard + before.elapsed();
        assert!(heard.last_heard < quiet - QUIET, "{heard:?}, not {quiet:?}");
        host.evict();
        let retiring: Vec<_> = (host.status().each_connection.iter())
            .filter(|c| c.purpose == Purpose::Isolated)
            .map(|c| c.retiring)
            .collect();
        assert_eq!(retiring, [true], "{release:?}: it runs something");
        drop(child);
    }
}
