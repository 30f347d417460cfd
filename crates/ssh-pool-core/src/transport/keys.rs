//! From an identity to credentials: files read, keys decrypted, all before a server is dialled.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{
    Algorithm, Certificate, Error as KeyError, PrivateKey, PublicKey, decode_secret_key,
};
use zeroize::Zeroizing;

use self::problem::Problem;
use super::known_hosts::fingerprint;
use crate::error::{Cause, Error};
use crate::identity::{Identity, Part};
use crate::printable;
use crate::secret::Secret;

mod problem;

/// One thing to offer to a server.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Key {
        key: Arc<PrivateKey>,
        name: String,
    },
    Certificate {
        key: Arc<PrivateKey>,
        certificate: Box<Certificate>,
        name: String,
    },
    Agent {
        path: PathBuf,
    },
    Password(Secret),
}

/// Loads what `identity` names, in order.
///
/// Of several, those that cannot be used are skipped with a warning. Doing this first keeps a
/// server from counting a connection that never had anything to offer.
///
/// # Errors
///
/// [`Error::Identity`] when nothing is left, [`Error::Descriptors`] when nothing can be opened.
pub(crate) async fn load(target: &Arc<str>, identity: &Identity) -> Result<Vec<Credential>, Error> {
    let mut credentials = Vec::new();
    let mut first_problem = None;
    for part in identity.parts() {
        match load_part(part).await {
            Ok(credential) => credentials.push(credential),
            // Another one would do, and may not be the one that this server takes.
            Err(problem) if problem.is_want_of_descriptors() => {
                return Err(Error::Descriptors {
                    target: target.clone().into(),
                    source: Cause::new(problem),
                });
            }
            Err(problem) => {
                let several = identity.parts().len() > 1;
                if several {
                    tracing::warn!(host = %target, identity = %part, %problem, "identity skipped");
                }
                first_problem.get_or_insert((part.to_string(), problem));
            }
        }
    }
    match first_problem {
        Some((identity, problem)) if credentials.is_empty() => Err(Error::Identity {
            target: target.into(),
            identity,
            source: Cause::new(problem),
        }),
        None if credentials.is_empty() => Err(Error::Identity {
            target: target.into(),
            identity: "that was chosen".into(),
            source: Cause::new(Problem::Nothing),
        }),
        _ => Ok(credentials),
    }
}

/// Checks what can be checked without files, agents or a passphrase's slow key derivation: that
/// key texts are keys. An identity with nothing in it is an error only when it is used: each
/// target may bring one of its own.
///
/// # Errors
///
/// [`Error::InvalidInput`].
pub(crate) fn check(identity: &Identity) -> Result<(), Error> {
    let invalid = |problem: Problem| Error::InvalidInput {
        what: "identity",
        reason: problem.to_string(),
    };
    for part in identity.parts() {
        if let Part::KeyText {
            text,
            passphrase: None,
        } = part
        {
            decode(text.expose(), None).map_err(invalid)?;
        }
    }
    Ok(())
}

async fn load_part(part: &Part) -> Result<Credential, Problem> {
    match part {
        Part::Password(password) => Ok(Credential::Password(password.clone())),
        Part::Agent(None) => Err(Problem::NoAgentVariable),
        Part::Agent(Some(path)) => {
            probe_agent(path).await?;
            Ok(Credential::Agent { path: path.clone() })
        }
        // Reading blocks, and deriving a key from a passphrase is made to take long.
        Part::KeyFile { .. } | Part::KeyText { .. } | Part::Certificate { .. } => {
            let part = part.clone();
            tokio::task::spawn_blocking(move || load_key(&part))
                .await
                .unwrap_or(Err(Problem::Stopped))
        }
    }
}

/// Whether somebody listens there: a dead agent is found out before the server is bothered.
#[cfg(unix)]
async fn probe_agent(path: &Path) -> Result<(), Problem> {
    tokio::net::UnixStream::connect(path)
        .await
        .map(drop)
        .map_err(Problem::Agent)
}

