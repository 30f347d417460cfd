//! What can go wrong before a server has said who it is, and how much that costs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ssh_pool::{CommandState, Error, HostKeyPolicy, Identity, Phase, Pool, Timeouts};
use ssh_pool_tests::{BlackHole, Greeting, eventually_async, free_address};

use crate::{Place, SOON, Setting, all};

/// For dials that come to nothing: less than usual, and enough to get as far as they should, on a
/// busy machine too.
const CONNECT: Duration = Duration::from_secs(5);

fn short() -> Timeouts {
    Timeouts::default().connect(CONNECT)
}

/// A pool for somebody who is no server, and that host in it.
fn nobody(addr: SocketAddr, timeouts: Timeouts) -> (Pool, ssh_pool::Host) {
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::password("not a secret"))
        .timeouts(timeouts)
        .build()
        .unwrap();
    let host = pool.host(format!("tester@{addr}")).unwrap();
    (pool, host)
}

/// The error of a command whose dial fails, which leaves no socket behind.
async fn fails(place: &Place) -> Error {
    let error = place.host.command("true").output().await.unwrap_err();
    assert_eq!(error.command_state(), CommandState::NotStarted, "{error}");
    place.is_disconnected().await;
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_swallows_every_packet_costs_one_connect_timeout_that_all_who_wait_share() {
    let hole = BlackHole::new();
    let (_pool, host) = nobody(hole.addr(), short());
    let started = Instant::now();
    let ended = all(host.clone(), 20).await;
    assert!(started.elapsed() >= CONNECT);
    assert!(started.elapsed() < SOON);
    for result in ended {
        let error = result.unwrap_err();
        assert_eq!(
            (error.phase(), error.is_timeout(), error.is_transient()),
            (Phase::Connect, true, true),
            "{error}"
        );
        assert_eq!(error.command_state(), CommandState::NotStarted);
    }
    let status = host.status();
    assert_eq!((status.dials, status.failed_dials), (0, 1), "{status:?}");
}

#[tokio::test]
async fn a_closed_port_is_an_error_at_once_and_backs_off() {
    let (_pool, host) = nobody(free_address(), Timeouts::default());
    let began = Instant::now();
    let error = host.command("true").output().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
    assert!(std::error::Error::source(&error).is_some());
    for _ in 0..20 {
        host.command("true").output().await.unwrap_err();
    }
    let failed = host.status().failed_dials;
    assert!(failed < 20, "the failure is remembered for a moment");
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_up_is_told_from_one_that_refuses() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let hang_up = async {
        loop {
            drop(server.accept().await.unwrap());
        }
    };
    let (_pool, host) = nobody(address, Timeouts::default());
    let closed = async { host.command("true").output().await.unwrap_err() };
    let error = tokio::select! {
        error = closed => error,
        never = hang_up => never,
    };
    assert!(
        matches!(error, Error::Connect { .. }) && error.is_transient(),
        "{error}"
    );
    let said = format!("{address} accepted the connection and closed it before it said what it is");
    let text = error.to_string();
    assert!(
        text.contains(&said) && !text.contains("cannot connect"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_says_nothing_costs_the_connect_timeout_and_its_socket() {
    let silence = Setting::new().timeouts(short());
    silence
        .on_each(async |place| {
            place.proxy.greet(Greeting::Silence);
            let error = fails(place).await;
            let said = (error.phase(), error.is_timeout());
            assert_eq!(said, (Phase::Banner, true), "{error}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_in_key_exchange_costs_the_connect_timeout_and_its_socket() {
    let stalled = Setting::new().timeouts(short());
    stalled
        .on_each(async |place| {
            place.proxy.greet(Greeting::BannerOnly);
            let error = fails(place).await;
            let said = (error.phase(), error.is_timeout());
            assert_eq!(said, (Phase::KeyExchange, true), "{error}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banner_that_comes_late_is_waited_for_within_the_connect_timeout() {
    let late = Setting::new().dropbear();
    late.on_each(async |place| {
        let pause = Duration::from_millis(700);
        place.proxy.greet(Greeting::HoldBanner(pause));
        let started = Instant::now();
        place.serves().await;
        assert!(started.elapsed() >= pause);
        assert_eq!(place.dials(), (1, 0));
        assert_eq!(place.proxy.connections(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_before_the_banner_are_accepted() {
    let preamble = Setting::new().dropbear();
    preamble
        .on_each(async |place| {
            let lines = vec!["Welcome".into(), "to this host".into()];
            place.proxy.greet(Greeting::Preamble(lines));
            place.serves().await;
            assert_eq!(place.dials(), (1, 0));
            assert_eq!(place.proxy.connections(), 1);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_than_ssh_is_told_apart_and_shown_and_not_asked_again() {
    let other = Setting::new();
    other
        .on_each(async |place| {
            place.proxy.greet(Greeting::Garbage);
            let error = fails(place).await;
            let Error::NotSsh { received, .. } = &error else {
                panic!("{error:?}")
            };
            assert!(received.starts_with("HTTP/1.1 400 Bad Request\\r\\n"));
            assert!(error.to_string().contains(&**received), "{error}");
            assert!(!error.is_transient(), "{error}");
            assert_eq!(place.proxy.connections(), 1, "not tried again");
            let gone = eventually_async(SOON, || place.host.status().dialling == 0).await;
            assert!(gone);
            assert_eq!(place.dials(), (0, 1));
        })
        .await;
}
