//! With what to log in: keys, agents, passwords.

use std::fmt;
use std::path::PathBuf;

use crate::error::Error;
use crate::home;
use crate::secret::Secret;
use crate::{local_user, printable};

mod challenge;

pub(crate) use challenge::Responder;
pub use challenge::{Challenge, Prompt};

/// What a pool proves itself with (RFC 4252), in the order in which it is offered.
///
/// Nothing is read here: files are read, and agents asked, when a connection is made. An identity
/// is part of what decides whether two callers share a connection, and is compared by content.
/// `Debug` shows paths, never key text, passwords or passphrases.
///
/// `~` and `~user` at the beginning of a path are expanded, as in ssh_config's `IdentityFile`,
/// `CertificateFile` and `IdentityAgent`; a home that is not known is reported by
/// `PoolBuilder::build` and `Pool::host`.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Identity;
///
/// let who = Identity::several([
///     Identity::agent(),
///     Identity::key_file("~/.ssh/id_deploy"),
///     Identity::key_file_with_passphrase("/etc/deploy/id_ed25519", "words"),
/// ]);
/// assert!(!format!("{who:?}").contains("words"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    parts: Vec<Part>,
}

/// One way to log in.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// An agent's socket; `None` when `$SSH_AUTH_SOCK` was not set.
    Agent(Option<PathBuf>),
    /// One key of such an agent: a public key line, or a fingerprint.
    AgentKey {
        socket: Option<PathBuf>,
        public: String,
    },
    /// What ssh offers: an agent's keys, and the files in this folder.
    LikeSsh {
        socket: Option<PathBuf>,
        folder: PathBuf,
    },
    KeyFile {
        path: PathBuf,
        passphrase: Option<Secret>,
    },
    KeyText {
        text: Secret,
        passphrase: Option<Secret>,
    },
    /// A key, offered with this certificate.
    Certified {
        key: Box<Part>,
        certificate: PathBuf,
    },
    Password(Secret),
    Prompt(Responder),
    None,
}

impl Identity {
    /// The keys of the running ssh-agent, by the `$SSH_AUTH_SOCK` of this moment: a later change of
    /// the variable makes another identity, because two agents are two identities.
    ///
    /// A missing variable is reported when the identity is used. Servers count every key offered
    /// (sshd's `MaxAuthTries`, 6), so at most five of the agent's keys are offered; keys of types that
    /// no server takes are left out. [`agent_key`](Self::agent_key) chooses one.
    ///
    /// An agent has [`Timeouts::agent`](crate::Timeouts::agent) for each answer.
    #[must_use]
    pub fn agent() -> Self {
        Self::one(Part::Agent(agent_socket()))
    }

    /// The keys of the agent that listens on the Unix socket `path`.
    #[must_use]
    pub fn agent_at(path: impl Into<PathBuf>) -> Self {
        Self::one(Part::Agent(Some(home::expand(path))))
    }

    /// The key of the running ssh-agent with this public half: a line as in a `.pub` or `-cert.pub`
    /// file, or a fingerprint as `ssh-add -l` prints it (`SHA256:…`). No other key is offered, as
    /// with ssh's `IdentitiesOnly` and an `IdentityFile` that names the `.pub` file.
    ///
    /// What is neither is reported by [`PoolBuilder::build`](crate::PoolBuilder::build) and
    /// [`Pool::host`](crate::Pool::host); a key that the agent does not hold, when it is used.
    ///
    /// ```
    /// # use ssh_pool_core as ssh_pool;
    /// use ssh_pool::Identity;
    ///
    /// let identity = Identity::agent_key("SHA256:ldyiXa1JQakitNU5tErauu8DvWQ1dZ7aXu+rm7KQuog");
    /// ```
    #[must_use]
    pub fn agent_key(public: impl Into<String>) -> Self {
        Self::one(Part::AgentKey {
            socket: agent_socket(),
            public: public.into(),
        })
    }

    /// [`agent_key`](Self::agent_key) of the agent that listens on the Unix socket `path`.
    #[must_use]
    pub fn agent_key_at(path: impl Into<PathBuf>, public: impl Into<String>) -> Self {
        Self::one(Part::AgentKey {
            socket: Some(home::expand(path)),
            public: public.into(),
        })
    }

    /// A private key file without passphrase: OpenSSH's own format, PKCS#8, or the older PKCS#1
    /// and SEC1 PEM forms; Ed25519, ECDSA or RSA.
    ///
    /// As for ssh, a file of this user that others may read or write is refused (`chmod 600`).
    #[must_use]
    pub fn key_file(path: impl Into<PathBuf>) -> Self {
        Self::one(Part::KeyFile {
            path: home::expand(path),
            passphrase: None,
        })
    }