#[cfg(not(unix))]
async fn probe_agent(_: &Path) -> Result<(), Problem> {
    Err(Problem::NoAgentSupport)
}

fn load_key(part: &Part) -> Result<Credential, Problem> {
    match part {
        Part::KeyFile { path, passphrase } => {
            let key = decode(&read(path)?, passphrase.as_ref())?;
            Ok(Credential::Key {
                name: name(key.public_key(), &path.display()),
                key: Arc::new(key),
            })
        }
        Part::KeyText { text, passphrase } => {
            let key = decode(text.expose(), passphrase.as_ref())?;
            Ok(Credential::Key {
                name: name(key.public_key(), &"given as text"),
                key: Arc::new(key),
            })
        }
        Part::Certificate {
            key,
            certificate: path,
        } => {
            let key = decode(&read(key)?, None)?;
            let certificate = Certificate::from_openssh(read(path)?.trim())
                .map_err(|error| Problem::NotACertificate(path.clone(), error))?;
            if certificate.public_key() != key.public_key().key_data() {
                return Err(Problem::OtherKeyCertified);
            }
            let name = name(
                key.public_key(),
                &format_args!("certificate {}", path.display()),
            );
            let (key, certificate) = (Arc::new(key), Box::new(certificate));
            Ok(Credential::Certificate {
                key,
                certificate,
                name,
            })
        }
        Part::Agent(_) | Part::Password(_) => Err(Problem::Nothing),
    }
}

/// How errors name a key that was offered: `ssh-ed25519 SHA256:… (where from)`.
pub(super) fn name(key: &PublicKey, origin: &dyn fmt::Display) -> String {
    let algorithm = printable(key.algorithm().to_string());
    format!("{algorithm} {} ({origin})", fingerprint(key))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Problem> {
    std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Problem::Unreadable(path.to_owned(), error))
}

fn decode(text: &str, passphrase: Option<&Secret>) -> Result<PrivateKey, Problem> {
    // The decoder compares whole lines, and a file saved on Windows has one byte more in each.
    let without_cr;
    let text = if text.contains('\r') {
        without_cr = Zeroizing::new(text.replace('\r', ""));
        without_cr.as_str()
    } else {
        text
    };
    let protection = Protection::of(text);
    // ssh does not mind a passphrase for a key that has none. The decoder does.
    let passphrase = passphrase
        .filter(|_| protection != Protection::None)
        .map(Secret::expose);
    if protection == Protection::Unsupported {
        return Err(Problem::OldEncryption);
    }
    let key = decode_secret_key(text, passphrase).map_err(|error| match (protection, &error) {
        (Protection::Encrypted, _) if passphrase.is_none() => Problem::Encrypted,
        (_, KeyError::UnknownAlgorithm(_) | KeyError::UnsupportedKeyType { .. }) => {
            Problem::NotAKey(error)
        }
        // What decrypts to nonsense fails in many ways, depending on the format.
        (Protection::Encrypted, _) => Problem::WrongPassphrase(error),
        _ => Problem::NotAKey(error),
    })?;
    // Others could be offered, and then fail to sign in the middle of the login.
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        other => Err(Problem::UnsupportedKind(other.to_string())),
    }
}

/// Whether a private key's text is encrypted, as far as its envelope tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    None,
    Encrypted,
    /// Old PEM encryption with a cipher or a key type that the decoder does not know.
    Unsupported,
    Unknown,
}

