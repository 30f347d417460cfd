//! The protocol of agents (draft-ietf-sshm-ssh-agent), one request for each connection.

use std::io;
use std::path::Path;

use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::ssh_encoding::Decode;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, Error as KeyError, HashAlg, PublicKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::printable;

/// `SSH_AGENTC_REQUEST_IDENTITIES` and `SSH_AGENT_IDENTITIES_ANSWER`.
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
/// `SSH_AGENT_FAILURE`.
const FAILURE: u8 = 5;
/// What OpenSSH takes for the longest answer, in bytes, and for the most keys.
const LONGEST_ANSWER: usize = 256 * 1024;
const MOST_KEYS: u32 = 2048;
/// Certificates within certificates: how many the decoder may meet. It recurses.
const MOST_NESTED: usize = 8;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Agent(KeyError),
    #[cfg_attr(unix, allow(dead_code, reason = "where there are no Unix sockets"))]
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::Agent(error)
    }
}

/// A key that an agent holds, or a certificate.
#[derive(Debug, Clone)]
pub(in crate::transport) struct Key {
    /// The public key or certificate, as the agent showed it.
    pub(in crate::transport) blob: Vec<u8>,
    pub(in crate::transport) identity: AgentIdentity,
}

impl Key {
    /// The owner's remark, made safe to print.
    pub(in crate::transport) fn comment(&self) -> String {
        printable(self.identity.comment())
    }
}

#[cfg(unix)]
type AgentStream = tokio::net::UnixStream;
#[cfg(not(unix))]
type AgentStream = tokio::io::DuplexStream;

#[cfg(unix)]
async fn connect(path: &Path) -> Result<AgentStream, Failure> {
    loop {
        match AgentStream::connect(path).await {
            // An agent that other programs keep busy: Linux does not wait for room in its queue.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            result => return Ok(result?),
        }
    }
}

#[cfg(not(unix))]
async fn connect(_: &Path) -> Result<AgentStream, Failure> {
    Err(Failure::Unsupported)
}

pub(super) async fn probe(path: &Path) -> Result<(), Failure> {
    connect(path).await.map(drop)
}

