//! Accounts that prove who they are, and are not let in: by PAM's rules for accounts and sessions, by a
//! closed machine, by lists of users; beside ssh itself.

use ssh_pool::{Error, Identity, Phase};
use ssh_pool_tests::{Sshd, SshdBuilder, TempDir};

use crate::{builder, known};

/// What the pool makes of it; ssh does not get in either.
async fn denied(sshd: &Sshd) -> Error {
    let ssh = sshd.ssh().arg("true").output().unwrap();
    assert!(!ssh.status.success(), "{}", sshd.log());
    let pool = builder(sshd, known(sshd))
        .identity(Identity::key_file(sshd.client_key()))
        .build()
        .unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let error = host.command("true").output().await.unwrap_err();
    pool.close().await;
    error
}

fn pam(rules: &str) -> SshdBuilder {
    Sshd::builder().pam(rules)
}

fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_pam_denies_is_named() {
    let rules = "auth required pam_permit.so\naccount required pam_permit.so\n\
                 session optional pam_echo.so Too many logins.\nsession required pam_deny.so\n";
    let sshd = pam(rules).start();
    let error = denied(&sshd).await;
    assert!(matches!(error, Error::Unproven { .. }), "{error:?}");
    says(
        &error,
        &[
            "refused the session after the login",
            "the session rules of its PAM service",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_pam_denies_is_named() {
    let dir = TempDir::new();
    let nologin = dir.path().join("nologin");
    std::fs::write(&nologin, "System is booting up.\n").unwrap();
    let session = "session required pam_permit.so\n";
    for (rule, said) in [
        ("pam_deny.so".to_owned(), ""),
        (
            format!("pam_nologin.so file={}", nologin.display()),
            "System is booting up.",
        ),
    ] {
        let sshd = pam(&format!(
            "auth required pam_permit.so\naccount required {rule}\n{session}"
        ))
        .start();
        let error = denied(&sshd).await;
        assert!(
            matches!(error, Error::AuthLost { lost: true, .. }),
            "{error:?}"
        );
        assert_eq!(error.phase(), Phase::Auth);
        says(
            &error,
            &[
                "closed the connection",
                said,
                "expired or closed to logins (PAM, nologin)",
            ],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_on_no_list_is_refused_like_any_other() {
    for option in ["AllowUsers somebody", "DenyUsers *", "DenyGroups *"] {
        let error = denied(&Sshd::builder().option(option).start()).await;
        assert!(
            matches!(error, Error::AuthRejected { .. }),
            "{option}: {error:?}"
        );
    }
}
