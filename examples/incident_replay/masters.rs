//! The ssh processes that stay in the background, and their sockets.

use std::collections::HashSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ssh_pool_tests::{TempDir, eventually, eventually_async, procs};

use crate::side::Left;

/// A process that has been killed is gone by then.
const SOON: Duration = Duration::from_secs(5);
/// A master that is about to end when the last command has been answered is gone by then.
const A_WHILE: Duration = Duration::from_secs(2);
/// Of a listening socket in /proc/net/unix: `__SO_ACCEPTCON`.
const LISTENS: &str = "00010000";

/// A folder with control sockets. Whatever ssh has it on its command line is ours.
#[derive(Debug)]
pub(crate) struct Masters {
    folder: TempDir,
    /// How many have been left behind so far: these are not waited for again.
    behind: AtomicUsize,
}

impl Masters {
    pub(crate) fn new() -> Self {
        Self {
            folder: TempDir::new(),
            behind: AtomicUsize::default(),
        }
    }

    /// The `ControlPath`: one for each server.
    pub(crate) fn control_path(&self) -> PathBuf {
        self.folder.path().join("mux_server")
    }

    /// Every ssh that uses a socket here.
    fn all(&self) -> Vec<u32> {
        procs::with_command_line(&self.folder.path().display().to_string())
    }

    /// Those that listen. ssh binds its socket under another name first, so the beginning counts.
    fn listening(&self) -> Vec<u32> {
        let path = self.control_path().display().to_string();
        let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let sockets: HashSet<String> = (table.lines())
            .filter_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let ours = *fields.get(3)? == LISTENS && fields.get(7)?.starts_with(&path);
                ours.then(|| format!("socket:[{}]", fields.get(6).copied().unwrap_or_default()))
            })
            .collect();
        let holds = |pid: &u32| {
            let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
                return false;
            };
            (files.flatten())
                .filter_map(|file| fs::read_link(file.path()).ok())
                .any(|link| sockets.contains(&*link.to_string_lossy()))
        };
        let mut found = self.all();
        found.retain(holds);
        found
    }

    pub(crate) fn pause(&self) {
        self.listening().into_iter().for_each(procs::pause);
    }

    /// Kills (SIGKILL) the masters.
    pub(crate) fn kill_all(&self) {
        self.listening().into_iter().for_each(procs::kill);
    }

    /// One master may be there, with its socket. What else is?
    pub(crate) async fn left(&self) -> Left {
        // One that is about to end is not left behind.
        let behind = || {
            self.all()
                .len()
                .saturating_sub(self.listening().len().min(1))
        };
        let before = self.behind.load(Ordering::Relaxed);
        eventually_async(A_WHILE, || behind() <= before).await;
        let behind = behind();
        self.behind.store(behind, Ordering::Relaxed);
        Left {
            stale: self.stale(),
            behind,
        }
    }

    fn stale(&self) -> usize {
        let Ok(files) = fs::read_dir(self.folder.path()) else {
            return 0;
        };
        // Connecting is what ssh does too. A stopped master would still be listening.
        let dead = |path: &Path| UnixStream::connect(path).is_err();
        files.flatten().filter(|file| dead(&file.path())).count()
    }

    /// Kills every ssh here, and sees it gone. The folder goes with `self`.
    pub(crate) fn end(&self) {
        let gone = eventually(SOON, || {
            let left = self.all();
            left.iter().copied().for_each(procs::kill);
            left.is_empty()
        });
        if !gone {
            eprintln!("ssh processes survive SIGKILL: {:?}", self.all());
        }
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        self.end();
    }
}
