//! The formats of private keys.

use russh::keys::ssh_encoding::base64::{Base64, Encoding};
use russh::keys::ssh_key::Error as FormatError;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Error as KeyError, PrivateKey, decode_secret_key};
use zeroize::Zeroizing;

use super::openssh::Container;
use super::problem::Problem;

const OPENSSH: &str = "OPENSSH PRIVATE KEY";
const PKCS8: &str = "PRIVATE KEY";
const PKCS8_ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const RSA: &str = "RSA PRIVATE KEY";
const EC: &str = "EC PRIVATE KEY";
const DSA: &str = "DSA PRIVATE KEY";

/// Rewrites a key in OpenSSH's own format and encryption.
const SSH_KEYGEN: &str = "ssh-keygen -p -f FILE";
/// OpenSSL 3 keeps the oldest ciphers in a provider of their own.
const OPENSSL: &str =
    "openssl pkcs8 -topk8 -v2 aes-256-cbc -provider legacy -provider default -in FILE -out NEW";

/// Whether a private key's text is encrypted, as far as its envelope tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protection {
    None,
    Encrypted,
    /// In a way that is not supported: which, and the command that converts the file.
    Unsupported(String, &'static str),
}

impl Protection {
    pub(super) fn of(text: &str) -> Self {
        if text.trim_start().starts_with("PuTTY-User-Key-File-") {
            return match text.contains("Encryption: none") {
                true => Self::None,
                false => Self::Encrypted,
            };
        }
        if text.contains("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----") {
            let kind = "the format of ssh.com".to_owned();
            return Self::Unsupported(kind, "ssh-keygen -i -f FILE > NEW");
        }
        let Some(armor) = Armor::of(text) else {
            return Self::None;
        };
        match armor.label {
            OPENSSH => match armor.bytes().map(|bytes| Container::parse(&bytes)) {
                Some(Ok(container)) if container.is_encrypted() => Self::Encrypted,
                _ => Self::None,
            },
            PKCS8_ENCRYPTED => match armor.bytes() {
                Some(bytes) => of_pkcs8(&bytes),
                None => Self::None,
            },
            label => match armor.header("DEK-Info:") {
                // The one that the decoder knows.
                Some(info) if label == RSA && info.starts_with("AES-128-CBC,") => Self::Encrypted,
                Some(info) => {
                    let cipher = info.split(',').next().unwrap_or_default();
                    let kind = format!("PEM encryption with {}", crate::printable(cipher));
                    Self::Unsupported(kind, SSH_KEYGEN)
                }
                None => Self::None,
            },
        }
    }
}

/// PKCS#8 names the way in which it is encrypted (RFC 8018).
fn of_pkcs8(bytes: &[u8]) -> Protection {
    use pkcs8::pkcs5::EncryptionScheme;
    match pkcs8::EncryptedPrivateKeyInfoRef::try_from(bytes) {
        Ok(info) => match info.encryption_algorithm {
            EncryptionScheme::Pbes2(_) => Protection::Encrypted,
            _ => Protection::Unsupported("PKCS#8 with PBES1".into(), OPENSSL),
        },
        // An algorithm that the decoder does not know, such as those of PKCS#12.
        Err(_) => Protection::Unsupported("PKCS#8 with an old cipher".into(), SSH_KEYGEN),
    }
}

/// A text between `-----BEGIN …-----` and `-----END …-----`.
struct Armor<'a> {
    label: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Armor<'a> {
    /// The first private key: as for ssh, other blocks may come before it, such as its curve or its
    /// certificate.
    fn of(text: &'a str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let label = lines.find_map(|line| {
            line.strip_prefix("-----BEGIN ")
                .and_then(|rest| rest.strip_suffix("-----"))
                .filter(|label| label.ends_with("PRIVATE KEY"))
        })?;
        Some(Self {
            label,
            lines: lines
                .take_while(|line| !line.starts_with("-----END "))
                .collect(),
        })
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        (self.lines.iter())
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    }

    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let text = Zeroizing::new(self.lines.concat());
        Base64::decode_vec(&text).ok().map(Zeroizing::new)
    }

    /// Its lines as the decoder wants them: it compares whole lines, and a file that was saved on
    /// Windows, or copied out of a mail, has more in each.
    fn clean(&self) -> Zeroizing<String> {
        let length: usize = self.lines.iter().map(|line| line.len() + 1).sum();
        let mut text = Zeroizing::new(String::with_capacity(length + 128));
        text.push_str(&format!("-----BEGIN {}-----\n", self.label));
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&format!("-----END {}-----\n", self.label));
        text
    }
}

/// The private key that `text` holds. The passphrase is not looked at where the text is not encrypted.
pub(super) fn decode(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, Problem> {
    let protection = Protection::of(text);
    let passphrase = match (protection, passphrase) {
        (Protection::Unsupported(kind, command), _) => {
            return Err(Problem::OldEncryption { kind, command });
        }
        (Protection::Encrypted, None) => return Err(Problem::Encrypted),
        (Protection::Encrypted, Some(words)) => Some(words),
        (Protection::None, _) => None,
    };
    let key = match Armor::of(text) {
        Some(armor) if armor.label == OPENSSH => decode_openssh(&armor, passphrase)?,
        Some(armor) if [PKCS8, PKCS8_ENCRYPTED, RSA, EC].contains(&armor.label) => {
            decode_other(&armor.clean(), passphrase)?
        }
        Some(armor) if armor.label == DSA => return Err(Problem::UnsupportedKind("DSA".into())),
        Some(_) => return Err(Problem::NotAKey(KeyError::CouldNotReadKey)),
        None if russh::keys::PublicKey::from_openssh(text.trim()).is_ok() => {
            return Err(Problem::PublicKey);
        }
        // PuTTY's format, or none.
        None => decode_other(text, passphrase)?,
    };
    // Others could be offered, and then fail to sign in the middle of the login.
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        other => Err(Problem::UnsupportedKind(other.to_string())),
    }
}

fn decode_openssh(armor: &Armor<'_>, passphrase: Option<&str>) -> Result<PrivateKey, Problem> {
    let malformed = |error: FormatError| Problem::NotAKey(error.into());
    let bytes = armor
        .bytes()
        .ok_or(Problem::NotAKey(KeyError::CouldNotReadKey))?;
    let container = Container::parse(&bytes).map_err(malformed)?;
    match container.open(passphrase.unwrap_or_default()) {
        Err(FormatError::Crypto) if container.is_encrypted() => Err(Problem::WrongPassphrase),
        result => result.map_err(malformed),
    }
}

fn decode_other(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, Problem> {
    decode_secret_key(text, passphrase).map_err(|error| match error {
        KeyError::UnknownAlgorithm(_) | KeyError::UnsupportedKeyType { .. } => {
            Problem::NotAKey(error)
        }
        // What decrypts to nonsense fails in many ways, depending on the format.
        _ if passphrase.is_some() => Problem::WrongPassphrase,
        _ => Problem::NotAKey(error),
    })
}

/// The public half of a private key in OpenSSH's own format, encrypted or not. The others do not hold
/// it in the clear.
pub(super) fn public_half(text: &str) -> Option<KeyData> {
    let armor = Armor::of(text).filter(|armor| armor.label == OPENSSH)?;
    Container::parse(&armor.bytes()?).ok()?.public().ok()
}
