//! How we speak SSH: algorithms, windows, keepalives.

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::{Preferred, cipher, client};

use super::Endpoint;

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
pub(super) fn client_config(endpoint: &Endpoint, known: &[Algorithm]) -> client::Config {
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
    // Only the parts we have an opinion on: a key exchange list of our own would lose strict
    // key exchange (Terrapin) and extension info, which are pseudo-entries of russh's.
    let preferred = Preferred {
        cipher: Cow::Borrowed(if cpu_has_aes() { WITH_AES } else { WITHOUT_AES }),
        key: Cow::Owned(keys),
        ..Preferred::DEFAULT
    };

    client::Config {
        preferred,
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

    #[test]
    fn known_host_key_algorithms_come_first_and_none_is_lost() {
        let endpoint = Endpoint::for_tests();
        let plain = client_config(&endpoint, &[]).preferred.key.into_owned();
        let last = plain.last().expect("algorithms").clone();
        let sorted = client_config(&endpoint, std::slice::from_ref(&last))
            .preferred
            .key;
        assert_eq!(sorted.first(), Some(&last));
        assert_eq!(sorted.len(), plain.len());
    }

    #[test]
    fn the_cipher_order_follows_the_cpu() {
        let preferred = client_config(&Endpoint::for_tests(), &[]).preferred;
        let first = preferred.cipher.first().map(AsRef::as_ref);
        let expected = if cpu_has_aes() {
            "aes256-gcm@openssh.com"
        } else {
            "chacha20-poly1305@openssh.com"
        };
        assert_eq!(first, Some(expected));
    }

    #[test]
    fn strict_key_exchange_stays_in_the_list() {
        let preferred = client_config(&Endpoint::for_tests(), &[]).preferred;
        let names: Vec<_> = preferred.kex.iter().map(AsRef::as_ref).collect();
        assert!(names.contains(&"kex-strict-c-v00@openssh.com"), "{names:?}");
    }
}
