//! What a connection learns of its login shell, and what follows from it.

use std::fs;

use ssh_pool::{CommandState, Error};
use ssh_pool_tests::{Release, Sshd, TempDir};

use crate::support::{builder, known};
use crate::{Place, Server, Shell};

const OPENSSH: Server = Server::OpenSsh(Release::Installed);

#[tokio::test(flavor = "multi_thread")]
async fn after_the_first_command_a_posix_shell_gets_lines_as_they_are() {
    let dir = TempDir::new();
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let seen = dir.path().join("seen");
    let forced = format!(
        "printf '%s\\n' \"$SSH_ORIGINAL_COMMAND\" >> {}; exec sh -c \"$SSH_ORIGINAL_COMMAND\"",
        seen.display()
    );
    let sshd = Sshd::builder()
        .option(format!("ForceCommand {forced}"))
        .start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    for _ in 0..3 {
        assert!(host.command("true").status().await.unwrap().success());
    }
    let seen = fs::read_to_string(seen).unwrap();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains(" sh -c '"), "{lines:?}");
    assert_eq!(lines[1..], ["true", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_up_file_that_names_another_shell_is_not_believed() {
    let place = Place::with(OPENSSH, Shell::Fish, false, |home| {
        let config = home.join(".config/fish");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("config.fish"), "set -gx SHELL /bin/bash\n").unwrap();
    });
    for _ in 0..3 {
        let mut command = place.host.shell("echo $A; exit 3");
        let output = command.env("A", "it's").output().await.unwrap();
        assert_eq!(output.stdout, b"it's\n", "{output:?}");
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_command_finds_what_the_start_up_files_of_its_shell_define() {
    let place = Place::with(OPENSSH, Shell::Zsh, false, |home| {
        fs::write(home.join(".zshenv"), "greet() { echo hello }\n").unwrap();
    });
    for _ in 0..2 {
        let output = place.host.shell("greet").output().await.unwrap();
        assert_eq!(output.stdout, b"hello\n", "{output:?}");
    }
}

/// As with `ssh`, for each command of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_start_up_files_say_is_said_once() {
    for (shell, file) in [
        (Shell::Bash, ".bashrc"),
        (Shell::Zsh, ".zshenv"),
        (Shell::Tcsh, ".tcshrc"),
        (Shell::Fish, ".config/fish/config.fish"),
    ] {
        let place = Place::with(OPENSSH, shell, false, |home| {
            let file = home.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "echo welcome\n").unwrap();
        });
        let ssh = place.ssh().arg("echo ran").output().unwrap();
        let expected = String::from_utf8_lossy(&ssh.stdout);
        assert_eq!(expected, "welcome\nran\n", "{shell:?}, ssh: {ssh:?}");
        for number in 1..=3 {
            let output = place.host.shell("echo ran").output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said, expected, "{shell:?}, command {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_too_long_in_quotes_is_sent_where_it_needs_none() {
    // Each quote takes four bytes in the portable form.
    let line = format!("printf %s \"{}\" | wc -c", "'".repeat(100_000));
    for root in [false, true] {
        let posix = Place::new(OPENSSH, Shell::Sh, root);
        let output = posix.host.shell(&line).output().await.unwrap();
        assert_eq!(output.stdout.trim_ascii(), b"100000", "{output:?}");
        let fish = Place::new(OPENSSH, Shell::Fish, root);
        for _ in 0..2 {
            let error = fish.host.shell(&line).output().await.unwrap_err();
            assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
            assert_eq!(error.command_state(), CommandState::NotStarted);
            assert!(error.to_string().contains("Host::script"), "{error}");
        }
        let script = fish.host.script(&*line).output().await.unwrap();
        assert_eq!(script.stdout.trim_ascii(), b"100000", "{script:?}");
    }
}
