//! Every identity, loaded.

use super::*;
use crate::error::words_of;
use futures_util::FutureExt;
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::RsaKeypair;
use russh::keys::{Algorithm, EcdsaCurve, encode_pkcs8_pem, encode_pkcs8_pem_encrypted};

/// The older form that `openssl ecparam -genkey` writes.
const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
    MHcCAQEEIIrGVxmf9puG9OGqx/peLj5ksz/fnPyKGLj0INC9qEo6oAoGCCqGSM49\n\
    AwEHoUQDQgAEN4Pf+/RsQG0AKrz+VChfYYa/g8lPigTuWh0SV+uG1mVqUxk17y3e\n\
    aCLxlUHgCA2x5/cStI8yr8Nmd1PcfuYTtA==\n\
    -----END EC PRIVATE KEY-----\n";

fn target() -> Arc<str> {
    "me@test:22".into()
}

fn new_key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), algorithm).unwrap()
}

fn openssh(key: &PrivateKey) -> String {
    key.to_openssh(LineEnding::LF).unwrap().to_string()
}

fn public_line(key: &PrivateKey) -> String {
    key.public_key().to_openssh().unwrap()
}

fn public(key: &PrivateKey) -> String {
    fingerprint(key.public_key())
}

async fn load(target: &Arc<str>, identity: &Identity) -> Result<Vec<Credential>, Error> {
    let second = Duration::from_secs(1);
    let loader = Loader {
        keyring: &Keyring::default(),
        stopwatch: &Stopwatch::new(second),
        agent_limit: second,
    };
    Ok(loader.load(target, identity).await?.0)
}

/// The fingerprint of the one key that `identity` loads.
async fn one(identity: Identity) -> String {
    match load(&target(), &identity).await.unwrap().as_slice() {
        [Credential::Key { key, name }] => {
            assert!(name.contains(&public(key)), "{name}");
            public(key)
        }
        other => panic!("{other:?}"),
    }
}

async fn problem(identity: Identity) -> String {
    let error = load(&target(), &identity).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    error.to_string()
}

fn unreadable(path: &str) -> String {
    let missing = words_of(&std::fs::read(path).unwrap_err());
    format!(": cannot read {path}: {missing}; check")
}

async fn loads_in_every_format(key: PrivateKey) {
    let (mut plain, mut sealed) = (Vec::new(), Vec::new());
    encode_pkcs8_pem(&key, &mut plain).unwrap();
    encode_pkcs8_pem_encrypted(&key, b"secret", 10, &mut sealed).unwrap();
    for text in [openssh(&key), String::from_utf8(plain).unwrap()] {
        for text in [text.replace('\n', "\r\n"), text] {
            check(&Identity::key_pem(&text)).unwrap();
            assert_eq!(one(Identity::key_pem(&text)).await, public(&key));
            // As with ssh, a needless passphrase does no harm.
            assert_eq!(
                one(Identity::key_pem_with_passphrase(text, "x")).await,
                public(&key)
            );
        }
    }
    let ours = openssh(&key.encrypt(&mut safe_rng(), "secret").unwrap());
    for text in [ours, String::from_utf8(sealed).unwrap()] {
        let right = Identity::key_pem_with_passphrase(&text, "secret");
        assert_eq!(one(right).await, public(&key));
        let wrong = problem(Identity::key_pem_with_passphrase(&text, "wrong")).await;
        let advice =
            ": the passphrase is wrong; pass the right one, or log in with another identity";
        assert!(wrong.ends_with(advice), "{wrong}");
        let missing = problem(Identity::key_pem(&text)).await;
        assert!(missing.contains("no passphrase was given"), "{missing}");
        assert!(check(&Identity::key_pem(&text)).is_err());
    }
}

