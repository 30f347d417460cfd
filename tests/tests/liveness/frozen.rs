//! A network that passes nothing on, for a moment or for good.

use std::time::{Duration, Instant};

use ssh_pool::{CommandState, Error, Limits};
use ssh_pool_tests::eventually_async;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{RELEASES, SOON, Scene, is_death, keepalives, until, waiting_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_network_fails_everything_on_its_connection_together_and_in_time() {
    for release in RELEASES {
        let one = Limits::default()
            .connections_per_host(1)
            .sessions_per_connection(8);
        let mut scene = Scene::new(release, one, keepalives());
        let host = scene.host.clone();
        let mut running = JoinSet::new();
        for _ in 0..8 {
            running.spawn(host.command("sleep").arg("600").output());
        }
        assert!(eventually_async(SOON, || scene.running("sleep 600") == 8).await);
        let mut waiting = JoinSet::new();
        for _ in 0..4 {
            waiting.spawn(host.command("true").output());
        }
        let full = || (host.status().running, host.status().waiting) == (8, 4);
        assert!(eventually_async(SOON, full).await, "{scene:?}");

        scene.proxy.freeze();
        let frozen = Instant::now();
        let mut failed = 0;
        while let Some(command) = timeout(SOON, running.join_next()).await.expect("found") {
            let error = command.unwrap().expect_err("lost");
            assert!(matches!(error, Error::ConnectionLost { .. }), "{error}");
            assert_eq!(error.command_state(), CommandState::Unknown);
            // When the first of them fails, none is thought to run any more.
            assert_eq!(host.status().running, 0, "{release:?}: after {failed}");
            failed += 1;
        }
        // When exactly is for the tests of transport/read_timeout.rs, whose clock is their own.
        assert!(frozen.elapsed() < SOON, "{:?}", frozen.elapsed());
        assert_eq!(failed, 8);
        assert_eq!(scene.death().await, 8, "{release:?}: lost with it");
        assert_eq!(host.status().waiting, 4, "{release:?}: they wait on");

        scene.proxy.thaw();
        while let Some(command) = waiting.join_next().await {
            command.unwrap().expect("elsewhere");
        }
        let happened = scene.happened();
        assert!(!happened.iter().any(is_death), "{release:?}: {happened:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_two_seconds_fails_nothing() {
    for release in RELEASES {
        // Several are missed, and far more may be.
        let timeouts = keepalives().keepalive_misses(20);
        let mut scene = Scene::new(release, Limits::default(), timeouts);
        let host = scene.host.clone();
        let over = scene.sshd.dir().join("over");
        let mut commands = JoinSet::new();
        for _ in 0..8 {
            commands.spawn(host.shell(format!("{}; echo done", until(&over))).output());
        }
        let running = || waiting_for(&over, &scene.sshd) == 8;
        assert!(eventually_async(SOON, running).await, "{scene:?}");
        scene.happened();
        scene.proxy.freeze();
        // Up to one interval of the keepalives was before.
        scene.quiet_for(Duration::from_millis(2_500)).await;
        scene.proxy.thaw();
        std::fs::write(&over, "").unwrap();
        while let Some(command) = commands.join_next().await {
            let output = command.unwrap().expect("survived");
            assert_eq!(output.stdout, b"done\n");
        }
        let happened = scene.happened();
        assert!(happened.is_empty(), "{release:?}: {happened:?}");
        assert_eq!(host.status().dials, 1);
    }
}
