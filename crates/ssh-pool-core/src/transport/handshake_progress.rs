//! How far a dial has come, so that a failure or a deadline can say what it interrupted.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PhaseCell;
use crate::error::{HostKeyProblem, Phase};
use crate::printable;

/// Bytes kept of what a peer says before its identification line, to be shown.
const GREETING: usize = 512;

/// What an identification line begins with. Lines of another kind may come before it (RFC 4253,
/// section 4.2): as many and as long ones as ssh takes (kex.c, `kex_exchange_identification`), where the
/// library takes 20 short ones.
const IDENTIFICATION: &[u8] = b"SSH-";
const LINES: usize = 1024;
const LINE: usize = 8192;

/// The longest identification line in bytes, with its end (RFC 4253, section 4.2).
const LONGEST: usize = 255;

#[derive(Debug)]
struct ProgressState {
    phase: Phase,
    greeting: Vec<u8>,
    /// How the line that is being heard begins, and how long it is.
    line: Vec<u8>,
    length: usize,
    /// The lines that have been heard.
    lines: usize,
    /// What is wrong with what the peer says instead of an identification.
    unfit: Option<String>,
    refusal: Option<HostKeyProblem>,
}

impl ProgressState {
    fn is_identification(&self) -> bool {
        self.line.starts_with(IDENTIFICATION) && self.length > IDENTIFICATION.len()
    }

    fn give_up(&mut self, unfit: String) -> io::Error {
        self.unfit = Some(unfit.clone());
        io::Error::new(io::ErrorKind::InvalidData, unfit)
    }
}

/// What is wrong with an identification line, for the library.
fn unfit(line: &[u8]) -> Option<String> {
    let takes = |version: &str| line.starts_with(version.as_bytes());
    if line.len() > LONGEST {
        Some(format!("an identification of more than {LONGEST} bytes"))
    } else if !takes("SSH-2.0-") && !takes("SSH-1.99-") {
        Some("an identification that does not begin with SSH-2.0-".into())
    } else if str::from_utf8(line).is_err() {
        Some("an identification that is not UTF-8".into())
    } else {
        None
    }
}

/// Shared by the dial, its socket and the session's callbacks.
#[derive(Debug)]
pub(super) struct HandshakeProgress {
    state: Mutex<ProgressState>,
    /// Shows each phase to those who wait for the dial.
    phase_cell: Arc<PhaseCell>,
}

impl Default for HandshakeProgress {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl HandshakeProgress {
    /// Of a dial that begins now.
    pub(super) fn new(phase_cell: Arc<PhaseCell>) -> Self {
        let phase = Phase::Files;
        phase_cell.set(Some(phase));
        let state = ProgressState {
            phase,
            greeting: Vec::new(),
            line: Vec::new(),
            length: 0,
            lines: 0,
            unfit: None,
            refusal: None,
        };
        Self {
            state: Mutex::new(state),
            phase_cell,
        }
    }

    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.state().phase = phase;
        self.phase_cell.set(Some(phase));
    }

    /// The dial has ended.
    pub(super) fn leave(&self) {
        self.phase_cell.set(None);
    }

    /// The peer said something: what of it is for the session, beginning with the identification line.
    ///
    /// # Errors
    ///
    /// There will be no session: [`unfit`](Self::unfit) says why.
    pub(super) fn heard(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        if state.phase != Phase::Banner {
            return Ok(bytes.to_vec());
        }
        let room = GREETING.saturating_sub(state.greeting.len());
        state.greeting.extend(bytes.iter().take(room));
        if room > 0 {
            let words = String::from_utf8_lossy(&state.greeting);
            let words = printable(words.trim_end());
            let said = format!("the server had said \"{words}\"");
            self.phase_cell.say((!words.is_empty()).then_some(said));
        }
        let mut rest = bytes.iter();
        while let Some(byte) = rest.next() {
            match byte {
                b'\n' if state.is_identification() => {
                    let mut passed = std::mem::take(&mut state.line);
                    passed.push(b'\n');
                    if let Some(unfit) = unfit(&passed) {
                        return Err(state.give_up(unfit));
                    }
                    passed.extend(rest);
                    state.phase = Phase::KeyExchange;
                    self.phase_cell.set(Some(Phase::KeyExchange));
                    state.greeting = Vec::new();
                    return Ok(passed);
                }
                b'\n' => {
                    (state.length, state.lines) = (0, state.lines + 1);
                    state.line.clear();
                    if state.lines == LINES {
                        let unfit = format!("{LINES} lines before its identification");
                        return Err(state.give_up(unfit));
                    }
                }
                byte => {
                    state.length += usize::from(*byte != b'\r');
                    if state.length > LINE {
                        let unfit = format!("a line of more than {LINE} bytes");
                        return Err(state.give_up(unfit));
                    }
                    if state.line.len() < LONGEST {
                        state.line.push(*byte);
                    }
                }
            }
        }
        Ok(Vec::new())
    }

