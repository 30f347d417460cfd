//! Which algorithms there are, which of them are the default, and what a target makes of that.

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

use crate::algorithms::{Algorithms, assemble};
use crate::error::Error;

/// Key exchanges on elliptic curves, and their hybrids with ML-KEM, as in ssh's proposal.
const CURVES: [kex::Name; 6] = [
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
];

/// As in ssh's proposal, and of those that it does not have the cheaper one first: processor time
/// grows with the third power of the bits, and reaches half a second in group 18.
const FINITE_FIELDS: [kex::Name; 6] = [
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G15_SHA512,
    kex::DH_G17_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G14_SHA256,
];

/// Only where they are asked for: their hash is SHA-1.
const OLD_FINITE_FIELDS: [kex::Name; 3] = [kex::DH_GEX_SHA1, kex::DH_G14_SHA1, kex::DH_G1_SHA1];

/// The AES-GCM ciphers are the fastest on a processor with AES instructions, and slow without.
const WITH_AES: [cipher::Name; 6] = [
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
const WITHOUT_AES: [cipher::Name; 6] = [
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Only where they are asked for (RFC 4253, section 6.3; the attack of CERT VU#958563).
const OLD_CIPHERS: [cipher::Name; 3] = [
    cipher::AES_256_CBC,
    cipher::AES_192_CBC,
    cipher::AES_128_CBC,
];

/// SHA-1 is not broken as a part of an HMAC; ssh proposes it too.
const MACS: [mac::Name; 6] = [
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA1_ETM,
    mac::HMAC_SHA512,
    mac::HMAC_SHA256,
    mac::HMAC_SHA1,
];

const COMPRESSION: [compression::Name; 2] = [compression::NONE, compression::ZLIB_LEGACY];

fn rsa(hash: Option<HashAlg>) -> Algorithm {
    Algorithm::Rsa { hash }
}

/// What a server may prove itself with.
fn host_keys() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        rsa(Some(HashAlg::Sha512)),
        rsa(Some(HashAlg::Sha256)),
    ]
}

/// What user keys may sign with: keys, then their certificates.
fn public_keys() -> Vec<String> {
    let tokens = [Algorithm::SkEd25519, Algorithm::SkEcdsaSha2NistP256];
    let keys: Vec<Algorithm> = host_keys().into_iter().chain(tokens).collect();
    let plain = keys.iter().map(Algorithm::to_string);
    plain
        .chain(keys.iter().map(Algorithm::to_certificate_type))
        .collect()
}

/// A pseudo entry: it says what we can do, and no key exchange is made of it.
fn is_extension(name: &kex::Name) -> bool {
    let name = name.as_ref();
    name.starts_with("ext-info-") || name.starts_with("kex-strict-")
}

/// Whether it computes in a finite field, which takes long.
pub(super) fn is_finite_field(name: &kex::Name) -> bool {
    name.as_ref().starts_with("diffie-hellman-")
}

/// What is proposed to a server, and offered to it in the login.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    /// Key exchanges, without the pseudo entries.
    pub(super) kex: Vec<kex::Name>,
    pub(super) host_keys: Vec<Algorithm>,
    /// The host key algorithms are in the order of the caller's choice.
    pub(super) host_keys_in_order: bool,
    pub(super) ciphers: Vec<cipher::Name>,
    pub(super) macs: Vec<mac::Name>,
    pub(super) compression: Vec<compression::Name>,
    /// Names of signature algorithms.
    pub(super) public_keys: Vec<String>,
}

impl Proposal {
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a list that [`check`] refuses.
    pub(super) fn of(chosen: &Algorithms) -> Result<Self, Error> {
        let kex = [&CURVES[..], &FINITE_FIELDS].concat();
        let old_kex = [&kex[..], &OLD_FINITE_FIELDS].concat();
        let ciphers = if cpu_has_aes() { WITH_AES } else { WITHOUT_AES };
        let old_ciphers = [&ciphers[..], &OLD_CIPHERS].concat();
        let compressions = [&COMPRESSION[..], &[compression::ZLIB]].concat();
        let all_host_keys = [&host_keys()[..], &[rsa(None)]].concat();
        let sha1 = [rsa(None).to_string(), rsa(None).to_certificate_type()];
        let all_public_keys = [&public_keys()[..], &sha1].concat();
        Ok(Self {
            kex: choose("kex", &chosen.kex, &kex, &old_kex)?,
            host_keys: choose_by(
                Algorithm::to_string,
                "host_key",
                &chosen.host_key,
                &host_keys(),
                &all_host_keys,
            )?,
            host_keys_in_order: (chosen.host_key.as_deref())
                .is_some_and(|list| !list.starts_with(['+', '-'])),
            ciphers: choose("ciphers", &chosen.ciphers, &ciphers, &old_ciphers)?,
            macs: choose("macs", &chosen.macs, &MACS, &MACS)?,
            compression: choose(
                "compression",
                &chosen.compression,
                &COMPRESSION,
                &compressions,
            )?,
            public_keys: choose_by(
                String::clone,
                "public_key",
                &chosen.public_key,
                &public_keys(),
                &all_public_keys,
            )?,
        })
    }

    /// The key exchanges to propose. A server that is offered a curve alone cannot turn to a finite
    /// field when the keys are changed.
    pub(super) fn key_exchanges(&self, finite_fields: bool) -> Vec<kex::Name> {
        let ours = self.kex.iter().copied();
        let mut names: Vec<_> = ours
            .filter(|name| finite_fields || !is_finite_field(name))
            .collect();
        // Without these there is no strict key exchange (Terrapin), and no `server-sig-algs`.
        let default = Preferred::DEFAULT.kex.into_owned().into_iter();
        names.extend(default.filter(is_extension));
        names
    }

