//! The verdict on a host key.

use russh::keys::{HashAlg, PublicKey};

use crate::error::HostKeyProblem;
use crate::printable;

/// What to do about the key that the server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judgement {
    Trusted,
    /// Unknown, and the policy takes unknown keys: trusted once `TrustStore::remember` has
    /// stored it.
    TrustedNew,
    Refused(HostKeyProblem),
}

impl Judgement {
    /// Another key was expected: `expected` says which.
    pub(super) fn changed(key: &PublicKey, expected: Vec<String>) -> Self {
        Self::Refused(HostKeyProblem::Changed {
            algorithm: printable(key.algorithm().to_string()),
            fingerprint: fingerprint(key),
            expected,
        })
    }
}

/// The SHA-256 fingerprint, as `ssh-keygen -l` prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
