//! Paths that lead nowhere, and hosts without a daemon.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ssh_pool::CommandState;
use ssh_pool::docker::{Connector, Docker, Error};
use ssh_pool_tests::{Sshd, TempDir, TestUser};

use crate::test_host::strict;
use crate::{SOON, api, builder, known};

/// A list, which has to come to an end.
async fn fails(docker: &Docker) -> Error {
    let listed = tokio::time::timeout(SOON, api::get(docker, "/containers/json"));
    listed
        .await
        .expect("it hangs")
        .expect_err("nobody is there")
}

/// Both reasons, and the certainty that nothing was done.
fn assert_unreachable(error: &Error, reason: &str) {
    let Error::Unreachable {
        dial_stdio, state, ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert!(dial_stdio.contains(reason), "{dial_stdio}");
    assert_eq!(*state, CommandState::NotStarted);
    let refusal = Error::find::<ssh_pool::Error>(error);
    assert!(
        matches!(refusal, Some(ssh_pool::Error::StreamRefused { .. })),
        "{refusal:?}"
    );
    let (said, refusal) = (error.to_string(), refusal.unwrap().to_string());
    let (_, words) = refusal.split_once(": ").unwrap();
    assert!(
        said.contains(words) && said.contains("dockerd"),
        "{said}\n{refusal}"
    );
    assert!(error.source().is_none(), "it would be read twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_paths_are_refused_before_anything_is_dialled() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    for path in [
        "",
        "docker.sock",
        "-H",
        "--tls",
        "~/sock",
        "/a\0b",
        "/a\nb",
        "/a\x1b[31m",
        "\u{7f}",
    ] {
        let error = Docker::at(&host, path).expect_err(path);
        assert!(
            matches!(error, Error::InvalidSocket { .. }),
            "{path:?}: {error:?}"
        );
        assert_eq!(error.command_state(), CommandState::NotStarted);
        assert!(!error.to_string().contains(char::is_control), "{error}");
        assert!(Connector::at(&host, path).is_err());
    }
    assert_eq!(sshd.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_never_shell_text_or_an_option() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let dir = TempDir::new();
    TestUser::plain().own(dir.path());
    let trap = dir.path().join("trap");
    for text in [
        "; touch TRAP",
        "$(touch TRAP)",
        "`touch TRAP`",
        "' ; touch TRAP ; '",
        "\" ; touch TRAP ; \"",
        " --version",
        "& touch TRAP &",
    ] {
        let path = format!(
            "/nowhere{}",
            text.replace("TRAP", &trap.display().to_string())
        );
        let docker = Docker::at(&host, path).unwrap();
        assert_unreachable(&fails(&docker).await, "exit status: 1");
    }
    assert!(!trap.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_socket_or_has_no_listener_is_an_error_at_once() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let dir = TempDir::new();
    fs::write(dir.path().join("file"), "text").unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("dead")).unwrap();
    drop(listener);
    let long = format!("/{}", "x".repeat(4000));
    for path in ["nothing", "file", "dead", "", &long] {
        let path = if path.is_empty() {
            Path::new("/").to_owned()
        } else {
            dir.path().join(path)
        };
        let docker = Docker::at(&host, path).unwrap();
        assert_unreachable(&fails(&docker).await, "exit status: 1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_ways_are_refused_both_reasons_are_told() {
    let sshd = Sshd::builder()
        .option("AllowStreamLocalForwarding no")
        .option("ForceCommand printf 'no docker\\033[31m here' >&2; head -c 100000 /dev/zero >&2; exit 9")
        .start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let docker = Docker::new(&pool.host(sshd.target()).unwrap());
    let error = fails(&docker).await;
    assert_unreachable(&error, "exit status: 9, \"no docker\\u{1b}[31m here");
    let said = error.to_string();
    assert!(
        said.len() < 4096 && !said.contains(char::is_control),
        "{said}"
    );
    // Again, as if nothing had been learned.
    assert_unreachable(&fails(&docker).await, "exit status: 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_end_of_dial_stdio_is_no_answer() {
    let sshd = Sshd::builder()
        .option("AllowStreamLocalForwarding no")
        .option("ForceCommand true")
        .start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let docker = Docker::new(&pool.host(sshd.target()).unwrap());
    assert_unreachable(&fails(&docker).await, "exit status: 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_run_nothing_is_told_so() {
    let sshd = Sshd::builder()
        .option("AllowStreamLocalForwarding no")
        .option("MaxSessions 0")
        .start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let docker = Docker::new(&pool.host(sshd.target()).unwrap());
    let error = fails(&docker).await;
    assert_eq!(error.command_state(), CommandState::NotStarted);
    let source = Error::find::<ssh_pool::Error>(&error);
    let refused = matches!(source, Some(ssh_pool::Error::SessionRefused { .. }));
    assert!(refused, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_is_an_error_of_ssh() {
    let sshd = strict();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let docker = Docker::new(&pool.host(sshd.target()).unwrap());
    sshd.stop();
    let error = fails(&docker).await;
    assert!(matches!(error, Error::Stream { .. }), "{error:?}");
    assert_eq!(error.command_state(), CommandState::NotStarted);
    let source = Error::find::<ssh_pool::Error>(&error);
    assert!(
        matches!(source, Some(ssh_pool::Error::Connect { .. })),
        "{source:?}"
    );
    pool.close().await;
    let error = fails(&docker).await;
    let source = Error::find::<ssh_pool::Error>(&error);
    assert!(
        matches!(source, Some(ssh_pool::Error::Closed { .. })),
        "{source:?}"
    );
    // At once, and not when `Timeouts::acquire` is over.
    let waited = tokio::time::timeout(Duration::from_secs(10), fails(&docker)).await;
    assert!(waited.is_ok());
}
