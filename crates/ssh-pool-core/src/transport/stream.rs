//! The socket under a connection: with a kill switch, a read timeout, and a read gate.
//!
//! russh keeps a session's task and socket alive after its future has been dropped. Reading or
//! writing this one fails once its token is cancelled, or when the peer has been silent for too
//! long, which ends that task, whatever it waits for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::SocketGuard;
use super::handshake_progress::HandshakeProgress;
use super::last_heard::LastHeard;
use super::read_timeout::ReadTimeout;
use super::traffic::{PacketMeter, Traffic};
use crate::error::Phase;
use crate::read_gate::ReadGate;

/// russh reads each packet in two pieces, its length and the rest. Most packets of a short command
/// are smaller than 60 bytes, and a handful of them comes at once: one system call reads them all.
const AHEAD: usize = 2048;

pub(super) struct Socket {
    tcp: TcpStream,
    ahead: Ahead,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    progress: Arc<HandshakeProgress>,
    /// Whether the peer sends small packets at once.
    prompt: Arc<AtomicBool>,
    /// Whether the dial still looks at what is said.
    listening: bool,
    /// Nothing is read while it is shut.
    read_gate: Option<Arc<ReadGate>>,
    held_back: bool,
    /// Bytes that the session has still to write and that have been sent.
    written: usize,
    last_heard: Arc<LastHeard>,
    traffic: Arc<Traffic>,
    meter: PacketMeter,
    /// Of the peer. russh asks it for a sign of life well before it may last no longer.
    read_timeout: ReadTimeout,
    /// Behind the socket: fields are dropped in their order.
    _socket_guard: SocketGuard,
}

impl Socket {
    #[allow(
        clippy::too_many_arguments,
        reason = "called once, with what a connection is made of"
    )]
    pub(super) fn new(
        tcp: TcpStream,
        kill: CancellationToken,
        progress: Arc<HandshakeProgress>,
        prompt: Arc<AtomicBool>,
        last_heard: Arc<LastHeard>,
        traffic: Arc<Traffic>,
        read_timeout: ReadTimeout,
        read_gate: Option<Arc<ReadGate>>,
        socket_guard: SocketGuard,
    ) -> Self {
        Self {
            tcp,
            ahead: Ahead::default(),
            cancelled: Box::pin(kill.cancelled_owned()),
            progress,
            prompt,
            listening: true,
            read_gate,
            held_back: false,
            written: 0,
            last_heard,
            meter: PacketMeter::new(traffic.clone()),
            traffic,
            read_timeout,
            _socket_guard: socket_guard,
        }
    }

    /// The next `bytes` that are written have been sent already.
    pub(super) fn skip_writing(&mut self, bytes: usize) {
        self.written = bytes;
    }

    /// These bytes are read again, before all others.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.ahead.unread());
        self.ahead = Ahead { bytes, given: 0 };
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cancelled.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the pool closed this connection",
            )),
            Poll::Pending => Ok(()),
        }
    }

    /// Fails when the peer has been silent for too long.
    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // What we do not listen to is not silent.
        if self.held_back {
            return Ok(());
        }
        let progress = &self.progress;
        // A dial has a deadline of its own, and sends no keepalives.
        self.read_timeout
            .poll(cx, || progress.phase() < Phase::Channel)
    }

    /// Reads from the peer; whether there has to be more, because none of it was for the session.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let Self { tcp, ahead, .. } = self;
        let little = self.listening || buf.remaining() < AHEAD;
        let read = match little {
            true => ahead.poll_fill(tcp, cx),
            false => Pin::new(tcp).poll_read(cx, buf),
        };
        let Poll::Ready(result) = read else {
            self.poll_read_timeout(cx)?;
            return Poll::Pending;
        };
        result?;
        if !self.prompt.load(Ordering::Relaxed) {
            acknowledge(&self.tcp);
        }
        let now = Instant::now();
        self.read_timeout.end(now);
        self.last_heard.record(now.into_std(), SystemTime::now());
        let mut more = false;
        if self.listening {
            let heard = self.progress.heard(self.ahead.unread())?;
            more = heard.is_empty() && !self.ahead.unread().is_empty();
            self.ahead = Ahead {
                bytes: heard,
                given: 0,
            };
            self.listening = self.progress.phase() <= Phase::Banner;
        }
        self.ahead.give(buf);
        Poll::Ready(Ok(more))
    }

    fn poll_read_gate(&mut self, cx: &Context<'_>) -> Poll<()> {
        if let Some(read_gate) = &self.read_gate {
            if read_gate.poll_open(cx).is_pending() {
                self.held_back = true;
                return Poll::Pending;
            }
            if self.held_back {
                self.held_back = false;
                self.read_timeout.end(Instant::now());
            }
        }
        Poll::Ready(())
    }
}

