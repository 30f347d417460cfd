//! What becomes of the bytes of one stream.

use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

use super::herald::Herald;

/// Bytes kept for a stream that has not been taken over: a server may speak first, and no more
/// than a window of 2 MiB before we answer.
const EARLY: usize = 4 << 20;

/// Where the bytes of a stream go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Nowhere.
    Discard,
    /// Into memory, for one look at the end. More than this many bytes are an overrun.
    Collect(usize),
    /// To a reader. More than this many unread bytes are an overrun; `None` holds the peer back
    /// instead.
    Read(Option<usize>),
}

/// More came than so many bytes, which may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overrun(pub(super) usize);

#[derive(Debug)]
pub(super) struct Intake {
    sink: Sink,
    bytes: BytesMut,
    reader: Option<Waker>,
    overrun: bool,
    /// What the command says first is not for the reader.
    herald: Option<Herald>,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(Sink::Collect(EARLY))
    }
}

impl Intake {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            bytes: BytesMut::new(),
            reader: None,
            overrun: false,
            herald: None,
        }
    }

    /// Takes this line out of what comes.
    pub(super) fn expect(&mut self, line: Vec<u8>) {
        self.herald = Some(Herald::new(line));
    }

    /// Whether the line has come.
    pub(super) fn announced(&self) -> bool {
        self.herald.as_ref().is_some_and(Herald::heard)
    }

    /// No more will come.
    pub(super) fn finish(&mut self) {
        if let Some(herald) = &mut self.herald {
            let rest = herald.rest();
            // A few bytes: that they are one too many is of no interest at the end.
            self.keep(&rest).ok();
        }
    }

    /// What comes from now on goes elsewhere; what there is stays.
    pub(super) fn redirect(&mut self, sink: Sink) {
        self.sink = sink;
    }

    /// Takes bytes in. An overrun leaves what had been taken.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Overrun> {
        match &mut self.herald {
            None => self.keep(bytes),
            Some(herald) => {
                let passed = herald.pass(bytes);
                self.keep(&passed)
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Overrun> {
        let most = match self.sink {
            Sink::Discard => return Ok(()),
            Sink::Collect(most) | Sink::Read(Some(most)) => most,
            Sink::Read(None) => usize::MAX,
        };
        if bytes.len() > most - self.bytes.len().min(most) {
            self.overrun = true;
            return Err(Overrun(most));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes nothing more in and forgets what there is.
    pub(super) fn forget(&mut self) {
        self.redirect(Sink::Discard);
        self.bytes = BytesMut::new();
    }

    pub(super) fn overran(&self) -> bool {
        self.overrun
    }

    /// Bytes that hold the peer back.
    pub(super) fn backlog(&self) -> usize {
        match self.sink {
            Sink::Read(None) => self.bytes.len(),
            _ => 0,
        }
    }

    /// Everything that has been taken in and not been read.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).into()
    }

    /// Moves bytes to a reader, if there are any.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let count = buf.remaining().min(self.bytes.len());
        buf.put_slice(self.bytes.get(..count).unwrap_or_default());
        self.bytes.advance(count);
        if self.bytes.is_empty() {
            // An idle stream keeps no buffer.
            self.bytes = BytesMut::new();
        }
        true
    }

    /// Wakes this reader at the next change.
    pub(super) fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn take_reader(&mut self) -> Option<Waker> {
        self.reader.take()
    }
}