    /// What is wrong with what the peer has said, where that ended the dial.
    pub(super) fn unfit(&self) -> Option<String> {
        self.state().unfit.clone()
    }

    /// What came instead of an identification line.
    pub(super) fn greeting(&self) -> Vec<u8> {
        self.state().greeting.clone()
    }

    /// The host key was refused.
    pub(super) fn refuse(&self, problem: HostKeyProblem) {
        let mut state = self.state();
        state.phase = Phase::HostKey;
        state.refusal = Some(problem);
    }

    pub(super) fn refusal(&self) -> Option<HostKeyProblem> {
        self.state().refusal.clone()
    }
}

/// Whether a peer that says this, in these pieces, has identified itself; if not, what of it is
/// shown.
#[cfg(feature = "internals")]
pub(crate) fn identified<'a>(said: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Vec<u8>> {
    let progress = HandshakeProgress::default();
    progress.enter(Phase::Banner);
    for piece in said {
        if progress.heard(piece).is_err() {
            break;
        }
    }
    match progress.phase() {
        Phase::Banner => Err(progress.greeting()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After these pieces, and what of them is for the session.
    fn heard(said: &[&[u8]]) -> (HandshakeProgress, io::Result<Vec<u8>>) {
        let progress = HandshakeProgress::default();
        progress.enter(Phase::Banner);
        let passed: io::Result<Vec<_>> = said.iter().map(|piece| progress.heard(piece)).collect();
        (progress, passed.map(|passed| passed.concat()))
    }

    #[test]
    fn a_long_preamble_does_not_hide_the_identification() {
        let preamble = b"no entry without a reason\r\n".repeat(100);
        let (progress, passed) = heard(&[&preamble, b"SS", b"H-2.0-x\r", b"\nmore", b"\n"]);
        assert_eq!(progress.phase(), Phase::KeyExchange);
        assert!(progress.greeting().is_empty());
        assert_eq!(passed.unwrap(), b"SSH-2.0-x\r\nmore\n");
        let (progress, passed) = heard(&[&preamble, b" SSH-2.0-x\nSSH-\r\nSSH-2.0-x"]);
        assert_eq!(progress.phase(), Phase::Banner);
        assert_eq!(progress.greeting(), preamble[..GREETING]);
        assert_eq!(passed.unwrap(), b"");
    }

    #[test]
    fn lines_before_the_identification_have_the_limits_that_they_have_with_ssh() {
        let id: &[u8] = b"SSH-2.0-x\r\n";
        let long = |length| [&*vec![b'w'; length], b"\r\n", id].concat();
        let many = |count| [&*b"\r\n".repeat(count), id].concat();
        let named = |length| [b"SSH-2.0-", &*vec![b'x'; length - 10], b"\r\n"].concat();
        for (said, unfit) in [
            (many(LINES - 1), None),
            (many(LINES), Some("1024 lines before its identification")),
            (long(LINE), None),
            (long(LINE + 1), Some("a line of more than 8192 bytes")),
            (named(LONGEST), None),
            (
                named(LONGEST + 1),
                Some("an identification of more than 255 bytes"),
            ),
            (named(LINE + 3), Some("a line of more than 8192 bytes")),
            (
                b"SSH-2.0-\xff\n".to_vec(),
                Some("an identification that is not UTF-8"),
            ),
            (b"SSH-1.99-x\n".to_vec(), None),
            (
                b"SSH-1.5-x\n".to_vec(),
                Some("an identification that does not begin with SSH-2.0-"),
            ),
        ] {
            let (progress, passed) = heard(&[&said]);
            assert_eq!(progress.unfit().as_deref(), unfit, "{}", said.len());
            assert_eq!(passed.is_err(), unfit.is_some(), "{}", said.len());
        }
    }
}
