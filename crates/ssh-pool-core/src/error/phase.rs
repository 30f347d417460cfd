//! How far a command had come.

use std::fmt;

/// Where on its way a command was when it failed.
///
/// Roughly in the order in which a command meets them. Whether it may have run is not a question of
/// order: ask [`Error::command_state`](crate::Error::command_state).
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Error, Phase};
///
/// /// Whether the server was there, and was one that speaks SSH.
/// fn reached(error: &Error) -> bool {
///     error.phase() >= Phase::KeyExchange
/// }
/// assert!(Phase::Connect < Phase::Auth && Phase::Auth < Phase::Running);
/// assert_eq!(Phase::Auth.to_string(), "authentication");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Checking what the caller passed in.
    Input,
    /// Waiting for a free session channel.
    Queue,
    /// Reading key files and known_hosts files on this machine.
    Files,
    /// Decrypting a key on this machine.
    Decryption,
    /// Looking the host name up.
    Resolve,
    /// Connecting TCP.
    Connect,
    /// Waiting for the server's identification line (RFC 4253, section 4.2).
    Banner,
    /// Key exchange (RFC 4253, section 7).
    KeyExchange,
    /// Checking the server's host key.
    HostKey,
    /// Waiting for an agent on this machine: for its keys, or for a signature, in the middle of
    /// authenticating.
    Agent,
    /// Waiting for the server's answer while authenticating (RFC 4252).
    Auth,
    /// Waiting for what a server is asked before a command is sent: a sign of life of a connection
    /// that was quiet, a channel (RFC 4254, section 5.1), environment variables, a terminal.
    Channel,
    /// The exec request has been sent, its reply has not been seen (RFC 4254, section 6.5).
    Exec,
    /// The server accepted the command.
    Running,
    /// The pool is closed.
    Closed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Input => "input",
            Phase::Queue => "queue",
            Phase::Files => "files",
            Phase::Decryption => "decryption",
            Phase::Resolve => "resolve",
            Phase::Connect => "connect",
            Phase::Banner => "banner",
            Phase::KeyExchange => "key exchange",
            Phase::HostKey => "host key",
            Phase::Agent => "agent",
            Phase::Auth => "authentication",
            Phase::Channel => "channel",
            Phase::Exec => "exec",
            Phase::Running => "running",
            Phase::Closed => "closed",
        })
    }
}

/// What is known about the remote command after an error.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{CommandState, Error};
///
/// /// Whether running the command again cannot run it twice.
/// fn may_run_again(error: &Error) -> bool {
///     error.command_state() == CommandState::NotStarted
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandState {
    /// The command did not start: it was never sent, or the server refused to execute it. Running
    /// it again cannot run it twice.
    NotStarted,
    /// The command line was sent. It may have run, in whole or in part, or not at all.
    Unknown,
}
