//! What a forwarded stream goes to, or comes from.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// An address of a stream: a TCP port or a Unix socket.
///
/// From `("host", port)`, a [`SocketAddr`], or a path.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Address;
///
/// let port = Address::from(("localhost", 5432));
/// assert_eq!(port.to_string(), "localhost:5432");
/// let socket = Address::from(std::path::Path::new("/run/postgresql/.s.PGSQL.5432"));
/// assert_eq!(socket.port(), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// A name or an IP address.
        host: String,
        /// The port. To listen on, 0 means any.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The port of a TCP address.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Tcp { port, .. } => Some(*port),
            Address::Unix(_) => None,
        }
    }

    /// What no server could take is refused here.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let reason = match self {
            Address::Unix(path) => match path.to_str() {
                None => "the path is not UTF-8",
                Some("") => "the path is empty",
                Some(path) if path.contains('\0') => "the path contains a NUL byte",
                Some(_) => return Ok(()),
            },
            Address::Tcp { host, .. } if host.contains('\0') => "the host contains a NUL byte",
            Address::Tcp { .. } => return Ok(()),
        };
        Err(Error::InvalidInput {
            what: "address",
            reason: reason.into(),
        })
    }
}

/// `host:port`, `[::1]:port`, or the path.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl<H: Into<String>> From<(H, u16)> for Address {
    fn from((host, port): (H, u16)) -> Self {
        Address::Tcp {
            host: host.into(),
            port,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        (address.ip().to_string(), address.port()).into()
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Address::Unix(path)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Address::Unix(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them() {
        let v6: SocketAddr = "[::1]:80".parse().expect("an address");
        assert_eq!(Address::from(v6).to_string(), "[::1]:80");
        assert_eq!(Address::from(("db", 5432)).to_string(), "db:5432");
        assert_eq!(Address::from(Path::new("/run/x")).to_string(), "/run/x");
        assert_eq!(Address::from(("db", 5432)).port(), Some(5432));
        assert_eq!(Address::from(Path::new("/run/x")).port(), None);
    }

    #[test]
    fn what_no_server_could_take_is_refused() {
        for path in ["", "a\0b"] {
            assert!(
                Address::from(Path::new(path)).validate().is_err(),
                "{path:?}"
            );
        }
        assert!(Address::from(("a\0b", 1)).validate().is_err());
        assert!(Address::from(("", 1)).validate().is_ok(), "every interface");
    }
}
