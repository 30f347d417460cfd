//! Nobody rides on somebody else's connection.

use ssh_pool::Identity;
use ssh_pool_tests::Sshd;

use crate::{host_for, logins, new_key, offered, pool};

#[tokio::test(flavor = "multi_thread")]
async fn two_identities_for_one_account_are_two_connections() {
    let sshd = Sshd::start();
    let keys = [new_key(), new_key()];
    let pool = pool(&sshd);
    let hosts: Vec<_> = keys
        .iter()
        .map(|(_, key)| {
            sshd.authorize(&key.public_line());
            host_for(&pool, &sshd, Identity::key_file(key.private()))
        })
        .collect();
    // Turn and turn about, so that either could take the other's idle connection.
    for _ in 0..3 {
        for host in &hosts {
            assert!(host.command("true").status().await.unwrap().success());
        }
    }
    let logins = logins(&sshd);
    assert_eq!(logins.len(), 2, "{logins:?}");
    for (login, (_, key)) in logins.iter().zip(&keys) {
        assert!(login.contains(&key.fingerprint()), "{logins:?}");
    }
    let status = pool.status();
    let of_each: Vec<_> = status
        .hosts
        .iter()
        .map(|host| (host.target.clone(), host.dials, host.commands))
        .collect();
    assert_eq!(of_each, [(sshd.target(), 1, 3), (sshd.target(), 1, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_identities_are_one_connection() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    // Once as the pool's own, once as the target's, spelt anew.
    let own = pool.host(sshd.target()).unwrap();
    let same = host_for(&pool, &sshd, Identity::key_file(sshd.client_key()));
    for host in [own, same] {
        assert!(host.command("true").status().await.unwrap().success());
    }
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
    assert_eq!(pool.status().hosts.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_log_in_does_not_get_in_over_a_connection_of_somebody_who_may() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    let welcome = pool.host(sshd.target()).unwrap();
    assert!(welcome.command("true").status().await.unwrap().success());
    let (_dir, key) = new_key();
    for identity in [
        Identity::key_file(key.private()),
        Identity::key_pem(key.private_text()),
        Identity::password("guess"),
    ] {
        let stranger = host_for(&pool, &sshd, identity);
        offered(&stranger.command("true").output().await.unwrap_err());
    }
    assert_eq!(sshd.accepted(), 1);
    // And the failure is the stranger's alone.
    assert!(welcome.command("true").status().await.unwrap().success());
    assert_eq!(sshd.connections(), 4, "{}", sshd.log());
}
