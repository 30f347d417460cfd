//! What the peer has sent on one channel.
//!
//! The transport pushes into the inbox from inside its session loop and never waits: bytes go
//! straight into a buffer with a cap, or are thrown away once nobody wants them. So a reader that
//! does not read, or a command that is dropped, cannot hold up its neighbours on the same
//! connection. On a connection without neighbours the inbox has a [`Valve`], and a reader that does
//! not read holds up the peer.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;
use tokio::sync::Notify;

use crate::buffered::{Buffered, CountedBytes, Tab};
use crate::error::{Cause, Stream};
use crate::event::{EventKind, Witness};
use crate::login_shell::LoginShell;
use crate::output::ExitStatus;
use crate::sync::{Mutex, MutexGuard};
use crate::valve::Valve;

mod herald;
mod intake;
mod news;
mod proof;
mod witness;

use intake::Intake;
pub(crate) use intake::{Cut, Overrun, Sink};
use news::News;

/// With so many unread bytes the valve is shut, and with half as many it is opened again.
const BACKLOG: usize = 1 << 20;

/// The same while such streams have their share of `Limits::buffered_bytes`: what a pipe holds on
/// Linux (pipe(7)).
const SHORT_BACKLOG: usize = 64 << 10;

/// How a channel ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
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
pub(crate) enum Flow {
    /// Nothing.
    Continue,
    /// Close the channel, and call [`Inbox::end_here`].
    Close,
}

/// What a channel has had to say so far.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// Whether the request went out before the channel ended.
    pub(crate) sent: bool,
    pub(crate) accepted: Option<bool>,
    pub(crate) eof: bool,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) overrun: Option<(Stream, Overrun)>,
    pub(crate) end: Option<End>,
}

/// Called once when the channel has ended, outside every lock.
type Hook = Box<dyn FnOnce(&End) + Send>;

#[derive(Default)]
struct State {
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
    stdout: Intake,
    stderr: Intake,
    /// The command has to prove that it runs, and says with its tag what its login shell is.
    tag_for: Option<Arc<LoginShell>>,
    /// The valve is shut because of this channel.
    holding: bool,
    eof: bool,
    exit: Option<ExitStatus>,
    cancelled: bool,
    end: Option<End>,
    /// The pool knows of the end.
    told: bool,
    hook: Option<Hook>,
    /// Who tells of what happens here.
    witness: Option<Witness>,
    /// It has been told that the command may go on.
    leaked: bool,
    writer: Option<Waker>,
    /// Whoever owns the channel's slot: let go when the channel has ended, not when the command's
    /// future happens to be polled.
    tenant: Option<Box<dyn Any + Send>>,
}

