//! Everything that an identity can be made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ssh_pool::{Error, Identity};
use ssh_pool_tests::{
    KeyFormat, KeyPair, Sshd, TempDir, TestUser, generate, sign_user_certificate,
};

use crate::{SOON, last_login_was_with, login, logins, new_key, offered};

const PASSPHRASE: &str = "correct horse";

/// A copy of the key's private file, written in that format.
fn rewritten(key: &KeyPair, format: KeyFormat, passphrase: Option<&str>) -> PathBuf {
    let copy = format!("{format:?}-{}", passphrase.is_some());
    let copy = key.private().with_file_name(copy);
    fs::copy(key.private(), &copy).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-p", "-P", "", "-N", passphrase.unwrap_or("")]);
    match format {
        KeyFormat::OpenSsh => {}
        KeyFormat::Pkcs8 => drop(keygen.args(["-m", "PKCS8"])),
        KeyFormat::Pem => drop(keygen.args(["-m", "PEM"])),
    }
    let output = keygen.arg("-f").arg(&copy).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    copy
}

/// Logs in with a key of that kind in every format, in the clear and encrypted. Gives the first
/// lines of the files.
async fn every_format_of(kind: &str) -> BTreeSet<String> {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    let key = generate(dir.path(), "key", kind, None, KeyFormat::OpenSsh);
    sshd.authorize(&key.public_line());
    let mut seen = BTreeSet::new();
    for format in [KeyFormat::OpenSsh, KeyFormat::Pkcs8, KeyFormat::Pem] {
        for passphrase in [None, Some(PASSPHRASE)] {
            let path = rewritten(&key, format, passphrase);
            let text = fs::read_to_string(&path).unwrap();
            seen.insert(text.lines().next().unwrap().to_owned());
            let identities = match passphrase {
                None => [Identity::key_file(&path), Identity::key_pem(&*text)],
                Some(words) => [
                    Identity::key_file_with_passphrase(&path, words),
                    Identity::key_pem_with_passphrase(&*text, words),
                ],
            };
            // Of what OpenSSL has encrypted in its own old way, RSA keys can be read.
            let old = text.contains("Proc-Type: 4,ENCRYPTED") && kind != "rsa";
            for identity in identities {
                if old {
                    is_refused_with_a_way_out(&sshd, identity).await;
                } else {
                    let result = login(&sshd, identity).await;
                    result.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
                    last_login_was_with(&sshd, &key.fingerprint());
                }
            }
        }
    }
    seen
}

async fn is_refused_with_a_way_out(sshd: &Sshd, identity: Identity) {
    let before = sshd.connections();
    let error = login(sshd, identity).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    let source = error.to_string();
    assert!(source.contains("ssh-keygen -p"), "{source}");
    assert_eq!(sshd.connections(), before);
}

const OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const PKCS8: &str = "-----BEGIN PRIVATE KEY-----";
const PKCS8_ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

