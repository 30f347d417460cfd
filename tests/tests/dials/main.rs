//! Connecting: names, and key exchanges.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use ssh_pool::{Error, HostKeyPolicy, Identity, Phase, Pool};

mod algorithms;
mod key_exchange;
mod proof;
#[path = "../support/mod.rs"]
mod support;

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