impl State {
    fn intake(&mut self, stream: Stream) -> &mut Intake {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn overrun(&self) -> Option<(Stream, Overrun)> {
        let of = |stream, intake: &Intake| Some((stream, intake.overrun()?));
        of(Stream::Stdout, &self.stdout).or_else(|| of(Stream::Stderr, &self.stderr))
    }

    fn settled(&self) -> bool {
        self.exit.is_some() || self.sent.is_none() || self.accepted == Some(false)
    }

    /// Whether the request has been answered, or never will be.
    fn answered(&self) -> bool {
        self.told || self.accepted.is_some()
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
pub(crate) struct Inbox {
    state: Mutex<State>,
    news: News,
    /// Of a connection without neighbours.
    valve: Option<Arc<Valve>>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

impl Inbox {
    pub(crate) fn new(valve: Option<Arc<Valve>>, buffered: Option<Arc<Buffered>>) -> Self {
        let tab = match valve {
            Some(_) => Tab::holding_back,
            None => Tab::new,
        };
        let state = State {
            stdout: Intake::new(tab(buffered.clone())),
            stderr: Intake::new(tab(buffered)),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            news: News::default(),
            valve,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; a poisoned inbox still holds true data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backlog has changed.
    fn set_valve(&self, state: &mut State) {
        let Some(valve) = &self.valve else { return };
        let backlog = state.stdout.backlog() + state.stderr.backlog();
        let most = match state.stdout.is_short() {
            true => SHORT_BACKLOG,
            false => BACKLOG,
        };
        if !state.holding && backlog >= most && state.end.is_none() {
            state.holding = true;
            valve.hold();
        } else if state.holding && (backlog <= most / 2 || state.end.is_some()) {
            state.holding = false;
            valve.release();
        }
    }

    // ── for the transport ────────────────────────────────────────────────────────────────────

    /// Bytes have arrived.
    pub(crate) fn data(&self, stream: Stream, bytes: &[u8]) {
        let (reader, overrun, most, witness, announced) = {
            let mut state = self.state();
            if state.end.is_some() {
                return;
            }
            let intake = state.intake(stream);
            let most = intake.most();
            let (pushed, heard) = intake.push(bytes);
            let reader = intake.take_reader();
            let told = heard.map_or(Ok(()), |heard| state.hear(stream, heard));
            let (announced, overrun) = (heard.is_some(), pushed.and(told).err());
            let mut witness = None;
            if overrun.is_some() {
                state.stdout.stop();
                state.stderr.stop();
                witness = state.witness.clone().filter(|_| state.started);
            }
            self.set_valve(&mut state);
            (reader, overrun, most, witness, announced)
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        if overrun.is_some() {
            self.news.end.notify_waiters();
        }
        if announced {
            self.news.step.notify_waiters();
        }
        if let (Some(witness), Some(overrun)) = (witness, overrun) {
            let limit = overrun.limit(most);
            witness.report(EventKind::Overrun { stream, limit });
        }
    }

    /// The transport's queue has come to the exec request. On a channel that has ended by then it
    /// is not sent.
    pub(crate) fn exec_due(&self, round: u32) {
        {
            let mut state = self.state();
            if state.sent.is_none() && state.round == round {
                state.sent = Some(state.end.is_none());
            }
        }
        self.news.step.notify_waiters();
    }

    /// A request has been answered. A refused exec leaves the channel open on the server.
    pub(crate) fn reply(&self, accepted: bool) -> Flow {
        let flow = {
            let mut state = self.state();
            if state.answers.len() < state.expected {
                state.answers.push(accepted);
                Flow::Continue
            } else if !state.started || state.accepted.is_some() {
                Flow::Continue
            } else {
                state.accepted = Some(accepted);
                match accepted {
                    true => Flow::Continue,
                    false => Flow::Close,
                }
            }
        };
        self.news.step.notify_waiters();
        flow
    }

    /// The command has ended, or was ended by a signal.
    pub(crate) fn exit(&self, status: ExitStatus) {
        self.state().exit = Some(status);
        self.news.exit.notify_waiters();
        self.news.step.notify_waiters();
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
    pub(crate) fn end(&self, end: End) {
        self.end_with(|_| end);
    }

    /// We have closed the channel.
    pub(crate) fn end_here(&self) {
        self.end_with(|state| End::ClosedHere {
            settled: state.settled(),
        });
    }

    fn end_with(&self, end: impl FnOnce(&State) -> End) {
        let (end, hook, tenant) = {
            let mut state = self.state();
            if state.end.is_some() {
                return;
            }
            let end = end(&state);
            state.end = Some(end.clone());
            state.stdout.finish();
            state.stderr.finish();
            self.set_valve(&mut state);
            (end, state.hook.take(), state.tenant.take())
        };
        // The pool first: whoever is woken by this end may want the slot that it frees.
        if let Some(hook) = hook {
            hook(&end);
        }
        drop(tenant);
        let wakers = {
            let mut state = self.state();
            state.told = true;
            state.wakers()
        };
        self.news.all();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    // ── for the pool ─────────────────────────────────────────────────────────────────────────

    /// Calls `hook` when the channel has ended: now, if it has already.
    pub(crate) fn on_end(&self, hook: impl FnOnce(&End) + Send + 'static) {
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

    /// The channel is about to be used: says where its bytes go, and keeps the `tenant` until the
    /// channel has ended. An ended channel gives the tenant back.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        stdout: Sink,
        stderr: Sink,
        tenant: T,
    ) -> Result<(), T> {
        let mut state = self.state();
        if state.end.is_some() {
            drop(state);
            return Err(tenant);
        }
        state.started = true;
        state.stdout.restart(stdout);
        state.stderr.restart(stderr);
        state.tenant = Some(Box::new(tenant));
        Ok(())
    }

    /// The channel is a stream: its bytes go to a reader, those that have already come too.
    pub(crate) fn adopt(&self, sink: Sink) {
        let mut state = self.state();
        state.started = true;
        state.stdout.redirect(sink);
        state.stderr.redirect(Sink::Discard);
        self.set_valve(&mut state);
    }

    /// For [`exec_due`](Inbox::exec_due): which exec request is meant.
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
        let answered = |state: &State| state.answers.len() >= state.expected || state.end.is_some();
        self.until(&self.news.step, answered).await;
        self.state().answers.clone()
    }

    /// The command line was never sent: the channel is as good as new, and its tenant goes free.
    pub(crate) fn take_back(&self) {
        let tenant = {
            let mut state = self.state();
            state.started = false;
            state.round += 1;
            state.sent = None;
            state.tag_for = None;
            state.stdout.restart(Sink::EARLY);
            state.stderr.restart(Sink::EARLY);
            state.tenant.take()
        };
        drop(tenant);
    }

    /// Nobody wants anything that is still to come. The peer is not held back any more.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stdout.stop();
        state.stderr.stop();
        self.set_valve(&mut state);
    }

    /// The command has ended by itself, and nobody waits for what others still have to say: a reader
    /// comes to the end of what there is.
    pub(crate) fn leave(&self, stream: Stream) {
        let reader = {
            let mut state = self.state();
            let reader = state.intake(stream).leave();
            self.set_valve(&mut state);
            reader
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The command is being ended, and nobody wants what is still to come.
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

    /// Nobody wants this stream any more.
    pub(crate) fn forget(&self, stream: Stream) {
        let mut state = self.state();
        state.intake(stream).forget();
        self.set_valve(&mut state);
    }

    /// Waits until the channel has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.until(&self.news.end, |state| state.told).await;
    }

    /// Waits until the command has ended and its output is complete, or too long; or the channel
    /// has ended without either. Cancel safe.
    pub(crate) async fn finished(&self) {
        let finished = |state: &State| state.told || state.overrun().is_some();
        self.until(&self.news.end, finished).await;
    }

    /// Waits until the command's status is known, or never will be. Cancel safe.
    pub(crate) async fn exited(&self) {
        let exited = |state: &State| state.told || state.exit.is_some();
        self.until(&self.news.exit, exited).await;
    }

    /// Waits until the request has been answered, or never will be. Cancel safe.
    pub(crate) async fn answered(&self) {
        self.until(&self.news.step, State::answered).await;
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.state().answered()
    }

    /// Waits until it is known whether the exec request went out. The transport's queue comes to
    /// it, or is dropped with its connection. Cancel safe.
    pub(crate) async fn exec_settled(&self) {
        let settled = |state: &State| {
            state.sent.is_some() || state.accepted.is_some() || state.exit.is_some()
        };
        self.until(&self.news.step, settled).await;
    }

    async fn until(&self, news: &Notify, reached: impl Fn(&State) -> bool) {
        loop {
            let news = news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if reached(&self.state()) {
                return;
            }
            news.await;
        }
    }

    /// Reads from a stream: bytes, then its end, or why it was cut off.
    pub(crate) fn poll_read(
        &self,
        stream: Stream,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Cut>> {
        let mut state = self.state();
        if state.intake(stream).read(buf) {
            self.set_valve(&mut state);
            return Poll::Ready(Ok(()));
        }
        if let Some(overrun) = state.intake(stream).overrun() {
            return Poll::Ready(Err(Cut::Overrun(overrun)));
        }
        let left = state.intake(stream).is_left();
        match &state.end {
            Some(End::Lost(cause)) if !state.eof => Poll::Ready(Err(Cut::Lost(cause.clone()))),
            Some(_) => Poll::Ready(Ok(())),
            None if state.eof || left => Poll::Ready(Ok(())),
            None => state.intake(stream).wait(cx),
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
    pub(crate) fn transcript(&self) -> Transcript {
        let state = self.state();
        Transcript {
            sent: state.sent == Some(true),
            accepted: state.accepted,
            eof: state.eof,
            exit: state.exit.clone(),
            overrun: state.overrun(),
            end: state.end.clone(),
        }
    }

    /// An empty buffer that the pool counts, for what is read from here and kept.
    pub(crate) fn counted_bytes(&self) -> CountedBytes {
        self.state().stdout.another_buffer()
    }

    /// Takes what has come of a stream and has not been read.
    pub(crate) fn rest(&self, stream: Stream) -> CountedBytes {
        self.state().intake(stream).take()
    }

    /// The same of stdout and stderr, whole once that is awaited. `None`: the runtime has ended.
    pub(crate) fn collected(&self) -> impl Future<Output = Option<(Vec<u8>, Vec<u8>)>> + use<> {
        self.rest(Stream::Stdout)
            .into_vecs(self.rest(Stream::Stderr))
    }
}

#[cfg(all(test, feature = "model"))]
#[path = "inbox_model.rs"]
mod model;
