//! How far a dial has come, for those who wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Phase;

/// The phase of the dial of a host that is under way; of several, of the one that was last heard of.
#[derive(Debug, Default)]
pub(crate) struct PhaseCell(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    phase: Option<Phase>,
    /// What the server has said in this phase, in words.
    said: Option<String>,
}

impl PhaseCell {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: no dial is under way.
    pub(crate) fn set(&self, phase: Option<Phase>) {
        *self.state() = State { phase, said: None };
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        self.state().phase
    }

    pub(crate) fn say(&self, said: Option<String>) {
        self.state().said = said;
    }

    pub(crate) fn said(&self) -> Option<String> {
        self.state().said.clone()
    }
}