    /// An encrypted private key file: OpenSSH's own format, PKCS#8 with PBES2 (RFC 8018), or PuTTY's.
    /// For what is encrypted otherwise, the error names the command that converts it.
    ///
    /// It is decrypted once for a pool, on a thread of its own, outside of
    /// [`Timeouts::connect`](crate::Timeouts::connect); again only when the file has changed. The pool
    /// keeps the decrypted key, or that the passphrase was wrong, until it is dropped, and wipes it
    /// then.
    #[must_use]
    pub fn key_file_with_passphrase(
        path: impl Into<PathBuf>,
        passphrase: impl Into<String>,
    ) -> Self {
        let passphrase = Some(Secret::new(passphrase));
        Self::one(Part::KeyFile {
            path: home::expand(path),
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

    /// A password (RFC 4252, section 8).
    ///
    /// Where the server allows keyboard-interactive (RFC 4256), as the only method, as the next one
    /// or after it has refused the password, the password answers the prompts that do not echo.
    #[must_use]
    pub fn password(password: impl Into<String>) -> Self {
        Self::one(Part::Password(Secret::new(password)))
    }

    /// A callback that answers the questions of keyboard-interactive (RFC 4256), such as one for a
    /// one-time code.
    ///
    /// It is called on a thread where it may block, for each round of questions, and gives one answer
    /// for each prompt; `None` ends the login. The server waits meanwhile, and the whole login has to
    /// end within [`Timeouts::connect`](crate::Timeouts::connect) (10 s by default) and within
    /// sshd's `LoginGraceTime`: to ask a person, raise the first. It is called for every connection
    /// that is made, so a pool that uses one-time codes should have one connection for each host:
    /// [`Limits::connections_per_host`](crate::Limits::connections_per_host).
    ///
    /// Two identities of this kind are equal only if one is a clone of the other.
    ///
    /// ```
    /// # use ssh_pool_core as ssh_pool;
    /// use ssh_pool::Identity;
    ///
    /// # fn one_time_code() -> String { String::new() }
    /// let identity = Identity::several([
    ///     Identity::key_file("/etc/deploy/key"),
    ///     Identity::prompt(|challenge| {
    ///         let answers = challenge.prompts.iter().map(|_| one_time_code());
    ///         Some(answers.collect())
    ///     }),
    /// ]);
    /// ```
    #[must_use]
    pub fn prompt<F>(answer: F) -> Self
    where
        F: Fn(&Challenge) -> Option<Vec<String>> + Send + Sync + 'static,
    {
        Self::one(Part::Prompt(Responder::new(answer)))
    }

    /// No credential: for servers that let in without one, such as Tailscale SSH, and accounts with
    /// an empty password where sshd has `PermitEmptyPasswords`.
    ///
    /// Every login first asks with method `none` (RFC 4252, section 5.2), as ssh does, and learns
    /// from it which methods the server takes. With this identity that is all.
    #[must_use]
    pub fn none() -> Self {
        Self::one(Part::None)
    }

    /// A private key file without passphrase together with its OpenSSH user certificate, the
    /// `…-cert.pub` file that `ssh-keygen -s` writes.
    #[must_use]
    pub fn certificate(key: impl Into<PathBuf>, certificate: impl Into<PathBuf>) -> Self {
        Self::key_file(key).with_certificate(certificate)
    }

    /// The keys of this identity, each offered with the OpenSSH user certificate in this file: for
    /// keys in an agent, keys with a passphrase and keys given as text. The plain key is not offered.
    ///
    /// ```
    /// # use ssh_pool_core as ssh_pool;
    /// use ssh_pool::Identity;
    ///
    /// let certificate = "/etc/deploy/id_ed25519-cert.pub";
    /// let in_agent = Identity::agent().with_certificate(certificate);
    /// let encrypted = Identity::key_file_with_passphrase("/etc/deploy/id_ed25519", "words")
    ///     .with_certificate(certificate);
    /// ```
    #[must_use]
    pub fn with_certificate(self, certificate: impl Into<PathBuf>) -> Self {
        let certificate = home::expand(certificate);
        let certified = |key| Part::Certified {
            key: Box::new(key),
            certificate: certificate.clone(),
        };
        Self {
            parts: self.parts.into_iter().map(certified).collect(),
        }
    }

    /// Several identities, offered in this order.
    ///
    /// One that cannot be used, such as a missing file, is skipped with a warning in the trace
    /// (`tracing`); that is an error only when none is left. The error of a refused login names it.
    #[must_use]
    pub fn several(identities: impl IntoIterator<Item = Identity>) -> Self {
        Self {
            parts: identities
                .into_iter()
                .flat_map(|identity| identity.parts)
                .collect(),
        }
    }

    /// What ssh offers without configuration, in its order: the keys of the agent at `$SSH_AUTH_SOCK`
    /// that also are among the default files, the other keys of the agent, and then the files
    /// themselves: `~/.ssh/id_rsa`, `id_ecdsa` and `id_ed25519`, each followed by the certificate in
    /// `NAME-cert.pub` (ssh_config's `IdentityFile` default). A `NAME.pub` file is enough to bring a
    /// key of the agent to the front. `~` is the home that the user data base has, as for ssh.
    ///
    /// The files are read whenever a connection is made. What ssh would offer in vain is left out:
    /// encrypted files, since no passphrase can be asked for, and public keys without a private one. So is
    /// `id_dsa`, which ssh before 10.0 looks for last and does not offer: it signs with `ssh-dss` only where
    /// `PubkeyAcceptedAlgorithms +ssh-dss` says so, and this library not at all.
    /// A server that lets in without a key does so here, too.
    #[must_use]
    pub fn like_ssh() -> Self {
        Self::one(Part::LikeSsh {
            socket: agent_socket(),
            folder: local_user::home().unwrap_or_default().join(".ssh"),
        })
    }

    /// Checks what can be checked without reading anything.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.parts.iter().try_for_each(Part::validate)
    }

    /// The ways to log in, in order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn one(part: Part) -> Self {
        Self { parts: vec![part] }
    }
}

/// What `$SSH_AUTH_SOCK` names at this moment.
fn agent_socket() -> Option<PathBuf> {
    let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|value| !value.is_empty());
    socket.map(PathBuf::from)
}

