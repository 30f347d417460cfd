//! What follows from a refused key: nothing, until somebody does something about it.

use std::fs;

use ssh_pool::{HostKeyPolicy, HostKeyProblem};
use ssh_pool_tests::{Sshd, eventually_async, fingerprint};

use crate::{KnownHosts, SOON, builder, key, name, problem};

#[tokio::test(flavor = "multi_thread")]
async fn the_error_for_an_unknown_key_shows_what_to_verify_and_where_it_was_looked_for() {
    let sshd = Sshd::start();
    let file = KnownHosts::new("");
    let pool = builder(&sshd, HostKeyPolicy::known_hosts_file(file.path()));
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    let text = error.to_string();
    let shown = fingerprint(&sshd.dir().join("host_ed25519.pub"));
    let place = file.path().display().to_string();
    for part in [&shown, &place, &sshd.target()] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_lasts_until_the_file_says_otherwise_and_trust_does_too() {
    let sshd = Sshd::start();
    let file = KnownHosts::new("");
    let pool = builder(&sshd, HostKeyPolicy::known_hosts_file(file.path()));
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let refused_again = || async {
        let error = host.command("true").output().await.unwrap_err();
        assert!(matches!(problem(&error), HostKeyProblem::Unknown { .. }));
    };
    // Having seen a key once makes it no more trusted.
    for count in 1..=3 {
        host.evict();
        refused_again().await;
        assert_eq!(sshd.connections(), count, "{}", sshd.log());
    }

    fs::write(file.path(), format!("{} {}\n", name(&sshd), key(&sshd))).unwrap();
    let mut accepted = false;
    let deadline = tokio::time::Instant::now() + SOON;
    while !accepted && tokio::time::Instant::now() < deadline {
        // The last refusal answers for a moment longer.
        accepted = host.command("true").status().await.is_ok();
    }
    assert!(accepted);
    assert_eq!(sshd.connections(), 4, "{}", sshd.log());

    // Each connection is a question of its own.
    fs::write(file.path(), "").unwrap();
    host.evict();
    let gone = || sshd.open_connections() == 0;
    assert!(eventually_async(SOON, gone).await);
    refused_again().await;
    assert_eq!(
        (sshd.connections(), sshd.accepted()),
        (5, 1),
        "{}",
        sshd.log()
    );
}
