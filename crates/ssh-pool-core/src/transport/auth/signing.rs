//! Which algorithm a key signs a login with.

use russh::keys::{Algorithm, HashAlg};

/// What the server says of RSA in `server-sig-algs` (RFC 8308).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerRsa {
    /// It takes this hash, and those before it.
    Sha2(HashAlg),
    OnlySha1,
    NotTold,
}

/// What is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Key,
    Certificate,
}

/// The hash to sign with, where that is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash(pub(super) Option<HashAlg>);

/// Why a key is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOffered(pub(super) &'static str);

/// Whether a key of this kind may be offered: not RSA, whose hash is a choice.
pub(super) fn fixed(
    algorithm: &Algorithm,
    form: Form,
    allowed: &[String],
) -> Result<Hash, NotOffered> {
    match has(allowed, algorithm, form) {
        true => Ok(Hash(None)),
        false => Err(NotOffered("Algorithms::public_key has no such kind")),
    }
}

/// The hash that an RSA key signs with. `ssh-rsa`, which is SHA-1, is used only if it is allowed, and
/// where ssh uses it: with servers that take nothing else, or do not say what they take.
pub(super) fn rsa(server: ServerRsa, form: Form, allowed: &[String]) -> Result<Hash, NotOffered> {
    let may = |hash| has(allowed, &Algorithm::Rsa { hash }, form);
    let sha1 = may(None);
    let hashes: &[HashAlg] = match server {
        ServerRsa::OnlySha1 if sha1 => return Ok(Hash(None)),
        ServerRsa::OnlySha1 => {
            return Err(NotOffered(
                "the server wants SHA-1, see Algorithms::public_key",
            ));
        }
        ServerRsa::NotTold if sha1 => return Ok(Hash(None)),
        ServerRsa::Sha2(HashAlg::Sha256) => &[HashAlg::Sha256],
        ServerRsa::Sha2(_) | ServerRsa::NotTold => &[HashAlg::Sha512, HashAlg::Sha256],
    };
    let first = hashes.iter().find(|hash| may(Some(**hash)));
    if first.is_none() && sha1 {
        // The caller wants nothing else, and the library does not tell whether the server takes it.
        return Ok(Hash(None));
    }
    let first = first.ok_or(NotOffered(
        "Algorithms::public_key has no RSA that the server takes",
    ));
    first.map(|hash| Hash(Some(*hash)))
}

fn has(allowed: &[String], algorithm: &Algorithm, form: Form) -> bool {
    let name = match form {
        Form::Key => algorithm.to_string(),
        Form::Certificate => algorithm.to_certificate_type(),
    };
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_signs_only_where_it_is_allowed_and_the_server_knows_nothing_else() {
        let (sha256, sha512) = (HashAlg::Sha256, HashAlg::Sha512);
        let stock = ["rsa-sha2-512", "rsa-sha2-256"];
        let old = ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"];
        for (server, allowed, expected) in [
            (ServerRsa::Sha2(sha512), &stock[..], Some(Some(sha512))),
            (
                ServerRsa::Sha2(sha512),
                &["rsa-sha2-256"],
                Some(Some(sha256)),
            ),
            (ServerRsa::Sha2(sha512), &old, Some(Some(sha512))),
            (ServerRsa::Sha2(sha256), &["rsa-sha2-512"], None),
            (ServerRsa::Sha2(sha512), &["ssh-rsa"], Some(None)),
            (ServerRsa::OnlySha1, &stock, None),
            (ServerRsa::OnlySha1, &old, Some(None)),
            (ServerRsa::NotTold, &stock, Some(Some(sha512))),
            (ServerRsa::NotTold, &old, Some(None)),
        ] {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            let chosen = rsa(server, Form::Key, &allowed).ok().map(|hash| hash.0);
            assert_eq!(chosen, expected, "{server:?} {allowed:?}");
        }
    }

    #[test]
    fn a_certificate_has_a_name_of_its_own() {
        let allowed = ["ssh-ed25519".to_owned()];
        assert!(fixed(&Algorithm::Ed25519, Form::Key, &allowed).is_ok());
        assert!(fixed(&Algorithm::Ed25519, Form::Certificate, &allowed).is_err());
    }
}
