//! What signs where the library would ask an agent: a key in memory, or our own agent.

use std::sync::Arc;

use russh::Signer;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{self, Signature};
use russh::keys::{HashAlg, PrivateKey, signature};

use crate::transport::agent::AgentError;
use crate::transport::keys::AgentKey;

/// A private key as a signer.
///
/// The library's own ways to log in name RSA certificates by their SHA-1 algorithm, and pad what RSA
/// keys sign, which servers refuse. Its way for agents leaves both to us; so the key plays the agent.
pub(super) struct KeySigner(pub(super) Arc<PrivateKey>);

/// Why no signature was made.
#[derive(Debug)]
pub(super) enum SignError {
    Key(ssh_key::Error),
    Agent(AgentError),
    /// The session has ended.
    Gone,
}

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        Self::Gone
    }
}

impl Signer for KeySigner {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let signature = sign(&self.0, hash, &data).map_err(SignError::Key)?;
        let mut blob = Vec::new();
        signature
            .encode(&mut blob)
            .map_err(|error| SignError::Key(error.into()))?;
        // The request is followed by its signature, as a string (RFC 4252, section 7).
        blob.encode(&mut data)
            .map_err(|error| SignError::Key(error.into()))?;
        Ok(data)
    }
}

/// A key that an agent holds, for one session.
pub(super) struct AgentSigner<'a> {
    pub(super) key: &'a AgentKey,
    pub(super) session: Option<&'a AgentSessionBinding>,
}

impl Signer for AgentSigner<'_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let signed = self.key.sign(self.session, hash, data).await;
        signed.map_err(SignError::Agent)
    }
}

fn sign(key: &PrivateKey, hash: Option<HashAlg>, data: &[u8]) -> Result<Signature, ssh_key::Error> {
    let signed = match key.key_data() {
        KeypairData::Rsa(pair) => signature::Signer::try_sign(&(pair, hash), data),
        pair => signature::Signer::try_sign(pair, data),
    };
    let signed = signed.map_err(|_| ssh_key::Error::Signature)?;
    let KeypairData::Rsa(pair) = key.key_data() else {
        return Ok(signed);
    };
    // The library fills it up to a multiple of eight bytes; as long as the modulus it has to be (RFC
    // 8017, section 8.2.1), and sshd refuses what is longer.
    let modulus = pair.public().n().as_positive_bytes().unwrap_or_default();
    let padding = signed.as_bytes().len().saturating_sub(modulus.len());
    Signature::new(signed.algorithm(), signed.as_bytes().split_at(padding).1)
}
