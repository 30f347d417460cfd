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