/// What has been read from the socket and was not asked for yet.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    given: usize,
}

impl Ahead {
    fn unread(&self) -> &[u8] {
        self.bytes.get(self.given..).unwrap_or_default()
    }

    /// Gives what there is and fits; `false` when there is nothing.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let unread = self.unread();
        let some = unread.get(..buf.remaining()).unwrap_or(unread);
        buf.put_slice(some);
        let given = some.len();
        self.given += given;
        given > 0
    }

    /// Reads anew; everything has been given.
    fn poll_fill(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.resize(AHEAD, 0);
        // More than that has been put back before the session began.
        self.bytes.shrink_to(AHEAD);
        self.given = AHEAD;
        let mut buf = ReadBuf::new(&mut self.bytes);
        ready!(Pin::new(tcp).poll_read(cx, &mut buf))?;
        let read = buf.filled().len();
        self.bytes.truncate(read);
        self.given = 0;
        Poll::Ready(Ok(()))
    }
}

/// Acknowledges what was read now and not up to 40 ms later, in the hope of something to send with
/// it. sshd sets TCP_NODELAY with the first command; until then its small packets wait for this
/// (Nagle's algorithm, RFC 896), and the answer to the first open of a channel is one of them.
fn acknowledge(tcp: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = tcp.set_quickack(true) {
        tracing::trace!(%error, "cannot acknowledge at once");
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _: &TcpStream = tcp;
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cancelled(cx)?;
        ready!(self.poll_read_gate(cx));
        let before = buf.filled().len();
        let counts = self.progress.phase() >= Phase::Channel;
        self.meter.before(buf.remaining(), counts)?;
        if !self.ahead.unread().is_empty() {
            // A flood of small packets would else be handled without a pause, hundreds of them for
            // each time that the socket is read, and other tasks of this thread would wait.
            let budget = ready!(tokio::task::coop::poll_proceed(cx));
            budget.made_progress();
            self.ahead.give(buf);
            let given = buf.filled().len().saturating_sub(before);
            self.meter.after(given);
            return Poll::Ready(Ok(()));
        }
        while ready!(self.poll_more(cx, buf))? {}
        let given = buf.filled().len().saturating_sub(before);
        self.meter.after(given);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cancelled(cx)?;
        if self.written > 0 {
            let skipped = self.written.min(buf.len());
            self.written -= skipped;
            return Poll::Ready(Ok(skipped));
        }
        let Poll::Ready(result) = Pin::new(&mut self.tcp).poll_write(cx, buf) else {
            // The session reads nothing while it cannot write.
            self.poll_read_timeout(cx)?;
            return Poll::Pending;
        };
        match result {
            // A server that turns us away says why and resets. Its words are still to be read,
            // and are worth more than "broken pipe".
            Err(_) if self.listening => Poll::Ready(Ok(buf.len())),
            Ok(count) => {
                self.traffic.sent(count);
                self.last_heard.wrote();
                Poll::Ready(Ok(count))
            }
            result => Poll::Ready(result),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(prompt: bool) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (peer, _) = listener.accept().await.unwrap();
        let socket = Socket::new(
            tcp.unwrap(),
            CancellationToken::new(),
            Arc::default(),
            Arc::new(AtomicBool::new(prompt)),
            Arc::default(),
            Arc::default(),
            ReadTimeout::new(Duration::from_secs(15), 3),
            None,
            Box::new(()),
        );
        (socket, peer)
    }

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_whatever_is_asked_for_at_a_time() {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for piece in [1, 4, 60, AHEAD - 1, AHEAD, AHEAD + 1, 40_000] {
            let (mut socket, mut peer) = pair(true).await;
            let data = sent.clone();
            let writer = tokio::spawn(async move { peer.write_all(&data).await });
            let mut received = Vec::new();
            for size in [4, piece].into_iter().cycle() {
                let mut buffer = vec![0; size];
                match socket.read(&mut buffer).await.unwrap() {
                    0 => break,
                    read => received.extend_from_slice(&buffer[..read]),
                }
            }
            writer.await.unwrap().unwrap();
            assert!(received == sent, "pieces of {piece}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn until_something_was_executed_all_that_is_read_is_acknowledged_at_once() {
        for prompt in [false, true] {
            let (mut socket, mut peer) = pair(prompt).await;
            socket.tcp.set_quickack(false).unwrap();
            peer.write_all(b"12345").await.unwrap();
            socket.read_exact(&mut [0; 5]).await.unwrap();
            assert_eq!(socket.tcp.quickack().unwrap(), !prompt);
        }
    }
}
