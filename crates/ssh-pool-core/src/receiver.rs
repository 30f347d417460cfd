//! What the peer has sent on one channel.
//!
//! The transport pushes into the receiver from inside its session loop and never waits: bytes go
//! straight into a buffer with a cap, or are discarded once they are not needed. So a reader that
//! does not read, or a command that is dropped, cannot hold up its neighbours on the same
//! connection. On a connection without neighbours the receiver has a [`ReadGate`], and a reader
//! that does not read holds up the peer.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;
use tokio::sync::Notify;

use crate::buffered::{BufferReservation, Buffered, CountedBytes};
use crate::error::{Cause, Stream};
use crate::event::{EventKind, EventScope};
use crate::login_shell::LoginShell;
use crate::output::ExitStatus;
use crate::read_gate::ReadGate;
use crate::sync::{Mutex, MutexGuard};

mod events;
mod notifications;
mod stream_buffer;
mod tag;
mod tag_filter;

use notifications::ChannelNotify;
use stream_buffer::StreamBuffer;
pub(crate) use stream_buffer::{BufferOverflow, Sink, StreamError};

/// At this many unread bytes the read gate is shut, and with half as many it is opened again.
const BACKLOG: usize = 1 << 20;

/// The same while such streams have their share of `Limits::buffered_bytes`: what a pipe holds on
/// Linux (pipe(7)).
const SHORT_BACKLOG: usize = 64 << 10;

/// How a channel ended.
#[derive(Debug, Clone)]
pub(crate) enum ChannelEnd {
    /// The peer's CLOSE has been seen.
    Closed,
    /// We closed it first; the peer's CLOSE will not be seen.
    ClosedHere {
        /// The server has nothing left to do for it and lets go at once: its command has ended,
        /// or never began.
        settled: bool,
    },
    /// The connection went away.
    Lost(Cause),
}

/// What the transport does after it has delivered something.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyAction {
    /// Nothing.
    Continue,
    /// Close the channel, and call [`ChannelReceiver::end_here`].
    Close,
}

/// What a channel has had to say so far.
#[derive(Debug)]
pub(crate) struct ChannelOutcome {
    /// Whether the request went out before the channel ended.
    pub(crate) sent: bool,
    pub(crate) accepted: Option<bool>,
    pub(crate) eof: bool,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) overflow: Option<(Stream, BufferOverflow)>,
    pub(crate) end: Option<ChannelEnd>,
}

/// Called once when the channel has ended, outside every lock.
type EndHook = Box<dyn FnOnce(&ChannelEnd) + Send>;

#[derive(Default)]
struct ReceiverState {
    started: bool,
    /// Counts how often the channel has been begun: a command may be taken back.
    round: u32,
    /// Whether the exec request went out; unknown while it is in the transport's queue.
    sent: Option<bool>,
    /// Answers that come before that to the exec request. Replies carry no number (RFC 4254,
    /// section 5.4): they come in the order of the requests.
    expected: usize,
    answers: Vec<bool>,
    accepted: Option<bool>,
    stdout: StreamBuffer,
    stderr: StreamBuffer,
    /// The command has to prove that it runs, and says with its tag what its login shell is.
    tag_for: Option<Arc<LoginShell>>,
    /// The read gate is shut because of this channel.
    holding: bool,
    eof: bool,
    exit: Option<ExitStatus>,
    cancelled: bool,
    end: Option<ChannelEnd>,
    /// The pool knows of the end.
    reported: bool,
    hook: Option<EndHook>,
    /// Reports the events of this channel.
    event_scope: Option<EventScope>,
    /// It has been told that the command may go on.
    leaked: bool,
    writer: Option<Waker>,
    /// The owner of the channel's slot: dropped when the channel has ended, not when the command's
    /// future happens to be polled.
    owner: Option<Box<dyn Any + Send>>,
}

