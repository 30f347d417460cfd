//! A mark in the environment of everything a fixture starts, to find it again.

use std::path::Path;

use crate::procs;

/// One fixture's mark: an environment variable whose value nobody else has.
#[derive(Clone, Debug)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) const NAME: &str = "SSH_POOL_TEST_FIXTURE";

    /// The mark of the fixture that owns the folder.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.display().to_string())
    }

    pub(crate) fn value(&self) -> &str {
        &self.0
    }

    /// `NAME=value`
    pub(crate) fn entry(&self) -> String {
        format!("{}={}", Self::NAME, self.0)
    }

    /// Everything alive that was started with it.
    pub(crate) fn processes(&self) -> Vec<u32> {
        procs::with_environment(&self.entry())
    }
}
