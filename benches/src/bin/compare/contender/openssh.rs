//! The crate openssh: one session, which is an `ssh` master, shared by all.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use openssh::{KnownHosts, SessionBuilder, Stdio};

use super::{Ran, drain, pour};
use crate::place::{Place, SAME_CIPHER};

/// How a command reaches the master.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mux {
    /// By a process of ssh.
    Process,
    /// By the crate itself, over the control socket.
    Native,
}

pub(super) struct Session(openssh::Session);

impl Session {
    pub(super) async fn open(place: &Place, mux: Mux) -> anyhow::Result<Self> {
        // What the builder has no methods for.
        let config = place.folder.join(format!("config-{}", place.same_cipher));
        let mut text = "IdentityAgent none\nGlobalKnownHostsFile /dev/null\n".to_owned();
        if place.same_cipher {
            text += &format!("Ciphers {SAME_CIPHER}\n");
        }
        fs::write(&config, text)?;
        let mut builder = SessionBuilder::default();
        builder
            .user(place.user.clone())
            .port(place.addr.port())
            .keyfile(&place.key)
            .known_hosts_check(KnownHosts::Strict)
            .user_known_hosts_file(&place.known_hosts)
            .control_directory(&place.folder)
            .config_file(config);
        let host = place.addr.ip().to_string();
        Ok(Self(match mux {
            Mux::Process => builder.connect(host).await?,
            Mux::Native => builder.connect_mux(host).await?,
        }))
    }

    pub(super) async fn run(&self, line: &str) -> anyhow::Result<Ran> {
        // Not `shell`, which would start a shell in the shell.
        let output = self.0.raw_command(line).output().await?;
        Ok(Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    pub(super) async fn down(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let mut command = self.0.raw_command(line);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().await?;
        let stdout = child.stdout().take().context("a child has a stdout")?;
        let took = drain(stdout, bytes).await?;
        child.wait().await?;
        Ok(took)
    }

    pub(super) async fn up(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let mut command = self.0.raw_command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().await?;
        let stdin = child.stdin().take().context("a child has a stdin")?;
        let stdout = child.stdout().take().context("a child has a stdout")?;
        let took = pour(stdin, stdout, bytes).await?;
        child.wait().await?;
        Ok(took)
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.0.close().await?)
    }
}
