//! Who is compared, each used as a competent user would.

mod async_ssh2;
mod bare;
mod openssh;
mod pool;
mod ssh;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use ssh_pool_benches::report::names::contender;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::place::Place;

/// How much is written at once in a transfer.
const CHUNK: usize = 64 << 10;
/// The far end says that it is there, so that a login is in no one's transfer.
const READY: &str = "ready\n";

/// A way to run commands over SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Contender {
    /// This project.
    #[value(name = "ssh-pool")]
    Pool,
    /// A process of ssh for each command, over one master.
    #[value(name = "control-master")]
    ControlMaster,
    /// The crate openssh, which starts a process of ssh for each command.
    #[value(name = "process-mux")]
    ProcessMux,
    /// The crate openssh, which speaks to the master by itself.
    #[value(name = "native-mux")]
    NativeMux,
    /// The crate async-ssh2-tokio.
    #[value(name = "async-ssh2-tokio")]
    AsyncSsh2,
    /// The crate russh: one connection, a channel for each command.
    #[value(name = "russh")]
    Bare,
    /// A new ssh for each command.
    #[value(name = "ssh")]
    NewSsh,
}

impl Contender {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Pool,
        Self::ControlMaster,
        Self::ProcessMux,
        Self::NativeMux,
        Self::AsyncSsh2,
        Self::Bare,
        Self::NewSsh,
    ];

    /// As it is shown to people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pool => contender::SSH_POOL,
            Self::ControlMaster => contender::SSH_MUX,
            Self::ProcessMux => contender::OPENSSH_PROCESS,
            Self::NativeMux => contender::OPENSSH_NATIVE,
            Self::AsyncSsh2 => contender::ASYNC_SSH2,
            Self::Bare => contender::RUSSH,
            Self::NewSsh => contender::SSH,
        }
    }

    /// Whether its connection lives in a process of ssh.
    pub(crate) fn has_master(self) -> bool {
        matches!(
            self,
            Self::ControlMaster | Self::ProcessMux | Self::NativeMux
        )
    }
}

/// A contender that is connected, or that connects with its first command. Clones share it.
#[derive(Clone)]
pub(crate) struct Session(Arc<Kind>);

enum Kind {
    Pool(pool::Session),
    Ssh(ssh::Session),
    Openssh(openssh::Session),
    AsyncSsh2(async_ssh2::Session),
    Bare(bare::Session),
}

/// What a command has left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    /// No command of this comparison writes there: whatever there is comes from the contender.
    pub(crate) stderr: Vec<u8>,
}

/// What all sessions of one program have in common.
pub(crate) struct Client {
    contender: Contender,
    /// One for all hosts, as it is meant.
    pool: Option<::ssh_pool::Pool>,
}

impl Client {
    /// Prepares for hosts with the key and the known hosts of that place; connects to nothing.
    pub(crate) fn new(contender: Contender, place: &Place) -> anyhow::Result<Self> {
        let pool = match contender {
            Contender::Pool => Some(pool::build(place)?),
            _ => None,
        };
        Ok(Self { contender, pool })
    }

    /// Gets a session as its contender does. Those that connect with the first command return at
    /// once.
    pub(crate) async fn open(&self, place: &Place) -> anyhow::Result<Session> {
        let kind = match self.contender {
            Contender::Pool => {
                let pool = self
                    .pool
                    .clone()
                    .context("a client of ssh-pool has a pool")?;
                Kind::Pool(pool::Session::open(pool, place)?)
            }
            Contender::ControlMaster => Kind::Ssh(ssh::Session::open(place, true)),
            Contender::NewSsh => Kind::Ssh(ssh::Session::open(place, false)),
            Contender::ProcessMux => {
                Kind::Openssh(openssh::Session::open(place, openssh::Mux::Process).await?)
            }
            Contender::NativeMux => {
                Kind::Openssh(openssh::Session::open(place, openssh::Mux::Native).await?)
            }
            Contender::AsyncSsh2 => Kind::AsyncSsh2(async_ssh2::Session::open(place).await?),
            Contender::Bare => Kind::Bare(bare::Session::open(place).await?),
        };
        Ok(Session(Arc::new(kind)))
    }
}

impl Session {
    /// A session of a client of its own.
    pub(crate) async fn open(contender: Contender, place: &Place) -> anyhow::Result<Self> {
        Client::new(contender, place)?.open(place).await
    }

    /// Runs a line in the shell of the user.
    pub(crate) async fn run(&self, line: &str) -> anyhow::Result<Ran> {
        match &*self.0 {
            Kind::Pool(session) => session.run(line).await,
            Kind::Ssh(session) => session.run(line).await,
            Kind::Openssh(session) => session.run(line).await,
            Kind::AsyncSsh2(session) => session.run(line).await,
            Kind::Bare(session) => session.run(line).await,
        }
    }

