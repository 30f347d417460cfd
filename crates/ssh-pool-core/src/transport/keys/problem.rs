//! Why an identity cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::Error as KeyError;
use russh::keys::ssh_key::Error as FormatError;

use crate::error::{no_descriptors, words_of};
use crate::transport::agent::AgentError;

/// The cause of an `Error::Identity`. Never with a secret.
#[derive(Debug)]
pub(in crate::transport) enum Problem {
    /// No identity at all, as from `Identity::several` of nothing.
    Nothing,
    /// What became of the agent, and where files were looked for.
    NothingLikeSsh {
        agent: String,
        folder: PathBuf,
    },
    NoAgentVariable,
    Agent(AgentError),
    /// The agent holds nothing that could be offered.
    EmptyAgent,
    /// The agent does not hold the key with this fingerprint.
    NotInAgent(String),
    Unreadable(PathBuf, io::Error),
    TooLong(PathBuf),
    /// Others may read it: its mode.
    TooOpen(PathBuf, u32),
    Encrypted,
    WrongPassphrase,
    OldEncryption {
        kind: String,
        command: &'static str,
    },
    UnsupportedKind(String),
    PublicKey,
    NotAKey(KeyError),
    NotAPublicKey(FormatError),
    NotACertificate(PathBuf, FormatError),
    OtherKeyCertified,
    NothingToCertify,
    SlowDecryption(Duration),
    NoThread(io::Error),
    /// The same text has failed before.
    Remembered(Arc<Problem>),
    Stopped,
}

impl Problem {
    /// Nothing is wrong with the identity.
    pub(in crate::transport) fn is_want_of_descriptors(&self) -> bool {
        match self {
            Problem::Agent(error) => error.is_want_of_descriptors(),
            Problem::Unreadable(_, error) => no_descriptors(error),
            _ => false,
        }
    }

    /// Without advice, beside what is named `identity`.
    pub(super) fn brief(&self, identity: &str) -> String {
        match self {
            Problem::Unreadable(path, error) if identity.ends_with(&*path.to_string_lossy()) => {
                words_of(error)
            }
            Problem::Unreadable(path, error) => {
                format!("cannot read {}: {}", path.display(), words_of(error))
            }
            problem => {
                let text = problem.to_string();
                text.split("; ").next().unwrap_or(&text).to_owned()
            }
        }
    }
}

impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Nothing => f.write_str(
                "it is empty; choose one, such as Identity::agent or Identity::key_file",
            ),
            Problem::NothingLikeSsh { agent, folder } => write!(
                f,
                "no key: {agent}, and {} has no id_rsa, id_ecdsa or id_ed25519 that can be used; start \
                 an agent, or name a key with Identity::key_file",
                folder.display()
            ),
            Problem::NoAgentVariable => f.write_str(
                "$SSH_AUTH_SOCK was not set when the identity was made; start an agent, or use \
                 Identity::agent_at",
            ),
            Problem::Agent(error) => error.fmt(f),
            Problem::EmptyAgent => {
                f.write_str("the agent is empty or locked; add a key with ssh-add")
            }
            Problem::NotInAgent(fingerprint) => write!(
                f,
                "the agent does not hold the key {fingerprint}, or is locked; add it with ssh-add"
            ),
            Problem::Unreadable(path, error) => write!(
                f,
                "cannot read {}: {}; check that it is there and that this user may read it",
                path.display(),
                words_of(error)
            ),
            Problem::TooLong(path) => write!(f, "{} is longer than 1 MiB", path.display()),
            Problem::TooOpen(path, mode) => {
                let path = path.display();
                write!(
                    f,
                    "others may read {path} (mode {mode:04o}), so it is not used; run \
                     `chmod 600 {path}`"
                )
            }
            Problem::Encrypted => f.write_str(
                "the key is encrypted and no passphrase was given; use \
                 Identity::key_file_with_passphrase or an agent",
            ),
            Problem::WrongPassphrase => f.write_str(
                "the passphrase is wrong; pass the right one, or log in with another identity",
            ),
            Problem::OldEncryption { kind, command } => write!(
                f,
                "the key is encrypted in a way that is not supported ({kind}); convert it with \
                 `{command}`"
            ),
            Problem::UnsupportedKind(kind) => {
                write!(f, "{kind} keys cannot be used from a file; use an agent")
            }
            Problem::PublicKey => {
                f.write_str("it is a public key; name the private key, or use Identity::agent_key")
            }
            Problem::NotAKey(_) => f.write_str("not a private key of a supported kind"),
            Problem::NotAPublicKey(_) => f.write_str(
                "not a public key: give the line of a .pub file, or a fingerprint (SHA256:...)",
            ),
            Problem::NotACertificate(path, _) => {
                write!(f, "{} is not an OpenSSH certificate", path.display())
            }
            Problem::OtherKeyCertified => f.write_str("the certificate is for another key"),
            Problem::NothingToCertify => {
                f.write_str("it has no key that a certificate could be for")
            }
            Problem::SlowDecryption(limit) => write!(
                f,
                "the key was not decrypted within {limit:?}; `ssh-keygen -p -a 16 -f FILE` writes \
                 it with fewer rounds"
            ),
            Problem::NoThread(_) => f.write_str("no thread can be started to decrypt the key"),
            Problem::Remembered(problem) => problem.fmt(f),
            Problem::Stopped => f.write_str("the task that loads it was stopped"),
        }
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Problem::Agent(error) => error.source(),
            Problem::Unreadable(_, error) | Problem::NoThread(error) => Some(error),
            Problem::NotAKey(error) => Some(error),
            Problem::NotAPublicKey(error) | Problem::NotACertificate(_, error) => Some(error),
            Problem::Remembered(problem) => problem.source(),
            _ => None,
        }
    }
}
