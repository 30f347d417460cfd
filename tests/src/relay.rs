//! One connection through the fault proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::proxy::Greeting;

const CHUNK: usize = 64 * 1024;
/// How many chunks wait inside the proxy; beyond them the sender's own buffers fill up.
const WAITING: usize = 64;
/// How long an ended connection waits for the other side to end it as well.
const LINGER: Duration = Duration::from_secs(5);

/// How a connection is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A reset (RST) to both sides.
    Reset,
    /// An orderly end (FIN) to both sides.
    Fin,
    /// Nothing to anybody: both sockets stay open, and nothing passes.
    Forget,
}

/// What the way between client and server is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    pub(crate) frozen: bool,
    /// Bytes from server to client, and what happens after them.
    pub(crate) limit: Option<(usize, Cut)>,
}

pub(crate) struct Relay {
    pub(crate) client: TcpStream,
    pub(crate) server: SocketAddr,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) cut: watch::Receiver<Option<Cut>>,
}

impl Relay {
    /// Sees the connection to its end. Errors are what this is for: each ends the connection.
    pub(crate) async fn run(mut self, greeting: Greeting) {
        let _ = self.client.set_nodelay(true);
        let mut cut = self.cut.clone();
        let result = tokio::select! {
            result = self.greet(greeting) => result,
            cut = next(&mut cut) => Ok(Some(cut)),
        };
        match result {
            Ok(None) => self.pass().await,
            Ok(Some(cut)) => end(cut, &mut [&mut self.client]).await,
            Err(_) => {}
        }
    }

    /// What happens before anything is passed on: `None` when it is to be.
    async fn greet(&mut self, greeting: Greeting) -> io::Result<Option<Cut>> {
        match greeting {
            Greeting::Pass => return Ok(None),
            Greeting::Preamble(lines) => {
                for line in lines {
                    self.say(&format!("{line}\r\n")).await?;
                }
                return Ok(None);
            }
            Greeting::HoldBanner(time) => {
                sleep(time).await;
                return Ok(None);
            }
            Greeting::Reset => return Ok(Some(Cut::Reset)),
            Greeting::Fin => {}
            Greeting::Garbage => {
                let page = "<html><body>Bad Request</body></html>\n";
                let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n";
                let length = page.len();
                self.say(&format!(
                    "{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{page}"
                ))
                .await?;
            }
            Greeting::Line(text) => self.say(&format!("{text}\r\n")).await?,
            Greeting::Silence => swallow(&mut self.client).await,
            Greeting::BannerOnly => {
                self.say("SSH-2.0-Proxy\r\n").await?;
                swallow(&mut self.client).await;
            }
        }
        Ok(Some(Cut::Fin))
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        self.client.write_all(text.as_bytes()).await
    }

    async fn pass(mut self) {
        let Ok(mut server) = TcpStream::connect(self.server).await else {
            // The nearest to a refused connection that can still be told.
            return end(Cut::Reset, &mut [&mut self.client]).await;
        };
        let _ = server.set_nodelay(true);
        let limit = self.link.borrow().limit;
        let cut = {
            let (from_client, to_client) = self.client.split();
            let (from_server, to_server) = server.split();
            let up = flow(from_client, to_server, self.link.clone(), None);
            let down = flow(from_server, to_client, self.link.clone(), limit);
            tokio::select! {
                // Only when both directions have ended, or one has failed.
                result = async { tokio::try_join!(up, down) } => match result {
                    Ok(_) => Cut::Fin,
                    Err(cut) => cut,
                },
                cut = next(&mut self.cut) => cut,
            }
        };
        end(cut, &mut [&mut self.client, &mut server]).await;
    }
}

/// The next cut for connections of this age.
async fn next(cuts: &mut watch::Receiver<Option<Cut>>) -> Cut {
    loop {
        if cuts.changed().await.is_err() {
            return Cut::Reset;
        }
        if let Some(cut) = *cuts.borrow_and_update() {
            return cut;
        }
    }
}

/// Carries one direction, each chunk as late as the link says. The error is how the connection
/// ends; without one, this direction has come to its own end and been told so.
async fn flow(
    mut from: ReadHalf<'_>,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<Link>,
    limit: Option<(usize, Cut)>,
) -> Result<(), Cut> {
    let (sender, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(WAITING);
    let delays = link.clone();
    let reading = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let count = from.read_buf(&mut chunk).await.map_err(|_| Cut::Reset)?;
            // A line does not wait for an answer to acknowledge with, as a host does: whoever has
            // Nagle's algorithm on would be held up by this proxy for another 40 ms.
            #[cfg(target_os = "linux")]
            let _ = from.as_ref().set_quickack(true);
            let due = Instant::now() + delays.borrow().delay;
            // An empty chunk is the end, which travels like everything else.
            if sender.send((due, chunk)).await.is_err() || count == 0 {
                return Ok(());
            }
        }
    };
    let writing = async move {
        let mut left = limit;
        while let Some((due, mut chunk)) = waiting.recv().await {
            sleep_until(due).await;
            link.wait_for(|link| !link.frozen)
                .await
                .map_err(|_| Cut::Reset)?;
            if chunk.is_empty() {
                break;
            }
            if let Some((bytes, _)) = &mut left {
                chunk.truncate(*bytes);
                *bytes -= chunk.len();
            }
            to.write_all(&chunk).await.map_err(|_| Cut::Reset)?;
            if let Some((0, cut)) = left {
                return Err(cut);
            }
        }
        to.shutdown().await.map_err(|_| Cut::Reset)
    };
    tokio::try_join!(reading, writing).map(|_| ())
}

/// Ends a connection on all its sockets.
async fn end(cut: Cut, sockets: &mut [&mut TcpStream]) {
    match cut {
        Cut::Reset => {
            for socket in sockets {
                // With nothing to linger for, closing sends RST.
                let _ = SockRef::from(&**socket).set_linger(Some(Duration::ZERO));
            }
        }
        Cut::Fin => {
            for socket in sockets.iter_mut() {
                let _ = socket.shutdown().await;
            }
            // Closing with something unread would send RST after all.
            for socket in sockets {
                let _ = timeout(LINGER, swallow(socket)).await;
            }
        }
        Cut::Forget => std::future::pending().await,
    }
}

/// Reads until the other side ends it.
async fn swallow(socket: &mut TcpStream) {
    let _ = tokio::io::copy(socket, &mut tokio::io::sink()).await;
}
