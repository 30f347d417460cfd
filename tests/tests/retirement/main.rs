//! Connections that are replaced while many commands run on them: nobody is cut, and nobody
//! notices.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ssh_pool::{Host, Limits};
use ssh_pool_tests::{Sshd, TempDir};
use tokio::task::JoinSet;

mod lifetimes;
mod rotation;
#[path = "../support/mod.rs"]
mod support;

pub(crate) use support::{SOON, builder, known};

const CALLERS: usize = 20;
/// As many sessions as callers.
const CONNECTIONS: u32 = 4;

pub(crate) fn limits() -> Limits {
    Limits::default()
        .connections_per_host(CONNECTIONS)
        .sessions_per_connection(5)
}

/// Twenty callers who run one command after the other, short ones and long ones, until they are
/// told to stop.
pub(crate) struct Crew {
    stop: Arc<AtomicBool>,
    /// What commands are asked for in.
    era: Arc<AtomicUsize>,
    ran: Arc<AtomicUsize>,
    callers: JoinSet<Vec<Ran>>,
    folder: TempDir,
}

/// A command that was served.
pub(crate) struct Ran {
    id: String,
    /// The client's port of its connection.
    pub(crate) port: u16,
    /// Which era it was asked for in.
    pub(crate) era: usize,
}

impl Crew {
    /// Every fourth command runs for `long`.
    pub(crate) fn start(host: &Host, long: Duration) -> Self {
        let mut crew = Self {
            stop: Arc::default(),
            era: Arc::default(),
            ran: Arc::default(),
            callers: JoinSet::new(),
            folder: TempDir::new(),
        };
        fs::write(crew.ledger(), "").unwrap();
        // Whoever logs in may write.
        fs::set_permissions(crew.ledger(), fs::Permissions::from_mode(0o666)).unwrap();
        for caller in 0..CALLERS {
            let (stop, era, ran) = (crew.stop.clone(), crew.era.clone(), crew.ran.clone());
            let (host, ledger) = (host.clone(), crew.ledger());
            crew.callers.spawn(async move {
                let mut all = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let number = all.len();
                    let id = format!("{caller}-{number}");
                    let is_long = (number + caller).is_multiple_of(4);
                    let pause = if is_long { long } else { Duration::ZERO };
                    let line = format!(
                        "echo {id} >>{}; echo $SSH_CONNECTION; sleep {}; printf '%04000d {id}' 0",
                        ledger.display(),
                        pause.as_secs_f64(),
                    );
                    let era = era.load(Ordering::SeqCst);
                    let output = host.shell(line).output().await;
                    let output = output.unwrap_or_else(|error| panic!("{id}: {error:?}"));
                    assert!(output.status.success(), "{id}: {output:?}");
                    let text = String::from_utf8(output.stdout).unwrap();
                    let port = port_of(&text, &id);
                    all.push(Ran { id, port, era });
                    ran.fetch_add(1, Ordering::SeqCst);
                }
                all
            });
        }
        crew
    }

    /// How many commands have been served.
    pub(crate) fn ran(&self) -> usize {
        self.ran.load(Ordering::SeqCst)
    }

    /// Commands that are asked for from now on are of the next era.
    pub(crate) fn next_era(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets the commands that run end. None of all has failed or lost a byte of its output, and
    /// each has run once.
    pub(crate) async fn stop(mut self) -> Vec<Ran> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        while let Some(caller) = self.callers.join_next().await {
            all.extend(caller.unwrap());
        }
        let text = fs::read_to_string(self.ledger()).unwrap();
        let mut entered: Vec<_> = text.lines().collect();
        let mut served: Vec<_> = all.iter().map(|ran| ran.id.as_str()).collect();
        entered.sort_unstable();
        served.sort_unstable();
        assert_eq!(entered, served);
        all
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }
}

/// From what a command of the crew says, which must be complete.
fn port_of(text: &str, id: &str) -> u16 {
    let (connection, rest) = text.split_once('\n').unwrap();
    assert_eq!(rest, format!("{} {id}", "0".repeat(4000)));
    connection.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Nothing that this server counts against a client has happened.
#[track_caller]
pub(crate) fn assert_unpunished(sshd: &Sshd) {
    let log = sshd.log();
    assert!(!log.to_lowercase().contains("penalt"), "{log}");
    assert_eq!(sshd.auth_failures(), 0, "{log}");
    assert_eq!(sshd.connections(), sshd.accepted(), "{log}");
}
