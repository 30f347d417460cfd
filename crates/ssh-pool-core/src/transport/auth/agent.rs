//! An agent that signs for us (draft-ietf-sshm-ssh-agent).

use std::borrow::Cow;
use std::path::Path;

use russh::AgentAuthError;
use russh::client::{AuthResult, Handle, Handler};
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::{Error as KeyError, HashAlg, PublicKey};

use crate::error::Cause;
use crate::printable;

#[cfg(unix)]
type Client = russh::keys::agent::client::AgentClient<tokio::net::UnixStream>;

/// A connection to an agent.
pub(super) struct Agent {
    #[cfg(unix)]
    client: Client,
}

/// What came of offering one of its keys.
pub(super) enum Signed {
    Answered(AuthResult),
    /// This key does not sign; others may.
    Declined(KeyError),
    /// The agent is gone; the server is not.
    AgentGone(KeyError),
    ConnectionGone,
}

/// A key that an agent holds.
#[derive(Debug, Clone)]
pub(super) struct Key(Box<AgentIdentity>);

impl Key {
    pub(super) fn public_key(&self) -> Cow<'_, PublicKey> {
        self.0.public_key()
    }

    /// The owner's remark, made safe to print.
    pub(super) fn comment(&self) -> String {
        printable(self.0.comment())
    }

    /// What is sent of it: a key and its certificate are two offers.
    pub(super) fn blob(&self) -> Option<Vec<u8>> {
        match self.0.as_ref() {
            AgentIdentity::PublicKey { key, .. } => key.to_bytes(),
            AgentIdentity::Certificate { certificate, .. } => certificate.to_bytes(),
        }
        .ok()
    }
}

#[cfg(unix)]
impl Agent {
    /// Connects, says for which session (so that an OpenSSH agent shows keys constrained to a
    /// destination, see `ssh-add -h`), and lists its keys.
    pub(super) async fn connect(
        path: &Path,
        binding: Option<&AgentSessionBinding>,
    ) -> Result<(Self, Vec<Key>), Cause> {
        let stream = tokio::net::UnixStream::connect(path).await;
        let mut client = Client::connect(stream.map_err(Cause::new)?);
        if let Some(binding) = binding {
            match client.bind_session(binding, false).await {
                // Agents that do not know the request refuse it.
                Ok(()) | Err(KeyError::AgentFailure) => {}
                Err(error) => return Err(Cause::of_peer(error)),
            }
        }
        let keys = client.request_identities().await;
        let keys = keys.map_err(Cause::of_peer)?;
        Ok((
            Self { client },
            keys.into_iter().map(|key| Key(Box::new(key))).collect(),
        ))
    }

    /// Offers `key` to the server and signs with it if the server would take it.
    pub(super) async fn offer<H: Handler>(
        &mut self,
        handle: &mut Handle<H>,
        user: &str,
        key: Key,
        hash: Option<HashAlg>,
    ) -> Signed {
        let client = &mut self.client;
        let result = match *key.0 {
            AgentIdentity::PublicKey { key, .. } => {
                handle
                    .authenticate_publickey_with(user, key, hash, client)
                    .await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                handle
                    .authenticate_certificate_with(user, certificate, hash, client)
                    .await
            }
        };
        match result {
            Ok(result) => Signed::Answered(result),
            Err(AgentAuthError::Send(_)) => Signed::ConnectionGone,
            Err(AgentAuthError::Key(error @ KeyError::IO(_))) => Signed::AgentGone(error),
            Err(AgentAuthError::Key(error)) => Signed::Declined(error),
        }
    }
}

#[cfg(not(unix))]
impl Agent {
    pub(super) async fn connect(
        _: &Path,
        _: Option<&AgentSessionBinding>,
    ) -> Result<(Self, Vec<Key>), Cause> {
        Err(Cause::new(
            "agents are reached through Unix sockets, which this system lacks",
        ))
    }

    pub(super) async fn offer<H: Handler>(
        &mut self,
        _: &mut Handle<H>,
        _: &str,
        _: Key,
        _: Option<HashAlg>,
    ) -> Signed {
        Signed::AgentGone(KeyError::AgentFailure)
    }
}
