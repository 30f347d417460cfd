//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02). Handles, names and texts are bytes.

/// The longest packet that is read: what OpenSSH sends at most, and its own client takes.
pub(super) const LONGEST: u32 = 256 << 10;
/// The longest handle (section 4).
const LONGEST_HANDLE: usize = 256;

/// Kinds of requests (section 3).
pub(super) mod kind {
    pub(in super::super) const OPEN: u8 = 3;
    pub(in super::super) const CLOSE: u8 = 4;
    pub(in super::super) const READ: u8 = 5;
    pub(in super::super) const WRITE: u8 = 6;
    pub(in super::super) const LSTAT: u8 = 7;
    pub(in super::super) const FSTAT: u8 = 8;
    pub(in super::super) const SETSTAT: u8 = 9;
    pub(in super::super) const FSETSTAT: u8 = 10;
    pub(in super::super) const OPENDIR: u8 = 11;
    pub(in super::super) const READDIR: u8 = 12;
    pub(in super::super) const REMOVE: u8 = 13;
    pub(in super::super) const MKDIR: u8 = 14;
    pub(in super::super) const RMDIR: u8 = 15;
    pub(in super::super) const REALPATH: u8 = 16;
    pub(in super::super) const STAT: u8 = 17;
    pub(in super::super) const RENAME: u8 = 18;
    pub(in super::super) const READLINK: u8 = 19;
    pub(in super::super) const SYMLINK: u8 = 20;
    pub(in super::super) const EXTENDED: u8 = 200;
}

/// `SSH_FXP_INIT`, with its length.
pub(super) const INIT: [u8; 9] = [0, 0, 0, 5, 1, 0, 0, 0, 3];

/// Flags of `SSH_FXP_OPEN` (section 6.3).
pub(super) mod open {
    pub(in super::super) const READ: u32 = 0x01;
    pub(in super::super) const WRITE: u32 = 0x02;
    pub(in super::super) const CREATE: u32 = 0x08;
    pub(in super::super) const TRUNCATE: u32 = 0x10;
    pub(in super::super) const EXCLUSIVE: u32 = 0x20;
}

/// Flags of attributes (section 5).
const SIZE: u32 = 0x1;
const OWNER: u32 = 0x2;
const MODE: u32 = 0x4;
const TIMES: u32 = 0x8;
const EXTENDED: u32 = 0x8000_0000;

/// What is known of a file, or is to be set (section 5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sftp) struct Attributes {
    pub(in crate::sftp) size: Option<u64>,
    /// User and group.
    pub(in crate::sftp) owner: Option<(u32, u32)>,
    pub(in crate::sftp) mode: Option<u32>,
    /// Of the last access and the last change, in seconds since 1970.
    pub(in crate::sftp) times: Option<(u32, u32)>,
}

/// A request, complete but for its length and its number.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn new(kind: u8) -> Self {
        Self(vec![0, 0, 0, 0, kind, 0, 0, 0, 0])
    }

    pub(super) fn extended(name: &str) -> Self {
        Self::new(kind::EXTENDED).word(name)
    }

    /// A string of the protocol: its length and its bytes.
    pub(super) fn word(mut self, word: impl AsRef<[u8]>) -> Self {
        let word = word.as_ref();
        // Paths, handles and data are far shorter than 4 GiB.
        let length = u32::try_from(word.len()).unwrap_or(u32::MAX);
        self.0.reserve(4 + word.len());
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(word);
        self
    }

    pub(super) fn u32(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn attributes(self, attributes: &Attributes) -> Self {
        let flag = |there: bool, flag: u32| if there { flag } else { 0 };
        let flags = flag(attributes.size.is_some(), SIZE)
            | flag(attributes.owner.is_some(), OWNER)
            | flag(attributes.mode.is_some(), MODE)
            | flag(attributes.times.is_some(), TIMES);
        let mut request = self.u32(flags);
        if let Some(size) = attributes.size {
            request = request.u64(size);
        }
        if let Some((user, group)) = attributes.owner {
            request = request.u32(user).u32(group);
        }
        if let Some(mode) = attributes.mode {
            request = request.u32(mode);
        }
        if let Some((access, change)) = attributes.times {
            request = request.u32(access).u32(change);
        }
        request
    }

    /// The bytes to send, with this number.
    pub(super) fn numbered(self, id: u32) -> Vec<u8> {
        let mut bytes = self.0;
        let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
        for (at, number) in [(0, length), (5, id)] {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_be_bytes());
            }
        }
        bytes
    }
}

/// One name of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// What a server answers (section 7).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status { code: u32, message: Vec<u8> },
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<Name>),
    Attributes(Attributes),
    Extended(Vec<u8>),
}

/// An answer, and the number of its request. `None`: it is none.
pub(super) fn answer(mut packet: Vec<u8>) -> Option<(u32, Answer)> {
    let mut reader = Reader(&packet);
    let (kind, id) = (reader.u8()?, reader.u32()?);
    let answer = match kind {
        101 => Answer::Status {
            code: reader.u32()?,
            // Servers before version 3 send no text.
            message: reader.word().unwrap_or_default().to_vec(),
        },
        102 => {
            let handle = reader.word()?;
            if handle.len() > LONGEST_HANDLE {
                return None;
            }
            Answer::Handle(handle.to_vec())
        }
        103 => {
            let length = reader.word()?.len();
            // In place: this is most of what arrives.
            packet.truncate(9 + length);
            packet.drain(..9);
            Answer::Data(packet)
        }
        104 => Answer::Names(reader.names()?),
        105 => Answer::Attributes(reader.attributes()?),
        201 => Answer::Extended(reader.0.to_vec()),
        _ => return None,
    };
    Some((id, answer))
}

