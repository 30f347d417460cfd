//! The three streams of a child.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

use crate::buffered::CountedBytes;
use crate::error::{Error, Origin, Phase, Stream};
use crate::event::EventKind;
use crate::receiver::{BufferOverflow, ChannelReceiver, StreamError};
use crate::transport::{Channel, Writer};

/// Where the streams of one channel come from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) receiver: Arc<ChannelReceiver>,
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
        let result = ready!(self.receiver.poll_read(stream, cx, buf));
        Poll::Ready(result.map_err(|cut| self.cut(stream, cut)))
    }

    fn cut(&self, stream: Stream, cut: StreamError) -> io::Error {
        let kind = cut.kind();
        let target = self.target.clone();
        let error = match cut {
            StreamError::Overflow(overflow) => Error::OutputLimit {
                target,
                stream,
                limit: overflow.limit(self.limit),
            },
            StreamError::Lost(source) => Error::ConnectionLost {
                target,
                phase: Phase::Running,
                source,
            },
        };
        io::Error::new(kind, error)
    }
}

/// One output stream of a command, as it comes.
struct OutputStream {
    source: Source,
    stream: Stream,
}

impl AsyncRead for OutputStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.source.poll_read(self.stream, cx, buf)
    }
}

/// What came while `Child::wait` had the stream.
struct KeptOutput {
    bytes: CountedBytes,
    /// More came than could be kept: this limit was reached, and the rest is gone.
    cut: Option<usize>,
}

/// Reads one output stream of a command: first what was kept of it.
pub(super) struct Reader {
    incoming: OutputStream,
    kept: Option<KeptOutput>,
}

impl Reader {
    fn new(source: Source, stream: Stream) -> Self {
        Self {
            incoming: OutputStream { source, stream },
            kept: None,
        }
    }

    fn receiver(&self) -> &ChannelReceiver {
        &self.incoming.source.receiver
    }

    /// Takes in what comes until the stream ends, and keeps up to `limit` bytes of it for a later
    /// reader. Cancel safe: what has been read is kept.
    async fn keep(&mut self, limit: usize) {
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            piece.clear();
            // An end, or the reason of a loss, is there again for a later reader.
            if !matches!(self.incoming.read_buf(&mut piece).await, Ok(1..)) {
                return;
            }
            let receiver = self.incoming.source.receiver.clone();
            let kept = self.kept.get_or_insert_with(|| KeptOutput {
                bytes: receiver.counted_bytes(),
                cut: None,
            });
            if kept.cut.is_some() {
                continue; // a reader must not miss something in the middle
            }
            let room = limit.saturating_sub(kept.bytes.len()).min(piece.len());
            let (fits, rest) = piece.split_at(room);
            kept.cut = match kept.bytes.extend(fits) {
                Err(limit) => Some(limit),
                Ok(()) if !rest.is_empty() => Some(limit),
                Ok(()) => None,
            };
            if let Some(limit) = kept.cut {
                let stream = self.incoming.stream;
                receiver.report(EventKind::Overrun { stream, limit });
            }
        }
    }

    /// Takes what was kept, unless something after it is gone.
    fn take_kept(&mut self) -> Option<CountedBytes> {
        let kept = self.kept.take_if(|kept| kept.cut.is_none())?;
        Some(kept.bytes.into_unread())
    }

    /// The limit that was reached when it was cut off for want of a reader.
    fn cut(&self) -> Option<usize> {
        self.kept.as_ref()?.cut
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { incoming, kept } = &mut *self;
        if let Some(kept) = kept {
            let unread = kept.bytes.unread();
            if let Some(fits) = unread.get(..unread.len().min(buf.remaining()))
                && !unread.is_empty()
            {
                buf.put_slice(fits);
                let count = fits.len();
                kept.bytes.advance(count);
                return Poll::Ready(Ok(()));
            }
            if let Some(limit) = kept.cut {
                let OutputStream { source, stream } = incoming;
                let cut = source.cut(*stream, StreamError::Overflow(BufferOverflow::Pool(limit)));
                return Poll::Ready(Err(cut));
            }
        }
        Pin::new(incoming).poll_read(cx, buf)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.receiver().forget(self.incoming.stream);
    }
}

macro_rules! reader {
    ($(#[$doc:meta])* $name:ident, $stream:expr) => {
        $(#[$doc])*
        ///
        /// A connection that is lost, or a shared stream that is read too slowly, is an error whose inner
        /// error is an [`Error`](crate::Error). After a time-out or a kill the stream ends as if the
        /// command had ended: ask [`Child::wait`](super::Child::wait). Dropped, what the command writes
        /// to it is thrown away.
        pub struct $name(Reader);

        impl $name {
            pub(super) fn new(source: Source) -> Self {
                Self(Reader::new(source, $stream))
            }

            pub(super) fn reader(&mut self) -> &mut Reader {
                &mut self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).finish()
            }
        }

        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_read(cx, buf)
            }
        }
    };
}