#[tokio::test]
async fn a_key_is_decrypted_once_for_a_pool_and_outside_of_its_runtime() {
    let (keyring, target) = (Keyring::default(), target());
    let loader = Loader {
        keyring: &keyring,
        stopwatch: &Stopwatch::new(Duration::from_secs(1)),
        agent_limit: Duration::from_secs(1),
    };
    let sealed = || {
        let key = new_key(Algorithm::Ed25519).encrypt(&mut safe_rng(), "secret");
        Identity::key_pem_with_passphrase(openssh(&key.unwrap()), "secret")
    };
    let identity = sealed();
    let mut keys = Vec::new();
    for _ in 0..2 {
        match loader.load(&target, &identity).await.unwrap().0.as_slice() {
            [Credential::Key { key, .. }] => keys.push(key.clone()),
            other => panic!("{other:?}"),
        }
    }
    assert!(Arc::ptr_eq(&keys[0], &keys[1]));
    // Decrypted where it is asked for, a key would be there as soon as that is polled. A thread is
    // that quick only while this one does not run.
    let mut waited_for = (0..10).map(|_| loader.load(&target, &sealed()).now_or_never());
    assert!(waited_for.any(|at_once| at_once.is_none()));
}

#[tokio::test]
async fn ed25519_keys_load_in_every_format() {
    loads_in_every_format(new_key(Algorithm::Ed25519)).await;
}

#[tokio::test]
async fn ecdsa_keys_load_in_every_format() {
    let curve = EcdsaCurve::NistP256;
    loads_in_every_format(new_key(Algorithm::Ecdsa { curve })).await;
    one(Identity::key_pem(SEC1)).await;
}

#[tokio::test]
async fn rsa_keys_load_in_every_format() {
    loads_in_every_format(RsaKeypair::random(&mut safe_rng(), 2048).unwrap().into()).await;
}

#[tokio::test]
async fn what_is_no_key_is_told_apart() {
    for text in [
        "",
        "ssh-ed25519 AAAA",
        "-----BEGIN NOTHING PRIVATE KEY-----\nAAAA\n",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
    ] {
        assert!(
            problem(Identity::key_pem(text))
                .await
                .contains("not a private key"),
            "{text}"
        );
        let error = check(&Identity::key_pem(text)).unwrap_err();
        assert!(matches!(
            error,
            Error::InvalidInput {
                what: "identity",
                ..
            }
        ));
    }
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,\n";
    let text = problem(Identity::key_pem_with_passphrase(old, "x")).await;
    assert!(
        text.contains("`ssh-keygen -p -f FILE`") && text.contains("AES-128-CBC"),
        "{text}"
    );
    let public = public_line(&new_key(Algorithm::Ed25519));
    let text = problem(Identity::key_pem(public)).await;
    assert!(text.contains("public key"), "{text}");
    let text = problem(Identity::key_file("/nonexistent/key")).await;
    assert!(text.contains(&unreadable("/nonexistent/key")), "{text}");
    assert!(problem(Identity::several([])).await.contains("empty"));
    assert!(
        check(&Identity::several([])).is_ok(),
        "an error only when it is used"
    );
}

#[tokio::test]
async fn of_several_the_unusable_are_skipped_until_none_is_left() {
    let key = new_key(Algorithm::Ed25519);
    let missing = || Identity::key_file("/nonexistent/key");
    let agent = || Identity::agent_at("/nonexistent/agent");
    let some = Identity::several([missing(), agent(), Identity::key_pem(openssh(&key))]);
    assert_eq!(one(some).await, public(&key));
    let text = problem(Identity::several([missing(), agent()])).await;
    let absent = words_of(&std::fs::read("/nonexistent/key").unwrap_err());
    let each = format!(
        "me@test:22: no identity can be used: key file /nonexistent/key: {absent}; agent at \
         /nonexistent/agent: the agent does not answer: {absent}"
    );
    assert_eq!(text, each);
    let many = Identity::several((0..1000).map(|_| missing()));
    let text = problem(many).await;
    assert!(text.ends_with("; 992 more: see the trace"), "{text}");
}

