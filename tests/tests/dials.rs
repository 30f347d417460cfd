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

use std::net::TcpListener;
use std::time::{Duration, Instant};

use ssh_pool::{CommandState, Error, Host, HostKeyPolicy, Identity, Limits, Phase, Pool, Timeouts};
use ssh_pool_tests::{Greeting, Proxy, Sshd, TestUser, eventually_async};

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, a proxy before it, and a pool that goes through the proxy.
struct Scene {
    _sshd: Sshd,
    proxy: Proxy,
    _pool: Pool,
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
            _sshd: sshd,
            proxy,
            _pool: pool,
            host,
        }
    }

    async fn fail(&self) -> Error {
        let error = self
            .host
            .command("true")
            .output()
            .await
            .expect_err("the dial fails");
        assert_eq!(error.command_state(), CommandState::NotStarted, "{error}");
        let gone = eventually_async(PATIENCE, || self.proxy.open_connections() == 0).await;
        assert!(gone, "the socket is still there after: {error}");
        error
    }
}

fn short() -> Timeouts {
    Timeouts::default().connect(Duration::from_millis(500))
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_costs_the_connect_timeout_and_its_socket() {
    let scene = Scene::new(short());
    scene.proxy.greet(Greeting::Silence);
    let error = scene.fail().await;
    assert_eq!(
        (error.phase(), error.is_timeout()),
        (Phase::Banner, true),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_stalls_in_key_exchange_costs_the_connect_timeout_and_its_socket() {
    let scene = Scene::new(short());
    scene.proxy.greet(Greeting::BannerOnly);
    let error = scene.fail().await;
    assert_eq!(
        (error.phase(), error.is_timeout()),
        (Phase::KeyExchange, true),
        "{error}"
    );
}

#[tokio::test]
async fn a_dial_that_nobody_waits_for_any_more_leaves_no_socket_either() {
    let scene = Scene::new(short());
    scene.proxy.greet(Greeting::BannerOnly);
    let command = tokio::spawn(scene.host.command("true").output());
    assert!(eventually_async(PATIENCE, || scene.proxy.open_connections() == 1).await);
    command.abort();
    assert!(eventually_async(PATIENCE, || scene.proxy.open_connections() == 0).await);
    assert_eq!(scene.host.status().waiting, 0);
}

#[tokio::test]
async fn something_else_than_ssh_is_told_apart_and_shown() {
    let scene = Scene::new(short());
    scene.proxy.greet(Greeting::Garbage);
    let error = scene.fail().await;
    assert!(
        matches!(&error, Error::NotSsh { received, .. } if received.contains("HTTP")),
        "{error}"
    );
    assert_eq!(scene.proxy.connections(), 1, "not tried again");
}

#[tokio::test]
async fn a_throttling_server_is_tried_again_until_it_relents() {
    let scene = Scene::new(Timeouts::default());
    scene
        .proxy
        .greet_next(2, Greeting::Line("Exceeded MaxStartups".into()));
    scene.host.command("true").output().await.expect("absorbed");
    assert_eq!(scene.proxy.connections(), 3);
    assert_eq!(scene.host.status().failed_dials, 2);
}

#[tokio::test]
async fn a_throttling_server_that_does_not_relent_is_named_when_the_deadline_passes() {
    let scene = Scene::new(Timeouts::default().acquire(Duration::from_millis(800)));
    scene
        .proxy
        .greet(Greeting::Line("Not allowed at this time".into()));
    let error = scene.fail().await;
    assert!(error.is_timeout(), "{error}");
    let cause = std::error::Error::source(&error)
        .expect("the last failure")
        .to_string();
    assert!(cause.contains("Not allowed at this time"), "{cause}");
    assert!(
        scene.proxy.connections() < 8,
        "with pauses: {}",
        scene.proxy.connections()
    );
}

#[tokio::test]
async fn connections_lost_before_or_in_the_handshake_are_tried_again() {
    for greeting in [Greeting::Reset, Greeting::Fin] {
        let scene = Scene::new(Timeouts::default());
        scene.proxy.greet_next(1, greeting);
        scene.host.command("true").output().await.expect("absorbed");
        assert_eq!(scene.proxy.connections(), 2);
    }
    let scene = Scene::new(Timeouts::default());
    scene
        .proxy
        .cut_after(Some((300, ssh_pool_tests::Cut::Reset)));
    let command = tokio::spawn(scene.host.command("true").output());
    assert!(eventually_async(PATIENCE, || scene.host.status().failed_dials == 1).await);
    scene.proxy.cut_after(None);
    command.await.expect("no panic").expect("absorbed");
}

#[tokio::test]
async fn lines_before_the_banner_and_a_late_banner_are_accepted() {
    let greetings = [
        Greeting::Preamble(vec!["Welcome".into(), "to this host".into()]),
        Greeting::HoldBanner(Duration::from_millis(700)),
    ];
    for greeting in greetings {
        let scene = Scene::new(Timeouts::default());
        scene.proxy.greet(greeting);
        scene.host.command("true").output().await.expect("accepted");
        assert_eq!(scene.proxy.connections(), 1);
    }
}

#[tokio::test]
async fn a_closed_port_is_an_error_at_once_and_backs_off() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::password("not a secret"))
        .build()
        .expect("valid settings");
    let host = pool.host(format!("tester@{address}")).expect("target");
    let began = Instant::now();
    let error = host
        .command("true")
        .output()
        .await
        .expect_err("nobody listens");
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
    assert!(std::error::Error::source(&error).is_some());
    for _ in 0..20 {
        host.command("true")
            .output()
            .await
            .expect_err("nobody listens");
    }
    assert!(
        host.status().failed_dials < 20,
        "the failure is remembered for a moment"
    );
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
