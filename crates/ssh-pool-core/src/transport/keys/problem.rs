//! Why an identity cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;

use russh::keys::Error as KeyError;
use russh::keys::ssh_key::Error as CertificateError;

use crate::error::no_descriptors;

/// The cause of an `Error::Identity`. Never with a secret.
#[derive(Debug)]
pub(super) enum Problem {
    /// No identity at all, as from `Identity::several` of nothing.
    Nothing,
    NoAgentVariable,
    Agent(io::Error),
    #[cfg_attr(unix, allow(dead_code, reason = "where there are no Unix sockets"))]
    NoAgentSupport,
    Unreadable(PathBuf, io::Error),
    Encrypted,
    WrongPassphrase(KeyError),
    OldEncryption,
    UnsupportedKind(String),
    NotAKey(KeyError),
    NotACertificate(PathBuf, CertificateError),
    OtherKeyCertified,
    Stopped,
}

impl Problem {
    /// Nothing is wrong with the identity.
    pub(super) fn is_want_of_descriptors(&self) -> bool {
        match self {
            Problem::Agent(error) | Problem::Unreadable(_, error) => no_descriptors(error),
            _ => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Nothing => f.write_str(
                "it is empty: no agent is running and no default key file exists, or no identity \
                 was given",
            ),
            Problem::NoAgentVariable => f.write_str(
                "$SSH_AUTH_SOCK was not set when the identity was made; start an agent, or use \
                 Identity::agent_at",
            ),
            Problem::Agent(_) => f.write_str("the agent does not answer; check that it runs"),
            Problem::NoAgentSupport => {
                f.write_str("agents are reached through Unix sockets, which this system lacks")
            }
            Problem::Unreadable(path, _) => write!(f, "cannot read {}", path.display()),
            Problem::Encrypted => f.write_str(
                "the key is encrypted and no passphrase was given; use \
                 Identity::key_file_with_passphrase or an agent",
            ),
            Problem::WrongPassphrase(_) => f.write_str("the passphrase is wrong"),
            Problem::OldEncryption => f.write_str(
                "the key is encrypted in an old way; `ssh-keygen -p -f FILE` rewrites it",
            ),
            Problem::UnsupportedKind(kind) => {
                write!(f, "{kind} keys cannot be used from a file; use an agent")
            }
            Problem::NotAKey(_) => f.write_str("not a private key of a supported kind"),
            Problem::NotACertificate(path, _) => {
                write!(f, "{} is not an OpenSSH certificate", path.display())
            }
            Problem::OtherKeyCertified => f.write_str("the certificate is for another key"),
            Problem::Stopped => f.write_str("the task that loads it was stopped"),
        }
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Problem::Agent(error) | Problem::Unreadable(_, error) => Some(error),
            Problem::WrongPassphrase(error) | Problem::NotAKey(error) => Some(error),
            Problem::NotACertificate(_, error) => Some(error),
            _ => None,
        }
    }
}
