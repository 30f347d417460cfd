//! A server, and what it takes to log in there.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The one cipher of the comparison where all have the same: hardware helps with it, and every
/// contender has it.
pub(crate) const SAME_CIPHER: &str = "aes256-gcm@openssh.com";

/// Where a contender connects to. Each gets the same key and the same known hosts, and checks the
/// host's key against them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The server, or the proxy in front of it.
    pub(crate) addr: SocketAddr,
    /// Who logs in.
    pub(crate) user: String,
    /// The private key.
    pub(crate) key: PathBuf,
    /// The server's key is in there.
    pub(crate) known_hosts: PathBuf,
    /// For control sockets and configuration. Its path is short: that of a socket may have 108
    /// bytes, and ssh adds 17 while it makes one.
    pub(crate) folder: PathBuf,
    /// Whether to ask for [`SAME_CIPHER`] instead of what the contender prefers.
    pub(crate) same_cipher: bool,
}
