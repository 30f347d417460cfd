//! The stock `docker` of this machine, with the pool as its ssh.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ssh_pool::docker::{Cli, CliError, Command};
use ssh_pool_examples::{Member, explain};
use ssh_pool_tests::Dockerd;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::test_host::TestHost;

/// Long enough for anything that happens at all, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);

/// Runs it on this terminal. Its exit code.
pub(crate) async fn run(cli: &Cli, words: &[String]) -> anyhow::Result<i64> {
    let mut docker = cli.command().args(words).spawn()?;
    let status = docker.wait().await?;
    // docker has said what it knows. This is what a program would decide by.
    for trouble in docker.troubles() {
        if let CliError::Ssh(error) = &trouble {
            eprintln!("docker_runner: {}", explain(error));
        }
    }
    Ok(i64::from(status.code().unwrap_or(255)))
}

/// Everything that people do with it, checked.
pub(crate) async fn check(test_host: &TestHost, member: &Member) -> anyhow::Result<String> {
    let cli = Cli::at(
        &test_host.fleet.pool,
        member.target.clone(),
        test_host.dockerd.socket(),
    )?;
    let run = [
        "run",
        "--network=none",
        Dockerd::IMAGE,
        "sh",
        "-c",
        "echo hello; exit 3",
    ];
    says(&cli, &run, 3, "hello\n").await?;
    let follow = "echo begun; until [ -e /tmp/stop ]; do sleep 0.1; done; echo done";
    let start = [
        "run",
        "--detach",
        "--network=none",
        "--name=cli",
        Dockerd::IMAGE,
    ];
    good(cli.command().args(start).args(["sh", "-c", follow]), 0).await?;
    says(&cli, &["ps", "--format={{.Names}}"], 0, "cli\n").await?;

    let mut logs = cli.command();
    logs.args(["logs", "--follow", "cli"])
        .stdout(Stdio::piped());
    let mut logs = logs.spawn()?;
    let mut lines = BufReader::new(logs.stdout.take().context("no output")?).lines();
    ensure!(
        lines.next_line().await?.as_deref() == Some("begun"),
        "another log"
    );

    let mut exec = cli.command();
    exec.args(["exec", "--interactive", "cli", "sh", "-c", "cat; exit 7"]);
    let mut exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = exec.stdin.take().context("no input")?;
    stdin.write_all(b"told").await?;
    drop(stdin);
    let output = tokio::time::timeout(SOON, exec.wait_with_output()).await??;
    ensure!(
        output.status.code() == Some(7) && output.stdout == b"told",
        "{output:?}"
    );

    let folder = ssh_pool_tests::TempDir::new();
    let (file, back) = (folder.path().join("stop"), folder.path().join("back"));
    std::fs::write(&file, "stop\n")?;
    good(cli.command().arg("cp").arg(&file).arg("cli:/tmp/"), 0).await?;
    good(cli.command().args(["cp", "cli:/tmp/stop"]).arg(&back), 0).await?;
    ensure!(std::fs::read(&back)? == b"stop\n", "another file came back");

    ensure!(
        lines.next_line().await?.as_deref() == Some("done"),
        "the log ends early"
    );
    let ended = tokio::time::timeout(SOON, logs.wait()).await??;
    ensure!(ended.success(), "docker logs: {ended}");
    for words in [["rm", "--force", "cli"], ["container", "prune", "--force"]] {
        good(cli.command().args(words), 0).await?;
    }
    Ok("the stock docker: run, ps, a followed log, exec with exit code 7, cp both ways".into())
}

async fn says(cli: &Cli, words: &[&str], code: i32, expected: &str) -> anyhow::Result<()> {
    let said = good(cli.command().args(words), code).await?;
    ensure!(said == expected, "docker {words:?} says {said:?}");
    Ok(())
}

/// Runs it to its end, which is as expected, and gives what it says.
async fn good(docker: &mut Command, code: i32) -> anyhow::Result<String> {
    let output = tokio::time::timeout(SOON, docker.output()).await;
    let output = output.with_context(|| format!("{docker:?} hangs"))??;
    let told = String::from_utf8_lossy(&output.stderr);
    let (status, troubles) = (output.status, &output.troubles);
    ensure!(status.code() == Some(code), "{status}: {told} {troubles:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
