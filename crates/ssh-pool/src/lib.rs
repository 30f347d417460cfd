//! SSH multiplexing without the mux: run commands on many hosts over pooled SSH connections that
//! live inside your process.
//!
//! ```no_run
//! use ssh_pool::{HostKeyPolicy, Identity, Pool};
//!
//! # async fn deploy() -> Result<(), ssh_pool::Error> {
//! let pool = Pool::builder(HostKeyPolicy::known_hosts()) // trust is a visible choice
//!     .identity(Identity::agent())
//!     .build()?;
//!
//! let host = pool.host("deploy@web-1:22")?; // cheap, Clone, dials nothing
//! let out = host.command("docker").args(["ps", "-q"]).output().await?;
//! assert!(out.status.success());
//!
//! pool.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! The public interface is:
//!
//! - [`Pool`] and [`PoolBuilder`]: connections to many hosts, with [`Limits`] and [`Timeouts`];
//! - [`Target`] and [`Host`]: one of them;
//! - [`HostKeyPolicy`] and [`Identity`]: whom to trust, and who we are;
//! - [`Command`], [`Stdio`] and [`Pty`], [`Output`] and [`ExitStatus`]: what runs there;
//! - [`Child`], with its [`ChildStdin`], [`ChildStdout`] and [`ChildStderr`]: while it runs;
//! - [`Connect`], [`ChannelStream`], [`Forward`] and [`Address`]: streams through a server;
//! - [`Error`], with its [`Phase`], [`CommandState`], [`Cause`], [`HostKeyProblem`],
//!   [`Refusal`] and [`Stream`]: what went wrong, and whether it is safe to try again;
//! - [`PoolStatus`] and [`HostStatus`]: what is going on;
//! - [`Events`], each an [`Event`] of an [`EventKind`], with its [`Retirement`]: what happens.
//!
//! # What it promises
//!
//! 1. **Nothing on disk to go stale.** No socket, no pid file, no lock.
//! 2. **A command that never started never fails because of the pool.** Refused sessions, dead
//!    connections and server limits are absorbed within the deadline.
//! 3. **A command that may have started is never run twice.** [`Error::command_state`] says which
//!    it is, by protocol phase. Only if you say that it may is it run again:
//!    [`Command::idempotent`].
//! 4. **Neighbours do not feel each other.** What one command does or fails to do on a shared
//!    connection harms no other.
//! 5. **Nobody rides on somebody else's connection.** Callers share one only if they agree on
//!    user, host, port, identity and host-key policy.
//!
//! # Features
//!
//! `ring` (default) or `aws-lc-rs`: the cryptography underneath. With both, aws-lc-rs is used.
//!
//! - `git`: the stock git over the pool, in the module `git` (on Unix);
//! - `docker`: the Docker API over the pool, and the stock `docker`, in the module `docker`;
//! - `sftp`: files over the pool, in the module `sftp` (on Unix).
//!
//! Without them this crate needs nothing that `ssh-pool-core` does not.
//!
//! # Tracing
//!
//! Spans `ssh_pool.dial`, `ssh_pool.queue` and `ssh_pool.command`, with the fields `host`,
//! `connection`, `attempts`, `exit` and `error`; an event of level `WARN` for each attempt that was
//! lost and is made again. Command lines, environments and input are never recorded.
//! russh underneath logs through the `log` crate.

pub use ssh_pool_core::{
    Address, Cause, ChannelStream, Child, ChildStderr, ChildStdin, ChildStdout, Command,
    CommandState, Connect, Error, Event, EventKind, Events, ExitStatus, Forward, Host,
    HostKeyPolicy, HostKeyProblem, HostStatus, Identity, Limits, Output, Phase, Pool, PoolBuilder,
    PoolStatus, Pty, Refusal, Retirement, Stdio, Stream, Target, Timeouts,
};

#[cfg(feature = "docker")]
pub mod docker;
#[cfg(all(unix, feature = "git"))]
pub mod git;
#[cfg(all(unix, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
#[cfg(all(unix, feature = "sftp"))]
pub mod sftp;
#[cfg(all(unix, any(feature = "docker", feature = "git")))]
mod shim;
