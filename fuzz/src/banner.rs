//! A server has identified itself with the first complete line that begins with `SSH-` (RFC 4253,
//! section 4.2) if that is a version 2.0 identification, whatever came before within ssh's limits and
//! however it arrived.

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
    let length = |line: &[u8]| line.iter().filter(|byte| **byte != b'\r').count();
    let mut preamble = 0;
    let expected = complete
        .find(|line| {
            let found = line.starts_with(b"SSH-") && length(line) > 4;
            preamble += usize::from(!found && length(line) <= 8192);
            found || length(line) > 8192
        })
        .is_some_and(|line| {
            let version = [&b"SSH-2.0-"[..], b"SSH-1.99-"];
            preamble < 1024
                && line.len() < 255
                && version.iter().any(|version| line.starts_with(version))
                && str::from_utf8(line).is_ok()
        });
    for step in [said.len().max(1), step, 1] {
        match identified(said.chunks(step)) {
            Ok(()) => assert!(expected, "{} identifies nobody", said.escape_ascii()),
            Err(kept) => {
                let why = format!("{} in pieces of {step}", said.escape_ascii());
                assert!(!expected, "{why} was not understood");
                // What is refused may be so before all of it has come.
                assert!(said[..said.len().min(KEPT)].starts_with(&kept), "{why}");
            }
        }
    }
}