#[tokio::test]
async fn without_any_key_of_ssh_the_error_says_where_they_were_looked_for() {
    use crate::identity::Part;
    let found = async |socket: Option<&str>| {
        let second = Duration::from_secs(1);
        let loader = Loader {
            keyring: &Keyring::default(),
            stopwatch: &Stopwatch::new(second),
            agent_limit: second,
        };
        let part = Part::LikeSsh {
            socket: socket.map(Into::into),
            folder: "/nonexistent/.ssh".into(),
        };
        match loader.load_part(&part).await.unwrap() {
            Credential::FromAgent(source) => source.find(None).await.problem.unwrap().1.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        found(None).await,
        "no key: $SSH_AUTH_SOCK is not set, and /nonexistent/.ssh has no id_rsa, id_ecdsa or id_ed25519 \
         that can be used; start an agent, or name a key with Identity::key_file"
    );
    let text = found(Some("/nonexistent/agent")).await;
    assert!(
        text.contains("(agent at /nonexistent/agent), and /nonexistent/.ssh has no"),
        "{text}"
    );
}

#[tokio::test]
async fn errors_name_the_identity_and_no_secret() {
    let sealed = new_key(Algorithm::Ed25519)
        .encrypt(&mut safe_rng(), "right")
        .unwrap();
    let identity = Identity::key_pem_with_passphrase(openssh(&sealed), "hunter2");
    let error = load(&target(), &identity).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("key given as text") && !text.contains("hunter2"),
        "{text}"
    );
    let credentials = load(&target(), &Identity::password("hunter2"))
        .await
        .unwrap();
    assert!(!format!("{credentials:?}").contains("hunter2"));
}

/// Takes the file away from others, without which it is not used.
fn protect(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).unwrap();
    }
}

#[tokio::test]
async fn a_certificate_must_be_for_its_key() {
    let folder = std::env::temp_dir().join(format!("ssh-pool-certs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (key, ca) = (new_key(Algorithm::Ed25519), new_key(Algorithm::Ed25519));
    let certificate = |subject: &PrivateKey| {
        let public = subject.public_key();
        let mut rng = safe_rng();
        let mut builder = Builder::new_with_random_nonce(&mut rng, public, 0, u64::MAX).unwrap();
        builder
            .cert_type(CertType::User)
            .unwrap()
            .valid_principal("me")
            .unwrap();
        builder.sign(&ca).unwrap().to_openssh().unwrap()
    };
    let path = |name: &str| folder.join(name);
    std::fs::write(path("key"), openssh(&key)).unwrap();
    protect(&path("key"));
    std::fs::write(path("good"), certificate(&key) + "\n").unwrap();
    std::fs::write(path("other"), certificate(&ca)).unwrap();
    std::fs::write(path("junk"), "junk").unwrap();

    let good = load(&target(), &Identity::certificate(path("key"), path("good"))).await;
    assert!(matches!(
        good.unwrap().as_slice(),
        [Credential::Certificate { .. }]
    ));
    let text = problem(Identity::certificate(path("key"), path("other"))).await;
    assert!(
        text.contains(": the certificate is for another key; "),
        "{text}"
    );
    let text = problem(Identity::certificate(path("key"), path("junk"))).await;
    assert!(text.contains("not an OpenSSH certificate"), "{text}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_key_of_an_agent_is_chosen_by_a_public_key_or_a_fingerprint_and_nothing_else() {
    let key = new_key(Algorithm::Ed25519);
    for text in [
        public_line(&key),
        public(&key),
        format!("  {} comment\n", public_line(&key)),
    ] {
        check(&Identity::agent_key_at("/a", text)).unwrap();
    }
    let (short, long) = ("SHA256:short", format!("{}A", public(&key)));
    for text in [
        "",
        "hello",
        "ssh-ed25519",
        &openssh(&key),
        "SHA256:",
        short,
        &long,
    ] {
        let error = check(&Identity::agent_key_at("/a", text)).unwrap_err();
        assert!(error.to_string().contains("not a public key"), "{error}");
    }
}