reader!(
    /// The standard output of a remote command.
    ///
    /// ```no_run
    /// # use ssh_pool_core as ssh_pool;
    /// # async fn example(host: ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::io::{AsyncBufReadExt, BufReader};
    ///
    /// let mut child = host.command("journalctl").arg("-f").spawn().await?;
    /// if let Some(stdout) = child.stdout.take() {
    ///     let mut lines = BufReader::new(stdout).lines();
    ///     while let Some(line) = lines.next_line().await? {
    ///         println!("{line}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ChildStdout,
    Stream::Stdout
);
reader!(
    /// The standard error of a remote command.
    ///
    /// ```no_run
    /// # use ssh_pool_core as ssh_pool;
    /// # async fn example(host: ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::io::{AsyncBufReadExt, BufReader};
    ///
    /// let mut child = host.command("journalctl").arg("-f").spawn().await?;
    /// if let Some(stderr) = child.stderr.take() {
    ///     let mut lines = BufReader::new(stderr).lines();
    ///     while let Some(line) = lines.next_line().await? {
    ///         println!("{line}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ChildStderr,
    Stream::Stderr
);

/// The standard input of a remote command. Dropping it, or shutting it down, is the end of that
/// input (EOF, RFC 4254, section 5.3).
///
/// A write waits while the command does not read and the server's window is full, and fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the command has ended. Flushing does nothing.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host, mut dump: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// use ssh_pool::Stdio;
///
/// let mut child = host.command("psql").stdin(Stdio::piped()).spawn().await?;
/// if let Some(mut stdin) = child.stdin.take() {
///     tokio::io::copy(&mut dump, &mut stdin).await?;
/// }
/// child.wait().await?.exit_ok()?;
/// # Ok(())
/// # }
/// ```
pub struct ChildStdin {
    channel: Channel,
    source: Source,
    /// Only reached through `&mut self`, so the lock is never taken: it makes a writer that is not
    /// `Sync` part of a type that is.
    writer: Mutex<Writer>,
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
            writer: Mutex::new(channel.sender.writer()),
            channel,
            source,
            runtime,
            shut: false,
        }
    }

    /// Dropping it is not its end.
    pub(crate) fn abort(&mut self) {
        self.shut = true;
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Send)> {
        let writer = self.writer.get_mut();
        writer.unwrap_or_else(PoisonError::into_inner).as_mut()
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
        // A writer that waits for window is not woken otherwise when the channel ends.
        if self.shut || self.channel.receiver.poll_ended(cx).is_ready() {
            return Poll::Ready(Err(self.broken()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match self.writer().poll_write(cx, buf) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(self.broken())),
            other => other,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut || self.channel.receiver.poll_ended(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        // A connection that does not take the EOF has ended: then there is nothing to shut.
        let _ended = ready!(self.writer().poll_shutdown(cx));
        self.shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        if self.shut || self.channel.receiver.has_ended() {
            return;
        }
        let sender = self.channel.sender.clone();
        self.runtime.spawn(async move {
            // A connection that does not take it has ended, and the channel with it.
            sender.eof().await.ok();
        });
    }
}

/// A stream had more bytes than may be kept.
pub(super) enum Full {
    /// Of this stream.
    Stream,
    /// A limit that was reached elsewhere: that of the pool, or while the child was waited for.
    Limit(Stream, usize),
}

/// What is read at once.
const PIECE: usize = 32 << 10;

/// Takes in what comes on a stream that was not taken, for as long as this is polled.
pub(super) async fn keep(reader: Option<&mut Reader>, limit: usize) {
    if let Some(reader) = reader {
        reader.keep(limit).await;
    }
}

/// The bytes that a stream begins with: what was kept of it while the child was waited for.
pub(super) fn kept(reader: Option<&mut Reader>, receiver: &ChannelReceiver) -> CountedBytes {
    let kept = reader.and_then(Reader::take_kept);
    kept.unwrap_or_else(|| receiver.counted_bytes())
}

/// Reads to the end, up to a limit. A stream that is lost has its reason in the child's end. Cancel
/// safe: what has been read is there.
pub(super) async fn collect(
    stream: Stream,
    reader: Option<&mut Reader>,
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
                if let Some(limit) = reader.cut() {
                    return Err(Full::Limit(stream, limit));
                }
                tracing::debug!(%error, "a stream was cut off");
                return Ok(());
            }
        }
        let kept = bytes.gather(&piece);
        kept.map_err(|limit| Full::Limit(stream, limit))?;
        if bytes.len() > limit {
            return Err(Full::Stream);
        }
    }
}
