//! Patterns of ssh's files and lists.

/// `*` is any run of bytes, `?` any one byte; brackets are literal.
///
/// Steps back to the last `*` only, which is enough for this grammar and keeps a hostile pattern
/// from taking exponential time.
pub(crate) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.as_bytes(), name.as_bytes());
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), name.split_first()) {
            (Some((b'*', after)), _) => {
                last_star = Some((after, name));
                pattern = after;
            }
            (Some((b'?', after)), Some((_, rest))) => (pattern, name) = (after, rest),
            (Some((want, after)), Some((byte, rest))) if want == byte => {
                (pattern, name) = (after, rest);
            }
            (None, None) => return true,
            _ => {
                // Let the last star take one byte more.
                let Some((after, [_, rest @ ..])) = last_star else {
                    return false;
                };
                last_star = Some((after, rest));
                (pattern, name) = (after, rest);
            }
        }
    }
}
