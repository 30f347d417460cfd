//! Trust on first use.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ssh_pool::{HostKeyPolicy, HostKeyProblem};
use ssh_pool_tests::{Sshd, fingerprint};

use crate::Verdict::{Accepted, Changed, Revoked};
use crate::{
    KnownHosts, Strictness, Verdict, builder, key, name, pool_answers, pool_says, ssh_says,
    stranger,
};

/// Both clients come to that decision, and leave the same file behind, which is returned.
pub(crate) async fn both_say(sshd: &Sshd, text: &str, wanted: Verdict) -> String {
    let (theirs, ours) = (KnownHosts::new(text), KnownHosts::new(text));
    let verdict = ssh_says(sshd, &theirs.path(), Strictness::AcceptNew);
    assert_eq!(verdict, wanted, "ssh, with\n{text}");
    let policy = HostKeyPolicy::accept_new_file(ours.path());
    assert_eq!(pool_says(sshd, policy).await, wanted, "pool, with\n{text}");
    assert_eq!(ours.text(), theirs.text(), "with\n{text}");
    ours.text()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_stored_as_ssh_stores_it() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let bare: Vec<_> = key.split(' ').take(2).collect();
    let line = format!("{name} {}\n", bare.join(" "));
    assert_eq!(both_say(&sshd, "", Accepted).await, line);
    let comment = "# no host here\n";
    assert_eq!(
        both_say(&sshd, comment, Accepted).await,
        format!("{comment}{line}")
    );
    // The last resort, without port, says nothing about this port when it does not match.
    let portless = format!("127.0.0.1 {}\n", stranger("ed25519"));
    let stored = both_say(&sshd, &portless, Accepted).await;
    assert_eq!(stored, format!("{portless}{line}"));
}

/// ssh up to 9.2 at least does continue it, and spoils both lines.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_line_is_not_continued() {
    let sshd = Sshd::start();
    let unfinished = format!("[127.0.0.1]:9 {}", stranger("ed25519"));
    let file = KnownHosts::new(&unfinished);
    let policy = HostKeyPolicy::accept_new_file(file.path());
    assert_eq!(pool_says(&sshd, policy).await, Accepted);
    let text = file.text();
    let stored = text.strip_prefix(&format!("{unfinished}\n")).expect(&text);
    assert!(stored.starts_with(&name(&sshd)), "{text}");
    assert_eq!(ssh_says(&sshd, &file.path(), Strictness::Yes), Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_is_trusted_from_then_on_by_everybody_and_stored_once() {
    let sshd = Sshd::start();
    let file = KnownHosts::missing();
    let new = HostKeyPolicy::accept_new_file(file.path());
    assert_eq!(pool_says(&sshd, new.clone()).await, Accepted);
    let stored = file.text();
    assert_eq!(mode(&file.path()), 0o600);

    assert_eq!(pool_says(&sshd, new).await, Accepted);
    let strict = HostKeyPolicy::known_hosts_file(file.path());
    assert_eq!(pool_says(&sshd, strict).await, Accepted);
    assert_eq!(ssh_says(&sshd, &file.path(), Strictness::Yes), Accepted);
    assert_eq!(file.text(), stored);
    assert_eq!(stored.lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ssh_has_stored_is_trusted() {
    let sshd = Sshd::start();
    let file = KnownHosts::missing();
    assert_eq!(
        ssh_says(&sshd, &file.path(), Strictness::AcceptNew),
        Accepted
    );
    let strict = HostKeyPolicy::known_hosts_file(file.path());
    assert_eq!(pool_says(&sshd, strict).await, Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_refused_and_not_stored() {
    let sshd = Sshd::start();
    for kind in ["ed25519", "ecdsa"] {
        let line = format!("{} {}\n", name(&sshd), stranger(kind));
        assert_eq!(both_say(&sshd, &line, Changed).await, line);
    }
    assert_eq!(sshd.accepted(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_trusted_and_then_shows_another_key_is_refused() {
    let sshd = Sshd::start();
    let file = KnownHosts::missing();
    let policy = HostKeyPolicy::accept_new_file(file.path());
    assert_eq!(pool_says(&sshd, policy.clone()).await, Accepted);
    let stored = file.text();
    // The server is reinstalled: another key in the same place.
    let private = sshd.dir().join("host_ed25519");
    fs::copy(file.stranger().private(), &private).unwrap();
    sshd.restart();
    let problem = pool_answers(&sshd, policy).await.unwrap_err();
    assert!(
        matches!(problem, HostKeyProblem::Changed { .. }),
        "{problem:?}"
    );
    assert_eq!(
        ssh_says(&sshd, &file.path(), Strictness::AcceptNew),
        Changed
    );
    assert_eq!(file.text(), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_not_new() {
    let sshd = Sshd::start();
    let line = format!("@revoked {} {}\n", name(&sshd), key(&sshd));
    assert_eq!(both_say(&sshd, &line, Revoked).await, line);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_servers_several_keys_the_listed_one_is_asked_for_and_no_other_is_stored() {
    let sshd = Sshd::builder().host_keys(&["ed25519", "rsa"]).start();
    let line = format!("{} {}\n", name(&sshd), sshd.host_public_key("rsa"));
    assert_eq!(both_say(&sshd, &line, Accepted).await, line);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folders_of_a_new_file_are_made_for_the_owner_alone() {
    let sshd = Sshd::start();
    let root = KnownHosts::missing();
    let outer = root.path().with_file_name("outer");
    let file = outer.join("inner").join("known_hosts");
    let policy = HostKeyPolicy::accept_new_file(&file);
    assert_eq!(pool_says(&sshd, policy).await, Accepted);
    assert_eq!(mode(&file), 0o600);
    assert_eq!((mode(&outer), mode(file.parent().unwrap())), (0o700, 0o700));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_stored_is_not_accepted() {
    let sshd = Sshd::start();
    // Below a file there is no folder, not even for root.
    let file = KnownHosts::new("");
    let policy = HostKeyPolicy::accept_new_file(file.path().join("known_hosts"));
    let problem = pool_answers(&sshd, policy).await.unwrap_err();
    let HostKeyProblem::NotStored {
        fingerprint: shown, ..
    } = &problem
    else {
        panic!("{problem:?}")
    };
    assert_eq!(*shown, fingerprint(&sshd.dir().join("host_ed25519.pub")));
    // Nobody logged in to a server that was not trusted.
    assert_eq!(sshd.accepted(), 0, "{}", sshd.log());
    assert!(!sshd.log().contains("Failed "), "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_meet_a_host_at_once_store_its_key_once() {
    let sshd = Sshd::start();
    let file = KnownHosts::missing();
    let pools: Vec<_> = (0..6)
        .map(|_| {
            let policy = HostKeyPolicy::accept_new_file(file.path());
            builder(&sshd, policy).build().unwrap()
        })
        .collect();
    let callers: Vec<_> = pools
        .iter()
        .flat_map(|pool| {
            let host = pool.host(sshd.target()).unwrap();
            (0..5).map(move |_| tokio::spawn(host.command("true").status()))
        })
        .collect();
    for caller in callers {
        assert!(caller.await.unwrap().unwrap().success());
    }
    assert_eq!(file.text().lines().count(), 1, "{}", file.text());
}
