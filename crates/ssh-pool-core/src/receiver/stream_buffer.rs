//! What becomes of the bytes of one stream.

use std::io;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::tag_filter::{TagLine, TagLineFilter};
use crate::buffered::{BufferReservation, CountedBytes};
use crate::error::Cause;

/// Bytes kept for a stream that has not been taken over: a server may speak first.
const EARLY: usize = 4 << 20;

impl Sink {
    /// Of a stream that has not been taken over.
    pub(super) const EARLY: Self = Self::Collect(EARLY);
}

/// Where the bytes of a stream go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Nowhere.
    Discard,
    /// Into memory, for one look at the end. More than this many bytes are an overflow.
    Collect(usize),
    /// The same for what the pool itself has asked for: kept whatever the pool's limit is.
    Keep(usize),
    /// To a reader. More than this many unread bytes are an overflow; `None` holds the peer back
    /// instead.
    Read(Option<usize>),
}

/// More bytes came than may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BufferOverflow {
    /// Of this stream.
    Stream,
    /// Of all streams of the pool: its limit.
    Pool(usize),
}

impl BufferOverflow {
    /// The limit that was reached. The stream's own is known to who set it.
    pub(crate) fn limit(self, own: usize) -> usize {
        match self {
            BufferOverflow::Stream => own,
            BufferOverflow::Pool(limit) => limit,
        }
    }
}

/// Why a stream ended before its end.
#[derive(Debug, Clone)]
pub(crate) enum StreamError {
    /// Its reader was too slow for a shared connection.
    Overflow(BufferOverflow),
    /// The connection went away.
    Lost(Cause),
}

impl StreamError {
    pub(crate) fn kind(&self) -> io::ErrorKind {
        match self {
            StreamError::Overflow(_) => io::ErrorKind::QuotaExceeded,
            StreamError::Lost(_) => io::ErrorKind::ConnectionReset,
        }
    }
}

#[derive(Debug)]
pub(super) struct StreamBuffer {
    sink: Sink,
    /// The pool counts what is kept here.
    bytes: CountedBytes,
    reader: Option<Waker>,
    /// What has been taken in is all.
    left: bool,
    overflow: Option<BufferOverflow>,
    /// The tag of the command is not for the reader. `None`: it has come, or is not expected.
    tag_filter: Option<TagLineFilter>,
    heard: bool,
}

impl Default for StreamBuffer {
    fn default() -> Self {
        Self::new(BufferReservation::default())
    }
}

impl StreamBuffer {
    pub(super) fn new(reservation: BufferReservation) -> Self {
        Self {
            sink: Sink::EARLY,
            bytes: CountedBytes::new(reservation),
            reader: None,
            left: false,
            overflow: None,
            tag_filter: None,
            heard: false,
        }
    }

