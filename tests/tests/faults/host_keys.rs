//! Host keys that are not the known ones.

use std::fs;

use ssh_pool::{CommandState, Error, HostKeyProblem, Phase};
use ssh_pool_tests::{KeyFormat, TempDir, fingerprint, generate};

use crate::{Place, Setting};

/// What is wrong with the key, in an error that has everything else right.
fn problem(error: &Error) -> &HostKeyProblem {
    let Error::HostKey { reason, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.phase(), Phase::HostKey);
    assert_eq!(error.command_state(), CommandState::NotStarted);
    assert!(!error.is_transient(), "nobody should try again: {error}");
    reason
}

/// Ten callers at once get one refusal.
async fn refused(place: &Place, known: &str) -> Error {
    place.host.evict();
    fs::write(place.known_hosts(), known).unwrap();
    let before = place.proxy.connections();
    let ended = place.all_at_once(10).await;
    let mut errors = ended.into_iter().map(Result::unwrap_err);
    let first = errors.next().unwrap();
    problem(&first);
    assert!(errors.all(|error| error.to_string() == first.to_string()));
    assert_eq!(place.proxy.connections(), before + 1, "not tried again");
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_or_unknown_host_key_is_refused_once_for_everybody_and_never_trusted() {
    // To sshd a client that does not like its key is one that does not log in.
    let strangers = Setting::new().counted();
    strangers
        .on_each(async |place| {
            let right = fs::read_to_string(place.known_hosts()).unwrap();
            let dir = TempDir::new();
            let old = generate(dir.path(), "old", "ed25519", None, KeyFormat::OpenSsh);
            let changed = place.proxy.known_hosts_line(&old.public_line());
            let shown = fingerprint(&place.sshd().dir().join("host_ed25519.pub"));
            for _ in 0..2 {
                let error = refused(place, &changed).await;
                let text = error.to_string();
                let where_it_stands = format!("{}:1", place.known_hosts().display());
                for part in [&*shown, &old.fingerprint(), &where_it_stands] {
                    assert!(text.contains(part), "{part} is not in: {text}");
                }
                assert!(matches!(problem(&error), HostKeyProblem::Changed { .. }));

                let error = refused(place, "").await;
                assert!(error.to_string().contains(&shown), "{error}");
                assert!(matches!(problem(&error), HostKeyProblem::Unknown { .. }));
            }
            // Long before anybody offered a key.
            let log = place.server.log();
            assert!(
                !log.contains("Failed ") && place.server.accepted() == 0,
                "{log}"
            );
            assert_eq!(place.dials(), (0, 4));
            assert_eq!(fs::read_to_string(place.known_hosts()).unwrap(), "");

            place.host.evict();
            fs::write(place.known_hosts(), right).unwrap();
            place.serves().await;
        })
        .await;
}
