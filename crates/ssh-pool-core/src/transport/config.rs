//! How we speak SSH: algorithms, windows, keepalives.

use std::borrow::Cow;

use russh::client::GexParams;
use russh::keys::Algorithm;
use russh::{Preferred, SshId, cipher, client, kex};

use super::Endpoint;
use super::offer::KexCost;

/// After the curves of russh's default, as in ssh's proposal.
const NIST_CURVES: [kex::Name; 3] = [
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

/// Bits of a group that the server chooses (RFC 8270: 2048 at least; ssh takes 2048 to 8192). 3072
/// are as strong as the 256 bits of a curve.
const GROUP_BITS: (usize, usize, usize) = (2048, 3072, 4096);

/// A pseudo entry: it says what we can do, and no key exchange is made of it.
fn is_extension(name: &kex::Name) -> bool {
    let name = name.as_ref();
    name.starts_with("ext-info-") || name.starts_with("kex-strict-")
}

/// Key exchanges on elliptic curves, and their hybrids with ML-KEM, in the order of preference.
pub(super) fn curves() -> Vec<kex::Name> {
    let default = Preferred::DEFAULT.kex.into_owned().into_iter();
    default
        .filter(|name| !is_extension(name) && !name.as_ref().starts_with("diffie-hellman-"))
        .filter(|name| !NIST_CURVES.contains(name))
        .chain(NIST_CURVES)
        .collect()
}

/// What is proposed to a server. One that offers a curve cannot turn to a finite field when the
/// keys are changed.
fn key_exchanges(cost: KexCost) -> Vec<kex::Name> {
    let mut names = curves();
    if cost == KexCost::Expensive {
        names.extend(FINITE_FIELDS);
    }
    // Without these there is no strict key exchange (Terrapin), and no `server-sig-algs`.
    let default = Preferred::DEFAULT.kex.into_owned().into_iter();
    names.extend(default.filter(is_extension));
    names
}

/// What this side says first, without the end of its line (RFC 4253, section 4.2).
pub(super) fn identification() -> Cow<'static, str> {
    match client::Config::default().client_id {
        SshId::Standard(id) => id,
        SshId::Raw(id) => Cow::Owned(id.trim_end().to_owned()),
    }
}

/// The AES-GCM ciphers are the fastest on a CPU with AES instructions, and slow without.
const WITH_AES: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
const WITHOUT_AES: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// The configuration of one dial. `known` are the host key algorithms that the trust store knows
/// for this host: they come first, so that a server with several keys shows the known one.
pub(super) fn client_config(
    endpoint: &Endpoint,
    known: &[Algorithm],
    cost: KexCost,
) -> client::Config {
    let mut keys: Vec<Algorithm> = Vec::new();
    let supported = || Preferred::DEFAULT.key.into_owned().into_iter();
    for algorithm in supported()
        .filter(|algorithm| known.contains(algorithm))
        .chain(supported())
    {
        if !keys.contains(&algorithm) {
            keys.push(algorithm);
        }
    }
    let preferred = Preferred {
        kex: Cow::Owned(key_exchanges(cost)),
        cipher: Cow::Borrowed(if cpu_has_aes() { WITH_AES } else { WITHOUT_AES }),
        key: Cow::Owned(keys),
        ..Preferred::DEFAULT
    };

    let default = client::Config::default();
    let (least, wanted, most) = GROUP_BITS;
    client::Config {
        client_id: SshId::Standard(identification()),
        preferred,
        // A test holds that these are in order, which is all that can be wrong with them.
        gex: GexParams::new(least, wanted, most).unwrap_or(default.gex),
        // Set on the socket before russh sees it; here for the record.
        nodelay: true,
        keepalive_interval: Some(endpoint.keepalive_interval),
        // No limit here: the socket itself notices silence, also while russh cannot.
        keepalive_max: 0,
        limits: russh::Limits {
            rekey_write_limit: endpoint.rekey.0,
            rekey_read_limit: endpoint.rekey.0,
            rekey_time_limit: endpoint.rekey.1,
        },
        ..client::Config::default()
    }
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

    fn config(known: &[Algorithm], cost: KexCost) -> client::Config {
        client_config(&Endpoint::for_tests(), known, cost)
    }

    #[test]
    fn known_host_key_algorithms_come_first_and_none_is_lost() {
        let plain = config(&[], KexCost::Cheap).preferred.key.into_owned();
        let last = plain.last().expect("algorithms").clone();
        let sorted = config(std::slice::from_ref(&last), KexCost::Cheap)
            .preferred
            .key;
        assert_eq!(sorted.first(), Some(&last));
        assert_eq!(sorted.len(), plain.len());
    }

    #[test]
    fn the_cipher_order_follows_the_cpu() {
        let preferred = config(&[], KexCost::Cheap).preferred;
        let first = preferred.cipher.first().map(AsRef::as_ref);
        let expected = if cpu_has_aes() {
            "aes256-gcm@openssh.com"
        } else {
            "chacha20-poly1305@openssh.com"
        };
        assert_eq!(first, Some(expected));
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
        for (cost, finite_fields) in [
            (KexCost::Cheap, &[][..]),
            (KexCost::Expensive, &finite_fields[..]),
        ] {
            let preferred = config(&[], cost).preferred;
            let names: Vec<_> = preferred.kex.iter().map(AsRef::as_ref).collect();
            assert_eq!(names, [&curves[..], finite_fields, &extensions].concat());
        }
    }

    #[test]
    fn groups_of_the_servers_choice_have_bounds() {
        let (least, wanted, most) = GROUP_BITS;
        GexParams::new(least, wanted, most).expect("in order");
    }
}
