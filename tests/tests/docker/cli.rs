//! The stock `docker` with the pool as its ssh.

use std::path::Path;
use std::process::Stdio;

use ssh_pool::docker::{Cli, CliError, Command, Error};
use ssh_pool_tests::{Dockerd, eventually_async, procs};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{SOON, TestHost};

fn cli(test_host: &TestHost) -> Cli {
    let target = test_host.host.status().target;
    let cli = Cli::at(&test_host.pool, target, test_host.dockerd.socket()).unwrap();
    cli.shim(Path::new(env!("CARGO_BIN_EXE_ssh-pool-test-shim")))
}

async fn finishes(mut command: Command, code: i32) -> (String, String, Vec<CliError>) {
    let output = tokio::time::timeout(SOON * 2, command.output()).await;
    let output = output.expect("docker hangs").unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{told} {:?}",
        output.troubles
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (said, told, output.troubles)
}

fn docker(cli: &Cli, words: &[&str]) -> Command {
    let mut command = cli.command();
    command.args(words);
    command
}

/// What people do, in the words they do it with.
async fn everyday(test_host: &TestHost) {
    let cli = cli(test_host);
    let run = [
        "run",
        "--detach",
        "--network=none",
        "--name=app",
        Dockerd::IMAGE,
    ];
    let run = [
        &run[..],
        &["sh", "-c", "echo begun; cat >/dev/null; sleep 600"],
    ]
    .concat();
    finishes(docker(&cli, &run), 0).await;
    let (names, ..) = finishes(docker(&cli, &["ps", "--format={{.Names}}"]), 0).await;
    assert_eq!(names, "app\n");

    let mut exec = docker(&cli, &["exec", "-i", "app", "sh", "-c", "cat; exit 7"]);
    let mut child = exec
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"told")
        .await
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(output.stdout, b"told");

    // Followed until it is dropped.
    let mut logs = docker(&cli, &["logs", "--follow", "app"]);
    let mut logs = logs.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("begun"));
    let id = logs.id().unwrap();
    drop(logs);
    let gone = eventually_async(SOON, || procs::command_line(id).is_none()).await;
    assert!(gone, "docker logs is left");

    finishes(docker(&cli, &["rm", "--force", "app"]), 0).await;
    let free = eventually_async(SOON, || test_host.pool.status().hosts[0].isolated_busy == 0).await;
    assert!(free, "{:?}", test_host.pool.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_docker_works_over_streams_and_takes_no_process_on_the_server() {
    let test_host = TestHost::direct();
    everyday(&test_host).await;
    assert_eq!(test_host.processes(), 0);
    let status = &test_host.pool.status().hosts[0];
    assert!(status.dials <= 4, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_docker_works_through_dial_stdio() {
    everyday(&TestHost::dial_stdio()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_there_is_told_to_docker_and_by_type() {
    let test_host = TestHost::direct();
    let target = test_host.host.status().target;
    let cli = Cli::at(&test_host.pool, target.as_str(), "/nonexistent/docker.sock").unwrap();
    let cli = cli.shim(Path::new(env!("CARGO_BIN_EXE_ssh-pool-test-shim")));
    let (_, told, troubles) = finishes(docker(&cli, &["ps"]), 1).await;
    // docker itself keeps to itself what its ssh has said.
    assert!(
        told.contains("Cannot connect to the Docker daemon"),
        "{told}"
    );
    let typed = troubles.iter().any(|trouble| {
        let CliError::Stream { source } = trouble else {
            return false;
        };
        Error::find::<Error>(source.as_ref()).is_some()
    });
    assert!(typed, "{troubles:?}");
    let error = Cli::at(&test_host.pool, target, "not/absolute").unwrap_err();
    assert!(matches!(error, CliError::Stream { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_does_not_lead_docker_elsewhere() {
    let test_host = TestHost::direct();
    let mut command = docker(
        &cli(&test_host),
        &["version", "--format={{.Server.Version}}"],
    );
    for (name, value) in [
        ("DOCKER_HOST", "tcp://127.0.0.1:1"),
        ("DOCKER_CONTEXT", "elsewhere"),
        ("DOCKER_TLS_VERIFY", "1"),
    ] {
        command.env(name, value);
    }
    let (version, ..) = finishes(command, 0).await;
    assert!(!version.trim().is_empty());
}
