//! What may be shown of a server's words.

/// More than any error, event or status says, its causes and the target's name included.
const LONGEST: usize = 8 << 10;

/// The first character that a terminal or a reader of logs would not show as it is: control
/// characters, and the ones that change the direction of text or have no width.
pub(crate) fn raw(text: &str) -> Option<char> {
    text.chars().find(|c| {
        c.is_control() && *c != '\n'
            || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    })
}

/// What is wrong with a text that was shown.
pub(crate) fn problem(text: &str) -> Option<String> {
    if let Some(c) = raw(text) {
        return Some(format!("it holds {c:?}: {}", shortened(text)));
    }
    (text.len() > LONGEST).then(|| format!("it has {} bytes: {}", text.len(), shortened(text)))
}

/// Its beginning, safe to print.
pub(crate) fn shortened(text: &str) -> String {
    text.chars()
        .flat_map(char::escape_debug)
        .take(200)
        .collect()
}
