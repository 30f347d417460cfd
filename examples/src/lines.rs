//! Lines of a stream whose writer may do as it likes.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Splits a stream into lines that can be shown. Its memory is bounded by the longest line that is
/// kept: what a longer one has more is counted and skipped.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    longest: usize,
    /// The beginning of a line that has not ended yet, …
    kept: Vec<u8>,
    /// … and how long it is by now.
    length: usize,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its text, without its end. Bytes that are not UTF-8 are replaced, and control characters
    /// escaped: a log must not write to the terminal as if it were a program.
    pub text: String,
    /// How many bytes of the stream it was, all of them counted.
    pub bytes: u64,
    /// Whether it ended with a newline. The last one of a stream may not.
    pub ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The lines of `reader`, of which at most `longest` bytes are kept.
    pub fn new(reader: R, longest: usize) -> Self {
        Self {
            reader: BufReader::new(reader),
            longest,
            kept: Vec::new(),
            length: 0,
        }
    }

    /// The next line, `None` at the end. A line that is not finished yet is waited for.
    ///
    /// Cancel safe: what was read of a line stays here.
    ///
    /// # Errors
    ///
    /// That of the stream. What had come of a line is not returned.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                return Ok((self.length > 0).then(|| self.take(false)));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let length = end.unwrap_or(chunk.len());
            let room = self.longest.saturating_sub(self.kept.len());
            self.kept.extend(chunk.iter().take(length.min(room)));
            self.length += length;
            self.reader.consume(length + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(Some(self.take(true)));
            }
        }
    }

    fn take(&mut self, ended: bool) -> Line {
        let length = std::mem::take(&mut self.length);
        let skipped = length - self.kept.len();
        let mut text = String::from_utf8_lossy(&self.kept);
        if skipped > 0 {
            // A character that was cut in two.
            text = text.trim_end_matches('\u{fffd}').to_owned().into();
        }
        let mut shown = String::with_capacity(text.len());
        for character in text.strip_suffix('\r').unwrap_or(&text).chars() {
            if character.is_control() && character != '\t' {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        if skipped > 0 {
            shown += &format!(" … ({skipped} bytes more)");
        }
        self.kept.clear();
        Line {
            text: shown,
            bytes: u64::try_from(length + usize::from(ended)).unwrap_or(u64::MAX),
            ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn all(bytes: &[u8], longest: usize) -> Vec<(String, u64, bool)> {
        let mut lines = Lines::new(bytes, longest);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push((line.text, line.bytes, line.ended));
        }
        found
    }

    fn line(text: &str, bytes: u64, ended: bool) -> (String, u64, bool) {
        (text.to_owned(), bytes, ended)
    }

    #[tokio::test]
    async fn lines_come_without_their_ends_and_every_byte_is_counted() {
        let found = all(b"one\n\ntwo\r\nthree", 100).await;
        let expected = [
            line("one", 4, true),
            line("", 1, true),
            line("two", 5, true),
            line("three", 5, false),
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn of_a_long_line_the_beginning_is_kept() {
        let long = format!("{}\nshort\n", "x".repeat(100_000));
        let found = all(long.as_bytes(), 5).await;
        let expected = [
            line("xxxxx … (99995 bytes more)", 100_001, true),
            line("short", 6, true),
        ];
        assert_eq!(found, expected);
        // An é is two bytes: the second one is cut off, and the first is not shown as rubbish.
        let cut = all("abcdé\n".as_bytes(), 5).await;
        assert_eq!(cut, [line("abcd … (1 bytes more)", 7, true)]);
    }

    #[tokio::test]
    async fn what_is_no_text_is_shown_and_does_nothing() {
        let found = all(b"caf\xe9\tau lait \x1b[2J\n", 100).await;
        assert_eq!(found, [line("caf\u{fffd}\tau lait \\u{1b}[2J", 18, true)]);
    }

    #[tokio::test]
    async fn a_line_that_comes_in_pieces_is_one_line_even_if_nobody_waits_in_between() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 100);
        for piece in ["on", "e li", "ne"] {
            writer.write_all(piece.as_bytes()).await.unwrap();
            tokio::select! {
                biased;
                line = lines.next() => panic!("it has not ended: {line:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        writer.write_all(b"\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().text, "one line");
    }
}
