//! Temporary folders that a server running as somebody else may look into.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A temporary folder; it goes away, with everything in it, when dropped.
#[derive(Debug)]
pub struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Makes an empty folder that others may enter (mode 0755): sshd reads `authorized_keys` as
    /// the user who logs in. Secrets inside it must be protected by their own mode.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ssh-pool-test-")
            .tempdir()
            .expect("make a temporary folder");
        set_mode(dir.path(), 0o755);
        Self(dir)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a folder and gives its path back.
pub(crate) fn folder(path: &Path) -> PathBuf {
    fs::create_dir(path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
    path.to_owned()
}

/// Writes `content` to a file in one go and sets its mode.
pub(crate) fn write(path: &Path, content: &str, mode: u32) {
    fs::write(path, content).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    set_mode(path, mode);
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
}
