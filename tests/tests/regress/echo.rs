//! Servers on this machine that streams go to.

use std::io;
use std::path::Path;

use ssh_pool::Address;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::SOON;

/// Says, to everyone who connects, what they have said: after their end, so that an end that does
/// not get through is a test that does not go on.
pub(crate) struct Echo {
    pub(crate) address: Address,
    task: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Echo {
    pub(crate) async fn tcp() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// On the address that somebody else was told.
    pub(crate) async fn at(port: u16) -> Self {
        Self::on(TcpListener::bind(("127.0.0.1", port)).await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap().into();
        let task = tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn(answer(stream));
            }
        });
        Self { address, task }
    }

    pub(crate) fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        // Whoever logs in connects.
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, anybody).unwrap();
        let task = tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn(answer(stream));
            }
        });
        Self {
            address: path.into(),
            task,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port().unwrap()
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).await.is_ok() && stream.write_all(&all).await.is_ok() {
        // Who has gone does not want it.
        stream.shutdown().await.ok();
    }
}

/// Sends everything, ends its side, and reads what comes back.
pub(crate) async fn ask<S>(stream: S, bytes: &[u8]) -> io::Result<Vec<u8>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = async {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut back = Vec::new();
        let write = async {
            writer.write_all(bytes).await?;
            writer.shutdown().await
        };
        let (written, read) = tokio::join!(write, reader.read_to_end(&mut back));
        written?;
        read?;
        Ok(back)
    };
    timeout(SOON * 3, asked).await.unwrap()
}

/// [`ask`], of whoever listens there.
pub(crate) async fn ask_at(address: &Address, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match address {
        Address::Tcp { host, port } => {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            ask(TcpStream::connect((host, *port)).await?, bytes).await
        }
        Address::Unix(path) => ask(UnixStream::connect(path).await?, bytes).await,
        other => panic!("{other}"),
    }
}
