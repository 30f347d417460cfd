//! How far a dial has come, so that a failure or a deadline can say what it interrupted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{HostKeyProblem, Phase};

/// Bytes kept of what a peer says before its identification line. RFC 4253 section 4.2 limits
/// that line to 255.
const GREETING: usize = 512;

#[derive(Debug)]
struct State {
    phase: Phase,
    greeting: Vec<u8>,
    refusal: Option<HostKeyProblem>,
}

/// Shared by the dial, its socket and the session's callbacks.
#[derive(Debug)]
pub(super) struct Progress(Mutex<State>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(State {
            phase: Phase::Resolve,
            greeting: Vec::new(),
            refusal: None,
        }))
    }
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.state().phase = phase;
    }

    /// The peer said something. Before its identification line is complete it is remembered.
    pub(super) fn heard(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.phase != Phase::Banner {
            return;
        }
        let room = GREETING.saturating_sub(state.greeting.len());
        state.greeting.extend(bytes.iter().take(room));
        let identified = state
            .greeting
            .split_inclusive(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"SSH-") && line.ends_with(b"\n"));
        if identified {
            state.phase = Phase::KeyExchange;
            state.greeting = Vec::new();
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