    /// [`run`](Self::run), where anything but success is an error.
    pub(crate) async fn succeed(&self, line: &str) -> anyhow::Result<Ran> {
        let ran = self.run(line).await?;
        ensure!(ran.code == Some(0), "{}", ran.words());
        Ok(ran)
    }

    /// Takes that many bytes from the server: how long it took, from the first on.
    pub(crate) async fn down(&self, bytes: u64) -> anyhow::Result<Duration> {
        let line = format!("head -c {bytes} /dev/zero");
        match &*self.0 {
            Kind::Pool(session) => session.down(&line, bytes).await,
            Kind::Ssh(session) => session.down(&line, bytes).await,
            Kind::Openssh(session) => session.down(&line, bytes).await,
            Kind::AsyncSsh2(session) => session.down(&line, bytes).await,
            Kind::Bare(session) => session.down(&line, bytes).await,
        }
    }

    /// Gives that many bytes to the server, which counts them: how long it took from when it was
    /// ready until it had said how many.
    pub(crate) async fn up(&self, bytes: u64) -> anyhow::Result<Duration> {
        let line = "echo ready; wc -c";
        match &*self.0 {
            Kind::Pool(session) => session.up(line, bytes).await,
            Kind::Ssh(session) => session.up(line, bytes).await,
            Kind::Openssh(session) => session.up(line, bytes).await,
            Kind::AsyncSsh2(session) => session.up(line, bytes).await,
            Kind::Bare(session) => session.up(line, bytes).await,
        }
    }

    /// Ends the connections, and the processes that hold them; with ssh-pool those of the whole
    /// client. Other clones must be gone.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match Arc::into_inner(self.0).context("a session is closed while it is used")? {
            Kind::Pool(session) => session.close().await,
            Kind::Ssh(session) => session.close().await?,
            Kind::Openssh(session) => session.close().await?,
            Kind::AsyncSsh2(session) => session.close().await?,
            Kind::Bare(session) => session.close().await?,
        }
        Ok(())
    }
}

impl Ran {
    /// Why it is not what was wanted, in the words of the contender if it has some.
    pub(crate) fn words(&self) -> String {
        let stderr = String::from_utf8_lossy(&self.stderr);
        match (stderr.trim().lines().last(), self.code) {
            (Some(line), _) => line.trim().to_owned(),
            (None, Some(code)) => format!("exit code {code}, without a word"),
            (None, None) => "no exit code".to_owned(),
        }
    }
}

/// Reads to the end, and that many bytes: how long it took from the first.
async fn drain(mut from: impl AsyncRead + Unpin, bytes: u64) -> anyhow::Result<Duration> {
    let mut chunk = vec![0; CHUNK];
    let mut count = from.read(&mut chunk).await? as u64;
    let began = Instant::now();
    loop {
        match from.read(&mut chunk).await? {
            0 => break,
            more => count += more as u64,
        }
    }
    let took = began.elapsed();
    ensure!(count == bytes, "{count} bytes have come of {bytes}");
    Ok(took)
}

/// Writes that many bytes to a command that says when it is ready, and how many it got.
async fn pour(
    mut to: impl AsyncWrite + Unpin,
    mut from: impl AsyncRead + Unpin,
    bytes: u64,
) -> anyhow::Result<Duration> {
    let mut ready = vec![0; READY.len()];
    from.read_exact(&mut ready).await?;
    let began = Instant::now();
    let chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let next = usize::try_from(left.min(CHUNK as u64))?;
        to.write_all(chunk.get(..next).unwrap_or_default()).await?;
        left -= next as u64;
    }
    to.shutdown().await?;
    // Where shutting down ends nothing, as with a pipe, this does.
    drop(to);
    let mut answer = String::new();
    from.read_to_string(&mut answer).await?;
    let took = began.elapsed();
    let count: u64 = answer.trim().parse().context(answer)?;
    ensure!(count == bytes, "{count} bytes have arrived of {bytes}");
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_is_cut_short_is_no_result() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let whole = vec![7; 100_000];
            assert!(drain(whole.as_slice(), 100_000).await.is_ok());
            assert!(drain(whole.as_slice(), 100_001).await.is_err());
            let mut sink = Vec::new();
            assert!(
                pour(&mut sink, &b"ready\n 100000\n"[..], 100_000)
                    .await
                    .is_ok()
            );
            assert_eq!(sink.len(), 100_000);
            assert!(
                pour(&mut sink, &b"ready\n99999\n"[..], 100_000)
                    .await
                    .is_err()
            );
        });
    }
}
