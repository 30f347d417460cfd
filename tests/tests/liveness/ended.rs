//! Connections whose other end has ended, or does not get to do anything.

use std::time::Instant;

use ssh_pool::{CommandState, Error, Host, Limits, Output, Timeouts};
use ssh_pool_tests::{Release, eventually_async, procs};
use tokio::task::JoinHandle;

use crate::{RELEASES, SOON, Scene, keepalives};

/// A command that does not end by itself, once it runs.
async fn endless(scene: &Scene) -> JoinHandle<Result<Output, Error>> {
    let command = tokio::spawn(scene.host.command("sleep").arg("600").output());
    assert!(eventually_async(SOON, || scene.running("sleep 600") == 1).await);
    command
}

/// It is lost, alone on its connection, and the next command goes to another one.
async fn is_lost(scene: &mut Scene, command: JoinHandle<Result<Output, Error>>) {
    assert_eq!(scene.death().await, 1);
    let error = command.await.unwrap().expect_err("lost");
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error}");
    assert_eq!(error.command_state(), CommandState::Unknown);
    served(&scene.host).await;
    assert_eq!(scene.host.status().dials, 2);
}

async fn served(host: &Host) {
    host.command("true").output().await.expect("served");
}

fn scene(release: Release, timeouts: Timeouts) -> Scene {
    Scene::new(release, Limits::default(), timeouts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_process_that_is_stopped_is_found_by_keepalive() {
    for release in RELEASES {
        let mut scene = scene(release, keepalives());
        let command = endless(&scene).await;
        for pid in scene.sshd.children() {
            procs::pause(pid);
        }
        is_lost(&mut scene, command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_process_that_is_killed_is_noticed_at_once() {
    for release in RELEASES {
        let mut scene = scene(release, Timeouts::default());
        let command = endless(&scene).await;
        let began = Instant::now();
        scene.sshd.kill_connections();
        is_lost(&mut scene, command).await;
        assert!(began.elapsed() < SOON, "{release:?}: by a keepalive");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_while_idle_are_replaced_and_nobody_notices() {
    for release in RELEASES {
        let scene = scene(release, Timeouts::default());
        for round in 1..=3 {
            served(&scene.host).await;
            assert_eq!(scene.sshd.accepted(), round);
            if round % 2 == 0 {
                scene.proxy.reset();
            } else {
                scene.sshd.kill_connections();
            }
            // A command that is sent before the end has been seen counts as under way, so wait until
            // it has been seen.
            let gone = || scene.host.status().connections == 0;
            assert!(eventually_async(SOON, gone).await, "{scene:?}");
        }
        scene.sshd.stop();
        scene.sshd.kill_connections();
        let command = tokio::spawn(scene.host.command("true").output());
        let failed = || scene.host.status().failed_dials > 0;
        assert!(eventually_async(SOON, failed).await, "{scene:?}");
        scene.sshd.restart();
        let output = command.await.unwrap();
        output.expect("served by the restarted server");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_everything_closes_every_connection() {
    for release in RELEASES {
        let scene = scene(release, Timeouts::default());
        served(&scene.host).await;
        assert_eq!(scene.proxy.open_connections(), 1);
        let Scene {
            sshd,
            proxy,
            pool,
            host,
            ..
        } = scene;
        drop((pool, host));
        assert!(eventually_async(SOON, || proxy.open_connections() == 0).await);
        assert!(eventually_async(SOON, || sshd.open_connections() == 0).await);
    }
}
