//! What the callers know of a host.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What kind of server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Sshd,
    /// OpenSSH 10.0, which shuts clients out that fail too often.
    Sshd10,
    Dropbear,
    Embedded,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sshd => "sshd",
            Self::Sshd10 => "sshd 10.0",
            Self::Dropbear => "dropbear",
            Self::Embedded => "embedded",
        })
    }
}

/// A host behind its proxy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostInfo {
    /// With what is special about it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// `user@host:port` of the proxy.
    pub(crate) target: String,
    pub(crate) client_key: PathBuf,
    pub(crate) known_hosts: PathBuf,
    pub(crate) ledger: PathBuf,
    /// Sends back what it gets, where the server forwards streams.
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) unix: Option<PathBuf>,
}

/// How long a machine that is busy may take for what takes no time.
pub(crate) const BUSY: Duration = Duration::from_secs(2);
/// How long after its deadline a call may return, beyond `Timeouts::kill_grace`: a second for the
/// server to say that a command has ended, and five before each of two signals where it has not
/// answered the request yet or a helper command has to do it.
pub(crate) const ALLOWANCE: Duration = BUSY.saturating_add(Duration::from_secs(1 + 2 * 5));

/// What time it is for both processes: milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
