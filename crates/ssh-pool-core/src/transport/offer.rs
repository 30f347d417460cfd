//! Which key exchanges a server offers, read before the session begins.
//!
//! russh computes a key exchange on the task of the session. An elliptic curve takes a millisecond
//! or less; Diffie-Hellman in a finite field up to half a second, in which that thread of the
//! runtime does nothing else. Where the computation runs is fixed when the session begins, so the
//! server's KEXINIT is read first. That costs no round trip: without it there is nothing to send.

use std::io;
use std::time::Duration;

use russh::kex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::algorithms::is_finite_field;
use super::stream::Socket;

/// RFC 4253, section 6.1: longer packets need not be understood.
const LONGEST: usize = 35_000;

/// Identification, lines before it and the KEXINIT are read ahead up to this size.
const READ_AHEAD: usize = 64 << 10;

/// How long a server may wait for our KEXINIT before it sends its own. RFC 4253, section 7.1, lets
/// both sides send first.
const SILENT: Duration = Duration::from_secs(1);

const KEXINIT: u8 = 20;

/// What the key exchange may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KexCost {
    /// It will be made on an elliptic curve.
    Cheap,
    /// It will not, or the server has not said what it offers.
    Expensive,
}

/// Identifies this side as `id`, which will propose `ours`, reads what the server says first, and puts it back for the
/// session, which will not have to say its identification again.
///
/// Ends with the connection or after [`SILENT`]; a server that does not identify itself is up to
/// the caller's deadline. Not cancel safe.
pub(super) async fn kex_cost(
    socket: &mut Socket,
    id: &str,
    ours: &[kex::Name],
) -> io::Result<KexCost> {
    let id = format!("{id}\r\n");
    socket.write_all(id.as_bytes()).await?;
    socket.skip_writing(id.len());

    let mut heard = Vec::with_capacity(2048);
    let cost = loop {
        let silent = match identified(&heard) {
            None => Duration::MAX,
            Some(_) => SILENT,
        };
        let more = match tokio::time::timeout(silent, socket.read_buf(&mut heard)).await {
            Ok(read) => read? > 0 && heard.len() < READ_AHEAD,
            Err(_) => false,
        };
        match offered(&heard) {
            Offered::Names(names) => {
                // The first of ours that the server has (RFC 4253, section 7.1).
                let has = |name: &&kex::Name| names.split(',').any(|its| its == name.as_ref());
                break match ours.iter().find(has) {
                    Some(name) if !is_finite_field(name) => KexCost::Cheap,
                    _ => KexCost::Expensive,
                };
            }
            Offered::Incomplete if more => {}
            // The session finds out what is wrong.
            Offered::Incomplete | Offered::Unreadable => break KexCost::Expensive,
        }
    };
    socket.put_back(heard);
    Ok(cost)
}

#[derive(Debug, PartialEq, Eq)]
enum Offered<'a> {
    Names(&'a str),
    /// More has to be read.
    Incomplete,
    /// Something else than a KEXINIT.
    Unreadable,
}

/// What follows the identification line (RFC 4253, section 4.2).
fn identified(heard: &[u8]) -> Option<&[u8]> {
    let mut rest = heard;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = rest.split_at_checked(end + 1)?;
        if line.starts_with(b"SSH-") {
            return Some(after);
        }
        rest = after;
    }
}

/// The first name-list of the KEXINIT (RFC 4253, section 7.1).
fn offered(heard: &[u8]) -> Offered<'_> {
    let Some(packet) = identified(heard) else {
        return Offered::Incomplete;
    };
    let Some((length, packet)) = number(packet) else {
        return Offered::Incomplete;
    };
    if length > LONGEST {
        return Offered::Unreadable;
    }
    // The length of the padding, the kind of message, and the cookie.
    let Some((head, packet)) = packet.split_at_checked(1 + 1 + 16) else {
        return Offered::Incomplete;
    };
    if head.get(1) != Some(&KEXINIT) {
        return Offered::Unreadable;
    }
    let Some((length, packet)) = number(packet) else {
        return Offered::Incomplete;
    };
    if length > LONGEST {
        return Offered::Unreadable;
    }
    match packet.get(..length).map(str::from_utf8) {
        Some(Ok(names)) => Offered::Names(names),
        Some(Err(_)) => Offered::Unreadable,
        None => Offered::Incomplete,
    }
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let number = usize::try_from(u32::from_be_bytes(*number)).ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kexinit(names: &str) -> Vec<u8> {
        let mut said = b"hello\r\nSSH-2.0-server\r\n".to_vec();
        let length = u32::try_from(1 + 1 + 16 + 4 + names.len()).unwrap();
        said.extend(length.to_be_bytes());
        said.extend([4, KEXINIT]);
        said.extend([b'\n'; 16]);
        said.extend(u32::try_from(names.len()).unwrap().to_be_bytes());
        said.extend(names.as_bytes());
        said
    }

    #[test]
    fn the_key_exchanges_are_known_with_the_last_byte_of_their_list() {
        let said = kexinit("one,two");
        for length in 0..said.len() {
            assert_eq!(offered(&said[..length]), Offered::Incomplete, "{length}");
        }
        assert_eq!(offered(&said), Offered::Names("one,two"));
        assert_eq!(
            offered(&[&said[..], b"rest"].concat()),
            Offered::Names("one,two")
        );
    }

    #[test]
    fn what_is_no_kexinit_is_left_to_the_session() {
        let said = kexinit("one");
        let start = b"hello\r\nSSH-2.0-server\r\n".len();
        for (at, byte) in [(start, 1), (start + 5, 2), (start + 22, 255)] {
            let mut said = said.clone();
            said[at] = byte;
            assert_eq!(offered(&said), Offered::Unreadable, "{at}");
        }
        assert_eq!(offered(b"GET / HTTP/1.1\r\n"), Offered::Incomplete);
    }
}
