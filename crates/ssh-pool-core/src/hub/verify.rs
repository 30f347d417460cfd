//! Connections from login to end, and whether each has shown that it is of use.
//!
//! | state      | exits to                                                                     |
//! |------------|------------------------------------------------------------------------------|
//! | unverified | verified (the first session, stream or listener is granted),                   |
//! |            | failed dial (ended by the server, or it refuses every session), gone (by us)  |
//! | verified   | gone                                                                         |
//!
//! A login alone proves little: see `breaker.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Change, Leave};
use super::budget::Login;
use super::slots::ConnectionId;
use super::{Books, Hub, now, tell};
use crate::error::{Cause, Error};
use crate::event::EventKind;
use crate::transport::Link;

/// A connection that is up.
pub(super) struct Connected {
    pub(super) link: Arc<dyn Link>,
    /// The leave that it was dialled with, until it has granted something.
    pub(super) unverified: Option<Leave>,
    /// Its place in the login budget of its address.
    pub(super) _login: Login,
}

impl Books {
    pub(super) fn link(&self, id: ConnectionId) -> Option<Arc<dyn Link>> {
        self.links.get(&id).map(|connected| connected.link.clone())
    }

    /// Takes the leave of a connection that has granted nothing so far.
    pub(super) fn unverified(&mut self, id: ConnectionId) -> Option<Leave> {
        self.links.get_mut(&id)?.unverified.take()
    }
}

impl Hub {
    /// The server has granted something on this connection. `None`: not for the first time.
    pub(super) fn verify(&self, books: &mut Books, on: ConnectionId) -> Option<Option<Change>> {
        books.unverified(on).map(|leave| self.dials.verified(leave))
    }

    /// Those who waited for what became of a connection may dial. Outside of every lock.
    pub(super) fn tell_verdict(&self, verdict: Option<Option<Change>>) {
        if let Some(change) = verdict {
            self.report_breaker(change);
            self.dials.wake();
        }
    }

    /// The server has granted something that is no session on this connection.
    pub(super) fn granted(&self, on: ConnectionId) {
        let verified = self.verify(&mut self.books(), on);
        self.tell_verdict(verified);
    }

    /// A dial has logged in that began when the host had been evicted so often.
    pub(super) fn connected(
        self: &Arc<Self>,
        link: Arc<dyn Link>,
        login: Login,
        took: Duration,
        leave: Leave,
        evictions: u64,
    ) -> ConnectionId {
        if let Some(address) = link.peer_addr() {
            self.arrived_at(address);
        }
        let is_trial = leave.is_trial();
        let lifetime = self.patience.lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let (id, actions) = {
            let mut books = self.books();
            let now = now();
            let id = ConnectionId(self.reporter.next_connection());
            let connected = Connected {
                link: link.clone(),
                unverified: Some(leave),
                _login: login,
            };
            books.links.insert(id, connected);
            books.short = None;
            self.dials.logged_in();
            if let Some(sessions) = link.server().sessions_at_most {
                books.slots.restrict(sessions);
            }
            if books.slots.evictions() == evictions {
                books.slots.dialled(id, now, now + lifetime);
            } else {
                books.slots.dialled_before_evict(id, now);
            }
            (id, books.slots.take_actions())
        };
        // Before what follows from it, such as that another one goes.
        self.report_on(id, Some(&link), EventKind::Dialled { took });
        self.carry_out(actions);
        if self.budget.room().is_wanted() {
            // Whoever it was dialled for may have gone.
            self.budget.room().look();
        }
        let hub = Arc::downgrade(self);
        if is_trial {
            self.release_in_time(id);
        }
        link.lifeline().on_end(move |cause| {
            if let Some(hub) = hub.upgrade() {
                hub.died(id, cause);
            }
        });
        id
    }

    /// Those who wait for what becomes of this connection do so for no longer than a check may take.
    fn release_in_time(self: &Arc<Self>, id: ConnectionId) {
        let (hub, limit) = (Arc::downgrade(self), self.patience.check);
        self.runtime.spawn(async move {
            tokio::time::sleep(limit).await;
            let Some(hub) = hub.upgrade() else { return };
            let released = {
                let mut books = hub.books();
                let connected = books.links.get_mut(&id);
                let leave = connected.and_then(|connected| connected.unverified.as_mut());
                leave.map(|leave| *leave = hub.dials.released(*leave))
            };
            if released.is_some() {
                hub.dials.wake();
            }
        });
    }

    /// We end this connection: what it would have shown is not known.
    pub(super) fn give_up(&self, id: ConnectionId) {
        let leave = self.books().unverified(id);
        self.tell_verdict(leave.map(|leave| self.dials.abandoned(leave)));
    }

    /// A connection has ended. One that the server ended before it granted anything is a failed dial.
    fn died(self: &Arc<Self>, id: ConnectionId, cause: &Cause) {
        let (gone, lost, failed, actions) = {
            let mut books = self.books();
            let now = now();
            books.unclaimed.retain(|ready| ready.connection != id);
            let ended_here = books.slots.is_leaving(id);
            let (lost, failed) = match books.unverified(id) {
                Some(leave) if !ended_here => {
                    let lost = !cause.is_not_utf8();
                    let error = self.closed_after_login(lost, cause);
                    let (verdict, change) = self.dials.unusable(Some(leave), error, lost, now);
                    let (until, again) = (verdict.not_before, verdict.try_again);
                    let (lost, told) = books.slots.died_unverified(id, now, until, again);
                    let pause = until.saturating_duration_since(now);
                    (lost, Ok((verdict.error, pause, change, told)))
                }
                leave => {
                    let change = leave.map(|leave| self.dials.abandoned(leave));
                    (books.slots.died(id, now), Err(change))
                }
            };
            (
                books.links.remove(&id),
                lost,
                failed,
                books.slots.take_actions(),
            )
        };
        let link = gone.as_ref().map(|gone| &gone.link);
        let kind = match lost {
            None => EventKind::Closed,
            Some(lost) => EventKind::Died {
                cause: cause.clone(),
                lost,
            },
        };
        match failed {
            Err(abandoned) => {
                self.tell_verdict(abandoned);
                self.carry_out(actions);
                self.report_on(id, link, kind);
            }
            Ok((error, pause, change, told)) => {
                self.report_on(id, link, kind);
                // Before what follows from it, such as the next dial.
                let failure = EventKind::DialFailed {
                    error: error.clone(),
                    pause,
                };
                self.report_on(id, link, failure);
                self.report_breaker(change);
                self.carry_out(actions);
                self.dials.wake();
                tell(told, &error);
            }
        }
        drop(gone);
        self.ended.notify_waiters();
        if self.budget.room().is_wanted() {
            // It may have been an errand's, which had no share of the room.
            self.budget.room().look();
        }
    }

    fn closed_after_login(&self, lost: bool, cause: &Cause) -> Error {
        Error::ClosedAfterLogin {
            target: self.name().into(),
            lost,
            attempts: 1,
            retry_in: Duration::ZERO,
            reason: cause.to_string(),
        }
    }
}
