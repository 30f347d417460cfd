//! Every login shell that people have, on every server: a command runs there as it would under
//! `ssh host 'sh -c …'`, or an error says why it did not. No line that did not run is a success.
//!
//! | shell | a command |
//! |---|---|
//! | sh, dash, bash, zsh, ksh93, mksh, BusyBox ash | runs in the login shell |
//! | fish, tcsh, csh | runs in `sh` |
//! | rbash | runs in the login shell, within its restrictions |
//! | git-shell, nologin | is refused, unless it is verbatim |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

mod learning;
mod matrix;
mod place;
mod refusals;
#[path = "../support/mod.rs"]
mod support;

pub(crate) use place::{Place, Server, Shell};
pub(crate) use support::SOON;
