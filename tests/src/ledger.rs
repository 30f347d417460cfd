//! What ran, and how often.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::temp::TempDir;
use crate::wait::eventually_async;

const PATIENCE: Duration = Duration::from_secs(20);

/// A file on the server to which commands add lines, so that it is known what ran how often.
#[derive(Debug)]
pub struct Ledger(TempDir);

impl Ledger {
    /// An empty one, to which whoever logs in may add.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it makes a file")]
    pub fn new() -> Self {
        let ledger = Self(TempDir::new());
        fs::write(ledger.path(), "").expect("make a ledger");
        let anybody = fs::Permissions::from_mode(0o666);
        fs::set_permissions(ledger.path(), anybody).expect("open a ledger to everybody");
        ledger
    }

    /// A shell command that enters `line`.
    #[must_use]
    pub fn enter(&self, line: &str) -> String {
        format!("echo {line} >>{}", self.path().display())
    }

    /// What has been entered so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path()).expect("read a ledger");
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until there are that many lines.
    pub async fn has(&self, count: usize) {
        let there = eventually_async(PATIENCE, || self.lines().len() >= count).await;
        assert!(there, "{:?}", self.lines());
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lines")
    }
}
