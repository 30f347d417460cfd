//! One connection through the fault proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::proxy::Greeting;
use crate::script::{Course, Frozen, Rate, Side, Step};

const CHUNK: usize = 64 * 1024;
/// How many chunks wait inside the proxy; beyond them the sender's own buffers fill up.
const WAITING: usize = 64;
/// A throttled line does not hold a second's worth back and then pass it on at once.
const PIECES_A_SECOND: usize = 50;
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
    pub(crate) frozen: Frozen,
    pub(crate) rate: Rate,
    /// How long a connection is remembered on which nothing passes; for ever if `None`.
    pub(crate) memory: Option<Duration>,
}

pub(crate) struct Relay {
    pub(crate) client: TcpStream,
    pub(crate) server: SocketAddr,
    pub(crate) link: watch::Sender<Link>,
    pub(crate) script: Arc<[Step]>,
    pub(crate) cut: watch::Receiver<Option<Cut>>,
    pub(crate) forgotten: Arc<AtomicUsize>,
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
            Ok(Some(cut)) => end(cut, &mut [&mut self.client], &self.forgotten).await,
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
            return end(Cut::Reset, &mut [&mut self.client], &self.forgotten).await;
        };
        let _ = server.set_nodelay(true);
        let course = Course::new(self.script, self.link.clone());
        let cut = {
            let (from_client, to_client) = self.client.split();
            let (from_server, to_server) = server.split();
            let flow = |from| Flow {
                from,
                course: &course,
                link: self.link.subscribe(),
            };
            let up = flow(Side::Client).carry(from_client, to_server);
            let down = flow(Side::Server).carry(from_server, to_client);
            tokio::select! {
                // In this order: what is sent after a cut does not get through.
                biased;
                cut = next(&mut self.cut) => cut,
                cut = course.run() => cut,
                () = course.forgotten(self.link.subscribe()) => Cut::Forget,
                // Only when both directions have ended, or one has failed.
                result = async { tokio::try_join!(up, down) } => match result {
                    Ok(_) => Cut::Fin,
                    Err(_) => Cut::Reset,
                },
            }
        };
        end(cut, &mut [&mut self.client, &mut server], &self.forgotten).await;
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

/// One direction of a connection.
struct Flow<'a> {
    from: Side,
    course: &'a Course,
    link: watch::Receiver<Link>,
}

impl Flow<'_> {
    /// Carries everything, as late and as slowly as the link and the script say, until this
    /// direction has come to its end and been told so.
    async fn carry(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let (sender, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(WAITING);
        let (course, delays) = (self.course, self.link.clone());
        let reading = async move {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let count = from.read_buf(&mut chunk).await?;
                // A line does not wait for an answer to acknowledge with, as a host does: whoever
                // has Nagle's algorithm on would be held up by this proxy for another 40 ms.
                #[cfg(target_os = "linux")]
                let _ = from.as_ref().set_quickack(true);
                let due = Instant::now() + course.delay(&delays);
                // An empty chunk is the end, which travels like everything else.
                if sender.send((due, chunk)).await.is_err() || count == 0 {
                    return Ok(());
                }
            }
        };
        let writing = async move {
            while let Some((due, chunk)) = waiting.recv().await {
                sleep_until(due).await;
                if chunk.is_empty() {
                    self.course.room(self.from, &mut self.link).await;
                    break;
                }
                self.write(&chunk, &mut to).await?;
            }
            to.shutdown().await
        };
        tokio::try_join!(reading, writing).map(|_| ())
    }

    async fn write(&mut self, mut chunk: &[u8], to: &mut WriteHalf<'_>) -> io::Result<()> {
        while !chunk.is_empty() {
            let room = self.course.room(self.from, &mut self.link).await;
            let rate = self.course.rate(&self.link).of(self.from);
            let most = rate.map_or(usize::MAX, |rate| (rate / PIECES_A_SECOND).max(1));
            let (piece, rest) = chunk.split_at(chunk.len().min(room).min(most));
            to.write_all(piece).await?;
            chunk = rest;
            self.course.passed(self.from, piece.len());
            if let Some(rate) = rate {
                let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                let rate = u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
                sleep(Duration::from_secs(1) * count / rate).await;
            }
        }
        Ok(())
    }
}

/// Ends a connection on all its sockets.
async fn end(cut: Cut, sockets: &mut [&mut TcpStream], forgotten: &AtomicUsize) {
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
        Cut::Forget => {
            forgotten.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }
    }
}

/// Reads until the other side ends it.
async fn swallow(socket: &mut TcpStream) {
    let _ = tokio::io::copy(socket, &mut tokio::io::sink()).await;
}
