//! Packets (RFC 4253, section 6), encrypted by AES-256-GCM (RFC 5647) once there are keys.

use std::io;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const TAG: usize = 16;
/// What OpenSSH takes.
const LONGEST: u32 = 256 << 10;

/// A packet in which each part may be wrong.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    /// The message.
    pub payload: Vec<u8>,
    /// In the place of the true packet length.
    pub length: Option<u32>,
    /// In the place of the true padding length.
    pub padding: Option<u8>,
    /// One bit of the authentication tag is flipped.
    pub bad_tag: bool,
    /// Only this many bytes of it are sent.
    pub cut: Option<usize>,
}

/// The key of one direction.
pub(super) struct Key {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Key {
    pub(super) fn new(key: &[u8; 32], nonce: [u8; 12]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            nonce,
        }
    }

    /// RFC 5647, section 7.1: the last 64 bits count packets.
    fn next_nonce(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let counter: [u8; 8] = self.nonce[4..].try_into().expect("eight bytes");
        let next = u64::from_be_bytes(counter).wrapping_add(1);
        self.nonce[4..].copy_from_slice(&next.to_be_bytes());
        nonce
    }
}

/// The sending direction.
pub(super) struct Sender {
    pub(super) stream: OwnedWriteHalf,
    pub(super) key: Option<Key>,
}

impl Sender {
    pub(super) async fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let mut bytes = self.wire(packet);
        bytes.truncate(packet.cut.unwrap_or(usize::MAX));
        self.stream.write_all(&bytes).await
    }

    /// The bytes of a packet on the wire. Each call counts as a packet that was sent.
    pub(super) fn wire(&mut self, packet: &Packet) -> Vec<u8> {
        // The length itself is not encrypted, and not part of a block.
        let (block, header) = match self.key {
            None => (8, 4),
            Some(_) => (16, 0),
        };
        let unpadded = header + 1 + packet.payload.len();
        let padding = 4 + (block - (unpadded + 4) % block) % block;
        let claimed = u8::try_from(padding).expect("less than 20");
        let mut body = vec![packet.padding.unwrap_or(claimed)];
        body.extend(&packet.payload);
        body.resize(body.len() + padding, 0);
        let length = u32::try_from(body.len()).expect("a packet fits 32 bits");
        let length = packet.length.unwrap_or(length).to_be_bytes();
        if let Some(key) = &mut self.key {
            let nonce = key.next_nonce();
            let tag = key
                .key
                .seal_in_place_separate_tag(nonce, Aad::from(length), &mut body)
                .expect("a packet can be encrypted");
            body.extend(tag.as_ref());
            if packet.bad_tag
                && let Some(last) = body.last_mut()
            {
                *last ^= 1;
            }
        }
        [&length[..], &body[..]].concat()
    }
}

/// The receiving direction.
pub(super) struct Receiver {
    pub(super) stream: OwnedReadHalf,
    pub(super) key: Option<Key>,
}

impl Receiver {
    /// The next message.
    pub(super) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let tag = if self.key.is_some() { TAG } else { 0 };
        let claimed = u32::from_be_bytes(length);
        if claimed > LONGEST {
            return Err(io::Error::other("the client sent too long a packet"));
        }
        let mut body = vec![0; usize::try_from(claimed).expect("it fits") + tag];
        self.stream.read_exact(&mut body).await?;
        if let Some(key) = &mut self.key {
            let nonce = key.next_nonce();
            key.key
                .open_in_place(nonce, Aad::from(length), &mut body)
                .map_err(|_| io::Error::other("the client sent a bad tag"))?;
            body.truncate(body.len() - TAG);
        }
        let padding = usize::from(*body.first().ok_or(io::ErrorKind::InvalidData)?);
        let end = body.len().checked_sub(padding).filter(|end| *end > 1);
        let end = end.ok_or(io::ErrorKind::InvalidData)?;
        Ok(body[1..end].to_vec())
    }
}