    /// Resets the buffer for a new command.
    pub(super) fn restart(&mut self, sink: Sink) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self {
            sink,
            bytes,
            ..Self::default()
        };
    }

    /// Takes the tag that begins like this out of what comes.
    pub(super) fn expect(&mut self, line: Vec<u8>) {
        self.tag_filter = Some(TagLineFilter::new(line));
    }

    /// The tag has come on the other stream. What was held back for it is kept.
    pub(super) fn expect_no_more(&mut self) -> Result<(), BufferOverflow> {
        match self.tag_filter.take() {
            Some(mut tag_filter) => self.keep(&tag_filter.rest()),
            None => Ok(()),
        }
    }

    /// Whether the tag has come here.
    pub(super) fn tag_seen(&self) -> bool {
        self.heard
    }

    /// The first bytes that have come in the place of the tag.
    pub(super) fn before_tag(&self) -> Option<&[u8]> {
        self.tag_filter.as_ref().map(TagLineFilter::before)
    }

    /// No more will come.
    pub(super) fn finish(&mut self) {
        if let Some(tag_filter) = &mut self.tag_filter
            && self.sink != Sink::Discard
        {
            let rest = tag_filter.rest();
            // A few bytes: that they are one too many is of no interest at the end, and without
            // them the output would not be whole.
            self.bytes.extend_anyway(&rest);
        }
    }

    /// What comes from now on goes elsewhere; what there is stays.
    pub(super) fn redirect(&mut self, sink: Sink) {
        self.sink = sink;
        if matches!(sink, Sink::Read(_)) {
            self.bytes.join();
        }
    }

    /// Takes bytes in, and says if the tag was among them. An overflow leaves what had been taken.
    pub(super) fn push(&mut self, bytes: &[u8]) -> (Result<(), BufferOverflow>, Option<TagLine>) {
        let Some(tag_filter) = &mut self.tag_filter else {
            return (self.keep(bytes), None);
        };
        let (passed, heard) = tag_filter.pass(bytes);
        if heard.is_some() {
            self.heard = true;
            self.tag_filter = None;
        }
        (self.keep(&passed), heard)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), BufferOverflow> {
        if self.sink == Sink::Discard {
            return Ok(());
        }
        let most = self.most();
        let own = bytes.len() > most - self.bytes.len().min(most);
        let fits = match self.sink {
            _ if own => Err(BufferOverflow::Stream),
            Sink::Keep(_) => {
                self.bytes.extend_anyway(bytes);
                Ok(())
            }
            Sink::Collect(_) => self.bytes.gather(bytes).map_err(BufferOverflow::Pool),
            Sink::Discard | Sink::Read(_) => self.bytes.extend(bytes).map_err(BufferOverflow::Pool),
        };
        if let Err(overflow) = fits {
            self.overflow = Some(overflow);
        }
        fits
    }

    /// The cap of this stream.
    pub(super) fn most(&self) -> usize {
        match self.sink {
            Sink::Collect(most) | Sink::Keep(most) | Sink::Read(Some(most)) => most,
            Sink::Discard | Sink::Read(None) => usize::MAX,
        }
    }

    /// Takes nothing more in and forgets what there is.
    pub(super) fn forget(&mut self) {
        self.redirect(Sink::Discard);
        self.bytes.clear();
    }

    /// Takes nothing more in. A reader may still read what there is; what was collected is discarded,
    /// because a part of it is not needed.
    pub(super) fn stop(&mut self) {
        match self.sink {
            Sink::Collect(_) | Sink::Keep(_) => self.forget(),
            Sink::Discard | Sink::Read(_) => self.redirect(Sink::Discard),
        }
    }

    /// The same, and a reader need not wait for the end of the channel. Returns who does.
    pub(super) fn leave(&mut self) -> Option<Waker> {
        self.stop();
        self.left = true;
        self.take_reader()
    }

    pub(super) fn is_left(&self) -> bool {
        self.left
    }

    pub(super) fn overflow(&self) -> Option<BufferOverflow> {
        self.overflow
    }

    /// Bytes that hold the peer back.
    pub(super) fn backlog(&self) -> usize {
        match self.sink {
            Sink::Read(None) => self.bytes.len(),
            _ => 0,
        }
    }

    /// Whether this stream may keep less than usual before it holds the peer back.
    pub(super) fn is_short(&self) -> bool {
        self.bytes.reservation().is_short()
    }

    /// For those who keep what they read, and can be refused.
    pub(super) fn another_buffer(&self) -> CountedBytes {
        CountedBytes::new(self.bytes.reservation().another())
    }

    /// Everything that has been taken in and not been read.
    pub(super) fn take(&mut self) -> CountedBytes {
        self.bytes.split_off()
    }

    /// Moves bytes to a reader, if there are any.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let count = buf.remaining().min(self.bytes.len());
        buf.put_slice(self.bytes.unread().get(..count).unwrap_or_default());
        self.bytes.advance(count);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::buffered::Buffered;

    #[test]
    fn what_was_held_back_to_the_end_is_never_too_much() {
        let pool = Arc::new(Buffered::new(6));
        for most in [6, 100] {
            let mut stream_buffer = StreamBuffer::new(BufferReservation::new(Some(pool.clone())));
            stream_buffer.restart(Sink::Collect(most));
            stream_buffer.expect(b"MARK".to_vec());
            assert_eq!(stream_buffer.push(b"fifth MAR"), (Ok(()), None));
            stream_buffer.finish();
            assert_eq!(stream_buffer.overflow(), None, "at most {most}");
            assert_eq!(stream_buffer.take().unread(), b"fifth MAR");
            assert_eq!(pool.bytes(), 0);
        }
    }

    #[test]
    fn what_the_pool_has_asked_for_is_kept_however_full_it_is() {
        let pool = Arc::new(Buffered::new(6));
        let mut stream_buffer = StreamBuffer::new(BufferReservation::new(Some(pool.clone())));
        stream_buffer.restart(Sink::Keep(10));
        assert_eq!(stream_buffer.push(b"0123456789").0, Ok(()));
        assert_eq!(stream_buffer.push(b"a").0, Err(BufferOverflow::Stream));
        assert_eq!(stream_buffer.take().unread(), b"0123456789");
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn what_is_discarded_is_not_kept_at_the_end_either() {
        let mut stream_buffer = StreamBuffer::default();
        stream_buffer.restart(Sink::Collect(2));
        stream_buffer.expect(b"MARK".to_vec());
        assert_eq!(
            stream_buffer.push(b"too much MAR"),
            (Err(BufferOverflow::Stream), None)
        );
        stream_buffer.stop();
        stream_buffer.finish();
        assert_eq!(stream_buffer.overflow(), Some(BufferOverflow::Stream));
        assert_eq!(stream_buffer.take().unread(), b"");
    }
}
