//! The way to a channel, for those who want one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Answer, Deadline, Entry, Hub, Lease, Next, channels, lease};
use crate::error::{Cause, CommandState, Error, Phase};
use crate::waited::Waited;

impl Hub {
    /// A channel, ready for one command: a spare, or one opened for this call, on a connection
    /// that may first have to be dialled. What it had to wait for is added to `waited`. Whoever had
    /// to wait keeps their place, until they say that they have been let in.
    ///
    /// Cancel safe: a dropped call loses its place in the queue and nothing else. What was
    /// started for it goes to the next one.
    pub(crate) async fn checkout(
        self: &Arc<Self>,
        entry: &mut Entry,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<Lease, Error> {
        Ok(self.checkout_before(entry, deadline, waited).await?.0)
    }

    /// [`checkout`](Self::checkout), before what follows from it has begun.
    pub(crate) async fn checkout_before(
        self: &Arc<Self>,
        entry: &mut Entry,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(Lease, Option<Next>), Error> {
        self.admit(entry)?;
        let mut channel = pin!(self.channels.get());
        // What need not wait costs no look at the clock.
        let first = poll_fn(|cx| Poll::Ready(channel.as_mut().poll(cx))).await;
        let mut channel = match first {
            Poll::Ready(channel) => channel?,
            Poll::Pending => {
                self.take_place(entry)?;
                self.check_ceiling(entry)?;
                let (ticket, begun) = self.begin_waiting();
                let channel = channels::with_ticket(ticket, channel);
                let urgent =
                    (entry.group().cloned()).map(|group| Box::pin(self.urgent_once_open(group)));
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
                    Err(_) => return Err(self.overdue(deadline.after)),
                }
            }
        };
        let next = channel.next.take();
        Ok((Lease::new(self.clone(), channel), next))
    }

    /// When the wait for a channel ends: after its own time, or with the whole call.
    pub(crate) fn acquire_deadline(&self, overall: Option<Deadline>) -> Deadline {
        let acquire = Deadline::after(self.patience.acquire);
        overall
            .filter(|overall| overall.at < acquire.at)
            .unwrap_or(acquire)
    }

    /// Whether those who wait for a channel do so for the server's answer, and not for others to end.
    fn is_unanswered(&self) -> bool {
        let waiting = self.channels.waiting();
        let books = self.books();
        let (mut opening, mut running, mut unanswered) = (0, 0, false);
        for view in books.slots.views().filter(|view| !view.retiring) {
            opening += view.opening;
            running += view.leased;
            unanswered |= view.unanswered;
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
    pub(super) fn overdue(&self, after: Duration) -> Error {
        let books = self.books();
        if let Some(error) = self.without_descriptors(&books) {
            return error;
        }
        let held_up = self.held_up(&books);
        if held_up.is_none()
            && let Some(error) = self.stream_limit(&books, after)
        {
            return error;
        }
        let (phase, source) = match held_up {
            Some(held_up) => (Phase::Queue, Some(held_up)),
            None => {
                let last = self.dials.last_error();
                let phase = match self.endpoint.stage.phase() {
                    _ if books.slots.live() > 0 => Phase::Queue,
                    Some(phase) => phase,
                    // In a pause after a failure.
                    None => last.as_ref().map_or(Phase::Connect, Error::phase),
                };
                (phase, last.map(Cause::new))
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
    pub(super) async fn create(self: &Arc<Self>) -> Answer {
        let waiting = self.transition(|books, now| {
            if books.slots.is_closed() {
                return Err(Err(self.closed_error()));
            }
            while let Some(ready) = books.unclaimed.pop() {
                if Self::claim(books, &ready) {
                    return Err(Ok(ready));
                }
            }
            if books.slots.live() == 0
                && let Some(error) = self.dials.answer(now)
            {
                return Err(Err(error));
            }
            let (answer, wait) = oneshot::channel();
            let ticket = match channels::ticket() {
                Some(ticket) => books.slots.wait_in_turn(ticket, answer, now),
                None => books.slots.wait(answer, now),
            };
            Ok(lease::Waiting::new(self.clone(), ticket, wait))
        });
        match waiting {
            Ok(waiting) => waiting.answer().await,
            Err(answer) => answer,
        }
    }
}
