//! The first thing a marked command says: that a shell runs our command line.
//!
//! It is a line of its own on standard error, and not for the reader. What comes before it, from a
//! shell's start-up files, is.

/// Takes the line out of a stream.
#[derive(Debug)]
pub(super) struct Herald {
    line: Vec<u8>,
    /// The beginning of what may become the line.
    held: Vec<u8>,
    heard: bool,
}

impl Herald {
    /// Waits for this line, whichever way it ends: a terminal makes `\r\n` of `\n`.
    pub(super) fn new(line: Vec<u8>) -> Self {
        Self {
            line,
            held: Vec::new(),
            heard: false,
        }
    }

    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// What of these bytes, and of those held back before, is for the reader.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.heard && self.held.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Some(at) = self.start() {
            passed.extend(self.held.drain(..at));
            let Some(end) = self.end() else {
                return passed; // more of it may come
            };
            if end == 0 {
                // It only began like it.
                passed.extend(self.held.drain(..1));
                continue;
            }
            self.held.drain(..end);
            self.heard = true;
            break;
        }
        passed.append(&mut self.held);
        passed
    }

    /// What is still held back at the end.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Where the line, or the beginning of it, may begin.
    fn start(&self) -> Option<usize> {
        (0..self.held.len()).find(|at| {
            let rest = self.held.get(*at..).unwrap_or_default();
            let common = rest.len().min(self.line.len());
            rest.get(..common) == self.line.get(..common)
        })
    }

    /// Where it ends, at the beginning of what is held; 0 if it is not the line, `None` if that is
    /// not decided yet.
    fn end(&self) -> Option<usize> {
        let rest = self.held.get(self.line.len()..)?;
        match rest {
            [b'\n', ..] => Some(self.line.len() + 1),
            [b'\r', b'\n', ..] => Some(self.line.len() + 2),
            [] | [b'\r'] => None,
            _ => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str]) -> (String, bool) {
        let mut herald = Herald::new(b"MARK".to_vec());
        let mut passed = Vec::new();
        for piece in pieces {
            passed.extend(herald.pass(piece.as_bytes()));
        }
        passed.extend(herald.rest());
        (String::from_utf8(passed).expect("text"), herald.heard())
    }

    #[test]
    fn the_line_is_taken_out_wherever_it_stands_and_however_it_comes() {
        for pieces in [
            &["MARK\n", "rest"][..],
            &["M", "A", "R", "K", "\n", "rest"],
            &["MARK", "\r", "\nrest"],
            &["MARK\nrest"],
        ] {
            assert_eq!(all(pieces), ("rest".into(), true), "{pieces:?}");
        }
        let early = all(&["warning: MA\nMA", "RK\nrest"]);
        assert_eq!(early, ("warning: MA\nrest".into(), true));
    }

    #[test]
    fn what_is_not_the_line_is_passed_on() {
        for text in ["MARKS\n", "MAR", "MARK", "", "no such thing\n", "MMMAR"] {
            assert_eq!(all(&[text]), (text.into(), false), "{text:?}");
        }
        assert_eq!(all(&["MARK\nMARK\n"]), ("MARK\n".into(), true));
    }

    #[test]
    fn only_what_may_become_the_line_is_held_back() {
        let mut herald = Herald::new(b"MARK".to_vec());
        assert_eq!(herald.pass(b"password: "), b"password: ");
        assert_eq!(herald.pass(b"MA"), b"");
        assert_eq!(herald.pass(b"X"), b"MAX");
    }
}