impl Part {
    fn validate(&self) -> Result<(), Error> {
        match self {
            Part::Agent(Some(path)) | Part::KeyFile { path, .. } => home::check(path),
            Part::Certified { key, certificate } => {
                key.validate().and_then(|()| home::check(certificate))
            }
            Part::AgentKey { socket, .. } => socket.as_deref().map_or(Ok(()), home::check),
            Part::Agent(None)
            | Part::LikeSsh { .. }
            | Part::KeyText { .. }
            | Part::Password(_)
            | Part::Prompt(_)
            | Part::None => Ok(()),
        }
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
            Part::AgentKey { socket, public } => {
                // A comment is of no use here, and the text may be none of a key at all.
                let key = public
                    .split_whitespace()
                    .take(2)
                    .collect::<Vec<_>>()
                    .join(" ");
                write!(
                    f,
                    "key {} of the {}",
                    printable(key),
                    Part::Agent(socket.clone())
                )
            }
            Part::LikeSsh { socket, folder } => {
                if socket.is_some() {
                    write!(f, "{}, ", Part::Agent(socket.clone()))?;
                }
                write!(f, "key files in {}", folder.display())
            }
            Part::Certified { certificate, .. } => {
                write!(f, "certificate {}", certificate.display())
            }
            Part::Password(_) => f.write_str("password"),
            Part::Prompt(_) => f.write_str("prompt"),
            Part::None => f.write_str("none"),
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
            Identity::agent_key_at("/run/agent", "ssh-ed25519 AAAA hunter2"),
            Identity::key_pem("hunter2").with_certificate("/k/four-cert.pub"),
            Identity::password("hunter2"),
            Identity::prompt(|_| Some(vec!["hunter2".into()])),
            Identity::none(),
        ]);
        assert_eq!(
            format!("{all:?}"),
            "Identity[agent at /run/agent, key file /k/one, key file /k/two, key given as text, \
             key given as text, certificate /k/three-cert.pub, key ssh-ed25519 AAAA of the agent \
             at /run/agent, certificate /k/four-cert.pub, password, prompt, none]"
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
        let prompt = Identity::prompt(|_| None);
        assert_eq!(prompt, prompt.clone());
        assert_ne!(prompt, Identity::prompt(|_| None));
    }

    #[test]
    fn several_keeps_the_order_and_flattens() {
        let (one, two) = (Identity::password("1"), Identity::password("2"));
        let nested = Identity::several([Identity::several([one.clone()]), two.clone()]);
        assert_eq!(nested, Identity::several([one.clone(), two.clone()]));
        assert_ne!(nested, Identity::several([two, one.clone()]));
        assert_eq!(Identity::several([one.clone()]), one);
    }
}
