//! Identities that cannot be used: an error, and no server is bothered.

use std::fs;

use ssh_pool::{CommandState, Error, Identity, Phase, Pool};
use ssh_pool_tests::{Agent, KeyFormat, Sshd, TempDir, generate, sign_user_certificate};

use crate::{host_for, known, login, new_key};

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn is_unusable(sshd: &Sshd, identity: Identity) {
    let shown = format!("{identity:?}");
    let error = login(sshd, identity).await.unwrap_err();
    let Error::Identity { identity, .. } = &error else {
        panic!("{shown}: {error:?}")
    };
    assert!(shown.contains(identity.as_str()), "{shown}: {identity}");
    assert!(error.to_string().contains(identity.as_str()), "{error}");
    assert_eq!(error.phase(), Phase::Auth);
    assert_eq!(error.command_state(), CommandState::NotStarted);
    assert!(!error.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_cannot_be_used_bothers_no_server() {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    let key = |name, passphrase, format| generate(dir.path(), name, "ecdsa", passphrase, format);
    let secret = Some("right");
    let openssh = key("openssh", secret, KeyFormat::OpenSsh);
    let pkcs8 = key("pkcs8", secret, KeyFormat::Pkcs8);
    let not_a_key = dir.path().join("not-a-key");
    fs::write(&not_a_key, "hello\n").unwrap();
    let others_read = key("others-read", None, KeyFormat::OpenSsh);
    set_mode(others_read.private(), 0o640);
    let (ca, certified, other) = (new_key(), new_key(), new_key());
    let certificate = sign_user_certificate(&ca.1, &certified.1, &[sshd.user()]);
    let agent = Agent::start();
    let socket = agent.socket();
    drop(agent);
    let all = [
        Identity::key_file(dir.path().join("missing")),
        // Not a file, for root either.
        Identity::key_file(dir.path()),
        Identity::key_file(&not_a_key),
        Identity::key_file(others_read.private()),
        Identity::key_file(openssh.public()),
        Identity::key_file(openssh.private()),
        Identity::key_file_with_passphrase(openssh.private(), "wrong"),
        Identity::key_file_with_passphrase(pkcs8.private(), "wrong"),
        Identity::key_file_with_passphrase(pkcs8.private(), ""),
        Identity::key_pem_with_passphrase(pkcs8.private_text(), "wrong"),
        Identity::certificate(certified.1.private(), dir.path().join("missing")),
        Identity::certificate(certified.1.private(), certified.1.public()),
        Identity::certificate(other.1.private(), certificate),
        Identity::agent_at(socket),
        Identity::agent_at(&not_a_key),
    ];
    for identity in all.clone() {
        is_unusable(&sshd, identity).await;
    }
    let error = login(&sshd, Identity::several(all)).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    assert_eq!(sshd.connections(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_beside_a_key_that_is_refused_is_named() {
    let sshd = Sshd::start();
    let (dir, key) = new_key();
    let typo = dir.path().join("typo");
    let both = [Identity::key_file(&typo), Identity::key_file(key.private())];
    let error = login(&sshd, Identity::several(both)).await.unwrap_err();
    let text = error.to_string();
    let typo = typo.display();
    let unused = format!("; not used: key file {typo} (No such file or directory); the server");
    let offered = format!("after offering ssh-ed25519 {}", key.fingerprint());
    assert!(text.contains(&unused) && text.contains(&offered), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_text_that_is_no_key_is_found_out_when_the_pool_is_built() {
    let sshd = Sshd::start();
    let encrypted = {
        let dir = TempDir::new();
        let words = Some("words");
        generate(dir.path(), "key", "ed25519", words, KeyFormat::OpenSsh).private_text()
    };
    for identity in [
        Identity::key_pem(""),
        Identity::key_pem("hello"),
        Identity::key_pem(encrypted),
    ] {
        let builder = Pool::builder(known(&sshd)).identity(identity);
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    }
    assert_eq!(sshd.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_identity_at_all_is_an_error_when_it_is_used_and_not_before() {
    let sshd = Sshd::start();
    let pool = Pool::builder(known(&sshd)).identity(Identity::several([]));
    let pool = pool.build().unwrap();
    let nobody = pool.host(sshd.target()).unwrap();
    let error = nobody.command("true").output().await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    assert_eq!(sshd.connections(), 0, "{}", sshd.log());
    // A target may bring one of its own.
    let somebody = host_for(&pool, &sshd, Identity::key_file(sshd.client_key()));
    assert!(somebody.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_there_the_next_time_is_used() {
    let sshd = Sshd::start();
    let (dir, key) = new_key();
    sshd.authorize(&key.public_line());
    let path = dir.path().join("later");
    let pool = Pool::builder(known(&sshd)).identity(Identity::key_file(&path));
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    fs::copy(key.private(), &path).unwrap();
    host.evict();
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
}
