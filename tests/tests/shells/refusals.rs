//! Accounts whose shell runs something else: never a success, and an error that says what it was.

use std::fs;

use ssh_pool::{CommandState, Error, Phase};
use ssh_pool_tests::{Release, Sshd, TempDir, TestUser};

use crate::support::{builder, known};
use crate::{Place, Server, Shell};

/// The error of a command that must not be taken for a success.
async fn unproven(place: &Place, command: &mut ssh_pool::Command) -> (i32, String) {
    let error = command.output().await.unwrap_err();
    assert_eq!(error.phase(), Phase::Running, "{}: {error}", place.name);
    assert_eq!(error.command_state(), CommandState::Unknown);
    assert!(!error.is_transient() && !error.is_timeout(), "{error:?}");
    let text = error.to_string();
    let Error::Unproven { status, said, .. } = error else {
        panic!("{}: {error:?}", place.name)
    };
    assert!(
        text.contains(&said) && text.contains("Command::verbatim"),
        "{text}"
    );
    assert!(text.len() < 1200 && text.is_ascii(), "{text}");
    (status.code().unwrap(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_shell_refuses_every_command_and_says_why() {
    for server in Server::ALL {
        for shell in Shell::REFUSING {
            let place = Place::new(server, shell, false);
            let dir = TempDir::new();
            let file = dir.path().join("touched");
            for mut command in [
                place.host.command("touch"),
                place.host.shell("export A=1; touch"),
            ] {
                let (code, said) = unproven(&place, command.arg(&file)).await;
                assert_eq!(code == 0, shell == Shell::True, "{}: {code}", place.name);
                let expected = match shell {
                    Shell::Nologin => "not available",
                    Shell::Git => "fatal",
                    _ => "",
                };
                assert!(said.contains(expected), "{}: {said}", place.name);
            }
            let spawned = place.host.command("touch").arg(&file).spawn().await;
            let ended = spawned.unwrap().wait().await.unwrap_err();
            assert!(matches!(ended, Error::Unproven { .. }), "{ended:?}");
            assert!(!file.exists(), "{}", place.name);
        }
    }
}

/// Where each command says a tag, not only the first of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_up_file_that_comes_to_end_the_shell_makes_no_success() {
    for (server, shell, root, file) in [
        (Server::Dropbear, Shell::Bash, false, ".bashrc"),
        (
            Server::OpenSsh(Release::Installed),
            Shell::Zsh,
            true,
            ".zshenv",
        ),
    ] {
        let place = Place::with(server, shell, root, |home| {
            fs::write(home.join(file), "[ ! -e ~/flag ] || exit 0\n").unwrap();
        });
        let home = place.host.shell("cd; pwd").output().await.unwrap();
        let home = String::from_utf8(home.stdout).unwrap();
        let home = std::path::Path::new(home.trim_end());
        fs::write(home.join("flag"), "").unwrap();
        let mut command = place.host.command("touch");
        unproven(&place, command.arg("ran").current_dir(home)).await;
        assert!(!home.join("ran").exists(), "{}", place.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_shell_runs_what_it_allows_and_refuses_the_rest() {
    for server in Server::ALL {
        let place = Place::new(server, Shell::Rbash, false);
        // The first command of the connection, and one that goes out as it is.
        for _ in 0..2 {
            let mut command = place.host.command("printf");
            let output = command.args(["%s", "it's"]).env("A", "1").output().await;
            assert_eq!(output.unwrap().stdout, b"it's", "{}", place.name);
            let mut elsewhere = place.host.command("true");
            let output = elsewhere.current_dir("/").output().await.unwrap();
            assert!(!output.status.success(), "{}: {output:?}", place.name);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("restricted"), "{}: {said}", place.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_command_is_no_success_of_another_one() {
    for forced in [
        "true",
        "exit 3",
        "printf 'no\\033[31m\\nway' >&2",
        "echo only this",
    ] {
        let sshd = Sshd::builder()
            .option(format!("ForceCommand {forced}"))
            .start();
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        for mut command in [host.command("anything"), host.shell("true")] {
            let told = command.status().await.unwrap_err();
            assert!(matches!(told, Error::Unproven { .. }), "{told:?}");
            let error = command.exit_grace(std::time::Duration::ZERO).output().await;
            let error = error.unwrap_err();
            let shown = error.to_string();
            assert!(matches!(error, Error::Unproven { .. }), "{error:?}");
            assert!(!shown.contains(char::is_control), "{shown}");
            if forced.starts_with("echo") {
                assert!(shown.contains("it said \"only this\""), "{shown}");
            }
        }
        let verbatim = host.command("anything").verbatim().status().await.unwrap();
        assert_eq!(
            verbatim.code(),
            Some(if forced == "exit 3" { 3 } else { 0 })
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_command_that_runs_the_line_in_a_shell_runs_it() {
    for forced in [
        "exec sh -c \"$SSH_ORIGINAL_COMMAND\"",
        // One that keeps a log has one stream for both.
        "sh -c \"$SSH_ORIGINAL_COMMAND\" 2>&1",
    ] {
        for user in [TestUser::plain(), TestUser::root_or_current()] {
            let sshd = (Sshd::builder().user(user))
                .option(format!("ForceCommand {forced}"))
                .start();
            let pool = builder(&sshd, known(&sshd)).build().unwrap();
            let host = pool.host(sshd.target()).unwrap();
            for _ in 0..2 {
                let output = host.shell("echo ran; exit 5").output().await.unwrap();
                assert_eq!(output.stdout, b"ran\n", "{output:?}");
                assert_eq!(output.status.code(), Some(5));
            }
        }
    }
}
