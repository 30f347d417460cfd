//! Methods and their order, each beside the stock client with the same key and the same password.

use std::process::{Command, Stdio};

use ssh_pool::{Error, HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::raw::{Fields, Payload, RawServer, number};
use ssh_pool_tests::{Sshd, SshdBuilder, TempDir, TestUser};

use crate::{login, new_key, offered};

/// PAM asks for the password of the account.
const ASKS: &str = "auth required pam_unix.so\naccount required pam_permit.so\n\
                    session required pam_permit.so\n";
/// PAM asks nothing.
const ASKS_NOTHING: &str = "auth required pam_permit.so\naccount required pam_permit.so\n\
                            session required pam_permit.so\n";

/// What both clients have to log in with.
#[derive(Clone, Copy, Debug)]
enum With {
    Key,
    Password,
    WrongPassword,
    KeyAndPassword,
    UnknownKeyAndPassword,
}

fn server(methods: &str, pam: &str) -> SshdBuilder {
    Sshd::builder()
        .user(TestUser::with_password())
        .pam(pam)
        .option(format!("AuthenticationMethods {methods}"))
        .option("KbdInteractiveAuthentication yes")
        .option("PasswordAuthentication yes")
        // Some rows are refused more than once.
        .option("MaxAuthTries 20")
}

/// Whether the stock client gets in. It is asked for each password once.
fn ssh_gets_in(sshd: &Sshd, key: Option<&std::path::Path>, password: Option<&str>) -> bool {
    let dir = TempDir::new();
    let askpass = dir.path().join("askpass");
    let answer = password.map_or("exit 1".into(), |password| format!("echo '{password}'"));
    std::fs::write(&askpass, format!("#!/bin/sh\n{answer}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&askpass, mode).unwrap();
    let client = sshd.ssh();
    let mut command = Command::new(client.get_program());
    // In batch mode it would not use keyboard-interactive, not even where nothing is asked.
    command.args(["-o", "NumberOfPasswordPrompts=1", "-o", "BatchMode=no"]);
    let own = sshd.client_key().as_os_str();
    let args = client.get_args().map(|arg| match key {
        Some(key) if arg == own => key.as_os_str(),
        None if arg == own => "/dev/null".as_ref(),
        _ => arg,
    });
    let status = command
        .args(args)
        .arg("true")
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env("DISPLAY", "none:0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_methods_a_server_wants_the_pool_gets_in_where_ssh_does() {
    let rows = [
        ("password,keyboard-interactive", ASKS, With::Password, true),
        ("keyboard-interactive,password", ASKS, With::Password, true),
        ("keyboard-interactive", ASKS, With::Password, true),
        ("password", ASKS, With::Password, true),
        ("password", ASKS, With::WrongPassword, false),
        (
            "password,keyboard-interactive",
            ASKS,
            With::WrongPassword,
            false,
        ),
        (
            "publickey,keyboard-interactive",
            ASKS_NOTHING,
            With::Key,
            true,
        ),
        (
            "keyboard-interactive,publickey",
            ASKS_NOTHING,
            With::Key,
            true,
        ),
        ("keyboard-interactive", ASKS_NOTHING, With::Key, true),
        (
            "publickey,keyboard-interactive",
            ASKS,
            With::KeyAndPassword,
            true,
        ),
        ("publickey,password", ASKS, With::KeyAndPassword, true),
        ("password,publickey", ASKS, With::KeyAndPassword, true),
        (
            "publickey,password,keyboard-interactive",
            ASKS,
            With::KeyAndPassword,
            true,
        ),
        (
            "publickey,password keyboard-interactive",
            ASKS,
            With::UnknownKeyAndPassword,
            true,
        ),
        (
            "publickey,password",
            ASKS,
            With::UnknownKeyAndPassword,
            false,
        ),
        ("publickey,keyboard-interactive", ASKS, With::Key, false),
        ("publickey,password", ASKS, With::Key, false),
    ];
    let user = TestUser::with_password();
    let right = user.password().unwrap();
    for (methods, pam, with, expected) in rows {
        let row = format!("{methods}, {with:?}");
        let sshd = server(methods, pam).start();
        let (_dir, unknown) = new_key();
        let (key, password) = match with {
            With::Key => (Some(sshd.client_key()), None),
            With::Password => (None, Some(right)),
            With::WrongPassword => (None, Some("wrong")),
            With::KeyAndPassword => (Some(sshd.client_key()), Some(right)),
            With::UnknownKeyAndPassword => (Some(unknown.private()), Some(right)),
        };
        let key_file = key.map(Identity::key_file);
        let all = key_file.into_iter().chain(password.map(Identity::password));
        let result = login(&sshd, Identity::several(all)).await;
        assert_eq!(
            result.is_ok(),
            expected,
            "{row}: {result:?}\n{}",
            sshd.log()
        );
        assert_eq!(ssh_gets_in(&sshd, key, password), expected, "ssh: {row}");
        if let Err(error) = result {
            assert!(!offered(&error).is_empty(), "{row}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_are_given_where_a_server_wants_two() {
    let sshd = server("publickey,publickey", ASKS).start();
    let keys = [new_key(), new_key()];
    sshd.authorize(&keys[1].1.public_line());
    let file = |index: usize| Identity::key_file(keys[index].1.private());
    let both = [file(0), Identity::key_file(sshd.client_key()), file(1)];
    login(&sshd, Identity::several(both)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_partial_success_the_error_says_what_was_accepted_and_what_is_wanted() {
    let sshd = server("publickey,keyboard-interactive", ASKS).start();
    let error = login(&sshd, Identity::key_file(sshd.client_key())).await;
    let error = error.unwrap_err();
    let Error::AuthRejected {
        accepted, allowed, ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((accepted.len(), &**allowed), (1, "keyboard-interactive"));
    let text = error.to_string();
    for part in [
        "login incomplete: the server accepted ssh-ed25519 SHA256:",
        "and still wants keyboard-interactive;",
        "keyboard-interactive (not answered: \"Password:\")",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("authorized keys"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nothing_answers_is_no_failed_attempt_at_the_server() {
    let sshd = server("keyboard-interactive", ASKS).start();
    let error = login(&sshd, Identity::key_file(sshd.client_key())).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("not answered: \"Password:\"")
    );
    assert!(sshd.wait_for_log("Connection closed by authenticating user", 1, crate::SOON));
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_answers_what_pam_asks() {
    let sshd = server("publickey,keyboard-interactive", ASKS).start();
    let user = TestUser::with_password();
    let password = user.password().unwrap().to_owned();
    let (target, seen) = (
        sshd.target(),
        std::sync::Arc::<std::sync::Mutex<Vec<_>>>::default(),
    );
    let asked = seen.clone();
    let prompt = Identity::prompt(move |challenge| {
        assert_eq!(*challenge.target, *target);
        asked.lock().unwrap().push(challenge.clone());
        Some(vec![password.clone(); challenge.prompts.len()])
    });
    let both = [Identity::key_file(sshd.client_key()), prompt];
    login(&sshd, Identity::several(both)).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (&*seen[0].prompts[0].text, seen[0].prompts[0].echo),
        ("Password: ", false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_password_is_let_in_by_none() {
    let sshd = server("any", ASKS_NOTHING)
        .option("PermitEmptyPasswords yes")
        .start();
    let (_dir, unknown) = new_key();
    assert!(ssh_gets_in(&sshd, Some(unknown.private()), None));
    for identity in [
        Identity::none(),
        Identity::key_file(unknown.private()),
        Identity::password("not this"),
    ] {
        login(&sshd, identity).await.unwrap();
    }
    let logins = crate::logins(&sshd);
    assert!(
        logins.iter().all(|line| line.starts_with("Accepted none ")),
        "{logins:?}"
    );
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_the_error_says_what_the_server_takes() {
    let sshd = Sshd::start();
    let error = login(&sshd, Identity::none()).await.unwrap_err();
    assert!(offered(&error).is_empty(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("the server allows only publickey, password, keyboard-interactive, and"),
        "{text}"
    );
    assert_eq!(sshd.refused_credentials(), 0, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_advice_after_a_refusal_is_about_what_was_offered() {
    // The password was never asked for.
    let only_keys = Sshd::builder()
        .option("PasswordAuthentication no")
        .option("KbdInteractiveAuthentication no")
        .start();
    let error = login(&only_keys, Identity::password("x"))
        .await
        .unwrap_err();
    assert!(offered(&error).is_empty(), "{error}");
    let text = error.to_string();
    for part in [
        "allows only publickey, and the identity has nothing",
        "Identity::key_file",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("authorized keys"), "{text}");

    let only_passwords = server("password", ASKS).start();
    let error = login(&only_passwords, Identity::password("wrong")).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("check the user name and the password"),
        "{text}"
    );
    assert!(!text.contains("authorized keys"), "{text}");
    let key = Identity::key_file(only_keys.client_key());
    let text = login(&only_passwords, key).await.unwrap_err().to_string();
    for part in [
        "allows only password, and the identity has nothing",
        "Identity::password",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }

    let only_questions = server("keyboard-interactive", ASKS).start();
    let key = Identity::key_file(only_keys.client_key());
    let text = login(&only_questions, key).await.unwrap_err().to_string();
    assert!(text.contains("add an identity that answers"), "{text}");
    assert!(!text.contains("authorized keys"), "{text}");
}

/// A server that lets in by `none` and ends the connection of who offers anything, as a strict Tailscale
/// SSH would.
fn open_server() -> RawServer {
    RawServer::start(std::sync::Arc::new(|mut peer| {
        Box::pin(async move {
            peer.handshake().await?;
            loop {
                let message = peer.receive().await?;
                let mut fields = Fields::of(&message);
                match message.first() {
                    Some(&number::SERVICE_REQUEST) => {
                        let accept = Payload::new(number::SERVICE_ACCEPT);
                        peer.send(accept.string(fields.string())).await?;
                    }
                    Some(&number::USERAUTH_REQUEST) => {
                        let (_user, _service) = (fields.string(), fields.string());
                        if fields.string() != b"none" {
                            return Ok(());
                        }
                        peer.send(Payload::new(number::USERAUTH_SUCCESS)).await?;
                        return peer.serve().await;
                    }
                    _ => {}
                }
            }
        })
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn none_is_asked_before_anything_is_offered() {
    let server = open_server();
    let (_dir, key) = new_key();
    for identity in [
        Identity::none(),
        Identity::key_file(key.private()),
        Identity::password("x"),
    ] {
        let policy = HostKeyPolicy::known_hosts_file(server.known_hosts());
        let pool = Pool::builder(policy).identity(identity).build().unwrap();
        let host = pool.host(server.target()).unwrap();
        let output = host.command("true").verbatim().output().await.unwrap();
        assert_eq!(output.stdout, b"raw\n");
        pool.close().await;
    }
    assert_eq!(server.accepted(), 3);
}
