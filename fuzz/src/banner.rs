//! A server has identified itself with the first complete line that begins with `SSH-` (RFC 4253,
//! section 4.2), whatever came before and however it arrived.

use ssh_pool_core::internals::identified;

/// So much is kept of what is no identification, to be shown.
const KEPT: usize = 512;

pub fn check(data: &[u8]) {
    let (step, said) = match data.split_first() {
        Some((first, rest)) => (usize::from(*first).max(1), rest),
        None => (1, data),
    };
    let mut complete = said.split(|byte| *byte == b'\n');
    complete.next_back();
    let expected = complete.any(|line| line.starts_with(b"SSH-"));
    for step in [said.len().max(1), step, 1] {
        match identified(said.chunks(step)) {
            Ok(()) => assert!(expected, "{} identifies nobody", said.escape_ascii()),
            Err(kept) => {
                let why = format!("{} in pieces of {step}", said.escape_ascii());
                assert!(!expected, "{why} was not understood");
                assert_eq!(kept, said[..said.len().min(KEPT)], "{why}");
            }
        }
    }
}
