//! The three streams of a child.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

use crate::buffered::CountedBytes;
use crate::error::{Error, Origin, Phase, Stream};
use crate::inbox::{Cut, Inbox};
use crate::transport::{Channel, Writer};

/// Where the streams of one channel come from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) target: Origin,
    pub(crate) limit: usize,
}

impl Source {
    /// Bytes, then the end, then always the end; or why the stream was cut off.
    pub(crate) fn poll_read(
        &self,
        stream: Stream,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(self.inbox.poll_read(stream, cx, buf));
        Poll::Ready(result.map_err(|cut| self.cut(stream, cut)))
    }

    fn cut(&self, stream: Stream, cut: Cut) -> io::Error {
        let kind = cut.kind();
        let target = self.target.clone();
        let error = match cut {
            Cut::Overrun(overrun) => Error::OutputLimit {
                target,
                stream,
                limit: overrun.limit(self.limit),
            },
            Cut::Lost(source) => Error::ConnectionLost {
                target,
                phase: Phase::Running,
                source,
            },
        };
        io::Error::new(kind, error)
    }
}

macro_rules! reader {
    ($(#[$doc:meta])* $name:ident, $stream:expr) => {
        $(#[$doc])*
        ///
        /// Its end is a clean one: a connection that is lost, or a shared stream that is read too
        /// slowly, is an error whose inner error is an [`Error`](crate::Error). Dropped, what the
        /// command writes to it is thrown away.
        pub struct $name(Source);

        impl $name {
            pub(super) fn new(source: Source) -> Self {
                Self(source)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).finish()
            }
        }

        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.0.poll_read($stream, cx, buf)
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.inbox.forget($stream);
            }
        }
    };
}

reader!(
    /// The standard output of a remote command.
    ChildStdout,
    Stream::Stdout
);
reader!(
    /// The standard error of a remote command.
    ChildStderr,
    Stream::Stderr
);

/// The standard input of a remote command. Dropping it, or shutting it down, is the end of that
/// input (EOF, RFC 4254, section 5.3).
///
/// A write waits while the command does not read and the server's window is full, and fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the command has ended. Flushing does nothing.
pub struct ChildStdin {
    channel: Channel,
    source: Source,
    writer: Writer,
    runtime: Handle,
    shut: bool,
}

impl fmt::Debug for ChildStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildStdin").finish()
    }
}

impl ChildStdin {
    pub(crate) fn new(channel: Channel, source: Source, runtime: Handle) -> Self {
        Self {
            writer: channel.wire.writer(),
            channel,
            source,
            runtime,
            shut: false,
        }
    }

    /// Dropping it is not its end.
    pub(crate) fn give_up(&mut self) {
        self.shut = true;
    }

    fn broken(&self) -> io::Error {
        let text = format!("{}: the channel has ended", self.source.target);
        io::Error::new(io::ErrorKind::BrokenPipe, text)
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Nobody else wakes a writer that waits for window when the channel ends.
        if self.shut || self.channel.inbox.poll_ended(cx).is_ready() {
            return Poll::Ready(Err(self.broken()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match self.writer.as_mut().poll_write(cx, buf) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(self.broken())),
            other => other,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut || self.channel.inbox.poll_ended(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        // A connection that does not take the EOF has ended: then there is nothing to shut.
        let _ended = ready!(self.writer.as_mut().poll_shutdown(cx));
        self.shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        if self.shut || self.channel.inbox.has_ended() {
            return;
        }
        let wire = self.channel.wire.clone();
        self.runtime.spawn(async move {
            // A connection that does not take it has ended, and the channel with it.
            wire.eof().await.ok();
        });
    }
}

/// A stream had more bytes than may be kept.
pub(super) enum Full {
    /// Of this stream.
    Stream,
    /// Of all streams of the pool: its limit.
    Pool(Stream, usize),
}

/// What is read at once.
const PIECE: usize = 32 << 10;

/// Reads to the end, up to a limit. A stream that is cut off has its reason in the child's end.
/// Cancel safe: what has been read is there.
pub(super) async fn collect<R: AsyncRead + Unpin>(
    stream: Stream,
    reader: &mut Option<R>,
    bytes: &mut CountedBytes,
    limit: usize,
) -> Result<(), Full> {
    let Some(reader) = reader else {
        return Ok(());
    };
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        match reader.read_buf(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a stream was cut off");
                return Ok(());
            }
        }
        let kept = bytes.extend(&piece);
        kept.map_err(|limit| Full::Pool(stream, limit))?;
        if bytes.len() > limit {
            return Err(Full::Stream);
        }
    }
}
