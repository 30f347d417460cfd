//! Several identities.

use ssh_pool::Identity;
use ssh_pool_tests::Sshd;

use crate::{SOON, last_login_was_with, login, new_key, offered};

#[tokio::test(flavor = "multi_thread")]
async fn identities_are_offered_in_their_order_until_one_is_taken() {
    let sshd = Sshd::start();
    let keys = [new_key(), new_key(), new_key()];
    sshd.authorize(&keys[1].1.public_line());
    sshd.authorize(&keys[2].1.public_line());
    let file = |index: usize| Identity::key_file(keys[index].1.private());

    login(&sshd, Identity::several([file(0), file(1), file(2)]))
        .await
        .unwrap();
    last_login_was_with(&sshd, &keys[1].1.fingerprint());
    assert_eq!(sshd.refused_credentials(), 1, "{}", sshd.log());

    login(&sshd, Identity::several([file(2), file(1)]))
        .await
        .unwrap();
    last_login_was_with(&sshd, &keys[2].1.fingerprint());
    // On one connection each: a wrong key is no failed login.
    assert_eq!(
        (sshd.connections(), sshd.auth_failures()),
        (2, 0),
        "{}",
        sshd.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_names_everything_that_was_offered_in_order() {
    let sshd = Sshd::start();
    let keys = [new_key(), new_key()];
    let identities = keys
        .iter()
        .map(|(_, key)| Identity::key_file(key.private()));
    let all = identities.chain([Identity::password("guess")]);
    let error = login(&sshd, Identity::several(all)).await.unwrap_err();
    let tried = offered(&error);
    // The password by two methods.
    assert_eq!(tried.len(), 4, "{tried:?}");
    for (name, (_, key)) in tried.iter().zip(&keys) {
        assert!(name.contains(&key.fingerprint()), "{tried:?}");
        assert!(
            name.contains(&key.private().display().to_string()),
            "{tried:?}"
        );
    }
    let text = error.to_string();
    for part in tried.iter().chain([&sshd.target()]) {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    // To a password sshd answers before it logs.
    assert!(sshd.wait_for_log("Failed password", 1, SOON));
    assert_eq!(sshd.refused_credentials(), 3, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_used_is_passed_over() {
    let sshd = Sshd::start();
    let all = Identity::several([
        Identity::key_file(sshd.dir().join("missing")),
        Identity::agent_at(sshd.dir().join("no-agent")),
        Identity::key_file(sshd.client_key()),
    ]);
    login(&sshd, all).await.unwrap();
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_named_twice_is_offered_once() {
    let sshd = Sshd::start();
    let (_dir, key) = new_key();
    let twice = Identity::several([
        Identity::key_file(key.private()),
        Identity::key_pem(key.private_text()),
    ]);
    let error = login(&sshd, twice).await.unwrap_err();
    assert_eq!(offered(&error).len(), 1, "{error}");
    assert_eq!(sshd.refused_credentials(), 1, "{}", sshd.log());
}