    /// The host key algorithms, those of `known` keys first unless the caller has chosen the order.
    pub(super) fn host_keys(&self, known: &[Algorithm]) -> Vec<Algorithm> {
        let mut keys = self.host_keys.clone();
        if !self.host_keys_in_order {
            keys.sort_by_key(|algorithm| !known.contains(algorithm));
        }
        keys
    }
}

fn choose<N: AsRef<str> + Clone>(
    what: &str,
    list: &Option<String>,
    default: &[N],
    known: &[N],
) -> Result<Vec<N>, Error> {
    choose_by(
        |name: &N| name.as_ref().to_owned(),
        what,
        list,
        default,
        known,
    )
}

fn choose_by<N: Clone>(
    name: impl Fn(&N) -> String,
    what: &str,
    list: &Option<String>,
    default: &[N],
    known: &[N],
) -> Result<Vec<N>, Error> {
    let default: Vec<String> = default.iter().map(&name).collect();
    let names: Vec<String> = known.iter().map(&name).collect();
    fn text(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }
    let chosen = assemble(what, list.as_deref(), &text(&default), &text(&names))?;
    let value = |chosen: String| {
        let position = names.iter().position(|name| *name == chosen)?;
        known.get(position).cloned()
    };
    Ok(chosen.into_iter().filter_map(value).collect())
}

/// Checks what a target says.
///
/// # Errors
///
/// [`Error::InvalidInput`] for a name that is not known, and a list that leaves none.
pub(crate) fn check(chosen: &Algorithms) -> Result<(), Error> {
    Proposal::of(chosen).map(drop)
}

fn cpu_has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[allow(
        unreachable_code,
        reason = "the two above return on the CPUs they know"
    )]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal() -> Proposal {
        Proposal::of(&Algorithms::default()).unwrap()
    }

    fn names<N: AsRef<str>>(list: &[N]) -> Vec<&str> {
        list.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn known_host_key_algorithms_come_first_and_none_is_lost() {
        let stock = proposal();
        let last = stock.host_keys.last().unwrap().clone();
        let sorted = stock.host_keys(std::slice::from_ref(&last));
        assert_eq!(sorted.first(), Some(&last));
        assert_eq!(sorted.len(), stock.host_keys.len());
        // As ssh does: not where the caller has said what comes first.
        for (list, first) in [
            ("^ssh-ed25519", "ssh-ed25519"),
            ("ecdsa-sha2-nistp256,rsa-sha2-256", "ecdsa-sha2-nistp256"),
            ("-rsa-sha2-512", "rsa-sha2-256"),
            ("+ssh-rsa", "rsa-sha2-256"),
        ] {
            let chosen = Algorithms::default().host_key(list);
            let keys = Proposal::of(&chosen)
                .unwrap()
                .host_keys(std::slice::from_ref(&last));
            assert_eq!(keys[0].to_string(), first, "{list}");
        }
    }

    #[test]
    fn rsa_with_sha1_is_used_only_where_it_is_asked_for() {
        let stock = proposal();
        assert!(!stock.host_keys.contains(&rsa(None)));
        assert!(
            !stock
                .public_keys
                .iter()
                .any(|name| name.starts_with("ssh-rsa"))
        );
        let old = Algorithms::default()
            .host_key("+ssh-rsa")
            .public_key("+ssh-rsa");
        let old = Proposal::of(&old).unwrap();
        assert_eq!(old.host_keys.last(), Some(&rsa(None)));
        assert_eq!(old.public_keys.last().unwrap(), "ssh-rsa");
    }

    #[test]
    fn the_cipher_order_follows_the_processor() {
        let expected = if cpu_has_aes() {
            "aes256-gcm@openssh.com"
        } else {
            "chacha20-poly1305@openssh.com"
        };
        assert_eq!(names(&proposal().ciphers)[0], expected);
    }

    #[test]
    fn curves_come_in_the_order_of_ssh_and_finite_fields_only_without_a_curve() {
        let curves = [
            "mlkem768x25519-sha256",
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
        ];
        let finite_fields = [
            "diffie-hellman-group-exchange-sha256",
            "diffie-hellman-group16-sha512",
            "diffie-hellman-group15-sha512",
            "diffie-hellman-group17-sha512",
            "diffie-hellman-group18-sha512",
            "diffie-hellman-group14-sha256",
        ];
        // Of these none may be lost.
        let extensions = [
            "ext-info-c",
            "ext-info-s",
            "kex-strict-c-v00@openssh.com",
            "kex-strict-s-v00@openssh.com",
        ];
        for (all, finite_fields) in [(false, &[][..]), (true, &finite_fields[..])] {
            let proposed = proposal().key_exchanges(all);
            let expected = [&curves[..], finite_fields, &extensions].concat();
            assert_eq!(names(&proposed), expected);
        }
    }

    #[test]
    fn no_algorithm_that_protects_nothing_is_known() {
        for list in ["none", "clear", "+none", "3des-cbc", "umac-64@openssh.com"] {
            let set = Algorithms::default();
            for chosen in [
                set.clone().kex(list),
                set.clone().ciphers(list),
                set.macs(list),
            ] {
                let error = check(&chosen).unwrap_err();
                assert!(error.to_string().contains("known are"), "{error}");
            }
        }
    }
}
