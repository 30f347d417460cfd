//! One host key that the caller has pinned.

use russh::keys::PublicKey;
use russh::keys::ssh_key::Fingerprint;

use super::decision::{HostKeyDecision, fingerprint};
use super::format::parse_key;

/// The one key that is trusted.
#[derive(Debug)]
pub(super) enum HostKeyPin {
    Key(Box<PublicKey>),
    /// `SHA256:…`
    Fingerprint(String),
}

impl HostKeyPin {
    /// A public key line or a fingerprint; what is wrong with the text, if it is neither.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("SHA256:") {
            return match text.parse::<Fingerprint>() {
                Ok(fingerprint) if fingerprint.is_sha256() => {
                    Ok(Self::Fingerprint(fingerprint.to_string()))
                }
                _ => Err("a SHA-256 fingerprint is \"SHA256:\" and 43 base64 characters".into()),
            };
        }
        let key = if text.contains('\n') {
            None
        } else {
            parse_key(text)
        };
        key.map(|key| Self::Key(Box::new(key))).ok_or_else(|| {
            "neither a public key line (\"ssh-ed25519 AAAA…\") nor a \"SHA256:…\" fingerprint"
                .into()
        })
    }

    /// A pool with a malformed pin is not built. Should such a pin get here, it matches no key.
    pub(super) fn parse_or_nothing(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| Self::Fingerprint(text.trim().to_owned()))
    }

    /// The key, where it was given in full.
    pub(super) fn key(&self) -> Option<&PublicKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Fingerprint(_) => None,
        }
    }

    pub(super) fn decide(&self, key: &PublicKey) -> HostKeyDecision {
        let (same, pinned) = match self {
            Self::Key(pinned) => (pinned.key_data() == key.key_data(), fingerprint(pinned)),
            Self::Fingerprint(pinned) => (*pinned == fingerprint(key), pinned.clone()),
        };
        if same {
            HostKeyDecision::Trusted
        } else {
            HostKeyDecision::changed(key, vec![format!("{pinned} (pinned)")])
        }
    }
}

/// Whether `text` can be a pin; what is wrong with it, if not.
pub(crate) fn check_pin(text: &str) -> Result<(), String> {
    HostKeyPin::parse(text).map(drop)
}
