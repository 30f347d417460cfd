//! Dials that go wrong, through the fault proxy: each ends in time, says what happened by type and
//! phase, and leaves no socket behind.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::time::Duration;

use ssh_pool::{CommandState, Error, Host, HostKeyPolicy, Identity, Limits, Phase, Pool, Timeouts};
use ssh_pool_tests::{Proxy, Sshd, TestUser, eventually_async};

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, a proxy before it, and a pool that goes through the proxy.
struct Scene {
    sshd: Sshd,
    proxy: Proxy,
    pool: Pool,
    host: Host,
}

impl Scene {
    fn new(timeouts: Timeouts) -> Self {
        let sshd = Sshd::builder().user(TestUser::plain()).start();
        let proxy = Proxy::to(sshd.addr());
        let known_hosts = sshd.dir().join("proxy_known_hosts");
        let line = proxy.known_hosts_line(&sshd.host_public_key("ed25519"));
        std::fs::write(&known_hosts, format!("{line}\n")).expect("written");
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
            .identity(Identity::key_file(sshd.client_key()))
            .limits(Limits::default())
            .timeouts(timeouts)
            .build()
            .expect("valid settings");
        let host = pool
            .host(format!("{}@{}", sshd.user(), proxy.addr()))
            .expect("target");
        Self {
            sshd,
            proxy,
            pool,
            host,
        }
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_apart() {
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::password("not a secret"))
        .build()
        .expect("valid settings");
    let host = pool.host("tester@no-such-host.invalid").expect("target");
    let error = host.command("true").output().await.expect_err("RFC 2606");
    assert!(matches!(error, Error::Resolve { .. }), "{error}");
    assert_eq!(error.phase(), Phase::Resolve);
}

#[tokio::test]
async fn a_frozen_network_is_found_by_keepalive_and_fails_every_command_on_it() {
    let timeouts = Timeouts::default()
        .keepalive_interval(Duration::from_millis(300))
        .keepalive_misses(2);
    let scene = Scene::new(timeouts);
    let commands: Vec<_> = (0..5)
        .map(|_| tokio::spawn(scene.host.command("sleep").arg("600").output()))
        .collect();
    assert!(eventually_async(PATIENCE, || scene.sshd.session_processes().len() >= 5).await);
    scene.proxy.freeze();
    for command in commands {
        let error = tokio::time::timeout(PATIENCE, command)
            .await
            .expect("found")
            .expect("joined");
        let error = error.expect_err("lost");
        assert!(matches!(error, Error::ConnectionLost { .. }), "{error}");
        assert_eq!(error.command_state(), CommandState::Unknown);
    }
    scene.proxy.thaw();
    scene
        .host
        .command("true")
        .output()
        .await
        .expect("redialled");
}

#[tokio::test]
async fn a_short_outage_fails_nothing() {
    let timeouts = Timeouts::default()
        .keepalive_interval(Duration::from_millis(400))
        .keepalive_misses(5);
    let scene = Scene::new(timeouts);
    let command = tokio::spawn(scene.host.command("sleep").arg("2").output());
    assert!(eventually_async(PATIENCE, || !scene.sshd.session_processes().is_empty()).await);
    scene.proxy.freeze();
    tokio::time::sleep(Duration::from_secs(1)).await; // the outage itself
    scene.proxy.thaw();
    assert!(
        command
            .await
            .expect("joined")
            .expect("survived")
            .status
            .success()
    );
    assert_eq!(scene.host.status().dials, 1);
}

#[tokio::test]
async fn connections_that_died_while_idle_are_replaced_and_nobody_notices() {
    let scene = Scene::new(Timeouts::default());
    for round in 1..=3 {
        scene.host.command("true").output().await.expect("served");
        assert_eq!(scene.sshd.accepted(), round);
        if round % 2 == 0 {
            scene.proxy.reset();
        } else {
            scene.sshd.kill_connections();
        }
        // What is sent before the end has been seen is on its way: only then it is a new story.
        assert!(eventually_async(PATIENCE, || scene.host.status().connections == 0).await);
    }
    scene.sshd.stop();
    scene.sshd.kill_connections();
    let command = tokio::spawn(scene.host.command("true").output());
    assert!(eventually_async(PATIENCE, || scene.host.status().failed_dials > 0).await);
    scene.sshd.restart();
    command
        .await
        .expect("joined")
        .expect("served by the restarted server");
}

#[tokio::test]
async fn dropping_everything_closes_every_connection() {
    let scene = Scene::new(Timeouts::default());
    scene.host.command("true").output().await.expect("served");
    assert_eq!(scene.proxy.open_connections(), 1);
    let Scene {
        sshd,
        proxy,
        pool,
        host,
    } = scene;
    drop((pool, host));
    assert!(eventually_async(PATIENCE, || proxy.open_connections() == 0).await);
    assert!(eventually_async(PATIENCE, || sshd.open_connections() == 0).await);
}
