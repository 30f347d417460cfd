//! No secret in anything that is printed.

use std::error::Error as _;

use ssh_pool::{Identity, Target};
use ssh_pool_tests::{KeyFormat, Sshd, TempDir, generate};

use crate::{builder, known};

const PASSWORD: &str = "hunter2-the-password";
const PASSPHRASE: &str = "hunter2-the-passphrase";

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_is_printed() {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    let key = |name, words| generate(dir.path(), name, "ed25519", words, KeyFormat::OpenSsh);
    let (plain, locked) = (
        key("plain", None),
        key("locked", Some("another-passphrase")),
    );
    let mut secrets = vec![PASSWORD.to_owned(), PASSPHRASE.to_owned()];
    for text in [plain.private_text(), locked.private_text()] {
        secrets.extend(
            text.lines()
                .filter(|l| !l.starts_with('-'))
                .map(str::to_owned),
        );
    }

    let identities = [
        Identity::password(PASSWORD),
        Identity::key_pem(plain.private_text()),
        Identity::key_file_with_passphrase(locked.private(), PASSPHRASE),
        Identity::key_pem_with_passphrase(locked.private_text(), PASSPHRASE),
        // A text that is no key at all.
        Identity::key_pem_with_passphrase(format!("-----BEGIN {PASSWORD}"), PASSPHRASE),
    ];
    let all = Identity::several(identities.clone());
    let mut printed = vec![format!("{all:?}")];
    for identity in identities.into_iter().chain([all]) {
        let settings = builder(&sshd, known(&sshd)).identity(identity.clone());
        printed.push(format!("{identity:?} {settings:?}"));
        let pool = settings.build().unwrap();
        let target: Target = sshd.target().parse().unwrap();
        let target = target.identity(identity);
        printed.push(format!("{target:?} {target}"));
        let host = pool.host(target).unwrap();
        let mut command = host.command("true");
        let error = command.output().await.unwrap_err();
        printed.push(format!("{error} {error:?} {error:#?}"));
        let mut source = error.source();
        while let Some(error) = source {
            printed.push(format!("{error} {error:?} {error:#?}"));
            source = error.source();
        }
        printed.push(format!("{pool:?} {host:?} {command:?}"));
        printed.push(format!("{:?} {:?}", pool.status(), host.status()));
    }
    let no_key = builder(&sshd, known(&sshd)).identity(Identity::key_pem(PASSWORD));
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let no_target = pool.host(format!("me:{PASSWORD}@web-1"));
    for bad in [no_key.build().map(drop), no_target.map(drop)] {
        let error = bad.unwrap_err();
        printed.push(format!("{error} {error:?}"));
    }
    assert!(printed.len() > 20);
    for text in &printed {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret} is in: {text}");
        }
    }
}
