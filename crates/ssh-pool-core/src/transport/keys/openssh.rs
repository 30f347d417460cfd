//! OpenSSH's own format of private keys (PROTOCOL.key in its sources).
//!
//! The library's decoder refuses ECDSA keys whose private number is shorter than its curve, which one
//! in 256 is. So the file is taken apart here, its number is padded, and the decoder gets the result.

use russh::keys::PrivateKey;
use russh::keys::ssh_encoding::{Decode, Encode, Reader};
use russh::keys::ssh_key::cipher::Tag;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Cipher, Error, Kdf};
use zeroize::Zeroizing;

const MAGIC: &[u8] = b"openssh-key-v1\0";
/// What the content of a file that is not encrypted is padded to.
const BLOCK: usize = 8;

/// A key file, taken apart.
pub(super) struct Container {
    cipher: Cipher,
    kdf: Kdf,
    public: Vec<u8>,
    content: Zeroizing<Vec<u8>>,
    tag: Option<Tag>,
}

impl Container {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Error> {
        let reader = &mut bytes;
        *reader = reader.strip_prefix(MAGIC).ok_or(Error::FormatEncoding)?;
        let cipher = Cipher::decode(reader)?;
        let kdf = Kdf::decode(reader)?;
        if u32::decode(reader)? != 1 || cipher.is_none() != kdf.is_none() {
            return Err(Error::FormatEncoding);
        }
        let public = Vec::decode(reader)?;
        let content = Zeroizing::new(Vec::decode(reader)?);
        let tag = if cipher.has_tag() {
            let mut tag = Tag::default();
            reader.read(&mut tag)?;
            Some(tag)
        } else {
            None
        };
        Ok(Self {
            cipher,
            kdf,
            public,
            content,
            tag,
        })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// The public key, which is never encrypted.
    pub(super) fn public(&self) -> Result<KeyData, Error> {
        KeyData::decode(&mut self.public.as_slice())
    }

    /// # Errors
    ///
    /// [`Error::Crypto`] when the passphrase is wrong.
    pub(super) fn open(&self, passphrase: &str) -> Result<PrivateKey, Error> {
        let mut content = self.content.clone();
        if self.is_encrypted() {
            if content.len().checked_rem(self.cipher.block_size()) != Some(0) {
                return Err(Error::FormatEncoding);
            }
            let (key, iv) = self.kdf.derive_key_and_iv(self.cipher, passphrase)?;
            (self.cipher)
                .decrypt(&key, &iv, &mut content, self.tag)
                .map_err(|_| Error::Crypto)?;
        }
        let mut reader = content.as_slice();
        // Two equal numbers say that the passphrase was right.
        if u32::decode(&mut reader)? != u32::decode(&mut reader)? {
            return Err(Error::Crypto);
        }
        let mut plain = Zeroizing::new(MAGIC.to_vec());
        Cipher::None.encode(&mut *plain)?;
        Kdf::None.encode(&mut *plain)?;
        1_u32.encode(&mut *plain)?;
        self.public.encode(&mut *plain)?;
        match padded(&content)? {
            Some(padded) => padded.encode(&mut *plain)?,
            None => content.encode(&mut *plain)?,
        }
        PrivateKey::from_bytes(&plain)
    }
}

/// The content with its number as long as its curve, if it is an ECDSA key.
fn padded(content: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let mut reader = content;
    let checks = u64::decode(&mut reader)?;
    let kind = Vec::<u8>::decode(&mut reader)?;
    let size: usize = match kind.as_slice() {
        b"ecdsa-sha2-nistp256" => 32,
        b"ecdsa-sha2-nistp384" => 48,
        b"ecdsa-sha2-nistp521" => 66,
        _ => return Ok(None),
    };
    let curve = Vec::<u8>::decode(&mut reader)?;
    let point = Vec::<u8>::decode(&mut reader)?;
    let number = Zeroizing::new(Vec::<u8>::decode(&mut reader)?);
    let comment = Vec::<u8>::decode(&mut reader)?;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(zeros..).unwrap_or_default();
    let missing = size
        .checked_sub(digits.len())
        .ok_or(Error::FormatEncoding)?;
    // As large as it will be: a buffer that is moved leaves its content behind.
    let mut result = Zeroizing::new(Vec::with_capacity(content.len() + size + BLOCK));
    let mut exact = Zeroizing::new(vec![0; missing]);
    exact.reserve_exact(digits.len());
    exact.extend_from_slice(digits);
    checks.encode(&mut *result)?;
    for part in [&kind, &curve, &point, &*exact, &comment] {
        part.encode(&mut *result)?;
    }
    let padding = result.len().next_multiple_of(BLOCK) - result.len();
    result.extend((1..).take(padding));
    Ok(Some(result))
}