#[tokio::test(flavor = "multi_thread")]
async fn ed25519_keys_log_in_in_every_format() {
    let seen = every_format_of("ed25519").await;
    // OpenSSH before 9.6 knows no other format for these.
    assert!(seen.contains(OPENSSH), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ecdsa_keys_log_in_in_every_format() {
    let seen = every_format_of("ecdsa").await;
    for format in [
        OPENSSH,
        PKCS8,
        PKCS8_ENCRYPTED,
        "-----BEGIN EC PRIVATE KEY-----",
    ] {
        assert!(seen.contains(format), "no {format} in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_keys_log_in_in_every_format() {
    let seen = every_format_of("rsa").await;
    for format in [
        OPENSSH,
        PKCS8,
        PKCS8_ENCRYPTED,
        "-----BEGIN RSA PRIVATE KEY-----",
    ] {
        assert!(seen.contains(format), "no {format} in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_with_windows_line_ends_logs_in() {
    let sshd = Sshd::start();
    let (dir, key) = new_key();
    sshd.authorize(&key.public_line());
    let path = dir.path().join("crlf");
    write_key(&path, &key.private_text().replace('\n', "\r\n"));
    login(&sshd, Identity::key_file(path)).await.unwrap();
    last_login_was_with(&sshd, &key.fingerprint());
}

/// Writes a file that others may not read.
fn write_key(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_begins_with_a_byte_order_mark_logs_in() {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    let key = generate(dir.path(), "key", "rsa", None, KeyFormat::OpenSsh);
    sshd.authorize(&key.public_line());
    for format in [KeyFormat::OpenSsh, KeyFormat::Pkcs8, KeyFormat::Pem] {
        let text = fs::read_to_string(rewritten(&key, format, None)).unwrap();
        let path = dir.path().join("marked");
        write_key(&path, &format!("\u{feff}{text}"));
        let result = login(&sshd, Identity::key_file(&path)).await;
        result.unwrap_or_else(|error| panic!("{format:?}: {error:?}"));
        last_login_was_with(&sshd, &key.fingerprint());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_follows_other_pem_blocks_logs_in() {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    let key = generate(dir.path(), "key", "ecdsa", None, KeyFormat::OpenSsh);
    sshd.authorize(&key.public_line());
    let text = fs::read_to_string(rewritten(&key, KeyFormat::Pem, None)).unwrap();
    let path = dir.path().join("second");
    // As `openssl ecparam -genkey` writes it, and as web servers keep it.
    for label in ["EC PARAMETERS", "CERTIFICATE"] {
        let block = format!("-----BEGIN {label}-----\nBggqhkjOPQMBBw==\n-----END {label}-----\n");
        write_key(&path, &format!("{block}{text}"));
        let result = login(&sshd, Identity::key_file(&path)).await;
        result.unwrap_or_else(|error| panic!("{label}: {error:?}"));
        last_login_was_with(&sshd, &key.fingerprint());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ecdsa_keys_whose_private_number_is_short_log_in() {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    for (name, text, words) in [
        ("nistp256", include_str!("short_keys/nistp256"), None),
        ("nistp384", include_str!("short_keys/nistp384"), None),
        ("nistp521", include_str!("short_keys/nistp521"), None),
        (
            "encrypted",
            include_str!("short_keys/nistp256_encrypted"),
            Some(PASSPHRASE),
        ),
    ] {
        let path = dir.path().join(name);
        write_key(&path, text);
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-y", "-P", words.unwrap_or_default(), "-f"])
            .arg(&path);
        let public = String::from_utf8(keygen.output().unwrap().stdout).unwrap();
        sshd.authorize(&public);
        let identity = match words {
            None => Identity::key_file(&path),
            Some(words) => Identity::key_file_with_passphrase(&path, words),
        };
        let result = login(&sshd, identity).await;
        result.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    assert_eq!(sshd.accepted(), 4, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_others_may_read_is_refused_as_ssh_does() {
    use std::os::unix::fs::PermissionsExt;
    let sshd = Sshd::start();
    let (_dir, key) = new_key();
    sshd.authorize(&key.public_line());
    for mode in [0o644, 0o640, 0o660, 0o620, 0o604] {
        fs::set_permissions(key.private(), fs::Permissions::from_mode(mode)).unwrap();
        let error = login(&sshd, Identity::key_file(key.private())).await;
        let error = error.unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error} {source:?}");
        assert!(text.contains("chmod 600"), "{mode:o}: {text}");
        // A text has no file with modes.
        login(&sshd, Identity::key_pem(key.private_text()))
            .await
            .unwrap();
    }
    assert_eq!(sshd.connections(), 5, "{}", sshd.log());
    for mode in [0o600, 0o400, 0o700] {
        fs::set_permissions(key.private(), fs::Permissions::from_mode(mode)).unwrap();
        login(&sshd, Identity::key_file(key.private()))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_logs_in_where_its_key_alone_would_not() {
    let dir = TempDir::new();
    let generate = |name, kind| generate(dir.path(), name, kind, None, KeyFormat::OpenSsh);
    let (ca, other_ca) = (generate("ca", "ed25519"), generate("other", "ed25519"));
    let trusted = format!("TrustedUserCAKeys {}", ca.public().display());
    let sshd = Sshd::builder().option(trusted).start();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = generate(kind, kind);
        let principals = [sshd.user()];
        let foreign = sign_user_certificate(&other_ca, &key, &principals);
        let kept = dir.path().join(format!("{kind}-foreign.pub"));
        fs::rename(foreign, &kept).unwrap();
        let certificate = sign_user_certificate(&ca, &key, &principals);

        login(&sshd, Identity::certificate(key.private(), &certificate))
            .await
            .unwrap_or_else(|error| panic!("{kind}: {error:?}"));
        let last = logins(&sshd).pop().unwrap();
        assert!(
            last.contains("-CERT ") && last.contains("ssh-pool-test"),
            "{last}"
        );

        let refused = [
            Identity::key_file(key.private()),
            Identity::certificate(key.private(), kept),
        ];
        for identity in refused {
            let error = login(&sshd, identity).await.unwrap_err();
            assert!(offered(&error)[0].contains(&key.fingerprint()), "{error}");
        }
    }
    assert_eq!(sshd.accepted(), 3, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_keys_of_any_length_log_in_alone_and_with_a_certificate() {
    let dir = TempDir::new();
    let generate =
        |name: &str, kind: &str| generate(dir.path(), name, kind, None, KeyFormat::OpenSsh);
    let ca = generate("ca", "ed25519");
    let trusted = format!("TrustedUserCAKeys {}", ca.public().display());
    // Not whole words of eight bytes, nor whole bytes.
    for bits in ["1030", "2050", "3000"] {
        let key = generate(bits, &format!("rsa -b {bits}"));
        let sshd = Sshd::builder().option(&trusted).start();
        let certificate = sign_user_certificate(&ca, &key, &[sshd.user()]);
        let certified = Identity::certificate(key.private(), certificate);
        login(&sshd, certified).await.unwrap();
        sshd.authorize(&key.public_line());
        login(&sshd, Identity::key_pem(key.private_text()))
            .await
            .unwrap();
        last_login_was_with(&sshd, &key.fingerprint());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_account_is_refused() {
    let (ca, key) = (new_key(), new_key());
    let trusted = format!("TrustedUserCAKeys {}", ca.1.public().display());
    let sshd = Sshd::builder().option(trusted).start();
    let certificate = sign_user_certificate(&ca.1, &key.1, &["somebody-else"]);
    let identity = Identity::certificate(key.1.private(), certificate);
    offered(&login(&sshd, identity).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_logs_in_and_a_wrong_one_is_tried_once_by_each_method() {
    // Panics, and says why, when the tests do not run as root: nobody else can set a password.
    let user = TestUser::with_password();
    let sshd = Sshd::builder().user(user.clone()).start();
    let right = user.password().unwrap();
    login(&sshd, Identity::password(right)).await.unwrap();
    let last = logins(&sshd).pop().unwrap();
    assert!(last.starts_with("Accepted password for "), "{last}");

    let error = login(&sshd, Identity::password("wrong")).await.unwrap_err();
    let both = ["password", "password (keyboard-interactive)"];
    assert_eq!(offered(&error), both);
    // sshd answers before it logs.
    assert!(sshd.wait_for_log("Failed password", 1, SOON));
    // Without PAM it has no keyboard-interactive to fail at, though it allows it.
    assert_eq!(sshd.refused_credentials(), 1, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_not_sent_to_a_server_that_takes_none() {
    let sshd = Sshd::builder()
        .option("PasswordAuthentication no")
        .option("KbdInteractiveAuthentication no")
        .start();
    let error = login(&sshd, Identity::password("secret"))
        .await
        .unwrap_err();
    assert!(offered(&error).is_empty(), "{error:?}");
    assert!(error.to_string().contains("publickey"), "{error}");
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}
