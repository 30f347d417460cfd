//! What this example promises, checked: watched from outside, and beside what people use today.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use ssh_pool_tests::TempDir;
use tokio::process::Command;

use crate::race;
use crate::trace::Trace;

pub(crate) async fn run_all() -> anyhow::Result<()> {
    watched().await.context("under strace")?;
    race::run().await.context("beside ControlMaster")?;
    println!("self-test: all is well");
    Ok(())
}

/// Runs the checks in a process of their own, and looks at everything that it and its children,
/// the server among them, execute and bind.
async fn watched() -> anyhow::Result<()> {
    let folder = TempDir::new();
    let log = folder.path().join("trace");
    let status = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-e",
            "trace=execve,bind",
            "-o",
        ])
        .arg(&log)
        .arg(std::env::current_exe()?)
        .args(["--self-test", "--watched"])
        .stdin(Stdio::null())
        .status()
        .await
        .context("cannot run strace; apt-get install strace")?;
    ensure!(status.success(), "the checks failed: {status}");
    let trace = Trace::read(&log)?;
    // That it has seen anything: what the server and git have run.
    for program in ["git", "git-upload-pack", "git-receive-pack"] {
        ensure!(trace.executed(program) > 0, "strace has not seen {program}");
    }
    ensure!(trace.executed("ssh") == 0, "an ssh process was started");
    let sockets = trace.socket_files();
    ensure!(sockets.is_empty(), "socket files were made: {sockets:?}");
    println!(
        "ok  {} programs were executed, ssh 0 times; no socket file was made",
        trace.all_executed()
    );
    Ok(())
}
