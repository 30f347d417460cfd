//! How far a dial has come, for those who wait for it.

use std::sync::{Mutex, PoisonError};

use crate::error::Phase;

/// The phase of the dial of a host that is under way; of several, of the one that was last heard of.
#[derive(Debug, Default)]
pub(crate) struct PhaseCell(Mutex<Option<Phase>>);

impl PhaseCell {
    /// `None`: no dial is under way.
    pub(crate) fn set(&self, phase: Option<Phase>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
