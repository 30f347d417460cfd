//! Logging in to a real sshd: who is offered when, how often, and who shares a connection.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use ssh_pool::{CommandState, Error, Host, Identity, Phase, Pool, Target};
use ssh_pool_tests::{KeyFormat, KeyPair, Sshd, TempDir, generate};

mod agents;
mod budget;
mod cooldown;
mod denied;
mod encrypted;
mod formats;
mod like_ssh;
mod messages;
mod methods;
mod odd_agents;
mod order;
mod phases;
mod secrets;
mod sharing;
#[path = "../support/mod.rs"]
mod support;
mod unusable;
mod users;

pub(crate) use support::{RELEASES, SOON, builder, known};

/// A stock pool that knows the server.
pub(crate) fn pool(sshd: &Sshd) -> Pool {
    builder(sshd, known(sshd)).build().unwrap()
}

/// The server in that pool, for somebody else than the pool's own identity.
pub(crate) fn host_for(pool: &Pool, sshd: &Sshd, identity: Identity) -> Host {
    let target: Target = sshd.target().parse().unwrap();
    pool.host(target.identity(identity)).unwrap()
}

/// The outcome of a login with a fresh pool.
pub(crate) async fn login(sshd: &Sshd, identity: Identity) -> Result<(), Error> {
    let pool = pool(sshd);
    let host = host_for(&pool, sshd, identity);
    let status = host.command("true").status().await;
    pool.close().await;
    status.map(|status| assert!(status.success()))
}

/// An Ed25519 key in a folder of its own that no server knows.
pub(crate) fn new_key() -> (TempDir, KeyPair) {
    let dir = TempDir::new();
    let key = generate(dir.path(), "key", "ed25519", None, KeyFormat::OpenSsh);
    (dir, key)
}

/// The lines of the log that say who came in.
pub(crate) fn logins(sshd: &Sshd) -> Vec<String> {
    let log = sshd.log();
    let accepted = |line: &&str| line.starts_with("Accepted ") && line.contains(" ssh2");
    log.lines().filter(accepted).map(str::to_owned).collect()
}

/// The last one who came in did so with that key.
pub(crate) fn last_login_was_with(sshd: &Sshd, fingerprint: &str) {
    let logins = logins(sshd);
    let last = logins.last().unwrap();
    assert!(
        last.starts_with("Accepted publickey for ") && last.contains(fingerprint),
        "not {fingerprint}: {logins:?}"
    );
}

/// What was offered, in an error of a refused login that has everything else right.
pub(crate) fn offered(error: &Error) -> &[String] {
    let Error::AuthRejected { tried, allowed, .. } = error else {
        panic!("{error:?}")
    };
    assert!(!allowed.is_empty());
    assert_eq!(error.phase(), Phase::Auth);
    assert_eq!(error.command_state(), CommandState::NotStarted);
    assert!(!error.is_transient(), "nobody should try again: {error}");
    tried
}
