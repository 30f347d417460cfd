//! The decision on a host key.

use std::ops::RangeInclusive;

use russh::keys::{HashAlg, PublicKey};

use crate::error::HostKeyProblem;
use crate::printable;

/// The lengths of RSA keys that are taken, in bits. ssh takes no shorter ones (sshkey.h,
/// `SSH_RSA_MINIMUM_MODULUS_SIZE`); what longer ones sign, the library cannot check.
const RSA_BITS: RangeInclusive<u32> = 1024..=8192;

/// What to do about the key that the server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostKeyDecision {
    Trusted,
    /// Unknown, and the policy takes unknown keys: trusted once `TrustStore::remember` has
    /// stored it.
    TrustedNew,
    Refused(HostKeyProblem),
}

impl HostKeyDecision {
    /// Another key was expected: `expected` says which.
    pub(super) fn changed(key: &PublicKey, expected: Vec<String>) -> Self {
        Self::Refused(HostKeyProblem::Changed {
            algorithm: printable(key.algorithm().to_string()),
            fingerprint: fingerprint(key),
            expected,
        })
    }
}

/// What is wrong with the length of the key.
pub(super) fn unfit_length(key: &PublicKey) -> Option<HostKeyProblem> {
    let key_data = key.key_data().rsa()?;
    let leading = key_data.n().as_positive_bytes()?.first()?.leading_zeros();
    // The library counts whole bytes.
    let bits = key_data.key_size() - leading;
    (!RSA_BITS.contains(&bits)).then(|| HostKeyProblem::KeyLength {
        fingerprint: fingerprint(key),
        bits,
    })
}

/// The SHA-256 fingerprint, as `ssh-keygen -l` prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::Mpint;
    use russh::keys::ssh_key::public::{KeyData, RsaPublicKey};

    use super::*;
    use crate::host_key::HostKeyPolicy;
    use crate::transport::known_hosts::TrustStore;

    fn rsa(bits: usize) -> PublicKey {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= modulus.len() * 8 - bits;
        let number = Mpint::from_positive_bytes;
        let key = RsaPublicKey::new(number(&[1, 0, 1]), number(&modulus)).unwrap();
        KeyData::Rsa(key).into()
    }

    #[tokio::test]
    async fn an_rsa_key_is_trusted_only_if_ssh_would_take_its_length() {
        for (bits, taken) in [
            (1000, false),
            (1023, false),
            (1024, true),
            (8192, true),
            (8193, false),
            (16384, false),
        ] {
            let key = rsa(bits);
            for policy in [
                HostKeyPolicy::pinned(key.to_openssh().unwrap()),
                HostKeyPolicy::dangerous_accept_any(),
            ] {
                let store = TrustStore::load(&policy, "web-1", 22).await.unwrap();
                match store.decide(&key) {
                    HostKeyDecision::Trusted => assert!(taken, "{bits}"),
                    HostKeyDecision::Refused(problem) => {
                        let text = problem.to_string();
                        let length = format!("RSA key of {bits} bits");
                        assert!(!taken && text.contains(&length), "{bits}: {text}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
