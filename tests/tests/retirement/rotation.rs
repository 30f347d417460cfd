//! Keys that are changed while everything runs.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use ssh_pool::{Host, Timeouts};
use ssh_pool_tests::{KeyFormat, Release, Sshd, TempDir, eventually_async, fingerprint, generate};

use crate::{Crew, SOON, assert_unpunished, builder, known, limits};

/// How the connections that logged in with the old key are replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Evict,
    Lifetime,
}

/// The client's ports of the logins with that key.
fn logins(sshd: &Sshd, fingerprint: &str) -> HashSet<u16> {
    let port = |line: &str| {
        let rest = line.strip_prefix("Accepted publickey for ")?;
        let mut words = rest.ends_with(fingerprint).then(|| rest.split(' '))?;
        words.find(|word| *word == "port")?;
        words.next()?.parse().ok()
    };
    sshd.log().lines().filter_map(port).collect()
}

async fn serves(crew: &Crew, more: usize) {
    let enough = crew.ran() + more;
    assert!(eventually_async(SOON, || crew.ran() >= enough).await);
}

/// The next login is to be with another key; in the file that the pool was told of, as tools that
/// rotate keys do it.
fn rotate(sshd: &Sshd) -> (String, String) {
    let folder = TempDir::new();
    let next = generate(folder.path(), "next", "ed25519", None, KeyFormat::OpenSsh);
    sshd.authorize(&next.public_line());
    // In the same folder, and with its mode, before it takes the place of the old one.
    let staged = sshd.dir().join("staged");
    fs::copy(next.private(), &staged).unwrap();
    fs::rename(&staged, sshd.client_key()).unwrap();
    (next.fingerprint(), next.public_line())
}

async fn a_key_is_rotated(release: Release, by: By) {
    let sshd = Sshd::builder().release(release).start();
    let old = fingerprint(&sshd.dir().join("client.pub"));
    let mut timeouts = Timeouts::default().patience(Duration::ZERO);
    if by == By::Lifetime {
        timeouts = timeouts.lifetime(Duration::from_millis(300));
    }
    let pool = builder(&sshd, known(&sshd)).limits(limits());
    let pool = pool.timeouts(timeouts).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let crew = Crew::start(&host, Duration::from_millis(200));
    serves(&crew, 100).await;

    let (new, public_line) = rotate(&sshd);
    if by == By::Evict {
        host.evict();
        crew.next_era();
    }
    let replaced = || logins(&sshd, &new).len() >= 4;
    assert!(eventually_async(SOON, replaced).await, "{}", sshd.log());
    sshd.authorize_only(&public_line);
    serves(&crew, 100).await;

    let ran = crew.stop().await;
    let (old, new) = (logins(&sshd, &old), logins(&sshd, &new));
    assert_eq!(old.len() + new.len(), sshd.accepted());
    for command in &ran {
        assert!(old.contains(&command.port) || new.contains(&command.port));
        assert!(command.era == 0 || new.contains(&command.port), "too late");
    }
    let later = ran.iter().filter(|command| command.era > 0).count();
    assert_eq!(later > 0, by == By::Evict);
    let connected = || host.status().dialling == 0;
    assert!(eventually_async(SOON, connected).await);
    pool.close().await;
    assert_unpunished(&sshd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_an_evict_on_commands_ride_on_the_new_key_and_none_is_cut() {
    for release in [Release::Installed, Release::Trixie] {
        a_key_is_rotated(release, By::Evict).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_comes_into_use_as_connections_grow_old() {
    for release in [Release::Installed, Release::Trixie] {
        a_key_is_rotated(release, By::Lifetime).await;
    }
}

async fn says(host: &Host, line: &str) -> String {
    let output = host.shell(line).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_host_key_that_known_hosts_lists_is_trusted_by_the_next_dial() {
    for release in [Release::Installed, Release::Trixie] {
        let sshd = Sshd::builder().release(release).start();
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let gate = TempDir::new();
        let line = format!(
            "until test -e {}/open; do sleep 0.02; done; echo end",
            gate.path().display()
        );
        let running = tokio::spawn(host.shell(line).output());
        assert!(eventually_async(SOON, || host.status().running == 1).await);
        let old = sshd.host_public_key("ed25519");
        sshd.rotate_host_key("ed25519");
        assert_ne!(sshd.host_public_key("ed25519"), old);
        sshd.restart();

        host.evict();
        // Without being asked for: something runs there.
        assert!(eventually_async(SOON, || host.status().dials == 2).await);
        assert_eq!(says(&host, "echo next").await, "next\n");
        fs::write(gate.path().join("open"), "").unwrap();
        let output = running.await.unwrap().unwrap();
        assert_eq!(output.stdout, b"end\n", "on the old connection");
        assert_unpunished(&sshd);
    }
}
