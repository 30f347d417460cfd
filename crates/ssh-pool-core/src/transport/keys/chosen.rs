//! A key that is chosen by its public half.

use russh::keys::ssh_key::Fingerprint;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};

use super::problem::Problem;
use crate::transport::agent::Key;
use crate::transport::known_hosts::fingerprint;

/// Which of an agent's keys is meant.
#[derive(Debug, Clone)]
pub(super) enum Chosen {
    /// This key or certificate, byte for byte.
    Blob(Vec<u8>, KeyData),
    /// The key with this fingerprint, and its certificates.
    Fingerprint(String),
}

impl Chosen {
    /// Reads the line of a `.pub` or `-cert.pub` file, or a fingerprint.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let text = text.trim();
        if text.starts_with("SHA256:") {
            let fingerprint = text.trim_end_matches('=').parse::<Fingerprint>();
            let fingerprint = fingerprint.map_err(Problem::NotAPublicKey)?;
            return Ok(Self::Fingerprint(fingerprint.to_string()));
        }
        if let Ok(certificate) = Certificate::from_openssh(text) {
            let blob = certificate.to_bytes().map_err(Problem::NotAPublicKey)?;
            return Ok(Self::Blob(blob, certificate.public_key().clone()));
        }
        let key = PublicKey::from_openssh(text).map_err(Problem::NotAPublicKey)?;
        let blob = key.to_bytes().map_err(Problem::NotAPublicKey)?;
        Ok(Self::Blob(blob, key.key_data().clone()))
    }

    pub(super) fn is(&self, key: &Key) -> bool {
        match self {
            Self::Blob(blob, _) => key.blob == *blob,
            Self::Fingerprint(print) => fingerprint(&key.identity.public_key()) == *print,
        }
    }

    /// Whether this is the key itself, or its certificate.
    pub(super) fn is_key(&self, key: &KeyData) -> bool {
        match self {
            Self::Blob(_, chosen) => chosen == key,
            Self::Fingerprint(print) => fingerprint(&PublicKey::from(key.clone())) == *print,
        }
    }

    /// For messages.
    pub(super) fn fingerprint(&self) -> String {
        match self {
            Self::Blob(_, key) => fingerprint(&PublicKey::from(key.clone())),
            Self::Fingerprint(print) => print.clone(),
        }
    }
}
