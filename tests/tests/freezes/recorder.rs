//! A line that notes where each packet ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ssh_pool_tests::Side;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// After how many bytes of which side.
pub(crate) type Boundary = (Side, usize);

/// Passes the connections to one server on, and remembers after how many bytes of its side each
/// write to the first of them ended: one packet, or several that belong together.
pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Boundary>>>,
}

impl Recorder {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Boundary>>> = Arc::default();
        let first = seen.clone();
        tokio::spawn(async move {
            let mut first = Some(first);
            while let Ok((client, _)) = listener.accept().await {
                let seen = first.take().unwrap_or_default();
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    client.set_nodelay(true).unwrap();
                    server.set_nodelay(true).unwrap();
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        carry(Side::Client, from_client, to_server, &seen),
                        carry(Side::Server, from_server, to_client, &seen),
                    );
                });
            }
        });
        Self { addr, seen }
    }

    pub(crate) fn boundaries(&self) -> Vec<Boundary> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

async fn carry(
    from: Side,
    mut source: impl AsyncRead + Unpin,
    mut sink: impl AsyncWrite + Unpin,
    seen: &Mutex<Vec<Boundary>>,
) {
    let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
    // However it ends, the other direction is told, and has its own end.
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        total += count;
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((from, total));
        if sink.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    sink.shutdown().await.ok();
}
