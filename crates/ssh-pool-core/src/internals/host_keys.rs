//! Verdicts on host keys, without a server.

use std::path::Path;

use crate::error::HostKeyProblem;
use crate::transport::{self, Judgement};

/// What to do about a key that a server has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is known.
    Trusted,
    /// It was not known, and is from now on.
    TrustedNew,
    /// It is not good enough.
    Refused(HostKeyProblem),
}

impl From<Judgement> for Verdict {
    fn from(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Trusted => Self::Trusted,
            Judgement::TrustedNew => Self::TrustedNew,
            Judgement::Refused(problem) => Self::Refused(problem),
        }
    }
}

/// The verdict on `key`, a public key line, under one known_hosts file with this text; `None` if
/// it is no such line.
#[must_use]
pub fn verdict(text: &[u8], host: &str, port: u16, key: &str) -> Option<Verdict> {
    transport::verdict(text, host, port, key).map(Verdict::from)
}

/// The same where new keys are taken, as `HostKeyPolicy::accept_new` does: a new one has been
/// stored in the file.
#[must_use]
pub fn remember(path: &Path, host: &str, port: u16, key: &str) -> Option<Verdict> {
    transport::remember(path, host, port, key).map(Verdict::from)
}
