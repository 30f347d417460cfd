//! What a command on the server waits for, in the place of sleeping.

use std::fs;

use ssh_pool_tests::TempDir;

/// Holds commands up until the test opens it. It is open when its folder is gone, too: a test that
/// has failed leaves nothing that waits.
pub(crate) struct Gate(TempDir);

impl Gate {
    pub(crate) fn new() -> Self {
        let gate = Self(TempDir::new());
        fs::write(gate.0.path().join("shut"), "").unwrap();
        gate
    }

    /// A shell command that ends when the gate is open.
    pub(crate) fn pass(&self) -> String {
        format!("while {}; do sleep 0.02; done", self.is_shut())
    }

    /// A shell command that succeeds while it is shut.
    pub(crate) fn is_shut(&self) -> String {
        format!("test -e {}", self.0.path().join("shut").display())
    }

    pub(crate) fn open(&self) {
        fs::remove_file(self.0.path().join("shut")).unwrap();
    }
}
