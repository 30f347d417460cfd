//! Keys with a passphrase.

use std::path::{Path, PathBuf};
use std::process::Command;

use ssh_pool::{Error, Identity};
use ssh_pool_tests::{KeyFormat, KeyPair, Sshd, TempDir, generate, sign_user_certificate};
use tokio::task::JoinSet;

use crate::odd_agents::many_hosts;
use crate::{builder, host_for, known, last_login_was_with, login, logins, new_key, pool};

pub(crate) const PASSPHRASE: &str = "correct horse";

/// Encrypts the key's private file, so that it takes that many rounds.
pub(crate) fn encrypt(key: &KeyPair, words: &str, rounds: usize) {
    let rounds = rounds.to_string();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-p", "-P", "", "-N", words, "-a", &rounds]);
    let output = keygen.arg("-f").arg(key.private()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_hosts_log_in_at_once_with_a_key_of_a_hundred_rounds() {
    const HOSTS: usize = 20;
    let (sshd, targets) = many_hosts(HOSTS);
    let (_dir, key) = new_key();
    sshd.authorize(&key.public_line());
    encrypt(&key, PASSPHRASE, 100);
    let identity = Identity::key_file_with_passphrase(key.private(), PASSPHRASE);
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let mut logins = JoinSet::new();
    for target in targets {
        let host = pool.host(target.identity(identity.clone())).unwrap();
        logins.spawn(async move { host.command("true").output().await });
    }
    let results = logins.join_all().await;
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", failed.len());
    assert_eq!(sshd.accepted(), HOSTS);
    last_login_was_with(&sshd, &key.fingerprint());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_passphrase_is_remembered_until_the_file_has_changed() {
    let sshd = Sshd::start();
    let (_dir, key) = new_key();
    sshd.authorize(&key.public_line());
    let file = key.private();
    let original = std::fs::read(file).unwrap();
    encrypt(&key, "another", 16);
    let pool = pool(&sshd);
    let identity = Identity::key_file_with_passphrase(file, PASSPHRASE);
    let host = host_for(&pool, &sshd, identity);
    for _ in 0..2 {
        let error = host.command("true").output().await.unwrap_err();
        assert!(matches!(error, Error::Identity { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(": the passphrase is wrong"), "{text}");
        host.evict();
    }
    std::fs::write(file, original).unwrap();
    encrypt(&key, PASSPHRASE, 16);
    host.command("true").output().await.unwrap();
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_logs_in_with_an_encrypted_key() {
    let ca = new_key();
    let trusted = format!("TrustedUserCAKeys {}", ca.1.public().display());
    let sshd = Sshd::builder().option(trusted).start();
    let (_dir, key) = new_key();
    let certificate = sign_user_certificate(&ca.1, &key, &[sshd.user()]);
    encrypt(&key, PASSPHRASE, 4);
    for identity in [
        Identity::key_file_with_passphrase(key.private(), PASSPHRASE),
        Identity::key_pem_with_passphrase(key.private_text(), PASSPHRASE),
    ] {
        login(&sshd, identity.with_certificate(&certificate))
            .await
            .unwrap();
        let last = logins(&sshd).pop().unwrap();
        assert!(last.contains("-CERT "), "{last}");
    }
}

/// A key file that `openssl` has encrypted in its own way.
fn encrypted_by_openssl(dir: &Path, key: &KeyPair, name: &str, options: &[&str]) -> PathBuf {
    let file = dir.join(name);
    let mut openssl = Command::new("openssl");
    openssl
        .args(["pkcs8", "-topk8", "-passout"])
        .arg(format!("pass:{PASSPHRASE}"));
    openssl
        .args(options)
        .arg("-in")
        .arg(key.private())
        .arg("-out")
        .arg(&file);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_older_encryption_log_in_or_are_refused_with_the_command_that_converts_them() {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    let key = generate(dir.path(), "key", "rsa", None, KeyFormat::Pem);
    sshd.authorize(&key.public_line());
    let file = |name: &str, options: &[&str]| encrypted_by_openssl(dir.path(), &key, name, options);
    let read = [
        file("3des", &["-v2", "des3"]),
        file("sha1", &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"]),
        file(
            "sha512",
            &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512"],
        ),
        file("scrypt", &["-scrypt"]),
        with_cipher(dir.path(), &key, "3des-cbc"),
        with_cipher(dir.path(), &key, "aes128-cbc"),
        with_cipher(dir.path(), &key, "aes256-gcm@openssh.com"),
        with_cipher(dir.path(), &key, "chacha20-poly1305@openssh.com"),
    ];
    for file in read {
        let identity = |words| Identity::key_file_with_passphrase(&file, words);
        let result = login(&sshd, identity(PASSPHRASE)).await;
        result.unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
        last_login_was_with(&sshd, &key.fingerprint());
        let reason = reason(&sshd, identity("wrong")).await;
        assert!(
            reason.starts_with("the passphrase is wrong; "),
            "{}: {reason}",
            file.display()
        );
    }
    let legacy = ["-provider", "legacy", "-provider", "default"];
    let with_legacy = |name: &'static str| [&["-v1", name][..], &legacy[..]].concat();
    let mut traditional = Command::new("openssl");
    let old_pem = dir.path().join("old-pem");
    traditional.args(["rsa", "-traditional", "-des3", "-passout"]);
    traditional
        .arg(format!("pass:{PASSPHRASE}"))
        .arg("-in")
        .arg(key.private());
    assert!(
        traditional
            .arg("-out")
            .arg(&old_pem)
            .output()
            .unwrap()
            .status
            .success()
    );
    for (file, format) in [
        (file("pbes1-md5", &with_legacy("PBE-MD5-DES")), "PBES1"),
        (file("pbes1-sha1", &with_legacy("PBE-SHA1-DES")), "PBES1"),
        (
            file("pkcs12", &["-v1", "PBE-SHA1-3DES"]),
            "PKCS#8 with an old cipher",
        ),
        (old_pem, "PEM encryption with DES-EDE3-CBC"),
    ] {
        let identity = Identity::key_file_with_passphrase(&file, PASSPHRASE);
        let reason = reason(&sshd, identity).await;
        assert!(reason.contains(format), "{reason}");
        let converted = convert(&reason, &file);
        let identity = Identity::key_file_with_passphrase(&converted, PASSPHRASE);
        let result = login(&sshd, identity).await;
        result.unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
    }
}

/// A copy of the key in OpenSSH's own format, encrypted with that cipher.
fn with_cipher(dir: &Path, key: &KeyPair, cipher: &str) -> PathBuf {
    let file = dir.join(cipher);
    std::fs::copy(key.private(), &file).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args([
        "-q", "-p", "-P", "", "-N", PASSPHRASE, "-a", "4", "-Z", cipher,
    ]);
    let output = keygen.arg("-f").arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    file
}

/// Why the identity cannot be used.
async fn reason(sshd: &Sshd, identity: Identity) -> String {
    let error = login(sshd, identity).await.unwrap_err();
    let Error::Identity { source, .. } = &error else {
        panic!("{error:?}")
    };
    source.to_string()
}

/// Runs the command that an error names, and gives the file that comes of it.
fn convert(reason: &str, file: &Path) -> PathBuf {
    let command = reason.split('`').nth(1).unwrap();
    let new = file.with_extension("new");
    let command = command
        .replace("FILE", &file.display().to_string())
        .replace("NEW", &new.display().to_string());
    // The passphrases that it would ask for.
    let command = match command.strip_prefix("ssh-keygen ") {
        Some(rest) => format!("ssh-keygen -P '{PASSPHRASE}' -N '{PASSPHRASE}' {rest}"),
        None => format!("{command} -passin 'pass:{PASSPHRASE}' -passout 'pass:{PASSPHRASE}'"),
    };
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let result = if new.exists() { new } else { file.to_owned() };
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&result, std::fs::Permissions::from_mode(0o600)).unwrap();
    result
}
