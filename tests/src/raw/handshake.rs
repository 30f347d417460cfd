//! Identification and key exchange (RFC 4253, sections 4.2 and 7; RFC 8731).

use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::packet::Key;
use super::payload::{Fields, Payload};

/// The host key of every [`RawServer`](super::RawServer): an Ed25519 key of this seed.
const SEED: [u8; 32] = [7; 32];

/// What the server proposes and answers in a key exchange. Each part may be wrong.
#[derive(Clone, Debug)]
pub struct KeyExchange {
    /// Name-lists in the order of KEXINIT: key exchange, host key; ciphers, MACs and compression
    /// to the server and from it; languages.
    pub lists: [String; 10],
    /// A guessed packet is said to follow.
    pub first_kex_packet_follows: bool,
    /// In the place of the host key.
    pub host_key: Option<Vec<u8>>,
    /// In the place of the server's ephemeral public key.
    pub ephemeral: Option<Vec<u8>>,
    /// In the place of the signature.
    pub signature: Option<Vec<u8>>,
}

impl Default for KeyExchange {
    fn default() -> Self {
        let cipher = "aes256-gcm@openssh.com";
        let mac = "hmac-sha2-256";
        let lists = [
            "curve25519-sha256,ext-info-s,kex-strict-s-v00@openssh.com",
            "ssh-ed25519",
            cipher,
            cipher,
            mac,
            mac,
            "none",
            "none",
            "",
            "",
        ];
        Self {
            lists: lists.map(str::to_owned),
            first_kex_packet_follows: false,
            host_key: None,
            ephemeral: None,
            signature: None,
        }
    }
}

/// The keys of one exchange, by direction.
pub(super) struct NewKeys {
    pub(super) exchange_hash: Vec<u8>,
    secret: Vec<u8>,
}

impl KeyExchange {
    /// The KEXINIT.
    #[must_use]
    pub fn init(&self) -> Vec<u8> {
        let mut payload = Payload::new(super::number::KEXINIT).bytes([9; 16]);
        for list in &self.lists {
            payload = payload.string(list);
        }
        let follows = u8::from(self.first_kex_packet_follows);
        payload.byte(follows).number(0).into()
    }

    /// The KEX_ECDH_REPLY to `client_init`, and the keys. `identifications` and `inits` are those
    /// of the client and the server.
    pub(super) fn reply(
        &self,
        client_init: &[u8],
        identifications: [&[u8]; 2],
        inits: [&[u8]; 2],
    ) -> (Vec<u8>, NewKeys) {
        let random = SystemRandom::new();
        let private = EphemeralPrivateKey::generate(&X25519, &random).expect("randomness");
        let public = private.compute_public_key().expect("a public key");
        let theirs = Fields::of(client_init).string().to_vec();
        let shared = agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, &theirs), |key| {
            mpint(key)
        });
        // A client under test has a good key; if not, nothing fits, which is what it deserves.
        let secret = shared.unwrap_or_default();
        let pair = host_key();
        let host_key = self.host_key.clone().unwrap_or_else(host_key_blob);
        let ours = self.ephemeral.clone();
        let ours = ours.unwrap_or_else(|| public.as_ref().to_vec());
        let mut hashed = Payload::new(0);
        for part in [
            identifications[0],
            identifications[1],
            inits[0],
            inits[1],
            &host_key,
            &theirs,
            &ours,
        ] {
            hashed = hashed.string(part);
        }
        let hashed: Vec<u8> = hashed.bytes(&secret).into();
        let exchange_hash = digest(&SHA256, &hashed[1..]).as_ref().to_vec();
        let signature = self.signature.clone().unwrap_or_else(|| {
            let signed = pair.sign(&exchange_hash);
            strings(&[b"ssh-ed25519", signed.as_ref()])
        });
        let reply = Payload::new(super::number::KEX_ECDH_REPLY)
            .string(&host_key)
            .string(ours)
            .string(signature);
        let keys = NewKeys {
            exchange_hash,
            secret,
        };
        (reply.into(), keys)
    }
}

impl NewKeys {
    fn derive(&self, letter: u8, session: &[u8]) -> [u8; 32] {
        // RFC 4253, section 7.2. SHA-256 is as long as the longest key here.
        let parts = [&self.secret[..], &self.exchange_hash, &[letter], session];
        let hash = digest(&SHA256, &parts.concat());
        hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn key(&self, nonce: u8, key: u8, session: &[u8]) -> Key {
        let nonce = self.derive(nonce, session)[..12].try_into();
        Key::new(&self.derive(key, session), nonce.expect("12 bytes"))
    }

    pub(super) fn client_key(&self, session: &[u8]) -> Key {
        self.key(b'A', b'C', session)
    }

    pub(super) fn server_key(&self, session: &[u8]) -> Key {
        self.key(b'B', b'D', session)
    }
}

fn host_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a seed of 32 bytes")
}

/// The public half of the host key, as it goes over the wire.
pub(super) fn host_key_blob() -> Vec<u8> {
    strings(&[b"ssh-ed25519", host_key().public_key().as_ref()])
}

pub(super) fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut payload = Payload::new(0);
    for part in parts {
        payload = payload.string(part);
    }
    let bytes: Vec<u8> = payload.into();
    bytes[1..].to_vec()
}

/// A positive number as an mpint, with its length.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut digits = bytes[zeros..].to_vec();
    if digits.first().is_some_and(|first| *first >= 0x80) {
        digits.insert(0, 0);
    }
    strings(&[&digits])
}
