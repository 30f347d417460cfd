//! Compose, the plugin of the stock `docker`.

use std::path::{Path, PathBuf};

use crate::temp::TempDir;
use crate::trixie;

/// Where packages put it.
const FOLDERS: [&str; 2] = [
    "/usr/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
];
const NAME: &str = "docker-compose";

/// A folder for `DOCKER_CONFIG` with which `docker compose` is there. Debian has version 2 since
/// trixie, so it may be that of the chroot for tests; it needs nothing of it but its file.
///
/// # Panics
///
/// When Compose is not installed.
#[must_use]
pub fn compose_config() -> TempDir {
    let plugin = plugin().unwrap_or_else(|| {
        panic!(
            "there is no Compose; this test needs it: run scripts/test as root, or install \
             docker-compose in {}",
            trixie::root().display()
        )
    });
    let dir = TempDir::new();
    let plugins = dir.path().join("cli-plugins");
    std::fs::create_dir(&plugins).expect("make a folder for plugins");
    std::os::unix::fs::symlink(plugin, plugins.join(NAME)).expect("link the plugin");
    dir
}

fn plugin() -> Option<PathBuf> {
    let inside = |folder: &&str| trixie::root().join(folder.trim_start_matches('/'));
    let chroot = FOLDERS.iter().map(inside);
    let here = FOLDERS.iter().map(|folder| Path::new(folder).to_owned());
    chroot
        .chain(here)
        .map(|folder| folder.join(NAME))
        .find(|file| file.is_file())
}
