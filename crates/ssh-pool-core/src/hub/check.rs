//! Whether a connection from which nothing was heard for a while still has somebody at its other
//! end.
//!
//! Asked before a command goes out on it: one that is sent into the void may have run for all that
//! anybody knows, and one that is not sent goes elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::slots::ConnectionId;
use super::{Deadline, Entry, Hub, Reached, now};
use crate::error::Error;
use crate::event::Retirement;
use crate::transport::Link;
use crate::waited::Waited;

/// A connection on which a command is being ended is checked when it was quiet for so long.
const QUIET: Duration = Duration::from_secs(1);

/// The checks under way, and who waits for which. There are a few at most.
#[derive(Default)]
pub(super) struct Checks(Vec<(ConnectionId, Vec<oneshot::Sender<bool>>)>);

impl Checks {
    /// Somebody wants to know. `true` if nobody has asked that connection yet.
    fn join(&mut self, on: ConnectionId, who: oneshot::Sender<bool>) -> bool {
        let under_way = self.0.iter_mut().find(|(id, _)| *id == on);
        let first = under_way.is_none();
        match under_way {
            Some((_, waiting)) => waiting.push(who),
            None => self.0.push((on, vec![who])),
        }
        first
    }

    /// It is over: those who waited for it.
    fn end(&mut self, on: ConnectionId) -> Vec<oneshot::Sender<bool>> {
        let place = self.0.iter().position(|(id, _)| *id == on);
        place.map_or_else(Vec::new, |place| self.0.swap_remove(place).1)
    }

    pub(super) fn is_under_way(&self, on: ConnectionId) -> bool {
        self.0.iter().any(|(id, _)| *id == on)
    }
}

impl Hub {
    /// Whether that connection was so quiet that it has to be asked first.
    pub(crate) fn doubts(&self, link: &Arc<dyn Link>) -> bool {
        !link.heard_within(self.patience.check_after)
    }

    /// Whether something may be sent on that connection. `false`: it takes nothing new any more,
    /// and another one has to be found. What it had to wait for is added to `waited`.
    ///
    /// Cancel safe: the check goes on without those who asked for it, so that impatient callers
    /// find out together what each would not wait for.
    pub(crate) async fn is_there(
        self: &Arc<Self>,
        on: ConnectionId,
        link: &Arc<dyn Link>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<bool, Error> {
        if !self.doubts(link) {
            return Ok(true);
        }
        self.answers(on, link, deadline, waited).await
    }

    /// The same, asked however short the silence was.
    pub(crate) async fn answers(
        self: &Arc<Self>,
        on: ConnectionId,
        link: &Arc<dyn Link>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<bool, Error> {
        let asked = now();
        let answer = self.check(on, link.clone());
        // Seldom: no part of what every command has to carry along.
        let answer = Box::pin(tokio::time::timeout_at(deadline.at.into(), answer)).await;
        waited.channel += now().saturating_duration_since(asked);
        match answer {
            Ok(answer) => Ok(answer.unwrap_or(false)),
            Err(_) => {
                let asked = "the connection was asked for a sign of life";
                Err(self.unanswered(deadline.after, asked))
            }
        }
    }

    /// How long a server may owe the answer to a request, and then that to a round trip behind it.
    pub(crate) fn answer_limits(&self) -> (Duration, Duration) {
        (self.patience.acquire, self.patience.check)
    }

    /// Waits for an answer that may take its time, as long as somebody is there to give it. `None`:
    /// nobody is. The deadline is kept by the caller.
    pub(crate) async fn while_there<T>(
        self: &Arc<Self>,
        on: ConnectionId,
        link: &Arc<dyn Link>,
        deadline: Deadline,
        answer: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let look = tokio::time::timeout(self.patience.check, &mut answer);
            if let Ok(answer) = look.await {
                return answer;
            }
            // All of it is one wait to the caller.
            let mut waited = Waited::default();
            if let Ok(false) = self.is_there(on, link, deadline, &mut waited).await {
                return None;
            }
        }
    }

    /// Has a connection checked that took nothing, unless something was heard from it lately: those
    /// who come next find another one.
    pub(crate) fn check_if_quiet(self: &Arc<Self>, on: ConnectionId, link: Arc<dyn Link>) {
        if !link.heard_within(self.patience.check) {
            drop(self.check(on, link));
        }
    }

    /// Completes when a connection does not answer a check. Cancel safe.
    pub(crate) async fn unresponsive(self: &Arc<Self>, on: ConnectionId, link: &Arc<dyn Link>) {
        loop {
            tokio::time::sleep(QUIET).await;
            let quiet = !link.heard_within(QUIET);
            if quiet && self.check(on, link.clone()).await == Ok(false) {
                return;
            }
        }
    }

    /// Makes sure of a connection with a spare channel.
    pub(crate) async fn warm(
        self: &Arc<Self>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(), Error> {
        let mut entry = Entry::default();
        self.begin(&mut entry);
        loop {
            // Dropped unused, the channel is a spare.
            let lease = self.checkout(&mut entry, deadline, waited).await?;
            entry.let_in();
            let Some(link) = self.link_of(&lease) else {
                continue;
            };
            let on = lease.on();
            if self.is_there(on, &link, deadline, waited).await? {
                return Ok(());
            }
            self.lost_under(&mut entry, on, Some(&link), Reached::Not)?;
        }
    }

    /// Asks a connection for a round trip, if nobody does already.
    fn check(self: &Arc<Self>, on: ConnectionId, link: Arc<dyn Link>) -> oneshot::Receiver<bool> {
        let (who, answer) = oneshot::channel();
        if !self.books().checks.join(on, who) {
            return answer;
        }
        let (hub, limit) = (Arc::downgrade(self), self.patience.check);
        self.runtime.spawn(async move {
            tracing::debug!(connection = on.0, quiet = ?link.quiet_for(), "is it still there?");
            let answered = tokio::select! {
                () = link.ping() => true,
                () = link.lifeline().ended() => false,
                // Its answer may be behind much else that it has to say.
                () = tokio::time::sleep(limit) => link.heard_within(limit),
            };
            // A ping ends with its connection too.
            let there = answered && link.lifeline().cause().is_none();
            if let Some(hub) = hub.upgrade() {
                hub.checked(on, there);
            }
        });
        answer
    }

    fn checked(self: &Arc<Self>, on: ConnectionId, there: bool) {
        let (waiting, others) = self.transition(|books, now| {
            let mut others = Vec::new();
            if !there {
                books.slots.retire(on, Retirement::Unresponsive, now);
                let alive = books.slots.alive();
                others.extend(alive.filter_map(|id| Some((id, books.link(id)?))));
            }
            (books.checks.end(on), others)
        });
        // What has happened to one may have happened to all: they are asked at once, and not one
        // after the other by whoever comes.
        for (id, link) in others {
            if self.doubts(&link) {
                drop(self.check(id, link));
            }
        }
        for who in waiting {
            // Whoever has gone needs no answer.
            who.send(there).ok();
        }
    }

    /// A connection owes an answer that somebody waits for.
    pub(super) fn suspect(self: &Arc<Self>, on: ConnectionId) {
        let heard = |link: Arc<dyn Link>| link.heard_within(self.patience.check);
        if !self.link(on).is_some_and(heard) {
            self.transition(|books, now| books.slots.retire(on, Retirement::Unresponsive, now));
        }
    }
}
