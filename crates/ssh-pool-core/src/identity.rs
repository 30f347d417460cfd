//! With what to log in: keys, agents, passwords.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// What a pool proves itself with (RFC 4252), in the order in which it is offered.
///
/// Nothing is read here: files are read, and agents asked, when a connection is made. An identity
/// is part of what decides whether two callers share a connection, and is compared by content.
/// `Debug` shows paths, never key text, passwords or passphrases.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    parts: Vec<Part>,
}

/// One way to log in.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// An agent's socket; `None` when `$SSH_AUTH_SOCK` was not set.
    Agent(Option<PathBuf>),
    KeyFile {
        path: PathBuf,
        passphrase: Option<Secret>,
    },
    KeyText {
        text: Secret,
        passphrase: Option<Secret>,
    },
    Certificate {
        key: PathBuf,
        certificate: PathBuf,
    },
    Password(Secret),
}

impl Identity {
    /// The keys of the running ssh-agent, by the `$SSH_AUTH_SOCK` of this moment: a later change of
    /// the variable makes another identity, because two agents are two identities.
    ///
    /// A missing variable is reported when the identity is used. Servers count every key offered
    /// (sshd's `MaxAuthTries`, 6), so at most five of the agent's keys are offered.
    #[must_use]
    pub fn agent() -> Self {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|value| !value.is_empty());
        Self::one(Part::Agent(socket.map(PathBuf::from)))
    }

    /// The keys of the agent that listens on the Unix socket `path`.
    #[must_use]
    pub fn agent_at(path: impl Into<PathBuf>) -> Self {
        Self::one(Part::Agent(Some(path.into())))
    }

    /// A private key file without passphrase: OpenSSH's own format, PKCS#8, or the older PKCS#1
    /// and SEC1 PEM forms; Ed25519, ECDSA or RSA.
    #[must_use]
    pub fn key_file(path: impl Into<PathBuf>) -> Self {
        Self::one(Part::KeyFile {
            path: path.into(),
            passphrase: None,
        })
    }

    /// An encrypted private key file: OpenSSH's own format or PKCS#8.
    #[must_use]
    pub fn key_file_with_passphrase(
        path: impl Into<PathBuf>,
        passphrase: impl Into<String>,
    ) -> Self {
        let passphrase = Some(Secret::new(passphrase));
        Self::one(Part::KeyFile {
            path: path.into(),
            passphrase,
        })
    }

    /// The text of a private key, as a file read by [`key_file`](Self::key_file) would contain it.
    #[must_use]
    pub fn key_pem(text: impl Into<String>) -> Self {
        Self::one(Part::KeyText {
            text: Secret::new(text),
            passphrase: None,
        })
    }

    /// The text of an encrypted private key.
    #[must_use]
    pub fn key_pem_with_passphrase(text: impl Into<String>, passphrase: impl Into<String>) -> Self {
        let passphrase = Some(Secret::new(passphrase));
        Self::one(Part::KeyText {
            text: Secret::new(text),
            passphrase,
        })
    }

    /// A password (RFC 4252, section 8). Where the server allows keyboard-interactive only (RFC
    /// 4256), it answers the prompts that do not echo.
    #[must_use]
    pub fn password(password: impl Into<String>) -> Self {
        Self::one(Part::Password(Secret::new(password)))
    }

    /// A private key file without passphrase together with its OpenSSH user certificate, the
    /// `…-cert.pub` file that `ssh-keygen -s` writes.
    #[must_use]
    pub fn certificate(key: impl Into<PathBuf>, certificate: impl Into<PathBuf>) -> Self {
        Self::one(Part::Certificate {
            key: key.into(),
            certificate: certificate.into(),
        })
    }

    /// Several identities, offered in this order.
    ///
    /// One that cannot be used, such as a missing file, is skipped with a warning; that is an
    /// error only when none is left.
    #[must_use]
    pub fn several(identities: impl IntoIterator<Item = Identity>) -> Self {
        Self {
            parts: identities
                .into_iter()
                .flat_map(|identity| identity.parts)
                .collect(),
        }
    }

    /// What ssh offers without configuration: the agent when `$SSH_AUTH_SOCK` is set, then those
    /// of `~/.ssh/id_ed25519`, `id_ecdsa` and `id_rsa` that exist now, each preceded by its
    /// `-cert.pub` certificate when there is one (ssh_config's `IdentityFile` default).
    ///
    /// Encrypted files are skipped, since nobody can be asked for the passphrase.
    #[must_use]
    pub fn like_ssh() -> Self {
        let agent = Self::agent();
        let has_agent = matches!(agent.parts.as_slice(), [Part::Agent(Some(_))]);
        let mut identities = if has_agent { vec![agent] } else { Vec::new() };
        if let Some(home) = std::env::home_dir() {
            identities.extend(Self::default_files(&home.join(".ssh")));
        }
        Self::several(identities)
    }

    /// ssh's default key files that exist in `folder`.
    fn default_files(folder: &Path) -> Vec<Self> {
        let mut found = Vec::new();
        for name in ["id_ed25519", "id_ecdsa", "id_rsa"] {
            let key = folder.join(name);
            if !key.is_file() {
                continue;
            }
            let certificate = folder.join(format!("{name}-cert.pub"));
            if certificate.is_file() {
                found.push(Self::certificate(&key, certificate));
            }
            found.push(Self::key_file(key));
        }
        found
    }

    /// The ways to log in, in order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn one(part: Part) -> Self {
        Self { parts: vec![part] }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")?;
        f.debug_list().entries(&self.parts).finish()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How errors and logs name it: never with a secret.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Agent(Some(path)) => write!(f, "agent at {}", path.display()),
            Part::Agent(None) => f.write_str("agent ($SSH_AUTH_SOCK)"),
            Part::KeyFile { path, .. } => write!(f, "key file {}", path.display()),
            Part::KeyText { .. } => f.write_str("key given as text"),
            Part::Certificate { certificate, .. } => {
                write!(f, "certificate {}", certificate.display())
            }
            Part::Password(_) => f.write_str("password"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_paths_and_no_secret() {
        let all = Identity::several([
            Identity::agent_at("/run/agent"),
            Identity::key_file("/k/one"),
            Identity::key_file_with_passphrase("/k/two", "hunter2"),
            Identity::key_pem("-----BEGIN hunter2"),
            Identity::key_pem_with_passphrase("-----BEGIN hunter2", "hunter2"),
            Identity::certificate("/k/three", "/k/three-cert.pub"),
            Identity::password("hunter2"),
        ]);
        assert_eq!(
            format!("{all:?}"),
            "Identity[agent at /run/agent, key file /k/one, key file /k/two, key given as text, \
             key given as text, certificate /k/three-cert.pub, password]"
        );
    }

    #[test]
    fn identities_are_compared_by_content() {
        assert_eq!(
            Identity::password("a"),
            Identity::password(String::from("a"))
        );
        assert_ne!(Identity::password("a"), Identity::password("b"));
        assert_ne!(Identity::agent_at("/a"), Identity::agent_at("/b"));
        assert_ne!(
            Identity::key_file("/a"),
            Identity::key_file_with_passphrase("/a", "")
        );
        assert_ne!(Identity::key_pem("a"), Identity::key_pem("b"));
    }

    #[test]
    fn several_keeps_the_order_and_flattens() {
        let (one, two) = (Identity::password("1"), Identity::password("2"));
        let nested = Identity::several([Identity::several([one.clone()]), two.clone()]);
        assert_eq!(nested, Identity::several([one.clone(), two.clone()]));
        assert_ne!(nested, Identity::several([two, one.clone()]));
        assert_eq!(Identity::several([one.clone()]), one);
    }

    #[test]
    fn default_files_are_the_existing_ones_with_their_certificates_first() {
        let folder = std::env::temp_dir().join(format!("ssh-pool-ids-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["id_rsa", "id_ed25519", "id_rsa-cert.pub", "id_other"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let found = Identity::default_files(&folder);
        let rsa = folder.join("id_rsa");
        assert_eq!(
            found,
            [
                Identity::key_file(folder.join("id_ed25519")),
                Identity::certificate(&rsa, folder.join("id_rsa-cert.pub")),
                Identity::key_file(&rsa),
            ]
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
