//! The Docker API over the pool, on a private dockerd: through a stream to its socket, and through
//! `docker system dial-stdio`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

mod api;
mod calls;
mod cli;
mod compose;
mod endings;
mod followed;
mod once;
#[path = "../support/mod.rs"]
mod support;
mod test_host;
mod unreachable;
mod work;

pub(crate) use support::{SOON, builder, known};
pub(crate) use test_host::TestHost;
