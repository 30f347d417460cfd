//! Text that comes from the other side, made safe to show, to log and to keep.

/// As much of a text is kept, in bytes before escaping.
const KEPT: usize = 512;

/// Makes text from a server safe to print: what a terminal or a log would not show as it is comes
/// out escaped, and a long text is cut off.
///
/// Control characters, line ends, quotation marks, characters that change the direction of text
/// or have no width, and backslashes are escaped as in Rust's string literals. Bytes that are not
/// UTF-8 become U+FFFD. Of a text longer than 512 bytes the beginning is kept, followed by the
/// length. So the result has at most 4 KiB, on one line.
///
/// Whatever a server, an agent or a daemon says about itself passes through this before it is in an
/// [`Error`](crate::Error), an [`Event`](crate::Event), an [`ExitStatus`](crate::ExitStatus) or a
/// log line. The output of a command does not: it belongs to the caller, who may want it exactly.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// let stderr = b"\x1b[31mno such file\n";
/// assert_eq!(ssh_pool::printable(stderr), r"\u{1b}[31mno such file\n");
/// ```
#[must_use]
pub fn printable(text: impl AsRef<[u8]>) -> String {
    let text = text.as_ref();
    let (kept, left_out) = text.split_at_checked(KEPT).unwrap_or((text, &[]));
    // Not in the middle of a character.
    let whole = match std::str::from_utf8(kept) {
        Err(error) if error.error_len().is_none() && !left_out.is_empty() => error.valid_up_to(),
        _ => kept.len(),
    };
    let kept = String::from_utf8_lossy(kept.get(..whole).unwrap_or(kept));
    let mut shown = String::with_capacity(kept.len());
    for c in kept.chars() {
        match c {
            '\'' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    if !left_out.is_empty() {
        shown.push_str(&format!("… ({} bytes)", text.len()));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        for text in ["", "can't do: größer, 日本語 (95 %)", "SHA256:a/b+c="] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let shown = printable("a\n\r\0\u{1b}[2J\u{7}\u{9b}\u{202e}\u{200b}\u{feff}\"\\");
        assert_eq!(
            shown,
            "a\\n\\r\\0\\u{1b}[2J\\u{7}\\u{9b}\\u{202e}\\u{200b}\\u{feff}\\\"\\\\"
        );
        assert_eq!(printable(b"\xff\xfea"), "\u{fffd}\u{fffd}a");
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_says_its_length() {
        let shown = printable("ä".repeat(100_000));
        assert_eq!(shown, format!("{}… (200000 bytes)", "ä".repeat(KEPT / 2)));
        let shown = printable(format!("x{}", "ä".repeat(1000)));
        assert_eq!(shown, format!("x{}… (2001 bytes)", "ä".repeat(255)));
        assert!(printable([0x1b; 240_000]).len() <= 4 << 10);
        assert!(printable([0xff; 240_000]).len() <= 4 << 10);
    }
}
