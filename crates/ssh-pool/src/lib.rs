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
//! - [`HostKeyPolicy`] and [`Identity`]: whom to trust, and who we are; [`Challenge`] and [`Prompt`]:
//!   what a server asks; [`Algorithms`]: how to encrypt;
//! - [`Command`], [`Stdio`] and [`Pty`], [`Output`], [`ExitStatus`] and [`ExitError`]:
//!   what runs there;
//! - [`Child`], with its [`ChildStdin`], [`ChildStdout`] and [`ChildStderr`]: while it runs;
//! - [`Connect`], [`ChannelStream`], [`Forward`] and [`Address`]: streams through a server;
//!   [`ConnectionHandle`]: the connection under one;
//! - [`Error`], with its [`Phase`], [`CommandState`], [`Cause`], [`HostKeyProblem`], [`PartialOutput`],
//!   [`Refusal`] and [`Stream`]: what went wrong, and whether it is safe to try again;
//!   [`ServerMessage`], of a [`MessageKind`]: what a server said to people;
//! - [`Readiness`]: waiting for a machine that is being set up;
//! - [`StreamGroup`]: streams that need one another;
//! - [`Waited`]: why a command waited, in each [`Output`], [`Child`] and [`Error`], with its
//!   [`Origin`];
//! - [`PoolStatus`] and [`HostStatus`], with its [`Breaker`] and a [`ConnectionStatus`] for each
//!   connection and its [`Purpose`]: what is going on;
//! - [`Events`], each an [`Event`] of an [`EventKind`], with its [`Retirement`] and
//!   [`LoginDelay`]: what happens.
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
//! 5. **Connections are never shared across identities.** Callers share one only if they agree on
//!    user, host, port, identity, host-key policy, timeouts and limits.
//!
//! # Features
//!
//! `ring` (default) or `aws-lc-rs`: the cryptography underneath. With both, aws-lc-rs is used.
//!
//! - `git`: the stock git over the pool, in the module `git` (on Unix);
//! - `docker`: the Docker API over the pool, and the stock `docker`, in the module `docker`;
//! - `sftp`: files over the pool, in the module `sftp` (on Unix);
//! - `metrics`: numbers, see [below](#metrics);
//! - `serde`: `Serialize` for [`PoolStatus`], [`HostStatus`], [`Event`] and what they contain, and both
//!   of its traits for [`Target`], which is its text.
//!
//! Without them this crate needs nothing that `ssh-pool-core` does not.
//!
//! # Tracing
//!
//! Spans `ssh_pool.dial`, `ssh_pool.queue` and `ssh_pool.command`, with the fields `host`,
//! `connection`, `attempts`, `exit` and `error`, and, if there was a wait, its parts: `queue_ms`,
//! `dial_ms`, `back_off_ms` and `channel_ms`; an event of level `WARN` for each attempt that was
//! lost and is made again, and one of level `DEBUG` for each [`Event`]. Command lines, environments
//! and input are never recorded. russh underneath logs through the `log` crate.
//!
//! # Metrics
//!
//! With the feature `metrics` the pool counts for the recorder that the program has installed with
//! the crate of that name, which has to be there before the pool is built. Each has the label
//! `host`, `user@host:port`.
//!
//! - Counters: `ssh_pool_dials_total`, `ssh_pool_failed_dials_total` (by `phase`),
//!   `ssh_pool_refused_sessions_total`, `ssh_pool_retired_connections_total` (by `reason`),
//!   `ssh_pool_died_connections_total`, `ssh_pool_overruns_total`, `ssh_pool_leaks_total`,
//!   `ssh_pool_reruns_total`, `ssh_pool_opened_breakers_total`, `ssh_pool_full_queues_total`, and
//!   `ssh_pool_commands_total` by `result`: `ok` whatever its exit status, `not_started`,
//!   `unknown`, or `dropped` if its caller was dropped before its end.
//! - Histograms: `ssh_pool_command_seconds`, from the call to the end of the command, and
//!   `ssh_pool_wait_seconds` by `part`, those of [`Waited`].
//! - Gauges, up to 5 s old: `ssh_pool_connections`, `ssh_pool_running`, `ssh_pool_waiting` and
//!   `ssh_pool_spare`. Two pools of one process that use the same account overwrite each other's.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use ssh_pool_core::{
    Address, Algorithms, Breaker, Cause, Challenge, ChannelStream, Child, ChildStderr, ChildStdin,
    ChildStdout, Command, CommandState, Connect, ConnectionHandle, ConnectionStatus, Error, Event,
    EventKind, Events, ExitError, ExitStatus, Forward, Host, HostKeyPolicy, HostKeyProblem,
    HostStatus, Identity, Limits, LoginDelay, MessageKind, Origin, Output, PartialOutput, Phase,
    Pool, PoolBuilder, PoolStatus, Prompt, Pty, Purpose, Readiness, Refusal, Retirement,
    ServerMessage, Stdio, Stream, StreamGroup, Target, Timeouts, Waited, printable,
};

#[cfg(feature = "docker")]
pub mod docker;
#[cfg(test)]
#[cfg(all(unix, feature = "docker", feature = "git", feature = "sftp"))]
mod error_tests;
#[cfg(all(unix, feature = "git"))]
pub mod git;
#[cfg(all(unix, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
#[cfg(any(feature = "docker", all(unix, any(feature = "git", feature = "sftp"))))]
mod reason;
#[cfg(all(unix, feature = "sftp"))]
pub mod sftp;
#[cfg(all(unix, any(feature = "docker", feature = "git")))]
mod shim;
