//! The tag: the first line that a command says, which proves that a shell runs our command line.
//!
//! It is not for the reader. What comes before it, from a shell's start-up files, is.

/// Bytes kept of what comes before the tag, for the error of a command that never says it.
const BEFORE: usize = 200;

/// What stands behind the tag, and what it says of the login shell.
const ENDINGS: [(&[u8], TagLine); 3] = [
    (b"", TagLine { posix: None }),
    (b":posix", TagLine { posix: Some(true) }),
    (b":other", TagLine { posix: Some(false) }),
];

/// The tag has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TagLine {
    /// Whether the login shell is a POSIX one, where the command says so.
    pub(super) posix: Option<bool>,
}

/// Takes the tag out of a stream.
#[derive(Debug)]
pub(super) struct TagLineFilter {
    line: Vec<u8>,
    /// The beginning of what may become the tag.
    held: Vec<u8>,
    before: Vec<u8>,
}

/// What the bytes behind a tag's beginning are.
enum TagEnding {
    Complete(usize, TagLine),
    /// More of it may come.
    Partial,
    Different,
}

impl TagLineFilter {
    /// Waits for a line that begins like this, with `\n` or, from a terminal, `\r\n` at its end.
    pub(super) fn new(line: Vec<u8>) -> Self {
        Self {
            line,
            held: Vec::new(),
            before: Vec::new(),
        }
    }

    /// What of these bytes, and of those held back before, is for the reader; and the tag, if it
    /// has come.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<TagLine>) {
        self.held.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Some(at) = self.start() {
            passed.extend(self.held.drain(..at));
            match self.ending() {
                TagEnding::Partial => {
                    self.keep(&passed);
                    return (passed, None);
                }
                // It only began like it.
                TagEnding::Different => passed.extend(self.held.drain(..1)),
                TagEnding::Complete(end, heard) => {
                    self.held.drain(..end);
                    passed.append(&mut self.held);
                    return (passed, Some(heard));
                }
            }
        }
        passed.append(&mut self.held);
        self.keep(&passed);
        (passed, None)
    }

    /// What is still held back at the end.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let rest = std::mem::take(&mut self.held);
        self.keep(&rest);
        rest
    }

    /// The first bytes that were not the tag.
    pub(super) fn before(&self) -> &[u8] {
        &self.before
    }

    fn keep(&mut self, passed: &[u8]) {
        let room = BEFORE - self.before.len().min(BEFORE);
        self.before.extend(passed.iter().take(room));
    }

    /// Where the line, or the beginning of it, may begin.
    fn start(&self) -> Option<usize> {
        (0..self.held.len()).find(|at| {
            let rest = self.held.get(*at..).unwrap_or_default();
            let common = rest.len().min(self.line.len());
            rest.get(..common) == self.line.get(..common)
        })
    }

    /// Where it ends, at the beginning of what is held.
    fn ending(&self) -> TagEnding {
        let Some(rest) = self.held.get(self.line.len()..) else {
            return TagEnding::Partial;
        };
        let mut ending = TagEnding::Different;
        for (text, heard) in ENDINGS {
            for newline in [b"\n".as_slice(), b"\r\n"] {
                let whole = [text, newline].concat();
                if rest.starts_with(&whole) {
                    return TagEnding::Complete(self.line.len() + whole.len(), heard);
                }
                if whole.starts_with(rest) {
                    ending = TagEnding::Partial;
                }
            }
        }
        ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str]) -> (String, Option<TagLine>) {
        let mut tag_filter = TagLineFilter::new(b"MARK".to_vec());
        let (mut passed, mut heard) = (Vec::new(), None);
        for piece in pieces {
            if heard.is_some() {
                passed.extend_from_slice(piece.as_bytes());
                continue;
            }
            let (bytes, said) = tag_filter.pass(piece.as_bytes());
            passed.extend(bytes);
            heard = said;
        }
        passed.extend(tag_filter.rest());
        (String::from_utf8(passed).expect("text"), heard)
    }

    const RUNS: Option<TagLine> = Some(TagLine { posix: None });

    #[test]
    fn the_line_is_taken_out_wherever_it_stands_and_however_it_comes() {
        for pieces in [
            &["MARK\n", "rest"][..],
            &["M", "A", "R", "K", "\n", "rest"],
            &["MARK", "\r", "\nrest"],
            &["MARK\nrest"],
        ] {
            assert_eq!(all(pieces), ("rest".into(), RUNS), "{pieces:?}");
        }
        let early = all(&["warning: MA\nMA", "RK\nrest"]);
        assert_eq!(early, ("warning: MA\nrest".into(), RUNS));
    }

    #[test]
    fn the_kind_of_the_login_shell_stands_behind_it() {
        for (pieces, posix) in [
            (&["MARK:posix\nrest"][..], true),
            (&["MARK:", "pos", "ix\r", "\nrest"], true),
            (&["MARK:other\r\nrest"], false),
        ] {
            let heard = TagLine { posix: Some(posix) };
            assert_eq!(all(pieces), ("rest".into(), Some(heard)), "{pieces:?}");
        }
    }

    #[test]
    fn what_is_not_the_line_is_passed_on() {
        for text in [
            "MARKS\n",
            "MAR",
            "MARK",
            "MARK:posi",
            "MARK:$__k >&2\n",
            "",
            "no such thing\n",
            "MMMAR",
        ] {
            assert_eq!(all(&[text]), (text.into(), None), "{text:?}");
        }
        assert_eq!(all(&["MARK\nMARK\n"]), ("MARK\n".into(), RUNS));
    }

    #[test]
    fn only_what_may_become_the_line_is_held_back() {
        let mut tag_filter = TagLineFilter::new(b"MARK".to_vec());
        assert_eq!(tag_filter.pass(b"password: ").0, b"password: ");
        assert_eq!(tag_filter.pass(b"MA").0, b"");
        assert_eq!(tag_filter.pass(b"X").0, b"MAX");
    }

    #[test]
    fn a_bounded_part_of_what_came_instead_is_kept() {
        let mut tag_filter = TagLineFilter::new(b"MARK".to_vec());
        tag_filter.pass(b"not av");
        tag_filter.pass(b"ailable");
        assert_eq!(tag_filter.before(), b"not available");
        for _ in 0..100 {
            tag_filter.pass(&[b'x'; 100]);
        }
        assert_eq!(tag_filter.before().len(), BEFORE);
    }
}
