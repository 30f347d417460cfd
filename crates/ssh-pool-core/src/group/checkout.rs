//! The way to a channel, for those who want one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    Admission, ChannelGuard, ChannelResult, ConnectionGroup, Deadline, DeferredEffects,
    channel_guard, channels,
};
use crate::error::{Cause, CommandState, Error, Phase};
use crate::waited::Waited;

impl ConnectionGroup {
    /// A channel, ready for one command: an idle one, or one opened for this call, on a
    /// connection that may first have to be dialled. What it had to wait for is added to `waited`.
    /// A caller that had to wait keeps its queue permit until `Admission::admitted`.
    ///
    /// Cancel safe: a dropped call loses its place in the queue and nothing else. What was
    /// started for it goes to the next one.
    pub(crate) async fn checkout(
        self: &Arc<Self>,
        admission: &mut Admission,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<ChannelGuard, Error> {
        Ok(self.checkout_before(admission, deadline, waited).await?.0)
    }

    /// [`checkout`](Self::checkout), before what follows from it has begun.
    pub(crate) async fn checkout_before(
        self: &Arc<Self>,
        admission: &mut Admission,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(ChannelGuard, Option<DeferredEffects>), Error> {
        self.admit(admission)?;
        let mut channel = pin!(self.channels.get());
        // What need not wait costs no look at the clock.
        let first = poll_fn(|cx| Poll::Ready(channel.as_mut().poll(cx))).await;
        let mut channel = match first {
            Poll::Ready(channel) => channel?,
            Poll::Pending => {
                self.take_queue_permit(admission)?;
                self.check_ceiling(admission)?;
                let (waiter_id, begun) = self.begin_waiting();
                let channel = channels::with_waiter_id(waiter_id, channel);
                let urgent = (admission.stream_group().cloned())
                    .map(|stream_group| Box::pin(self.urgent_once_open(stream_group)));
                let urgent = async {
                    match urgent {
                        Some(urgent) => urgent.await,
                        None => std::future::pending().await,
                    }
                };
                let channel = async {
                    tokio::select! {
                        biased;
                        channel = channel => channel,
                        never = urgent => match never {},
                    }
                };
                let got = tokio::time::timeout_at(deadline.at.into(), channel).await;
                let opening = got.as_ref().ok().and_then(|got| got.as_ref().ok());
                *waited += self.end_waiting(&begun, opening.map(|channel| channel.opening));
                match got {
                    Ok(channel) => channel?,
                    Err(_) if self.is_unanswered() => {
                        let asked = "the server was asked for a session";
                        return Err(self.unanswered(deadline.after, asked));
                    }
                    Err(_) => return Err(self.timeout_error(deadline.after)),
                }
            }
        };
        let deferred = channel.deferred.take();
        Ok((ChannelGuard::new(self.clone(), channel), deferred))
    }

    /// When the wait for a channel ends: after its own time, or with the whole call.
    pub(crate) fn acquire_deadline(&self, overall: Option<Deadline>) -> Deadline {
        let acquire = Deadline::after(self.timeouts.acquire);
        overall
            .filter(|overall| overall.at < acquire.at)
            .unwrap_or(acquire)
    }

    /// Whether those who wait for a channel do so for the server's answer, and not for others to end.
    fn is_unanswered(&self) -> bool {
        let waiting = self.channels.waiting();
        let state = self.state();
        let (mut opening, mut running, mut unanswered) = (0, 0, false);
        for counts in state
            .host
            .session_counts()
            .filter(|counts| !counts.retiring)
        {
            opening += counts.opening;
            running += counts.in_use;
            unanswered |= counts.unanswered;
        }
        // With a session on its way to each of them, it makes no difference what runs.
        let for_all = usize::try_from(opening).is_ok_and(|opening| opening >= waiting);
        unanswered && (running == 0 || for_all)
    }

    /// A deadline has passed before the server has answered what it was asked for.
    pub(crate) fn unanswered(&self, after: Duration, asked: &'static str) -> Error {
        Error::Timeout {
            target: self.name().into(),
            phase: Phase::Channel,
            after,
            state: CommandState::NotStarted,
            killed: false,
            source: Some(Cause::new(asked)),
        }
    }

    /// A deadline has passed while there was no channel, or no room for a stream.
    pub(super) fn timeout_error(&self, after: Duration) -> Error {
        let state = self.state();
        if let Some(error) = self.without_descriptors(&state) {
            return error;
        }
        let blocked_on_limit = self.blocked_on_limit(&state);
        if blocked_on_limit.is_none()
            && let Some(error) = self.stream_limit(&state, after)
        {
            return error;
        }
        let (phase, source) = match blocked_on_limit {
            Some(blocked_on_limit) => (Phase::Queue, Some(blocked_on_limit)),
            None => {
                let last = self.breaker.last_error();
                let phase = match self.endpoint.phase_cell.phase() {
                    _ if state.host.live() > 0 => Phase::Queue,
                    Some(phase) => phase,
                    // In a pause after a failure.
                    None => last.as_ref().map_or(Phase::Connect, Error::phase),
                };
                let said = || self.endpoint.phase_cell.said().map(Cause::new);
                (phase, last.map(Cause::new).or_else(said))
            }
        };
        Error::Timeout {
            target: self.name().into(),
            phase,
            after,
            state: CommandState::NotStarted,
            killed: false,
            source,
        }
    }

    /// Opens or waits for a channel: what the pool of idle channels does when it has none.
    pub(super) async fn create(self: &Arc<Self>) -> ChannelResult {
        let waiting = self.transition(|state, now| {
            if state.host.is_closed() {
                return Err(Err(self.closed_error()));
            }
            while let Some(idle) = state.unclaimed.pop() {
                if Self::claim(state, &idle) {
                    return Err(Ok(idle));
                }
            }
            if state.host.live() == 0
                && let Some(error) = self.breaker.answer(now)
            {
                return Err(Err(error));
            }
            let (answer, wait) = oneshot::channel();
            let waiter_id = match channels::waiter_id() {
                Some(waiter_id) => state.host.wait_in_turn(waiter_id, answer, now),
                None => state.host.wait(answer, now),
            };
            Ok(channel_guard::WaitGuard::new(self.clone(), waiter_id, wait))
        });
        match waiting {
            Ok(waiting) => waiting.answer().await,
            Err(answer) => answer,
        }
    }
}
