//! Streams of commands and through servers, on a real sshd: complete, in order, ended when they
//! are to end, and nobody else's trouble.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use ssh_pool::{Host, Pool};
use ssh_pool_tests::Sshd;

mod cancels;
mod children;
mod kills;
mod neighbours;
mod stdio;
#[path = "../support/mod.rs"]
mod support;
mod tunnels;
mod unclaimed;

pub(crate) use support::{RELEASES, SOON, builder, known};

/// A stock sshd, a pool for it, and the host in the pool.
pub(crate) fn server() -> (Sshd, Pool, Host) {
    on(Sshd::start())
}

/// A pool for that sshd, and the host in the pool.
pub(crate) fn on(sshd: Sshd) -> (Sshd, Pool, Host) {
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    (sshd, pool, host)
}
