//! What the peer has sent on one session channel.
//!
//! The transport pushes into the inbox from inside its session loop and never waits: bytes go
//! straight into a buffer with a cap, or are thrown away once nobody wants them. So a command
//! that is not polled, or is dropped, cannot hold up its neighbours on the same connection.

use std::any::Any;
use std::fmt;
use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::error::{Cause, Stream};
use crate::output::ExitStatus;
use crate::sync::{Mutex, MutexGuard};

/// After a command was abandoned, this many bytes of its output are thrown away before its
/// channel is closed from this end, which stops the writer.
const DISCARD_LIMIT: u64 = 16 << 20;

/// How a channel ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The peer's CLOSE has been seen.
    Closed,
    /// We closed it first; the peer's CLOSE will not be seen.
    ClosedHere,
    /// The connection went away.
    Lost(Cause),
}

/// What the transport does after it has delivered something.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Nothing.
    Continue,
    /// Close the channel, and report [`Inbox::end`] with [`End::ClosedHere`].
    Close,
}

/// Everything a finished channel has to say.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// Whether the exec request went out before the channel ended.
    pub(crate) sent: bool,
    pub(crate) accepted: Option<bool>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) eof: bool,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) overrun: Option<Stream>,
    pub(crate) end: End,
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
    accepted: Option<bool>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Bytes kept of each stream; `None` throws them away as they come.
    cap: Option<usize>,
    abandoned: bool,
    discarded: u64,
    eof: bool,
    exit: Option<ExitStatus>,
    overrun: Option<Stream>,
    end: Option<End>,
    hook: Option<Hook>,
    /// Whoever owns the channel's slot: let go when the channel has ended, not when the command's
    /// future happens to be polled.
    tenant: Option<Box<dyn Any + Send>>,
}

/// The receiving end of one session channel.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// The channel has ended, or the fate of its exec request is known.
    news: Notify,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; a poisoned inbox still holds true data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ── for the transport ────────────────────────────────────────────────────────────────────

    /// Bytes have arrived.
    pub(crate) fn data(&self, stream: Stream, bytes: &[u8]) -> Flow {
        let mut state = self.state();
        if state.end.is_some() || state.overrun.is_some() {
            return Flow::Continue;
        }
        if state.abandoned || !state.started {
            let before = state.discarded;
            state.discarded += bytes.len() as u64;
            let crossed = before <= DISCARD_LIMIT && state.discarded > DISCARD_LIMIT;
            return if crossed { Flow::Close } else { Flow::Continue };
        }
        let Some(cap) = state.cap else {
            return Flow::Continue;
        };
        let buffer = match stream {
            Stream::Stdout => &mut state.stdout,
            Stream::Stderr => &mut state.stderr,
        };
        if bytes.len() > cap - buffer.len().min(cap) {
            state.overrun = Some(stream);
            return Flow::Close;
        }
        buffer.extend_from_slice(bytes);
        Flow::Continue
    }

    /// The transport's queue has come to the exec request. On a channel that has ended by then it
    /// is not sent.
    pub(crate) fn exec_due(&self, round: u32) {
        {
            let mut state = self.state();
            if state.sent.is_some() || state.round != round {
                return;
            }
            state.sent = Some(state.end.is_none());
        }
        self.news.notify_one();
    }

    /// The exec request has been answered. A refused one leaves the channel open on the server.
    pub(crate) fn reply(&self, accepted: bool) -> Flow {
        let mut state = self.state();
        if !state.started || state.accepted.is_some() {
            return Flow::Continue;
        }
        state.accepted = Some(accepted);
        if accepted {
            Flow::Continue
        } else {
            Flow::Close
        }
    }

    /// The command has ended, or was ended by a signal.
    pub(crate) fn exit(&self, status: ExitStatus) {
        self.state().exit = Some(status);
    }

    /// No more data will come.
    pub(crate) fn eof(&self) {
        self.state().eof = true;
    }

    /// The channel has ended. Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        let (hook, tenant) = {
            let mut state = self.state();
            if state.end.is_some() {
                return;
            }
            state.end = Some(end.clone());
            if state.abandoned {
                state.stdout = Vec::new();
                state.stderr = Vec::new();
            }
            (state.hook.take(), state.tenant.take())
        };
        if let Some(hook) = hook {
            hook(&end);
        }
        drop(tenant);
        self.news.notify_one();
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

    // ── for the command ──────────────────────────────────────────────────────────────────────

    /// The channel is about to be used: keep up to `cap` bytes of each stream, and the `tenant`
    /// until the channel has ended. An ended channel gives the tenant back.
    pub(crate) fn begin<T: Send + 'static>(&self, cap: Option<usize>, tenant: T) -> Result<(), T> {
        let mut state = self.state();
        if state.end.is_some() {
            drop(state);
            return Err(tenant);
        }
        state.started = true;
        state.cap = cap;
        state.tenant = Some(Box::new(tenant));
        Ok(())
    }

    /// For [`exec_due`](Inbox::exec_due): which exec request is meant.
    pub(crate) fn round(&self) -> u32 {
        self.state().round
    }

    /// Whether the server has said nothing about the command.
    pub(crate) fn is_unanswered(&self) -> bool {
        let state = self.state();
        state.accepted.is_none() && state.exit.is_none()
    }

    /// The command line was never sent: the channel is as good as new, and its tenant goes free.
    pub(crate) fn take_back(&self) {
        let tenant = {
            let mut state = self.state();
            state.started = false;
            state.round += 1;
            state.sent = None;
            state.tenant.take()
        };
        drop(tenant);
    }

    /// Whether the channel can never be used again.
    pub(crate) fn is_spent(&self) -> bool {
        let state = self.state();
        state.started || state.end.is_some()
    }

    /// Nobody wants the output any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        state.stdout = Vec::new();
        state.stderr = Vec::new();
    }

    /// Waits until the channel has ended.
    ///
    /// Cancel safe: nothing is taken before it returns. One waiter at a time.
    pub(crate) async fn ended(&self) {
        self.until(|state| state.end.is_some()).await;
    }

    /// Waits until it is known whether the exec request went out. The transport's queue comes to
    /// it, or is dropped with its connection. Cancel safe.
    pub(crate) async fn exec_settled(&self) {
        self.until(|state| state.sent.is_some()).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        while !reached(&self.state()) {
            self.news.notified().await;
        }
        // Whoever waits next must not need a second notification.
        self.news.notify_one();
    }

    /// Takes what has been collected, once the channel has ended.
    pub(crate) fn transcript(&self) -> Option<Transcript> {
        let mut state = self.state();
        let end = state.end.clone()?;
        Some(Transcript {
            sent: state.sent == Some(true),
            accepted: state.accepted,
            stdout: std::mem::take(&mut state.stdout),
            stderr: std::mem::take(&mut state.stderr),
            eof: state.eof,
            exit: state.exit.clone(),
            overrun: state.overrun,
            end,
        })
    }
}

#[cfg(all(test, feature = "model"))]
#[path = "inbox_model.rs"]
mod model;