/// The version that a server speaks, and the names of its extensions.
pub(super) fn version(packet: &[u8]) -> Option<(u32, Vec<Vec<u8>>)> {
    let mut reader = Reader(packet);
    if reader.u8()? != 2 {
        return None;
    }
    let version = reader.u32()?;
    let mut extensions = Vec::new();
    while !reader.0.is_empty() {
        extensions.push(reader.word()?.to_vec());
        reader.word()?;
    }
    Some((version, extensions))
}

/// The numbers of an extended answer, as many as there are.
pub(super) fn numbers(data: &[u8]) -> Vec<u64> {
    let mut reader = Reader(data);
    std::iter::from_fn(|| reader.u64()).collect()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (word, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(word)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let flags = self.u32()?;
        let mut attributes = Attributes::default();
        if flags & SIZE != 0 {
            attributes.size = Some(self.u64()?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & MODE != 0 {
            attributes.mode = Some(self.u32()?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some((self.u32()?, self.u32()?));
        }
        if flags & EXTENDED != 0 {
            for _ in 0..self.u32()? {
                self.word()?;
                self.word()?;
            }
        }
        Some(attributes)
    }

    fn names(&mut self) -> Option<Vec<Name>> {
        let count = self.u32()?;
        let mut names = Vec::new();
        for _ in 0..count {
            let name = self.word()?.to_vec();
            // As `ls -l` shows it: for people.
            self.word()?;
            let attributes = self.attributes()?;
            names.push(Name { name, attributes });
        }
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, body: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![kind, 0, 0, 0, 7];
        for part in body {
            packet.extend_from_slice(part);
        }
        packet
    }

    #[test]
    fn a_request_has_its_length_and_its_number_in_front() {
        let attributes = Attributes {
            mode: Some(0o600),
            times: Some((1, 2)),
            ..Attributes::default()
        };
        let request = Request::new(kind::SETSTAT).word("ab");
        let bytes = request.attributes(&attributes).numbered(0x0102_0304);
        let wanted: &[&[u8]] = &[
            &[0, 0, 0, 27, kind::SETSTAT, 1, 2, 3, 4],
            &[0, 0, 0, 2, b'a', b'b'],
            &[0, 0, 0, 12, 0, 0, 1, 0x80, 0, 0, 0, 1, 0, 0, 0, 2],
        ];
        assert_eq!(bytes, wanted.concat());
    }

    #[test]
    fn handles_are_bytes_of_any_value() {
        for handle in [&[0, 0, 0, 0x80][..], &[0xff; 256], &[0]] {
            let length = u32::try_from(handle.len()).unwrap().to_be_bytes();
            let read = answer(packet(102, &[&length, handle]));
            assert_eq!(read, Some((7, Answer::Handle(handle.to_vec()))));
        }
        let long = packet(102, &[&257_u32.to_be_bytes(), &[0; 257]]);
        assert_eq!(answer(long), None);
    }

    #[test]
    fn data_is_what_its_length_says() {
        let read = answer(packet(103, &[&[0, 0, 0, 2], b"abc"]));
        assert_eq!(read, Some((7, Answer::Data(b"ab".to_vec()))));
        assert_eq!(answer(packet(103, &[&[0, 0, 0, 4], b"abc"])), None);
    }

    #[test]
    fn attributes_come_with_what_their_flags_say() {
        let extended: &[&[u8]] = &[
            &[0x80, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0, 5],
            &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0x81, 0xa4],
            &[0, 0, 0, 3, 0, 0, 0, 4],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'x', 0, 0, 0, 0],
        ];
        let wanted = Attributes {
            size: Some(5),
            owner: Some((1, 2)),
            mode: Some(0o100_644),
            times: Some((3, 4)),
        };
        let read = answer(packet(105, extended));
        assert_eq!(read, Some((7, Answer::Attributes(wanted))));
        // A count that no packet has room for.
        let hostile = packet(105, &[&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]]);
        assert_eq!(answer(hostile), None);
        assert_eq!(answer(packet(104, &[&[0xff; 4]])), None);
    }

    #[test]
    fn a_packet_that_is_cut_anywhere_is_none_or_shorter() {
        let whole: [Vec<u8>; 3] = [
            packet(104, &[&[0, 0, 0, 1], &[0, 0, 0, 1, b'a'], &[0; 4], &[0; 4]]),
            packet(105, &[&[0, 0, 0, 4], &[0; 4]]),
            packet(102, &[&[0, 0, 0, 1, 9]]),
        ];
        for packet in whole {
            assert!(answer(packet.clone()).is_some());
            for length in 0..packet.len() {
                assert_eq!(answer(packet[..length].to_vec()), None, "{length}");
            }
        }
        // The text of a status may be missing.
        let status = answer(packet(101, &[&[0, 0, 0, 4]]));
        let wanted = Answer::Status {
            code: 4,
            message: Vec::new(),
        };
        assert_eq!(status, Some((7, wanted)));
    }

    #[test]
    fn a_version_names_its_extensions() {
        let hello = [&[2, 0, 0, 0, 3][..], &[0, 0, 0, 1, b'x', 0, 0, 0, 1, b'1']].concat();
        assert_eq!(version(&hello), Some((3, vec![b"x".to_vec()])));
        assert_eq!(version(&hello[..11]), None);
        assert_eq!(version(&[101, 0, 0, 0, 3]), None);
    }
}
