//! Pinned keys, and no check at all.

use ssh_pool::{Error, HostKeyPolicy, HostKeyProblem, Pool};
use ssh_pool_tests::{Sshd, fingerprint};

use crate::Verdict::{Accepted, Changed};
use crate::{KnownHosts, builder, key, name, pool_answers, pool_says, stranger};

fn host_fingerprint(sshd: &Sshd, kind: &str) -> String {
    fingerprint(&sshd.dir().join(format!("host_{kind}.pub")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pinned_key_is_accepted_by_line_and_by_fingerprint() {
    let sshd = Sshd::start();
    let line = key(&sshd);
    let bare: Vec<_> = line.split(' ').take(2).collect();
    for pin in [
        line.clone(),
        bare.join(" "),
        host_fingerprint(&sshd, "ed25519"),
    ] {
        let verdict = pool_says(&sshd, HostKeyPolicy::pinned(&pin)).await;
        assert_eq!(verdict, Accepted, "{pin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_key_than_the_pinned_one_has_changed_and_both_are_shown() {
    let sshd = Sshd::start();
    let file = KnownHosts::missing();
    let other = file.stranger();
    let shown = host_fingerprint(&sshd, "ed25519");
    for pin in [other.public_line(), other.fingerprint()] {
        let problem = pool_answers(&sshd, HostKeyPolicy::pinned(pin)).await;
        let problem = problem.unwrap_err();
        let HostKeyProblem::Changed {
            fingerprint,
            expected,
            ..
        } = &problem
        else {
            panic!("{problem:?}")
        };
        assert_eq!(*fingerprint, shown);
        assert!(expected[0].contains(&other.fingerprint()), "{expected:?}");
        let text = problem.to_string();
        assert!(
            text.contains(&shown) && text.contains(&other.fingerprint()),
            "{text}"
        );
    }
    let verdict = pool_says(&sshd, HostKeyPolicy::pinned(stranger("ecdsa"))).await;
    assert_eq!(verdict, Changed);
    assert_eq!(sshd.accepted(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_servers_several_keys_the_pinned_one_is_asked_for() {
    let kinds = ["ed25519", "ecdsa", "rsa"];
    let sshd = Sshd::builder().host_keys(&kinds).start();
    for kind in kinds {
        let pin = sshd.host_public_key(kind);
        let verdict = pool_says(&sshd, HostKeyPolicy::pinned(pin)).await;
        assert_eq!(verdict, Accepted, "{kind}");
    }
    // A fingerprint does not say what to ask for.
    for (kind, wanted) in [("ed25519", Accepted), ("rsa", Changed)] {
        let pin = host_fingerprint(&sshd, kind);
        let verdict = pool_says(&sshd, HostKeyPolicy::pinned(pin)).await;
        assert_eq!(verdict, wanted, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_pin_is_an_error_before_anything_is_dialled() {
    let sshd = Sshd::start();
    for pin in ["", "web-1", "SHA256:short", "ssh-ed25519 AAAA"] {
        let error = Pool::builder(HostKeyPolicy::pinned(pin)).build();
        let error = error.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    }
    assert_eq!(sshd.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn accepting_anything_accepts_anything_and_lets_nobody_else_in() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, HostKeyPolicy::dangerous_accept_any());
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    assert!(host.command("true").status().await.unwrap().success());

    // A connection whose key nobody looked at is for those who said so, and for nobody else.
    let file = KnownHosts::new(format!("{} {}\n", name(&sshd), stranger("ed25519")));
    for policy in [
        HostKeyPolicy::known_hosts_file(file.path()),
        HostKeyPolicy::accept_new_file(file.path()),
        HostKeyPolicy::pinned(stranger("ed25519")),
    ] {
        let target: ssh_pool::Target = sshd.target().parse().unwrap();
        let careful = pool.host(target.host_key_policy(policy)).unwrap();
        let error = careful.command("true").output().await.unwrap_err();
        let problem = crate::problem(&error);
        assert!(
            matches!(problem, HostKeyProblem::Changed { .. }),
            "{problem:?}"
        );
    }
    assert_eq!(sshd.accepted(), 1, "{}", sshd.log());
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(pool.status().hosts.len(), 4);
}