/// Connects, and says for which session: an OpenSSH agent shows and uses keys that are constrained
/// to a destination (`ssh-add -h`) for that one alone.
async fn open(
    path: &Path,
    session: Option<&AgentSessionBinding>,
) -> Result<AgentClient<AgentStream>, Failure> {
    let mut client = AgentClient::connect(connect(path).await?);
    if let Some(session) = session {
        match client.bind_session(session, false).await {
            // Agents that do not know the request refuse it.
            Ok(()) | Err(KeyError::AgentFailure) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(client)
}

pub(super) async fn keys(
    path: &Path,
    session: Option<&AgentSessionBinding>,
) -> Result<Vec<Key>, Failure> {
    let mut stream = open(path, session).await?.into_inner();
    let answer = exchange(&mut stream, &[REQUEST_IDENTITIES]).await?;
    match answer.split_first() {
        Some((&IDENTITIES_ANSWER, listing)) => Ok(listed(listing)?),
        Some((&FAILURE, _)) => Err(KeyError::AgentFailure.into()),
        _ => Err(KeyError::AgentProtocolError.into()),
    }
}

pub(super) async fn sign(
    path: &Path,
    session: Option<&AgentSessionBinding>,
    key: &AgentIdentity,
    hash: Option<HashAlg>,
    data: Vec<u8>,
) -> Result<Vec<u8>, Failure> {
    let mut client = open(path, session).await?;
    Ok(client.sign_request(key, hash, data).await?)
}

/// Sends a request and reads the answer, each with its length before it.
async fn exchange<S>(stream: &mut S, request: &[u8]) -> Result<Vec<u8>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let length = u32::try_from(request.len()).map_err(|_| KeyError::AgentProtocolError)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(request).await?;
    stream.flush().await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > LONGEST_ANSWER {
        return Err(KeyError::AgentProtocolError.into());
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The keys of a listing. Those that are of no use to any server, and those whose type is not known,
/// are left out; the others are none the worse for them.
fn listed(mut listing: &[u8]) -> Result<Vec<Key>, KeyError> {
    let count = u32::decode(&mut listing)?;
    if count > MOST_KEYS {
        return Err(KeyError::AgentProtocolError);
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let blob = Vec::<u8>::decode(&mut listing)?;
        let comment = Vec::<u8>::decode(&mut listing)?;
        let comment = String::from_utf8_lossy(&comment).into_owned();
        match identity(&blob, comment) {
            Some(identity) => keys.push(Key { blob, identity }),
            None => tracing::debug!(
                kind = kind(&blob),
                "a key of the agent is left out: its type is not supported"
            ),
        }
    }
    Ok(keys)
}

fn identity(blob: &[u8], comment: String) -> Option<AgentIdentity> {
    const NESTED: &[u8] = b"-cert-v01@";
    let nested = blob.windows(NESTED.len()).filter(|part| *part == NESTED);
    if nested.count() > MOST_NESTED {
        return None;
    }
    if let Ok(certificate) = Certificate::decode(&mut &*blob) {
        return is_offered(&certificate.public_key().algorithm()).then_some(
            AgentIdentity::Certificate {
                certificate,
                comment,
            },
        );
    }
    let key = PublicKey::from(KeyData::decode(&mut &*blob).ok()?);
    is_offered(&key.algorithm()).then_some(AgentIdentity::PublicKey { key, comment })
}

/// Whether ssh offers keys of this type (ssh_config's `PubkeyAcceptedAlgorithms`).
pub(in crate::transport) fn is_offered(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::Ed25519
            | Algorithm::Ecdsa { .. }
            | Algorithm::Rsa { .. }
            | Algorithm::SkEd25519
            | Algorithm::SkEcdsaSha2NistP256
    )
}

/// The name of a key's type, made safe to print.
fn kind(mut blob: &[u8]) -> String {
    let name = Vec::<u8>::decode(&mut blob).unwrap_or_default();
    printable(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::PrivateKey;
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_encoding::Encode;

    fn listing(keys: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
        let mut text = Vec::new();
        u32::try_from(keys.len())
            .unwrap()
            .encode(&mut text)
            .unwrap();
        for (blob, comment) in keys {
            blob.encode(&mut text).unwrap();
            comment.encode(&mut text).unwrap();
        }
        text
    }

    fn good() -> Vec<u8> {
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
        key.public_key().to_bytes().unwrap()
    }

    fn of_type(name: &str, content: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        name.encode(&mut blob).unwrap();
        content.encode(&mut blob).unwrap();
        blob
    }

    #[test]
    fn keys_of_unknown_types_are_left_out_and_the_others_stay_in_order() {
        let keys = [good(), good()];
        let text = listing(&[
            (of_type("ssh-ed448", &[7; 57]), b"ed448"),
            (keys[0].clone(), b"first"),
            (of_type("ssh-mldsa-44@example.org", &[7; 1312]), b"mldsa"),
            (of_type("ssh-dss", &[7; 20]), b"old"),
            (vec![0, 0, 0, 200], b"cut off"),
            (Vec::new(), b"empty"),
            (keys[1].clone(), b"Latin-1: \xe9\n"),
            (
                of_type("ssh-ed25519-cert-v01@openssh.com", &[7; 20]),
                b"no certificate",
            ),
        ]);
        let found = listed(&text).unwrap();
        let blobs: Vec<_> = found.iter().map(|key| key.blob.clone()).collect();
        assert_eq!(blobs, keys);
        assert_eq!(found[0].comment(), "first");
        assert!(found[1].comment().starts_with("Latin-1: "));
        assert!(!found[1].comment().contains('\n'), "{}", found[1].comment());
    }

    #[test]
    fn a_listing_that_ends_early_is_an_error() {
        let text = listing(&[(good(), b"one"), (good(), b"two")]);
        for length in 0..text.len() {
            assert!(listed(&text[..length]).is_err(), "{length}");
        }
        let mut many = text.clone();
        many[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(listed(&many).is_err());
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_refused_before_it_is_read() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let agent = async {
            let mut request = [0; 5];
            theirs.read_exact(&mut request).await.unwrap();
            assert_eq!(request, [0, 0, 0, 1, REQUEST_IDENTITIES]);
            theirs.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(exchange(&mut ours, &[REQUEST_IDENTITIES]), agent);
        assert!(matches!(
            answer,
            Err(Failure::Agent(KeyError::AgentProtocolError))
        ));
    }
}
