//! How far a dial has come, so that a failure or a deadline can say what it interrupted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PhaseCell;
use crate::error::{HostKeyProblem, Phase};

/// Bytes kept of what a peer says before its identification line, to be shown.
const GREETING: usize = 512;

/// What an identification line begins with. Lines of another kind may come before it, as many as
/// the peer likes (RFC 4253, section 4.2).
const IDENTIFICATION: &[u8] = b"SSH-";

#[derive(Debug)]
struct ProgressState {
    phase: Phase,
    greeting: Vec<u8>,
    /// How the line that is being heard begins.
    line: Vec<u8>,
    refusal: Option<HostKeyProblem>,
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

    /// The peer said something. Before its identification line is complete it is remembered.
    pub(super) fn heard(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.phase != Phase::Banner {
            return;
        }
        let room = GREETING.saturating_sub(state.greeting.len());
        state.greeting.extend(bytes.iter().take(room));
        for byte in bytes {
            if *byte != b'\n' {
                if state.line.len() < IDENTIFICATION.len() {
                    state.line.push(*byte);
                }
            } else if state.line == IDENTIFICATION {
                state.phase = Phase::KeyExchange;
                self.phase_cell.set(Some(Phase::KeyExchange));
                state.greeting = Vec::new();
                return;
            } else {
                state.line.clear();
            }
        }
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
        progress.heard(piece);
    }
    match progress.phase() {
        Phase::Banner => Err(progress.greeting()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(said: &[&[u8]]) -> HandshakeProgress {
        let progress = HandshakeProgress::default();
        progress.enter(Phase::Banner);
        said.iter().for_each(|piece| progress.heard(piece));
        progress
    }

    #[test]
    fn a_long_preamble_does_not_hide_the_identification() {
        let preamble = b"no entry without a reason\r\n".repeat(100);
        let progress = heard(&[&preamble, b"SS", b"H-2.0-x\r", b"\n"]);
        assert_eq!(progress.phase(), Phase::KeyExchange);
        assert!(progress.greeting().is_empty());
        let progress = heard(&[&preamble, b" SSH-2.0-x\nSSH-2.0-x"]);
        assert_eq!(progress.phase(), Phase::Banner);
        assert_eq!(progress.greeting(), preamble[..GREETING]);
    }
}
