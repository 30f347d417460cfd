//! What can be wrong with a host key.

use std::path::PathBuf;

use super::text::display_list;

/// Why a host key is not trusted.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Error, HostKeyProblem};
///
/// fn advice(error: &Error) -> &'static str {
///     match error {
///         Error::HostKey { reason: HostKeyProblem::Changed { .. }, .. } => "was it installed anew?",
///         Error::HostKey { reason: HostKeyProblem::Unknown { .. }, .. } => "ask for its key first",
///         _ => "not about its key",
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyProblem {
    /// No line matches the host.
    #[error(
        "the host key is unknown ({algorithm} {fingerprint}, looked in {}); verify the \
         fingerprint out of band, then add the key, which ssh-keyscan prints",
        display_list(searched)
    )]
    Unknown {
        /// The key's algorithm, such as `ssh-ed25519`.
        algorithm: String,
        /// The key's SHA-256 fingerprint.
        fingerprint: String,
        /// The files that were searched, each followed by `, which does not exist` where that is so.
        searched: Vec<String>,
    },
    /// Lines match the host, none of them this key.
    #[error(
        "THE HOST KEY HAS CHANGED: expected {}, got {algorithm} {fingerprint}; someone may be in \
         between, or the server was reinstalled: find out which before you trust the new key",
        display_list(expected)
    )]
    Changed {
        /// The offered key's algorithm.
        algorithm: String,
        /// The offered key's SHA-256 fingerprint.
        fingerprint: String,
        /// Fingerprints that were expected, each with its `file:line`.
        expected: Vec<String>,
    },
    /// The key is an RSA key of less than 1024 bits, which ssh does not take either, or of more than
    /// 8192, whose signatures cannot be checked here.
    #[error(
        "the host key {fingerprint} is an RSA key of {bits} bits; 1024 to 8192 are supported: give \
         the server another host key"
    )]
    KeyLength {
        /// The key's SHA-256 fingerprint.
        fingerprint: String,
        /// The length of its modulus, in bits.
        bits: u32,
    },
    /// A `@revoked` line lists this key.
    #[error("the host key {fingerprint} is revoked ({location}); do not connect")]
    Revoked {
        /// The key's SHA-256 fingerprint.
        fingerprint: String,
        /// The `file:line` that revokes it.
        location: String,
    },
    /// A known_hosts file exists and cannot be read. What it would have said is not known, so
    /// nothing is trusted.
    #[error("cannot read {}: {reason}; it may revoke keys, so none is trusted", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// The accepted key could not be stored, so it was not accepted.
    #[error(
        "cannot store the new host key {fingerprint} in {}: {reason}; it is not trusted until it \
         can be stored",
        path.display()
    )]
    NotStored {
        /// The key's SHA-256 fingerprint.
        fingerprint: String,
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// The server showed a host key, and the key exchange is not signed with it as was agreed on (RFC
    /// 4253, section 8). The other end does not hold that key, or is broken.
    #[error(
        "the server could not prove that it holds its host key: {reason}; someone may be in between: \
         find out who answers there before you connect again"
    )]
    NotProven {
        /// What is wrong with the proof.
        reason: String,
    },
}
