//! The socket under a connection, with a way to pull it away.
//!
//! russh keeps a session's task and socket alive after its future has been dropped. Reading or
//! writing this one fails once its token is cancelled, which ends that task, whatever it waits
//! for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::progress::Progress;
use crate::error::Phase;

pub(super) struct Socket {
    tcp: TcpStream,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    progress: Arc<Progress>,
    /// Whether the dial still looks at what is said.
    listening: bool,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, kill: CancellationToken, progress: Arc<Progress>) -> Self {
        Self {
            tcp,
            cancelled: Box::pin(kill.cancelled_owned()),
            progress,
            listening: true,
        }
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
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cancelled(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        if self.listening {
            self.progress
                .heard(buf.filled().get(before..).unwrap_or_default());
            self.listening = self.progress.phase() <= Phase::Banner;
        }
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
        match ready!(Pin::new(&mut self.tcp).poll_write(cx, buf)) {
            // A server that turns us away says why and resets. Its words are still to be read,
            // and are worth more than "broken pipe".
            Err(_) if self.listening => Poll::Ready(Ok(buf.len())),
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