impl ReceiverState {
    fn stream_buffer(&mut self, stream: Stream) -> &mut StreamBuffer {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn overflow(&self) -> Option<(Stream, BufferOverflow)> {
        let of = |stream, stream_buffer: &StreamBuffer| Some((stream, stream_buffer.overflow()?));
        of(Stream::Stdout, &self.stdout).or_else(|| of(Stream::Stderr, &self.stderr))
    }

    fn settled(&self) -> bool {
        self.exit.is_some() || self.sent.is_none() || self.accepted == Some(false)
    }

    /// Whether the request has been answered, or never will be.
    fn answered(&self) -> bool {
        self.reported || self.accepted.is_some()
    }

    /// Those who wait for anything of this channel but its data.
    fn wakers(&mut self) -> [Option<Waker>; 3] {
        [
            self.stdout.take_reader(),
            self.stderr.take_reader(),
            self.writer.take(),
        ]
    }
}

/// The receiving end of one channel.
#[derive(Default)]
pub(crate) struct ChannelReceiver {
    state: Mutex<ReceiverState>,
    notify: ChannelNotify,
    /// Of a connection without neighbours.
    read_gate: Option<Arc<ReadGate>>,
}

impl fmt::Debug for ChannelReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelReceiver")
            .field("ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

impl ChannelReceiver {
    pub(crate) fn new(read_gate: Option<Arc<ReadGate>>, buffered: Option<Arc<Buffered>>) -> Self {
        let reservation = match read_gate {
            Some(_) => BufferReservation::holding_back,
            None => BufferReservation::new,
        };
        let state = ReceiverState {
            stdout: StreamBuffer::new(reservation(buffered.clone())),
            stderr: StreamBuffer::new(reservation(buffered)),
            ..ReceiverState::default()
        };
        Self {
            state: Mutex::new(state),
            notify: ChannelNotify::default(),
            read_gate,
        }
    }

    fn state(&self) -> MutexGuard<'_, ReceiverState> {
        // Nothing panics while the lock is held; a poisoned receiver still holds true data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backlog has changed.
    fn update_read_gate(&self, state: &mut ReceiverState) {
        let Some(read_gate) = &self.read_gate else {
            return;
        };
        let backlog = state.stdout.backlog() + state.stderr.backlog();
        let most = match state.stdout.is_short() {
            true => SHORT_BACKLOG,
            false => BACKLOG,
        };
        if !state.holding && backlog >= most && state.end.is_none() {
            state.holding = true;
            read_gate.hold();
        } else if state.holding && (backlog <= most / 2 || state.end.is_some()) {
            state.holding = false;
            read_gate.release();
        }
    }

    // ── for the transport ────────────────────────────────────────────────────────────────────

    /// Bytes have arrived.
    pub(crate) fn data(&self, stream: Stream, bytes: &[u8]) {
        let (reader, overflow, most, event_scope, tag_seen) = {
            let mut state = self.state();
            if state.end.is_some() {
                return;
            }
            let stream_buffer = state.stream_buffer(stream);
            let most = stream_buffer.most();
            let (pushed, heard) = stream_buffer.push(bytes);
            let reader = stream_buffer.take_reader();
            let reported = heard.map_or(Ok(()), |heard| state.tag_received(stream, heard));
            let (tag_seen, overflow) = (heard.is_some(), pushed.and(reported).err());
            let mut event_scope = None;
            if overflow.is_some() {
                state.stdout.stop();
                state.stderr.stop();
                event_scope = state.event_scope.clone().filter(|_| state.started);
            }
            self.update_read_gate(&mut state);
            (reader, overflow, most, event_scope, tag_seen)
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        if overflow.is_some() {
            self.notify.end.notify_waiters();
        }
        if tag_seen {
            self.notify.step.notify_waiters();
        }
        if let (Some(event_scope), Some(overflow)) = (event_scope, overflow) {
            let limit = overflow.limit(most);
            event_scope.report(EventKind::Overrun { stream, limit });
        }
    }

    /// The transport's queue has come to the exec request. On a channel that has ended by then it
    /// is not sent.
    pub(crate) fn exec_dequeued(&self, round: u32) {
        {
            let mut state = self.state();
            if state.sent.is_none() && state.round == round {
                state.sent = Some(state.end.is_none());
            }
        }
        self.notify.step.notify_waiters();
    }

    /// A request has been answered. A refused exec leaves the channel open on the server.
    pub(crate) fn reply(&self, accepted: bool) -> ReplyAction {
        let flow = {
            let mut state = self.state();
            if state.answers.len() < state.expected {
                state.answers.push(accepted);
                ReplyAction::Continue
            } else if !state.started || state.accepted.is_some() {
                ReplyAction::Continue
            } else {
                state.accepted = Some(accepted);
                match accepted {
                    true => ReplyAction::Continue,
                    false => ReplyAction::Close,
                }
            }
        };
        self.notify.step.notify_waiters();
        flow
    }

    /// The command has ended, or was ended by a signal.
    pub(crate) fn exit(&self, status: ExitStatus) {
        self.state().exit = Some(status);
        self.notify.exit.notify_waiters();
        self.notify.step.notify_waiters();
    }

    /// No more data will come.
    pub(crate) fn eof(&self) {
        let wakers = {
            let mut state = self.state();
            state.eof = true;
            state.stdout.finish();
            state.stderr.finish();
            state.wakers()
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// The channel has ended. Only the first end counts.
    pub(crate) fn end(&self, end: ChannelEnd) {
        self.end_with(|_| end);
    }

    /// We have closed the channel.
    pub(crate) fn end_here(&self) {
        self.end_with(|state| ChannelEnd::ClosedHere {
            settled: state.settled(),
        });
    }

    fn end_with(&self, end: impl FnOnce(&ReceiverState) -> ChannelEnd) {
        let (end, hook, owner) = {
            let mut state = self.state();
            if state.end.is_some() {
                return;
            }
            let end = end(&state);
            state.end = Some(end.clone());
            state.stdout.finish();
            state.stderr.finish();
            self.update_read_gate(&mut state);
            (end, state.hook.take(), state.owner.take())
        };
        // The pool first: a task that is woken by this end may want the slot that it frees.
        if let Some(hook) = hook {
            hook(&end);
        }
        drop(owner);
        let wakers = {
            let mut state = self.state();
            state.reported = true;
            state.wakers()
        };
        self.notify.all();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    // ── for the pool ─────────────────────────────────────────────────────────────────────────

    /// Calls `hook` when the channel has ended: now, if it has already.
    pub(crate) fn on_end(&self, hook: impl FnOnce(&ChannelEnd) + Send + 'static) {
        let mut state = self.state();
        match state.end.clone() {
            Some(end) => {
                drop(state);
                hook(&end);
            }
            None => state.hook = Some(Box::new(hook)),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    /// Whether the channel can never be used again.
    pub(crate) fn is_spent(&self) -> bool {
        let state = self.state();
        state.started || state.end.is_some()
    }

    // ── for the command ──────────────────────────────────────────────────────────────────────

    /// The channel is about to be used: says where its bytes go, and keeps the `owner` until the
    /// channel has ended. An ended channel gives the owner back.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        stdout: Sink,
        stderr: Sink,
        owner: T,
    ) -> Result<(), T> {
        let mut state = self.state();
        if state.end.is_some() {
            drop(state);
            return Err(owner);
        }
        state.started = true;
        state.stdout.restart(stdout);
        state.stderr.restart(stderr);
        state.owner = Some(Box::new(owner));
        Ok(())
    }

    /// The channel is a stream: its bytes go to a reader, those that have already come too.
    pub(crate) fn attach(&self, sink: Sink) {
        let mut state = self.state();
        state.started = true;
        state.stdout.redirect(sink);
        state.stderr.redirect(Sink::Discard);
        self.update_read_gate(&mut state);
    }

    /// For [`exec_dequeued`](ChannelReceiver::exec_dequeued): which exec request is meant.
    pub(crate) fn round(&self) -> u32 {
        self.state().round
    }

    /// The next `count` replies do not answer the exec request.
    pub(crate) fn expect(&self, count: usize) {
        let mut state = self.state();
        state.expected = count;
        state.answers.clear();
    }

    /// Waits for the replies that were expected. Fewer of them: the channel has ended.
    pub(crate) async fn answers(&self) -> Vec<bool> {
        let answered =
            |state: &ReceiverState| state.answers.len() >= state.expected || state.end.is_some();
        self.until(&self.notify.step, answered).await;
        self.state().answers.clone()
    }

    /// The command line was never sent: the channel is as good as new, and its owner goes free.
    pub(crate) fn reset(&self) {
        let owner = {
            let mut state = self.state();
            state.started = false;
            state.round += 1;
            state.sent = None;
            state.tag_for = None;
            state.stdout.restart(Sink::EARLY);
            state.stderr.restart(Sink::EARLY);
            state.owner.take()
        };
        drop(owner);
    }

    /// What is still to come is discarded. The peer is not held back any more.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stdout.stop();
        state.stderr.stop();
        self.update_read_gate(&mut state);
    }

    /// The command has ended by itself, and output of the processes that it has left behind is not
    /// waited for: a reader comes to the end of what there is.
    pub(crate) fn leave(&self, stream: Stream) {
        let reader = {
            let mut state = self.state();
            let reader = state.stream_buffer(stream).leave();
            self.update_read_gate(&mut state);
            reader
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The command is being ended, and what is still to come is discarded.
    pub(crate) fn cancel(&self) {
        self.state().cancelled = true;
        self.stop();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// The command has ended by itself, and others still hold its output open.
    pub(crate) fn lingers(&self) -> bool {
        let state = self.state();
        state.exit.is_some() && state.end.is_none() && !state.cancelled
    }

    /// This stream is discarded from now on.
    pub(crate) fn forget(&self, stream: Stream) {
        let mut state = self.state();
        state.stream_buffer(stream).forget();
        self.update_read_gate(&mut state);
    }

    /// Waits until the channel has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.until(&self.notify.end, |state| state.reported).await;
    }

    /// Waits until the command has ended and its output is complete, or too long; or the channel
    /// has ended without either. Cancel safe.
    pub(crate) async fn finished(&self) {
        let finished = |state: &ReceiverState| state.reported || state.overflow().is_some();
        self.until(&self.notify.end, finished).await;
    }

    /// Waits until the command's status is known, or never will be. Cancel safe.
    pub(crate) async fn exited(&self) {
        let exited = |state: &ReceiverState| state.reported || state.exit.is_some();
        self.until(&self.notify.exit, exited).await;
    }

    /// Waits until the request has been answered, or never will be. Cancel safe.
    pub(crate) async fn answered(&self) {
        self.until(&self.notify.step, ReceiverState::answered).await;
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.state().answered()
    }

    /// Waits until it is known whether the exec request went out. The transport's queue comes to
    /// it, or is dropped with its connection. Cancel safe.
    pub(crate) async fn exec_settled(&self) {
        let settled = |state: &ReceiverState| {
            state.sent.is_some() || state.accepted.is_some() || state.exit.is_some()
        };
        self.until(&self.notify.step, settled).await;
    }

    async fn until(&self, notify: &Notify, reached: impl Fn(&ReceiverState) -> bool) {
        loop {
            let notify = notify.notified();
            tokio::pin!(notify);
            notify.as_mut().enable();
            if reached(&self.state()) {
                return;
            }
            notify.await;
        }
    }

    /// Reads from a stream: bytes, then its end, or why it was cut off.
    pub(crate) fn poll_read(
        &self,
        stream: Stream,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let mut state = self.state();
        if state.stream_buffer(stream).read(buf) {
            self.update_read_gate(&mut state);
            return Poll::Ready(Ok(()));
        }
        if let Some(overflow) = state.stream_buffer(stream).overflow() {
            return Poll::Ready(Err(StreamError::Overflow(overflow)));
        }
        let left = state.stream_buffer(stream).is_left();
        match &state.end {
            Some(ChannelEnd::Lost(cause)) if !state.eof => {
                Poll::Ready(Err(StreamError::Lost(cause.clone())))
            }
            Some(_) => Poll::Ready(Ok(())),
            None if state.eof || left => Poll::Ready(Ok(())),
            None => state.stream_buffer(stream).wait(cx),
        }
    }

    /// Ready when the channel has ended and takes no more writing; else wakes the writer then.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.end.is_some() {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What is known so far.
    pub(crate) fn outcome(&self) -> ChannelOutcome {
        let state = self.state();
        ChannelOutcome {
            sent: state.sent == Some(true),
            accepted: state.accepted,
            eof: state.eof,
            exit: state.exit.clone(),
            overflow: state.overflow(),
            end: state.end.clone(),
        }
    }

    /// An empty buffer that the pool counts, for what is read from here and kept.
    pub(crate) fn counted_bytes(&self) -> CountedBytes {
        self.state().stdout.another_buffer()
    }

    /// Takes what has come of a stream and has not been read.
    pub(crate) fn rest(&self, stream: Stream) -> CountedBytes {
        self.state().stream_buffer(stream).take()
    }

    /// The same of stdout and stderr, whole once that is awaited. `None`: the runtime has ended.
    pub(crate) fn collected(&self) -> impl Future<Output = Option<(Vec<u8>, Vec<u8>)>> + use<> {
        let (stdout, stderr) = (self.rest(Stream::Stdout), self.rest(Stream::Stderr));
        stdout.into_vecs(stderr)
    }
}

#[cfg(all(test, feature = "model"))]
#[path = "receiver_model.rs"]
mod model;
