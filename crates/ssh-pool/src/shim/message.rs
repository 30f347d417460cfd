//! What a shim and the pool's process say to each other.
//!
//! Both are the same build of the same library, or nearly: there is a version, and no negotiation.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The variable that tells a shim where to ask, and under which name it is run: version, descriptor
/// and name, with colons between. What a hook runs has the variable too, and another name.
pub(super) const VARIABLE: &str = "SSH_POOL_SHIM";

const VERSION: &str = "1";

/// The descriptor in the programs between. High enough that no shell script has a use for it.
pub(super) const DESCRIPTOR: RawFd = 197;

/// The one byte that carries a shim's descriptors.
pub(super) const HELLO: u8 = b'1';

/// A request may not be longer than what the kernel lets through as arguments.
const LONGEST_REQUEST: usize = 4 << 20;

/// And no longer in words, each of which takes more room than its bytes. Those who call ssh give it a
/// dozen.
const MOST_WORDS: usize = 4096;

/// How much of stderr goes into one frame.
pub(super) const LONGEST_TEXT: usize = 64 << 10;

/// The value of [`VARIABLE`] for a shim that is run as `name`.
pub(super) fn address(name: &OsStr) -> OsString {
    let mut value = OsString::from(format!("{VERSION}:{DESCRIPTOR}:"));
    value.push(name);
    value
}

/// Whether a program that is run as `name` is the shim, and if so where it asks; `None` there is
/// another version's word for it.
pub(super) fn parse_address(value: &OsStr, name: &OsStr) -> Option<Option<RawFd>> {
    let mut parts = value.as_bytes().splitn(3, |byte| *byte == b':');
    let (version, descriptor, shim) = (parts.next()?, parts.next()?, parts.next()?);
    if shim != name.as_bytes() {
        return None;
    }
    let descriptor = std::str::from_utf8(descriptor).ok();
    let descriptor = descriptor.and_then(|number| number.parse().ok());
    Some(descriptor.filter(|number| version == VERSION.as_bytes() && *number > 2))
}

/// What a shim wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Which versions of its protocol git speaks: `GIT_PROTOCOL`.
    pub(super) protocol: Option<OsString>,
    /// Without the program's name.
    pub(super) arguments: Vec<OsString>,
}

impl Request {
    /// Its length, and then each word with a NUL behind it, which no word contains.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let mut body = Vec::new();
        for word in std::iter::once(protocol).chain(self.arguments.iter().map(OsString::as_os_str))
        {
            body.extend_from_slice(word.as_bytes());
            body.push(0);
        }
        if self.arguments.len() >= MOST_WORDS {
            return Err(too_many());
        }
        let length = u32::try_from(body.len()).ok();
        let length = length
            .filter(|_| body.len() <= LONGEST_REQUEST)
            .ok_or_else(too_long)?;
        Ok([&length.to_be_bytes(), body.as_slice()].concat())
    }

    /// How many bytes follow the first four.
    pub(super) fn length(head: [u8; 4]) -> io::Result<usize> {
        let length = usize::try_from(u32::from_be_bytes(head)).ok();
        length
            .filter(|length| *length <= LONGEST_REQUEST)
            .ok_or_else(too_long)
    }

    pub(super) fn decode(body: &[u8]) -> io::Result<Self> {
        let body = body
            .strip_suffix(&[0])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the request has no end"))?;
        let ends = body.iter().filter(|byte| **byte == 0);
        if ends.count() >= MOST_WORDS {
            return Err(too_many());
        }
        let mut words = body
            .split(|byte| *byte == 0)
            .map(|word| OsString::from_vec(word.to_vec()));
        Ok(Self {
            protocol: words.next().filter(|protocol| !protocol.is_empty()),
            arguments: words.collect(),
        })
    }
}

