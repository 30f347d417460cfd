//! What OpenSSH's own regression suite asks of a client, asked of the pool, on a real sshd. Each
//! module has the name of the scripts whose behaviours it covers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use ssh_pool::{Host, Pool};
use ssh_pool_tests::Sshd;

mod broken_pipe;
mod channel_timeout;
mod data;
mod echo;
mod envpass;
mod exit_status;
mod forward_control;
mod forwarding;
mod gate;
mod multiplex;
mod rekey;
mod stderr;
#[path = "../support/mod.rs"]
mod support;
mod transfer;
mod way;
mod yes_head;

pub(crate) use support::{SOON, builder, known};

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
