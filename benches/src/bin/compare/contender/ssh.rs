//! The `ssh` program: a process for each command.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

use super::{Ran, drain, pour};
use crate::place::{Place, SAME_CIPHER};

pub(super) struct Session {
    place: Place,
    /// The socket of the master, if there is one.
    control: Option<PathBuf>,
}

impl Session {
    pub(super) fn open(place: &Place, master: bool) -> Self {
        let socket = format!("{}:{}", place.addr.ip(), place.addr.port());
        Self {
            control: master.then(|| place.folder.join(socket)),
            place: place.clone(),
        }
    }

    /// `ssh` with all its options, and no command yet.
    fn command(&self) -> Command {
        let place = &self.place;
        let mut command = Command::from(ssh_pool_tests::ssh(
            place.addr,
            &place.user,
            &place.key,
            &place.known_hosts,
        ));
        if let Some(control) = &self.control {
            // As it is recommended everywhere.
            command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-S"]);
            command.arg(control);
        }
        if place.same_cipher {
            command.args(["-c", SAME_CIPHER]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    pub(super) async fn run(&self, line: &str) -> anyhow::Result<Ran> {
        let output = self.command().arg(line).output().await?;
        Ok(Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    pub(super) async fn down(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let mut child = self.command().arg(line).spawn()?;
        let stdout = child.stdout.take().context("a child has a stdout")?;
        let took = drain(stdout, bytes).await?;
        child.wait().await?;
        Ok(took)
    }

    pub(super) async fn up(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let mut child = self.command().arg(line).stdin(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("a child has a stdin")?;
        let stdout = child.stdout.take().context("a child has a stdout")?;
        let took = pour(stdin, stdout, bytes).await?;
        child.wait().await?;
        Ok(took)
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        if self.control.is_some() {
            // Without a master it says so and fails, which is as good.
            self.command().args(["-O", "exit"]).output().await?;
        }
        Ok(())
    }
}
