//! The stream below a session: it remembers how it ended, and can be cut.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::ChannelStream;

/// How a line ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The server ended the stream: its SFTP process has ended.
    Closed,
    /// The connection was lost.
    Lost(crate::Error),
    /// Our reader gave up: what came was not SFTP.
    Nonsense,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    end: Option<End>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What both sides of a line know.
#[derive(Debug, Default)]
pub(super) struct Fate {
    state: Mutex<State>,
    over: Notify,
}

impl Fate {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only the first end counts.
    fn ended(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.over.notify_waiters();
    }

    /// Waits for the end: a request that is made at that very moment is answered by nobody.
    pub(super) async fn over(&self) {
        loop {
            let over = self.over.notified();
            if !self.is_alive() {
                return;
            }
            over.await;
        }
    }

    /// Whether it goes on, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        let state = self.state();
        !state.cut && state.end.is_none()
    }

    /// Reads and writes end now, whatever the server does: a server that takes nothing must not
    /// keep our tasks.
    pub(super) fn cut(&self) {
        let wakers = {
            let mut state = self.state();
            state.cut = true;
            [state.reader.take(), state.writer.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
        self.over.notify_waiters();
    }

    /// How it ended, after a request has failed without an answer. Whoever reads or writes records
    /// a closed or lost stream before anybody is told, so what is not recorded was nonsense.
    pub(super) fn end(&self) -> End {
        let end = self.state().end.get_or_insert(End::Nonsense).clone();
        self.cut();
        end
    }
}

/// One stream to the server's SFTP process.
#[derive(Debug)]
pub(super) struct Line {
    stream: ChannelStream,
    fate: Arc<Fate>,
}

impl Line {
    pub(super) fn new(stream: ChannelStream) -> (Self, Arc<Fate>) {
        let fate = Arc::new(Fate::default());
        let line = Self {
            stream,
            fate: fate.clone(),
        };
        (line, fate)
    }

    /// A lost connection is the inner error of what a stream says.
    fn failed(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        self.fate.ended(match inner {
            Some(error) => End::Lost(crate::Error::clone(error)),
            None => End::Closed,
        });
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        {
            let mut state = self.fate.state();
            if state.cut {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(cx.waker().clone());
        }
        let before = buf.remaining();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if before > 0 && buf.remaining() == before => {
                self.fate.ended(End::Closed);
            }
            Poll::Ready(Err(error)) => self.failed(error),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        {
            let mut state = self.fate.state();
            if state.cut {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            state.writer = Some(cx.waker().clone());
        }
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            // The channel has ended. Why, the reading side is told, after what has still arrived;
            // then the line is cut, which wakes this side.
            Poll::Ready(Err(_)) => Poll::Pending,
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.fate.is_alive() {
            self.fate.ended(End::Nonsense);
        }
    }
}
