//! This program as the `ssh` of another one.
//!
//! git and docker run an `ssh` of their own accord, with a host and a command, and talk to it
//! through its standard streams. Here that `ssh` is a few lines at the top of the program that
//! links this library: it hands its streams to the process that owns the pool, and waits.
//!
//! ```text
//!  pool's process                 git, docker                    the shim
//!  ══════════════                 ═══════════                    ════════
//!  Command::spawn ── fork ──▶  has descriptor 97,  ── fork ──▶  inherits it
//!        │                     and no idea of it                     │
//!  broker ◀──────────── one byte, and three descriptors ────────────┤
//!        │              (control, stdin, stdout)                     │
//!  session ◀──────────── control: the arguments ─────────────────────┤
//!        │ stdin, stdout ◀──▶ git's own pipes                        │ waits
//!        └────────────── control: stderr, exit code ────────────────▶ exits
//! ```
//!
//! Nothing has a name in the file system, and each request has a control stream of its own, so that
//! shims which run side by side do not meet. A shim that ends, for whatever reason, ends its remote
//! command; the broker ends when the last process that could ask is gone.

mod broker;
mod client;
mod command;
mod error;
mod hosts;
#[cfg(feature = "internals")]
pub(crate) mod internals;
mod invocation;
mod message;
mod rights;
mod session;

pub use client::run_shim_if_asked;
pub use command::{Child, Command, Output};
pub(crate) use command::{SetUpShim, ShimSetup, file};
pub use error::Error;
pub(crate) use hosts::Hosts;
#[cfg(feature = "docker")]
pub(crate) use hosts::{Duplex, Redirect};
