//! What a server says, and about what.

use std::fmt;

/// Which output stream of a command.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Error, Stream};
///
/// fn too_chatty(error: &Error) -> bool {
///     matches!(error, Error::OutputLimit { stream: Stream::Stderr, .. })
/// }
/// ```
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error (SSH extended data type 1).
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// Why a server does not open a stream, as far as it says (RFC 4254, section 5.1).
///
/// For a Unix socket OpenSSH says `Unreachable` also when `AllowStreamLocalForwarding` forbids it.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::{Error, Refusal};
///
/// match host.connect_tcp("localhost", 5432).await {
///     Ok(_stream) => println!("it listens"),
///     Err(Error::StreamRefused { refusal: Refusal::Denied, .. }) => println!("not allowed"),
///     Err(Error::StreamRefused { message, .. }) => println!("nothing there: {message}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The server does not allow it: sshd's `AllowTcpForwarding`, `PermitOpen`.
    Denied,
    /// The server tried, and whatever is at that address did not take it.
    Unreachable,
    /// The server does not know this kind of stream.
    Unsupported,
    /// The server has no room for it.
    Overloaded,
}

impl Refusal {
    pub(crate) fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Denied,
            3 => Self::Unsupported,
            4 => Self::Overloaded,
            _ => Self::Unreachable,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Denied => "the server does not allow it",
            Refusal::Unreachable => "the server could not reach it",
            Refusal::Unsupported => "the server does not support it",
            Refusal::Overloaded => "the server has no room for it",
        })
    }
}
