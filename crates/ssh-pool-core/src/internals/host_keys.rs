//! Decisions on host keys, without a server.

use std::path::Path;

use crate::error::HostKeyProblem;
use crate::transport::{self, HostKeyDecision};

/// What to do about a key that a server has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownHostsDecision {
    /// It is known.
    Trusted,
    /// It was not known, and is from now on.
    TrustedNew,
    /// It is not good enough.
    Refused(HostKeyProblem),
}

impl From<HostKeyDecision> for KnownHostsDecision {
    fn from(decision: HostKeyDecision) -> Self {
        match decision {
            HostKeyDecision::Trusted => Self::Trusted,
            HostKeyDecision::TrustedNew => Self::TrustedNew,
            HostKeyDecision::Refused(problem) => Self::Refused(problem),
        }
    }
}

/// The decision on `key`, a public key line, under one known_hosts file with this text; `None` if
/// it is no such line.
#[must_use]
pub fn host_key_decision(
    text: &[u8],
    host: &str,
    port: u16,
    key: &str,
) -> Option<KnownHostsDecision> {
    transport::host_key_decision(text, host, port, key).map(KnownHostsDecision::from)
}

/// The same where new keys are taken, as `HostKeyPolicy::accept_new` does: a new one has been
/// stored in the file.
#[must_use]
pub fn remember(path: &Path, host: &str, port: u16, key: &str) -> Option<KnownHostsDecision> {
    transport::remember(path, host, port, key).map(KnownHostsDecision::from)
}
