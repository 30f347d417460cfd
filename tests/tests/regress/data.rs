//! Bytes to send, and files on the server that hold them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ssh_pool_tests::TempDir;

/// Bytes without a pattern, so that none can be lost, doubled or swapped unseen.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Fails without printing megabytes.
#[track_caller]
pub(crate) fn assert_same(seen: &[u8], wanted: &[u8], what: impl std::fmt::Debug) {
    if seen != wanted {
        let first = seen.iter().zip(wanted).position(|(a, b)| a != b);
        let (seen, wanted) = (seen.len(), wanted.len());
        panic!("{what:?}: {seen} of {wanted} bytes, the first wrong one: {first:?}");
    }
}

/// A folder where whoever logs in may read and write.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// For a command line.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes a file.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.file(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}
