//! Commands on a real sshd: what goes in arrives, what comes out is complete, and what went wrong
//! is told apart by whether the command may have run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ssh_pool::{Host, Pool};
use ssh_pool_tests::{Sshd, TempDir, eventually_async};

mod closing;
mod endings;
mod input;
mod losses;
mod output;
mod partial;
mod quoting;
mod retries;
mod sizes;
#[path = "../support/mod.rs"]
mod support;
mod surroundings;
mod timeouts;

pub(crate) use ssh_pool_tests::Ledger;
pub(crate) use support::{SOON, builder, known};

/// A stock sshd, a pool for it, and the host in the pool.
pub(crate) fn server() -> (Sshd, Pool, Host) {
    on(Sshd::start())
}

/// A pool for that sshd, and the host in the pool.
pub(crate) fn on(sshd: Sshd) -> (Sshd, Pool, Host) {
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    (sshd, pool, host)
}

/// Whether a process with that command line runs on the server, by itself or in its shell.
pub(crate) fn runs(sshd: &Sshd, command: &str) -> bool {
    sshd.session_processes()
        .iter()
        .any(|(_, line)| line.ends_with(command))
}

pub(crate) async fn starts(sshd: &Sshd, command: &str) {
    let started = eventually_async(SOON, || runs(sshd, command)).await;
    assert!(started, "{command}: {:?}", sshd.session_processes());
}

pub(crate) async fn stops(sshd: &Sshd, command: &str) {
    let gone = eventually_async(SOON, || !runs(sshd, command)).await;
    assert!(gone, "{command}: {:?}", sshd.session_processes());
}

/// How many connections the pool has made to its only host.
pub(crate) fn dials(pool: &Pool) -> u64 {
    let status = pool.status();
    assert_eq!(status.hosts.len(), 1, "{status:?}");
    assert_eq!(status.hosts[0].failed_dials, 0, "{status:?}");
    status.hosts[0].dials
}

/// Holds commands up until the test opens it.
#[derive(Clone)]
pub(crate) struct Gate(Arc<TempDir>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(TempDir::new()))
    }

    /// A shell command that ends when the gate is open.
    pub(crate) fn pass(&self) -> String {
        format!(
            "until test -e {}; do sleep 0.02; done",
            self.file().display()
        )
    }

    pub(crate) fn open(&self) {
        fs::write(self.file(), "").unwrap();
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("open")
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);
