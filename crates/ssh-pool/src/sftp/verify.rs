//! SHA-256 sums of both sides.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Sftp;
use super::download;
use super::error::Error;
use super::local::{self, Content, blocking};
use super::options::Call;
use super::session::{Mode, Session};

pub(super) type Sum = [u8; 32];

/// The sum of the first `size` bytes.
pub(super) async fn local(content: Content, size: u64, path: &Path) -> Result<Sum, Error> {
    let path = path.to_owned();
    blocking(move || match content {
        Content::Memory(bytes) => Ok(Sha256::digest(&bytes).into()),
        Content::File(file) => of_file(&file, size, &path),
    })
    .await
}

fn of_file(file: &Arc<File>, size: u64, path: &Path) -> Result<Sum, Error> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < size {
        let read = file.read_at(&mut buffer, at);
        let count = read.map_err(|e| local::failed("read", path, e))?;
        let left = usize::try_from(size - at).unwrap_or(usize::MAX);
        let bytes = buffer.get(..count.min(left)).unwrap_or_default();
        if bytes.is_empty() {
            return Err(local::changed(path));
        }
        sum.update(bytes);
        at += bytes.len() as u64;
    }
    Ok(sum.finalize().into())
}

/// Whether the first `most` bytes of the remote file, or all of it if it has fewer, have this sum. The
/// server's own `sha256sum` is quick, but it may be missing, or see other files than the SFTP server
/// does: only what it confirms is believed.
pub(super) async fn remote_is(
    call: &Call,
    session: &Arc<Session>,
    path: &str,
    wanted: &Sum,
    most: u64,
) -> Result<bool, Error> {
    // A `head` that fails says nothing, too; and what is empty is quickly read.
    let empty = Sum::from(Sha256::digest([]));
    if *wanted != empty && by_command(&call.sftp, session, path, most).await == Some(*wanted) {
        return Ok(true);
    }
    let opened = session.open_file(path, Mode::Read).await;
    let handle = opened.map_err(|fault| call.sftp.at(fault, "open", path))?;
    Ok(download::sum(call, &handle, path, most).await? == *wanted)
}

async fn by_command(sftp: &Sftp, session: &Session, path: &str, most: u64) -> Option<Sum> {
    // A command starts in the login folder, the SFTP server perhaps elsewhere.
    let path = session.real_path(path).await.ok()?;
    let run = sftp
        .host()
        .command("sh")
        .arg("-c")
        .arg(r#"head -c "$1" -- "$2" | sha256sum"#)
        .arg("sh")
        .arg(most.to_string())
        .arg(path)
        // At 10 MB/s, after which it is quicker to read it.
        .timeout(sftp.request_timeout() + Duration::from_millis(most / 10_000))
        .output();
    let output = run.await.ok().filter(|output| output.status.success())?;
    if output.peer_addr != session.peer {
        return None; // another machine
    }
    parse(&output.stdout)
}

/// The sum in a line of `sha256sum`. It begins with a backslash if the name had to be escaped.
fn parse(line: &[u8]) -> Option<Sum> {
    let line = line.strip_prefix(b"\\").unwrap_or(line);
    let digits = std::str::from_utf8(line.get(..64)?).ok()?;
    if !line.get(64)?.is_ascii_whitespace() {
        return None;
    }
    let mut sum = Sum::default();
    for (at, byte) in sum.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_from_what_sha256sum_says() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let sum: Sum = Sha256::digest([]).into();
        assert_eq!(parse(format!("{hex}  /a\n").as_bytes()), Some(sum));
        assert_eq!(parse(format!("\\{hex}  /a\\nb\n").as_bytes()), Some(sum));
        for line in ["", "no such file", hex, &format!("{hex}0 /a")] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
