//! What a command's three streams are connected to.

use std::fmt;

use bytes::Bytes;

/// What a stream of a command is connected to, as `std::process::Stdio`; and, for its input, bytes.
///
/// `Debug` shows how many bytes there are, not what they are: they may be a secret.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::Stdio;
///
/// // Bytes, thrown away output, and this program's own standard error.
/// let status = host
///     .command("gpg")
///     .arg("--import")
///     .stdin("-----BEGIN PGP PUBLIC KEY BLOCK-----")
///     .stdout(Stdio::null())
///     .stderr(Stdio::inherit())
///     .status()
///     .await?;
/// assert!(status.success());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Stdio(pub(super) StdioKind);

#[derive(Clone)]
pub(super) enum StdioKind {
    Null,
    Piped,
    Inherit,
    Bytes(Bytes),
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            StdioKind::Null => write!(f, "Stdio(null)"),
            StdioKind::Piped => write!(f, "Stdio(piped)"),
            StdioKind::Inherit => write!(f, "Stdio(inherit)"),
            StdioKind::Bytes(bytes) => write!(f, "Stdio({} bytes)", bytes.len()),
        }
    }
}

impl Stdio {
    /// Nothing: input ends at once, output is thrown away.
    #[must_use]
    pub fn null() -> Self {
        Self(StdioKind::Null)
    }

    /// A stream in the [`Child`](crate::Child) of [`Command::spawn`](crate::Command::spawn).
    #[must_use]
    pub fn piped() -> Self {
        Self(StdioKind::Piped)
    }

    /// This process's own stream, copied. The command has an isolated connection, unless it is
    /// [`shared`](crate::Command::shared): a terminal or a pipe may be slow.
    #[must_use]
    pub fn inherit() -> Self {
        Self(StdioKind::Inherit)
    }

    fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(StdioKind::Bytes(bytes.into()))
    }
}

impl From<Vec<u8>> for Stdio {
    fn from(bytes: Vec<u8>) -> Self {
        Self::bytes(bytes)
    }
}

impl From<String> for Stdio {
    fn from(text: String) -> Self {
        Self::bytes(text)
    }
}

impl From<&[u8]> for Stdio {
    fn from(bytes: &[u8]) -> Self {
        Self::bytes(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Stdio {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&Vec<u8>> for Stdio {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&String> for Stdio {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&str> for Stdio {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// What feeds a command.
pub(crate) enum Input {
    Bytes(Bytes),
    Piped,
    Inherit,
}

impl From<Stdio> for Input {
    fn from(stdio: Stdio) -> Self {
        match stdio.0 {
            StdioKind::Null => Self::Bytes(Bytes::new()),
            StdioKind::Piped => Self::Piped,
            StdioKind::Inherit => Self::Inherit,
            StdioKind::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}
