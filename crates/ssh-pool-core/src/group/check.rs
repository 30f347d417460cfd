//! Whether the peer of a quiet connection is still there.
//!
//! Checked before a command is sent on it: a command that was sent on a dead connection may have run,
//! and one that was not sent goes to another connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::host_state::ConnectionId;
use super::{Admission, ConnectionGroup, Deadline, Reached, now};
use crate::error::Error;
use crate::event::Retirement;
use crate::transport::Connection;
use crate::waited::Waited;

/// A connection on which a command is being ended is checked when it was quiet for this long.
const QUIET: Duration = Duration::from_secs(1);

/// The checks under way, and who waits for which. There are a few at most.
#[derive(Default)]
pub(super) struct Checks(Vec<(ConnectionId, Vec<oneshot::Sender<bool>>)>);

impl Checks {
    /// Adds a waiter. `true` if no check of that connection is under way.
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
        let position = self.0.iter().position(|(id, _)| *id == on);
        position.map_or_else(Vec::new, |position| self.0.swap_remove(position).1)
    }

    pub(super) fn is_under_way(&self, on: ConnectionId) -> bool {
        self.0.iter().any(|(id, _)| *id == on)
    }
}

impl ConnectionGroup {
    /// Whether that connection was so quiet that it has to be asked first.
    pub(crate) fn doubts(&self, connection: &Arc<dyn Connection>) -> bool {
        !connection.heard_within(self.timeouts.check_after)
    }

    /// Whether something may be sent on that connection. `false`: it takes nothing new any more,
    /// and another one has to be found. What it had to wait for is added to `waited`.
    ///
    /// Cancel safe: the check goes on without those who asked for it, so that impatient callers
    /// find out together what each would not wait for.
    pub(crate) async fn is_there(
        self: &Arc<Self>,
        on: ConnectionId,
        connection: &Arc<dyn Connection>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<bool, Error> {
        if !self.doubts(connection) {
            return Ok(true);
        }
        self.answers(on, connection, deadline, waited).await
    }

    /// The same, asked however short the silence was.
    pub(crate) async fn answers(
        self: &Arc<Self>,
        on: ConnectionId,
        connection: &Arc<dyn Connection>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<bool, Error> {
        let asked = now();
        let answer = self.check(on, connection.clone());
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
        (self.timeouts.acquire, self.timeouts.check)
    }

    /// Waits for a slow answer while the peer responds to checks. `None`: it does not. The caller
    /// keeps the deadline.
    pub(crate) async fn while_there<T>(
        self: &Arc<Self>,
        on: ConnectionId,
        connection: &Arc<dyn Connection>,
        deadline: Deadline,
        answer: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let look = tokio::time::timeout(self.timeouts.check, &mut answer);
            if let Ok(answer) = look.await {
                return answer;
            }
            // All of it is one wait to the caller.
            let mut waited = Waited::default();
            if let Ok(false) = self.is_there(on, connection, deadline, &mut waited).await {
                return None;
            }
        }
    }

    /// Has a connection checked that took nothing, unless something was heard from it lately: those
    /// who come next find another one.
    pub(crate) fn check_if_quiet(
        self: &Arc<Self>,
        on: ConnectionId,
        connection: Arc<dyn Connection>,
    ) {
        if !connection.heard_within(self.timeouts.check) {
            drop(self.check(on, connection));
        }
    }

    /// Completes when a connection does not answer a check. Cancel safe.
    pub(crate) async fn unresponsive(
        self: &Arc<Self>,
        on: ConnectionId,
        connection: &Arc<dyn Connection>,
    ) {
        loop {
            tokio::time::sleep(QUIET).await;
            let quiet = !connection.heard_within(QUIET);
            if quiet && self.check(on, connection.clone()).await == Ok(false) {
                return;
            }
        }
    }

    /// Makes sure of a connection with an idle channel.
    pub(crate) async fn warm(
        self: &Arc<Self>,
        deadline: Deadline,
        waited: &mut Waited,
    ) -> Result<(), Error> {
        let mut admission = Admission::default();
        self.begin(&mut admission);
        loop {
            // Dropped unused, the channel is idle.
            let guard = self.checkout(&mut admission, deadline, waited).await?;
            admission.admitted();
            let Some(connection) = self.connection_of(&guard) else {
                continue;
            };
            let on = guard.on();
            if self.is_there(on, &connection, deadline, waited).await? {
                return Ok(());
            }
            self.lost_under(&mut admission, on, Some(&connection), Reached::Not)?;
        }
    }

    /// Starts a round trip on a connection, unless one is under way.
    fn check(
        self: &Arc<Self>,
        on: ConnectionId,
        connection: Arc<dyn Connection>,
    ) -> oneshot::Receiver<bool> {
        let (who, answer) = oneshot::channel();
        if !self.state().checks.join(on, who) {
            return answer;
        }
        let (group, limit) = (Arc::downgrade(self), self.timeouts.check);
        self.runtime.spawn(async move {
            tracing::debug!(connection = on.0, quiet = ?connection.quiet_for(), "is it still there?");
            let answered = tokio::select! {
                () = connection.ping() => true,
                () = connection.close_signal().ended() => false,
                // Its answer may be behind much else that it has to say.
                () = tokio::time::sleep(limit) => connection.heard_within(limit),
            };
            // A ping ends with its connection too.
            let there = answered && connection.close_signal().cause().is_none();
            if let Some(group) = group.upgrade() {
                group.checked(on, there);
            }
        });
        answer
    }

    fn checked(self: &Arc<Self>, on: ConnectionId, there: bool) {
        let (waiting, others) = self.transition(|state, now| {
            let mut others = Vec::new();
            if !there {
                state.host.retire(on, Retirement::Unresponsive, now);
                let alive = state.host.alive();
                others.extend(alive.filter_map(|id| Some((id, state.connection(id)?))));
            }
            (state.checks.end(on), others)
        });
        // What has happened to one may have happened to all: they are checked at once, and not one
        // after the other as later callers come.
        for (id, connection) in others {
            if self.doubts(&connection) {
                drop(self.check(id, connection));
            }
        }
        for who in waiting {
            // A dropped receiver needs no answer.
            who.send(there).ok();
        }
    }

    /// An answer that a caller waits for is overdue on a connection.
    pub(super) fn check_liveness(self: &Arc<Self>, on: ConnectionId) {
        let heard = |connection: Arc<dyn Connection>| connection.heard_within(self.timeouts.check);
        if !self.connection(on).is_some_and(heard) {
            self.transition(|state, now| state.host.retire(on, Retirement::Unresponsive, now));
        }
    }
}
