//! Many commands at once on real servers: nothing fails, nothing leaks, nobody dials twice.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{Dropbear, Sshd, TestUser, eventually_async};
use tokio::task::JoinSet;

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn sshd(options: &[&str]) -> Sshd {
    let builder = Sshd::builder().user(TestUser::plain());
    options
        .iter()
        .fold(builder, |builder, option| builder.option(*option))
        .start()
}

fn pool(sshd: &Sshd, limits: Limits, timeouts: Timeouts) -> Pool {
    Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::key_file(sshd.client_key()))
        .limits(limits)
        .timeouts(timeouts)
        .build()
        .expect("valid settings")
}

/// `n` commands, `c` at once; every one must come back with its own number.
async fn storm(host: &Host, n: usize, c: usize) {
    let mut commands = JoinSet::new();
    for number in 0..n {
        if commands.len() == c {
            commands
                .join_next()
                .await
                .expect("one runs")
                .expect("no panic");
        }
        let host = host.clone();
        commands.spawn(async move {
            let output = host.command("echo").arg(number.to_string()).output().await;
            let output = output.unwrap_or_else(|error| panic!("command {number}: {error:?}"));
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                format!("{number}\n")
            );
        });
    }
    while let Some(result) = commands.join_next().await {
        result.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_sshd_serves_a_storm_over_few_logins() {
    let sshd = sshd(&[]);
    let pool = pool(&sshd, Limits::default(), Timeouts::default());
    let host = pool.host(sshd.target()).expect("target");
    storm(&host, 1000, 100).await;
    let status = host.status();
    assert!(status.dials <= 4 && sshd.accepted() <= 4, "{status:?}");
    assert!(status.refused_opens * 20 < status.opens, "{status:?}");
    pool.close().await;
    assert!(eventually_async(PATIENCE, || sshd.open_connections() == 0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn low_session_limits_are_learned_and_nobody_sees_a_refusal() {
    for limit in [1, 2, 3] {
        let sshd = sshd(&[&format!("MaxSessions {limit}")]);
        let pool = pool(&sshd, Limits::default(), Timeouts::default());
        let host = pool.host(sshd.target()).expect("target");
        storm(&host, 300, 60).await;
        let status = host.status();
        assert_eq!(status.learned_sessions, limit, "{status:?}");
        assert!(status.dials <= 4, "{status:?}");
        assert!(
            status.refused_opens < 60,
            "learning is not guessing: {status:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_allows_one_session_gets_no_spare() {
    let sshd = sshd(&["MaxSessions 1"]);
    let limits = Limits::default().connections_per_host(1);
    let pool = pool(&sshd, limits, Timeouts::default());
    let host = pool.host(sshd.target()).expect("target");
    storm(&host, 40, 4).await;
    let before = host.status().refused_opens;
    storm(&host, 40, 1).await;
    let status = host.status();
    assert_eq!(
        status.refused_opens, before,
        "what was learned is not asked again: {status:?}"
    );
    assert_eq!(
        (status.learned_sessions, status.spare),
        (1, 0),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttling_sshd_is_not_stormed() {
    let sshd = sshd(&["MaxStartups 1:100:1", "MaxSessions 2"]);
    let timeouts = Timeouts::default().patience(Duration::ZERO);
    let pool = pool(&sshd, Limits::default(), timeouts);
    let host = pool.host(sshd.target()).expect("target");
    storm(&host, 300, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pools_at_once_get_through_a_throttling_sshd() {
    let sshd = Arc::new(sshd(&["MaxStartups 1:100:1"]));
    let mut pools = JoinSet::new();
    for _ in 0..6 {
        let sshd = sshd.clone();
        pools.spawn(async move {
            let pool = pool(&sshd, Limits::default(), Timeouts::default());
            storm(&pool.host(sshd.target()).expect("target"), 5, 5).await;
        });
    }
    while let Some(result) = pools.join_next().await {
        result.expect("every pool gets through");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropbear_serves_a_storm() {
    let dropbear = Dropbear::start();
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(dropbear.known_hosts()))
        .identity(Identity::key_file(dropbear.client_key()))
        .build()
        .expect("valid settings");
    let host = pool.host(dropbear.target()).expect("target");
    storm(&host, 400, 60).await;
    assert!(host.status().dials <= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_tasks_on_a_cold_host_log_in_once() {
    let sshd = sshd(&[]);
    let pool = pool(
        &sshd,
        Limits::default(),
        Timeouts::default().patience(PATIENCE),
    );
    let host = pool.host(sshd.target()).expect("target");
    storm(&host, 30, 30).await;
    assert_eq!(sshd.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_tasks_log_in_once_though_the_first_is_dropped_in_the_middle_of_the_dial() {
    let sshd = sshd(&[]);
    let pool = pool(
        &sshd,
        Limits::default(),
        Timeouts::default().patience(PATIENCE),
    );
    let host = pool.host(sshd.target()).expect("target");
    let first = tokio::spawn(host.command("true").output());
    // The server has seen the connection: the dial is under way, and not finished.
    assert!(eventually_async(PATIENCE, || host.status().dialling == 1).await);
    first.abort();
    storm(&host, 29, 29).await;
    assert_eq!(sshd.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_sessions_says_so_at_once() {
    let sshd = sshd(&["MaxSessions 0"]);
    let pool = pool(&sshd, Limits::default(), Timeouts::default());
    let host = pool.host(sshd.target()).expect("target");
    let mut commands: JoinSet<_> = (0..20).map(|_| host.command("true").output()).collect();
    while let Some(result) = commands.join_next().await {
        let error = result.expect("no panic").expect_err("no session");
        assert!(matches!(error, Error::SessionRefused { .. }), "{error}");
        assert!(error.to_string().contains("MaxSessions"), "{error}");
    }
    assert_eq!(sshd.accepted(), 1);
}
