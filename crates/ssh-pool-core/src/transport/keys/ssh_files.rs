//! The key files that ssh uses without configuration, and the order in which it offers them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, PrivateKey, PublicKey};

use super::file::{read_certificate, read_private, read_public, with_suffix};
use super::from_agent::AgentKey;
use super::problem::Problem;
use super::{Credential, format, name};
use crate::transport::agent::{Agent, Key, is_offered};

/// ssh_config's default for `IdentityFile`, in ssh's order. Keys of security keys are used if an
/// agent holds them.
const NAMES: [&str; 5] = [
    "id_rsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
];

/// One of them, with what lies beside it.
#[derive(Debug, Clone)]
pub(super) struct SshFile {
    path: PathBuf,
    /// From `NAME.pub`, or from the private key if that is in OpenSSH's own format.
    public: Option<PublicKey>,
    /// From `NAME-cert.pub`.
    certificate: Option<Certificate>,
    private: Option<Arc<PrivateKey>>,
    /// Why there is no private key.
    problem: Option<Arc<Problem>>,
}

/// Reads those that exist in `folder`.
pub(super) fn read(folder: &Path) -> Vec<SshFile> {
    NAMES
        .iter()
        .filter_map(|name| read_one(folder.join(name)))
        .collect()
}

fn read_one(path: PathBuf) -> Option<SshFile> {
    let text = read_private(&path);
    let beside = read_public(&with_suffix(&path, ".pub"));
    let beside = (beside.ok()).and_then(|text| PublicKey::from_openssh(text.trim()).ok());
    // As for ssh, the modes of the private key do not matter for its public half.
    let public = beside.or_else(|| {
        let text = read_public(&path).ok()?;
        format::public_half(&text).map(PublicKey::from)
    });
    let certificate = read_certificate(&with_suffix(&path, "-cert.pub")).ok();
    let certificate = certificate.filter(|found| found.cert_type() == CertType::User);
    let missing = matches!(&text, Err(Problem::Unreadable(_, error))
        if error.kind() == std::io::ErrorKind::NotFound);
    if missing && public.is_none() && certificate.is_none() {
        return None;
    }
    let private = text.and_then(|text| format::decode(text.expose(), None));
    let (private, problem) = match private {
        Ok(key) => (Some(Arc::new(key)), None),
        Err(problem) => {
            tracing::debug!(file = %path.display(), %problem, "a key file is not used by itself");
            (None, Some(Arc::new(problem)))
        }
    };
    Some(SshFile {
        path,
        public,
        certificate,
        private,
        problem,
    })
}

/// Why the first of the files that cannot be used cannot be.
pub(super) fn first_problem(files: &[SshFile]) -> Option<(String, Problem)> {
    files.iter().find_map(|file| {
        let problem = file.problem.clone()?;
        Some((
            format!("key file {}", file.path.display()),
            Problem::Remembered(problem),
        ))
    })
}

/// Something that ssh would offer.
#[derive(Debug, Clone)]
enum Candidate<'a> {
    Agent(&'a Key),
    Plain(&'a SshFile),
    Certificate(&'a SshFile, &'a Certificate),
}

impl Candidate<'_> {
    fn blob(&self) -> Option<Vec<u8>> {
        match self {
            Candidate::Agent(key) => Some(key.blob.clone()),
            Candidate::Plain(file) => file.public.as_ref()?.to_bytes().ok(),
            Candidate::Certificate(_, certificate) => certificate.to_bytes().ok(),
        }
    }
}

/// What ssh offers, in its order (`pubkey_prepare` in OpenSSH's sshconnect2.c): keys of the agent that
/// are among the files, the other keys of the agent, and then the files, each before its certificate.
///
/// What nothing can sign with is left out: ssh offers it in vain. And keys that the agent has, and that
/// lie in a file as well, follow once more at the end, should the agent not sign.
pub(super) fn in_order(files: &[SshFile], agent: Option<&Agent>, held: &[Key]) -> Vec<Credential> {
    let mut in_files = Vec::new();
    for file in files {
        in_files.push(Candidate::Plain(file));
        let certificate = file.certificate.as_ref();
        in_files.extend(certificate.map(|found| Candidate::Certificate(file, found)));
    }
    let (mut preferred, mut others, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for key in held {
        let same =
            |candidate: &Candidate<'_>| candidate.blob().is_some_and(|blob| blob == key.blob);
        match in_files.iter().position(same) {
            Some(position) => {
                again.push(in_files.remove(position));
                preferred.push(Candidate::Agent(key));
            }
            None => others.push(Candidate::Agent(key)),
        }
    }
    let all = preferred.into_iter().chain(others);
    all.chain(in_files)
        .chain(again)
        .filter_map(|candidate| credential(&candidate, files, agent, held))
        .collect()
}

/// With what signs for it.
fn credential(
    candidate: &Candidate<'_>,
    files: &[SshFile],
    agent: Option<&Agent>,
    held: &[Key],
) -> Option<Credential> {
    match candidate {
        Candidate::Agent(key) => Some(AgentKey::new(agent?, key).into()),
        Candidate::Plain(file) => {
            let key = file.private.clone()?;
            // The public half that lies beside a key is what ssh offers. It signs with another one in vain.
            let beside = file.public.as_ref();
            if beside.is_some_and(|beside| beside.key_data() != key.public_key().key_data()) {
                return None;
            }
            is_offered(&key.algorithm()).then(|| Credential::Key {
                name: name(key.public_key(), &file.path.display()),
                key,
            })
        }
        Candidate::Certificate(file, certificate) => {
            let public = PublicKey::from(certificate.public_key().clone());
            let origin = with_suffix(&file.path, "-cert.pub");
            let name = name(&public, &format_args!("certificate {}", origin.display()));
            let is_held = |key: &&Key| {
                matches!(&key.identity, AgentIdentity::PublicKey { key, .. }
                    if key.key_data() == certificate.public_key())
            };
            if let (Some(agent), Some(key)) = (agent, held.iter().find(is_held)) {
                return Some(AgentKey::certified(agent, key, certificate, name).into());
            }
            let mut keys = files.iter().filter_map(|file| file.private.as_ref());
            let key = keys.find(|key| key.public_key().key_data() == certificate.public_key())?;
            Some(Credential::Certificate {
                key: key.clone(),
                certificate: Box::new((*certificate).clone()),
                name,
            })
        }
    }
}
