//! What PAM does for one sshd.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::Uid;

use crate::temp;

/// A PAM service under a name of its own. sshd before 9.8 takes the name that it is called by, so it is
/// started by a link of that name.
#[derive(Debug)]
pub(crate) struct PamService {
    file: PathBuf,
    program: PathBuf,
}

impl PamService {
    /// `rules` is the text of a file in `/etc/pam.d`; the link to `sshd` is made in `dir`.
    ///
    /// # Panics
    ///
    /// When the tests do not run as root, who alone can add a service.
    pub(crate) fn new(dir: &Path, sshd: &Path, rules: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            Uid::effective().is_root(),
            "adding a PAM service needs root: run the tests in a container"
        );
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sshd-pool-{}-{count}", std::process::id());
        let service = Self {
            file: Path::new("/etc/pam.d").join(&name),
            program: dir.join(&name),
        };
        temp::write(&service.file, rules, 0o644);
        symlink(sshd, &service.program).expect("link to sshd");
        service
    }

    /// What to start in the place of sshd.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for PamService {
    fn drop(&mut self) {
        // It may be gone with the machine's own clean-up.
        drop(fs::remove_file(&self.file));
    }
}
