//! Key files, as ssh reads them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use russh::keys::{Certificate, PublicKey};
use zeroize::Zeroizing;

use super::problem::Problem;
use crate::secret::Secret;

/// The longest key file, in bytes. OpenSSH's `MAX_KEY_FILE_SIZE`.
const LONGEST: u64 = 1024 * 1024;

/// Begins a text that an editor of Windows has saved.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The text of a private key. As for ssh, a file of ours that others may read is not used.
pub(super) fn read_private(path: &Path) -> Result<Secret, Problem> {
    let (file, text) = read(path)?;
    // That of a public key does not matter, and the error is another one.
    if PublicKey::from_openssh(text.trim()).is_err() {
        check_mode(path, &file)?;
    }
    Ok(Secret::new(text.as_str()))
}

/// The text of a public key or a certificate.
pub(super) fn read_public(path: &Path) -> Result<String, Problem> {
    read(path).map(|(_, text)| text.as_str().to_owned())
}

pub(super) fn read_certificate(path: &Path) -> Result<Certificate, Problem> {
    Certificate::from_openssh(read_public(path)?.trim())
        .map_err(|error| Problem::NotACertificate(path.to_owned(), error))
}

/// The same file with something added to its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn read(path: &Path) -> Result<(File, Zeroizing<String>), Problem> {
    let unreadable = |error| Problem::Unreadable(path.to_owned(), error);
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    // Not to grow: a buffer that is moved leaves its content behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(size.min(LONGEST)).unwrap_or_default() + 1,
    ));
    let read = (&file).take(LONGEST + 1).read_to_end(&mut bytes);
    if read.map_err(unreadable)? as u64 > LONGEST {
        return Err(Problem::TooLong(path.to_owned()));
    }
    // A comment may be in any encoding.
    let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    let text = match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => Zeroizing::new(rest.to_owned()),
        None => text,
    };
    Ok((file, text))
}

/// What ssh calls an unprotected private key file: ours, and others may do something with it.
#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), Problem> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file
        .metadata()
        .map_err(|error| Problem::Unreadable(path.to_owned(), error))?;
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 && metadata.uid() == nix::unistd::getuid().as_raw() {
        return Err(Problem::TooOpen(path.to_owned(), mode));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &File) -> Result<(), Problem> {
    Ok(())
}
