//! Servers that take no more connections for now, and say so in the place of a banner.

use std::time::Duration;

use ssh_pool::{Error, EventKind, HostKeyPolicy, Identity, Pool, Timeouts};
use ssh_pool_tests::{Greeting, storm};
use tokio::task::JoinSet;

use crate::Setting;

/// What sshd says beyond MaxStartups, and to whom it punishes.
const LINES: [&str; 2] = ["Exceeded MaxStartups", "Not allowed at this time"];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_it_has_too_many_is_tried_again_after_growing_pauses() {
    let throttled = Setting::new().dropbear();
    throttled
        .on_each(async |place| {
            let mut events = place.pool.events();
            for (line, round) in LINES.iter().zip(1..) {
                place.proxy.greet_next(3, Greeting::Line((*line).into()));
                place.serves().await;
                assert_eq!(place.dials(), (round, 3 * round));
                let mut pauses = Vec::new();
                while let Some(event) = events.try_next() {
                    if let EventKind::DialFailed { error, pause } = event.kind {
                        let Error::Throttled { message, .. } = &error else {
                            panic!("{error:?}")
                        };
                        assert_eq!(message, line);
                        pauses.push(pause);
                    }
                }
                assert_eq!(pauses.len(), 3, "{pauses:?}");
                // Each doubles, and up to a half is taken off it.
                for (pause, full) in pauses
                    .iter()
                    .zip([100, 200, 400].map(Duration::from_millis))
                {
                    assert!((full / 2..=full).contains(pause), "{pauses:?}");
                }
                place.host.evict();
                place.is_disconnected().await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_relent_is_named_when_the_deadline_passes() {
    let timeouts = Timeouts::default().acquire(Duration::from_secs(5));
    let stubborn = Setting::new().timeouts(timeouts);
    stubborn
        .on_each(async |place| {
            place.proxy.greet(Greeting::Line(LINES[1].into()));
            let error = place.host.command("true").output().await.unwrap_err();
            assert!(error.is_timeout(), "{error}");
            assert!(error.to_string().contains(LINES[1]), "{error}");
            // After 0.1 s, 0.2 s, 0.4 s … with jitter: seven, or one more if the end is seen late.
            let tries = place.proxy.connections();
            assert!((2..=8).contains(&tries), "with pauses: {tries}");
            place.host.evict();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_an_sshd_that_takes_one_handshake_at_a_time_completes() {
    let impatient = Timeouts::default().patience(Duration::ZERO);
    let narrow = Setting::new()
        .option("MaxStartups 1:100:1")
        .option("MaxSessions 2")
        .timeouts(impatient.clone());
    narrow
        .on_each(async |place| {
            // One pool that would dial four at once, and two others that know nothing of it.
            let mut storms = JoinSet::new();
            let host = place.host.clone();
            storms.spawn(async move { storm(&host, 200, 60).await });
            for _ in 0..2 {
                let policy = HostKeyPolicy::known_hosts_file(place.sshd().known_hosts());
                let pool = Pool::builder(policy)
                    .identity(Identity::key_file(place.sshd().client_key()))
                    .timeouts(impatient.clone())
                    .build()
                    .unwrap();
                let host = pool.host(place.sshd().target()).unwrap();
                storms.spawn(async move { storm(&host, 10, 5).await });
            }
            storms.join_all().await;
            let log = place.server.log();
            let turned_away = log.to_lowercase().contains("maxstartups");
            assert!(turned_away, "nobody was turned away: {log}");
        })
        .await;
}
