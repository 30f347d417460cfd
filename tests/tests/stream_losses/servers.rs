//! What streams and forwards lead to, inside the test.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

/// Servers for streams. Dropped, they and their streams have gone.
pub(crate) struct Servers {
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
    tasks: JoinSet<()>,
    /// Bytes that streams have taken of the flood.
    pub(crate) flood: Arc<AtomicUsize>,
}

impl Servers {
    pub(crate) async fn start(folder: &Path) -> Self {
        let unix = folder.join("socket");
        let open = |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777));
        open(folder).unwrap();
        let sockets = UnixListener::bind(&unix).unwrap();
        open(&unix).unwrap();
        let ports = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = ports.local_addr().unwrap();
        let flood = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let count = flood.clone();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                let (stream, _) = ports.accept().await.unwrap();
                streams.spawn(serve(stream, count.clone()));
            }
        });
        let count = flood.clone();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            loop {
                let (stream, _) = sockets.accept().await.unwrap();
                streams.spawn(serve(stream, count.clone()));
            }
        });
        Self {
            tcp,
            unix,
            tasks,
            flood,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// `e` is sent back and the stream is ended; `f` is a flood; anything else is sent back.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, flood: Arc<AtomicUsize>) {
    let mut letter = [0];
    while stream.read_exact(&mut letter).await.is_ok() {
        if letter == *b"f" {
            while let Ok(count) = stream.write(&[0; 1 << 14]).await {
                flood.fetch_add(count, Ordering::SeqCst);
            }
            return;
        }
        if stream.write_all(&letter).await.is_err() || letter == *b"e" {
            return;
        }
    }
}
