//! The way to a channel, for those who want one.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;

use super::queue::Place;
use super::{Answer, Deadline, Hub, Lease, Next, channels, lease};
use crate::error::{Cause, CommandState, Error, Phase};
use crate::waited::Waited;

impl Hub {
    /// A channel, ready for one command: a spare, or one opened for this call, on a connection
    /// that may first have to be dialled. What it had to wait for is added to `waited`.
    ///
    /// Cancel safe: a dropped call loses its place in the queue and nothing else. What was
    /// started for it goes to the next one.
    pub(crate) async fn checkout(
        self: &Arc<Self>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<Lease, Error> {
        Ok(self.checkout_before(deadline, waited).await?.0)
    }

    /// [`checkout`](Self::checkout), before what follows from it has begun.
    pub(crate) async fn checkout_before(
        self: &Arc<Self>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(Lease, Option<Next>), Error> {
        self.checkout_from(&mut None, deadline, waited).await
    }

    /// [`checkout_before`](Self::checkout_before), for somebody who may have a place in the queue,
    /// and keeps it.
    pub(super) async fn checkout_from(
        self: &Arc<Self>,
        place: &mut Option<Place>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(Lease, Option<Next>), Error> {
        self.admit(place.as_ref())?;
        let mut channel = pin!(self.channels.get());
        // What need not wait costs no look at the clock.
        let first = poll_fn(|cx| Poll::Ready(channel.as_mut().poll(cx))).await;
        let mut channel = match first {
            Poll::Ready(channel) => channel?,
            Poll::Pending => {
                self.take_place(place)?;
                let (ticket, begun) = self.begin_waiting();
                let channel = channels::with_ticket(ticket, channel);
                let got = tokio::time::timeout_at(deadline.at.into(), channel).await;
                let opening = got.as_ref().ok().and_then(|got| got.as_ref().ok());
                *waited += self.end_waiting(&begun, opening.map(|channel| channel.opening));
                match got {
                    Ok(channel) => channel?,
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

    pub(crate) fn overdue(&self, after: Duration) -> Error {
        let books = self.books();
        let held_up = self.held_up(&books);
        Error::Timeout {
            target: self.name().into(),
            phase: if books.slots.live() > 0 || held_up.is_some() {
                Phase::Queue
            } else {
                Phase::Connect
            },
            after,
            state: CommandState::NotStarted,
            killed: false,
            source: held_up.or_else(|| self.dials.last_error().map(Cause::new)),
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
