//! Which host keys are trusted: the stock `ssh` client and the pool are asked the same question,
//! about the same file and the same server, and must answer alike.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ssh_pool::{CommandState, Error, HostKeyPolicy, HostKeyProblem, Phase};
use ssh_pool_tests::{KeyFormat, KeyPair, Sshd, TempDir, generate, ssh};

mod accept_new;
mod files;
mod homes;
mod pins;
mod refusals;
mod spellings;
#[path = "../support/mod.rs"]
mod support;

pub(crate) use support::{SOON, builder, known};

/// What becomes of a server's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Unknown,
    Changed,
    Revoked,
}

/// How ssh treats keys that no file lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    Yes,
    AcceptNew,
}

/// Asks the stock client.
pub(crate) fn ssh_says(sshd: &Sshd, file: &Path, strictness: Strictness) -> Verdict {
    let strictness = match strictness {
        Strictness::Yes => "yes",
        Strictness::AcceptNew => "accept-new",
    };
    let client = ssh(sshd.addr(), sshd.user(), sshd.client_key(), file);
    let output = Command::new(client.get_program())
        // ssh takes the first value of an option, so this one counts.
        .args(["-o", &format!("StrictHostKeyChecking={strictness}")])
        .args(client.get_args())
        .arg("echo ok")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.success() {
        assert_eq!(output.stdout, b"ok\n");
        return Verdict::Accepted;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // It warns of a key that has changed before it complains of one that is revoked.
    if said.contains("REVOKED HOST KEY DETECTED") {
        Verdict::Revoked
    } else if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        Verdict::Changed
    } else {
        let unknown = said.contains("host key is known for") && said.contains("strict checking");
        assert!(unknown, "ssh failed for another reason: {said}");
        Verdict::Unknown
    }
}

/// Asks a new pool, which dials once, whatever comes of it.
pub(crate) async fn pool_says(sshd: &Sshd, policy: HostKeyPolicy) -> Verdict {
    match pool_answers(sshd, policy).await {
        Ok(()) => Verdict::Accepted,
        Err(HostKeyProblem::Unknown { .. }) => Verdict::Unknown,
        Err(HostKeyProblem::Changed { .. }) => Verdict::Changed,
        Err(HostKeyProblem::Revoked { .. }) => Verdict::Revoked,
        Err(other) => panic!("no verdict: {other}"),
    }
}

/// Asks a new pool for one command's worth of trust.
pub(crate) async fn pool_answers(sshd: &Sshd, policy: HostKeyPolicy) -> Result<(), HostKeyProblem> {
    let pool = builder(sshd, policy).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let before = sshd.connections();
    let result = host.command("echo").arg("ok").output().await;
    let connections = sshd.connections() - before;
    let answer = match result {
        Ok(output) => {
            assert_eq!(output.stdout, b"ok\n");
            Ok(())
        }
        Err(error) => Err(problem(&error)),
    };
    // What is known before a server is asked needs no server.
    let unread = matches!(answer, Err(HostKeyProblem::Unreadable { .. }));
    assert_eq!(connections, usize::from(!unread), "{}", sshd.log());
    pool.close().await;
    answer
}

/// The problem with a host key, in an error that has everything else right.
pub(crate) fn problem(error: &Error) -> HostKeyProblem {
    let Error::HostKey { reason, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.phase(), Phase::HostKey);
    assert_eq!(error.command_state(), CommandState::NotStarted);
    assert!(!error.is_transient(), "nobody should try again: {error}");
    reason.clone()
}

/// A folder with a known_hosts file in it.
pub(crate) struct KnownHosts(TempDir);

impl KnownHosts {
    pub(crate) fn new(text: impl AsRef<[u8]>) -> Self {
        let dir = TempDir::new();
        fs::write(dir.path().join("known_hosts"), text).unwrap();
        Self(dir)
    }

    pub(crate) fn missing() -> Self {
        Self(TempDir::new())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("known_hosts")
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// A key that no server has.
    pub(crate) fn stranger(&self) -> KeyPair {
        generate(
            self.0.path(),
            "stranger",
            "ed25519",
            None,
            KeyFormat::OpenSsh,
        )
    }
}

/// A public key of a kind that no server here has shown.
pub(crate) fn stranger(kind: &str) -> String {
    let dir = TempDir::new();
    generate(dir.path(), "stranger", kind, None, KeyFormat::OpenSsh).public_line()
}

/// How known_hosts files name the server: on a port of its own.
pub(crate) fn name(sshd: &Sshd) -> String {
    format!("[{}]:{}", sshd.addr().ip(), sshd.port())
}

/// The server's key without comment, as known_hosts lines end.
pub(crate) fn key(sshd: &Sshd) -> String {
    sshd.host_public_key("ed25519")
}