impl Protection {
    fn of(text: &str) -> Self {
        let has = |needle| text.contains(needle);
        if has("-----BEGIN OPENSSH PRIVATE KEY-----") {
            return match PrivateKey::from_openssh(text.trim()) {
                Ok(key) if key.is_encrypted() => Self::Encrypted,
                Ok(_) => Self::None,
                Err(_) => Self::Unknown,
            };
        }
        if has("PuTTY-User-Key-File-") {
            return if has("Encryption: none") {
                Self::None
            } else {
                Self::Encrypted
            };
        }
        if has("Proc-Type: 4,ENCRYPTED") {
            let known = has("BEGIN RSA PRIVATE KEY") && has("DEK-Info: AES-128-CBC,");
            return if known {
                Self::Encrypted
            } else {
                Self::Unsupported
            };
        }
        if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            Self::Encrypted
        } else {
            Self::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_key::LineEnding;
    use russh::keys::ssh_key::certificate::{Builder, CertType};
    use russh::keys::ssh_key::private::RsaKeypair;
    use russh::keys::{EcdsaCurve, encode_pkcs8_pem, encode_pkcs8_pem_encrypted};
    use std::error::Error as _;

    /// The older form that `openssl ecparam -genkey` writes.
    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEIIrGVxmf9puG9OGqx/peLj5ksz/fnPyKGLj0INC9qEo6oAoGCCqGSM49\n\
        AwEHoUQDQgAEN4Pf+/RsQG0AKrz+VChfYYa/g8lPigTuWh0SV+uG1mVqUxk17y3e\n\
        aCLxlUHgCA2x5/cStI8yr8Nmd1PcfuYTtA==\n\
        -----END EC PRIVATE KEY-----\n";

    fn target() -> Arc<str> {
        "me@test:22".into()
    }

    fn new_key(algorithm: Algorithm) -> PrivateKey {
        PrivateKey::random(&mut safe_rng(), algorithm).unwrap()
    }

    fn openssh(key: &PrivateKey) -> String {
        key.to_openssh(LineEnding::LF).unwrap().to_string()
    }

    fn public(key: &PrivateKey) -> String {
        fingerprint(key.public_key())
    }

    /// The fingerprint of the one key that `identity` loads.
    async fn one(identity: Identity) -> String {
        match load(&target(), &identity).await.unwrap().as_slice() {
            [Credential::Key { key, name }] => {
                assert!(name.contains(&public(key)), "{name}");
                public(key)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn problem(identity: Identity) -> String {
        let error = load(&target(), &identity).await.unwrap_err();
        assert!(matches!(error, Error::Identity { .. }), "{error:?}");
        error.source().unwrap().to_string()
    }

    async fn loads_in_every_format(key: PrivateKey) {
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        encode_pkcs8_pem(&key, &mut plain).unwrap();
        encode_pkcs8_pem_encrypted(&key, b"secret", 10, &mut sealed).unwrap();
        for text in [openssh(&key), String::from_utf8(plain).unwrap()] {
            for text in [text.replace('\n', "\r\n"), text] {
                check(&Identity::key_pem(&text)).unwrap();
                assert_eq!(one(Identity::key_pem(&text)).await, public(&key));
                // As with ssh, a needless passphrase does no harm.
                assert_eq!(
                    one(Identity::key_pem_with_passphrase(text, "x")).await,
                    public(&key)
                );
            }
        }
        let ours = openssh(&key.encrypt(&mut safe_rng(), "secret").unwrap());
        for text in [ours, String::from_utf8(sealed).unwrap()] {
            let right = Identity::key_pem_with_passphrase(&text, "secret");
            assert_eq!(one(right).await, public(&key));
            let wrong = problem(Identity::key_pem_with_passphrase(&text, "wrong")).await;
            assert_eq!(wrong, "the passphrase is wrong");
            let missing = problem(Identity::key_pem(&text)).await;
            assert!(missing.contains("no passphrase was given"), "{missing}");
            assert!(check(&Identity::key_pem(&text)).is_err());
        }
    }

    #[tokio::test]
    async fn ed25519_keys_load_in_every_format() {
        loads_in_every_format(new_key(Algorithm::Ed25519)).await;
    }

    #[tokio::test]
    async fn ecdsa_keys_load_in_every_format() {
        let curve = EcdsaCurve::NistP256;
        loads_in_every_format(new_key(Algorithm::Ecdsa { curve })).await;
        one(Identity::key_pem(SEC1)).await;
    }

    #[tokio::test]
    async fn rsa_keys_load_in_every_format() {
        loads_in_every_format(RsaKeypair::random(&mut safe_rng(), 2048).unwrap().into()).await;
    }

    #[tokio::test]
    async fn what_is_no_key_is_told_apart() {
        for text in [
            "",
            "ssh-ed25519 AAAA",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
        ] {
            assert!(
                problem(Identity::key_pem(text))
                    .await
                    .contains("not a private key"),
                "{text}"
            );
            let error = check(&Identity::key_pem(text)).unwrap_err();
            assert!(matches!(
                error,
                Error::InvalidInput {
                    what: "identity",
                    ..
                }
            ));
        }
        let old =
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,\n";
        let text = problem(Identity::key_pem_with_passphrase(old, "x")).await;
        assert!(text.contains("ssh-keygen -p"), "{text}");
        let text = problem(Identity::key_file("/nonexistent/key")).await;
        assert_eq!(text, "cannot read /nonexistent/key");
        assert!(problem(Identity::several([])).await.contains("empty"));
        assert!(
            check(&Identity::several([])).is_ok(),
            "an error only when it is used"
        );
    }

    #[tokio::test]
    async fn of_several_the_unusable_are_skipped_until_none_is_left() {
        let key = new_key(Algorithm::Ed25519);
        let missing = || Identity::key_file("/nonexistent/key");
        let agent = || Identity::agent_at("/nonexistent/agent");
        let some = Identity::several([missing(), agent(), Identity::key_pem(openssh(&key))]);
        assert_eq!(one(some).await, public(&key));
        // The first is the one that was meant most.
        let text = problem(Identity::several([missing(), agent()])).await;
        assert_eq!(text, "cannot read /nonexistent/key");
    }

    #[tokio::test]
    async fn errors_name_the_identity_and_no_secret() {
        let sealed = new_key(Algorithm::Ed25519)
            .encrypt(&mut safe_rng(), "right")
            .unwrap();
        let identity = Identity::key_pem_with_passphrase(openssh(&sealed), "hunter2");
        let error = load(&target(), &identity).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("key given as text") && !text.contains("hunter2"),
            "{text}"
        );
        let credentials = load(&target(), &Identity::password("hunter2"))
            .await
            .unwrap();
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_certificate_must_be_for_its_key() {
        let folder = std::env::temp_dir().join(format!("ssh-pool-certs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (key, ca) = (new_key(Algorithm::Ed25519), new_key(Algorithm::Ed25519));
        let certificate = |subject: &PrivateKey| {
            let public = subject.public_key();
            let mut rng = safe_rng();
            let mut builder =
                Builder::new_with_random_nonce(&mut rng, public, 0, u64::MAX).unwrap();
            builder
                .cert_type(CertType::User)
                .unwrap()
                .valid_principal("me")
                .unwrap();
            builder.sign(&ca).unwrap().to_openssh().unwrap()
        };
        let path = |name: &str| folder.join(name);
        std::fs::write(path("key"), openssh(&key)).unwrap();
        std::fs::write(path("good"), certificate(&key) + "\n").unwrap();
        std::fs::write(path("other"), certificate(&ca)).unwrap();
        std::fs::write(path("junk"), "junk").unwrap();

        let good = load(&target(), &Identity::certificate(path("key"), path("good"))).await;
        assert!(matches!(
            good.unwrap().as_slice(),
            [Credential::Certificate { .. }]
        ));
        let text = problem(Identity::certificate(path("key"), path("other"))).await;
        assert_eq!(text, "the certificate is for another key");
        let text = problem(Identity::certificate(path("key"), path("junk"))).await;
        assert!(text.contains("not an OpenSSH certificate"), "{text}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
