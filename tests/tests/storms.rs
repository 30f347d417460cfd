//! Many commands at once on real servers: nothing fails, nothing leaks, nobody dials twice.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::time::Duration;

use ssh_pool::{HostKeyPolicy, Identity, Pool, Timeouts};
use ssh_pool_tests::{Dropbear, Sshd, TestUser, eventually_async, storm};

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn sshd() -> Sshd {
    Sshd::builder().user(TestUser::plain()).start()
}

fn pool(sshd: &Sshd, timeouts: Timeouts) -> Pool {
    Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::key_file(sshd.client_key()))
        .timeouts(timeouts)
        .build()
        .expect("valid settings")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_sshd_serves_a_storm_over_few_logins() {
    let sshd = sshd();
    let pool = pool(&sshd, Timeouts::default());
    let host = pool.host(sshd.target()).expect("target");
    storm(&host, 1000, 100).await;
    let status = host.status();
    assert!(status.dials <= 4 && sshd.accepted() <= 4, "{status:?}");
    assert!(status.refused_opens * 20 < status.opens, "{status:?}");
    pool.close().await;
    assert!(eventually_async(PATIENCE, || sshd.open_connections() == 0).await);
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
    let sshd = sshd();
    let pool = pool(&sshd, Timeouts::default().patience(PATIENCE));
    let host = pool.host(sshd.target()).expect("target");
    storm(&host, 30, 30).await;
    assert_eq!(sshd.accepted(), 1);
}