fn too_long() -> io::Error {
    let text = format!("the request is longer than {LONGEST_REQUEST} bytes");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn too_many() -> io::Error {
    let text = format!("the request has more than {MOST_WORDS} words");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// What the pool's process tells a shim: a letter, a length, and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// For standard error.
    Text(Vec<u8>),
    /// The end, with this exit code.
    Exit(u8),
}

/// The letter and the length.
pub(super) const FRAME_HEAD: usize = 5;

impl Frame {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (letter, body): (u8, &[u8]) = match self {
            Frame::Text(text) => (b'E', text.get(..LONGEST_TEXT).unwrap_or(text)),
            Frame::Exit(code) => (b'X', std::slice::from_ref(code)),
        };
        // At most LONGEST_TEXT.
        let length = u32::try_from(body.len()).unwrap_or_default();
        [&[letter], &length.to_be_bytes()[..], body].concat()
    }

    /// Reads one.
    pub(super) fn read(from: &mut impl io::Read) -> io::Result<Self> {
        let mut head = [0; FRAME_HEAD];
        from.read_exact(&mut head)?;
        let [letter, a, b, c, d] = head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > LONGEST_TEXT {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        match (letter, body.as_slice()) {
            (b'E', _) => Ok(Frame::Text(body)),
            (b'X', [code]) => Ok(Frame::Exit(*code)),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_arrive_as_they_are() {
        for (protocol, arguments) in [
            (None, vec![]),
            (
                Some("version=2"),
                vec!["git@web-1", "git-upload-pack '/a b'"],
            ),
            (None, vec!["", "two\nlines", ""]),
        ] {
            let request = Request {
                protocol: protocol.map(OsString::from),
                arguments: arguments.into_iter().map(OsString::from).collect(),
            };
            let encoded = request.encode().expect("encoded");
            let (head, body) = encoded.split_at(4);
            let length = Request::length(head.try_into().expect("four")).expect("a length");
            assert_eq!(length, body.len());
            assert_eq!(Request::decode(body).expect("decoded"), request);
        }
    }

    #[test]
    fn a_request_of_too_many_words_is_refused_on_both_sides() {
        for (arguments, well) in [(MOST_WORDS - 1, true), (MOST_WORDS, false)] {
            let request = Request {
                protocol: None,
                arguments: vec![OsString::new(); arguments],
            };
            assert_eq!(request.encode().is_ok(), well, "{arguments}");
            let decoded = Request::decode(&vec![0; arguments + 1]);
            assert_eq!(decoded.is_ok_and(|decoded| decoded == request), well);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(Request::length([0xff; 4]).is_err());
        assert!(Request::decode(b"").is_err());
        assert!(Request::decode(b"no end").is_err());
        for bytes in [
            &b""[..],
            b"E\0\0",
            b"X\0\0\0\0",
            b"X\0\0\0\x02ab",
            b"E\xff\xff\xff\xff",
            b"?\0\0\0\0",
        ] {
            let mut from = bytes;
            assert!(Frame::read(&mut from).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn frames_arrive_as_they_are() {
        for frame in [
            Frame::Text(b"fatal: \xff\n".to_vec()),
            Frame::Text(Vec::new()),
            Frame::Exit(128),
        ] {
            assert_eq!(
                Frame::read(&mut frame.encode().as_slice()).expect("read"),
                frame
            );
        }
    }

    #[test]
    fn only_a_program_of_that_name_is_the_shim() {
        let name = OsStr::new("/usr/bin/./a:b");
        let address = address(name);
        assert_eq!(parse_address(&address, name), Some(Some(DESCRIPTOR)));
        for other in ["", "/usr/bin/a:b", "a:b", "ssh"] {
            assert_eq!(parse_address(&address, OsStr::new(other)), None, "{other}");
        }
        for wrong in ["2:197:x", "1::x", "1:y:x", "1:-1:x", "1:2:x"] {
            let parsed = parse_address(OsStr::new(wrong), OsStr::new("x"));
            assert_eq!(parsed, Some(None), "{wrong}");
        }
        for wrong in ["", "x", "1:197"] {
            assert_eq!(
                parse_address(OsStr::new(wrong), OsStr::new("x")),
                None,
                "{wrong}"
            );
        }
    }
}
