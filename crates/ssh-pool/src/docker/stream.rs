//! A connection to a Docker daemon.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use ssh_pool_core::{ChannelStream, ConnectionHandle};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial_stdio::DialStdio;

/// A connection to a Docker daemon, for HTTP.
///
/// What a read error says is in its inner error: [`ssh_pool::Error`](crate::Error) of a
/// lost connection or a shared stream that was read too slowly, or
/// [`docker::Error`](super::Error) with the last words of `docker system dial-stdio`. See
/// [`Error::find`](super::Error::find).
///
/// Dropped, it is closed, as is whatever runs for it on the server.
///
/// ```
/// use ssh_pool::docker::Stream;
///
/// fn way(stream: &Stream) -> &'static str {
///     if stream.is_direct() { "a stream to the socket" } else { "docker system dial-stdio" }
/// }
/// ```
pub struct Stream(TokioIo<Io>);

struct Io {
    transport: Transport,
    /// A write has failed, and the error has not been returned.
    broken: bool,
}

enum Transport {
    Direct(Box<ChannelStream>),
    DialStdio(Box<DialStdio>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("direct", &self.is_direct())
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn direct(stream: ChannelStream) -> Self {
        Self::new(Transport::Direct(Box::new(stream)))
    }

    pub(super) fn dial_stdio(process: DialStdio) -> Self {
        Self::new(Transport::DialStdio(Box::new(process)))
    }

    fn new(transport: Transport) -> Self {
        Self(TokioIo::new(Io {
            transport,
            broken: false,
        }))
    }

    /// For those who speak no HTTP themselves.
    #[cfg(unix)]
    pub(super) fn into_io(self) -> impl AsyncRead + AsyncWrite + Send + Unpin {
        self.0.into_inner()
    }

    /// Whether it goes to the socket itself, and not through `docker system dial-stdio`.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        matches!(self.0.inner().transport, Transport::Direct(_))
    }

    /// The SSH connection that it is on. Who keeps a stream between requests closes it when that is
    /// [retiring](ConnectionHandle::is_retiring); [`Docker`](super::Docker) does.
    #[must_use]
    pub fn connection(&self) -> ConnectionHandle {
        match &self.0.inner().transport {
            Transport::Direct(stream) => stream.connection(),
            Transport::DialStdio(process) => process.connection(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Direct(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Transport::DialStdio(process) => Pin::new(process.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Direct(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Transport::DialStdio(process) => Pin::new(process.as_mut()).poll_write(cx, buf),
        };
        match written {
            // That the pipe is broken is all a writer knows. Why, the reader does: hyper would give
            // up before it had asked. So the first such write goes nowhere, as it could have done.
            Poll::Ready(Err(_)) if !self.broken => {
                self.broken = true;
                Poll::Ready(Ok(buf.len()))
            }
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Direct(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Transport::DialStdio(process) => Pin::new(process.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Direct(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Transport::DialStdio(process) => Pin::new(process.as_mut()).poll_shutdown(cx),
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write(Pin::new(&mut self.0), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
