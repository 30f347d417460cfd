//! ssh-pool with its defaults.

use std::time::Duration;

use anyhow::Context;
use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Stdio};

use super::{Ran, drain, pour};
use crate::place::Place;

pub(super) struct Session {
    pool: Pool,
    host: Host,
}

pub(super) fn build(place: &Place) -> anyhow::Result<Pool> {
    let policy = HostKeyPolicy::known_hosts_file(&place.known_hosts);
    let identity = Identity::key_file(&place.key);
    Ok(Pool::builder(policy).identity(identity).build()?)
}

impl Session {
    pub(super) fn open(pool: Pool, place: &Place) -> anyhow::Result<Self> {
        let host = pool.host(format!("{}@{}", place.user, place.addr))?;
        Ok(Self { pool, host })
    }

    pub(super) async fn run(&self, line: &str) -> anyhow::Result<Ran> {
        let output = self.host.shell(line).output().await?;
        Ok(Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    pub(super) async fn down(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let mut child = self.host.shell(line).stderr(Stdio::null()).spawn().await?;
        let stdout = child.stdout.take().context("a child has a stdout")?;
        let took = drain(stdout, bytes).await?;
        child.wait().await?;
        Ok(took)
    }

    pub(super) async fn up(&self, line: &str, bytes: u64) -> anyhow::Result<Duration> {
        let mut command = self.host.shell(line);
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().await?;
        let stdin = child.stdin.take().context("a child has a stdin")?;
        let stdout = child.stdout.take().context("a child has a stdout")?;
        let took = pour(stdin, stdout, bytes).await?;
        child.wait().await?;
        Ok(took)
    }

    pub(super) async fn close(self) {
        self.pool.close().await;
    }
}
