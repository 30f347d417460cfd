//! Connections from login to end, and whether each has been verified.
//!
//! | state      | exits to                                                                     |
//! |------------|------------------------------------------------------------------------------|
//! | unverified | verified (the first session, stream or listener is granted),                  |
//! |            | failed dial (ended by the server, or it refuses every session), gone (by us)  |
//! | verified   | gone                                                                         |
//!
//! A login alone proves little: see `breaker.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Change, ConnectPermit};
use super::budget::LoginCharge;
use super::host_state::ConnectionId;
use super::{ConnectionGroup, GroupState, fail_waiters, now};
use crate::error::{Cause, Error};
use crate::event::EventKind;
use crate::transport::Connection;

/// A connection that is up.
pub(super) struct LiveConnection {
    pub(super) connection: Arc<dyn Connection>,
    /// The permit that it was dialled with, until it has granted something.
    pub(super) unverified: Option<ConnectPermit>,
    /// Its place in the login budget of its address.
    pub(super) _login: LoginCharge,
}

impl GroupState {
    pub(super) fn connection(&self, id: ConnectionId) -> Option<Arc<dyn Connection>> {
        self.connections
            .get(&id)
            .map(|connected| connected.connection.clone())
    }

    /// Takes the permit of a connection that has granted nothing so far.
    pub(super) fn unverified(&mut self, id: ConnectionId) -> Option<ConnectPermit> {
        self.connections.get_mut(&id)?.unverified.take()
    }
}

impl ConnectionGroup {
    /// The server has granted something on this connection. `None`: not for the first time.
    pub(super) fn verify(
        &self,
        state: &mut GroupState,
        on: ConnectionId,
    ) -> Option<Option<Change>> {
        state
            .unverified(on)
            .map(|permit| self.breaker.verified(permit))
    }

    /// A connection has been verified: dials that waited for that may go on. Called outside of every
    /// lock.
    pub(super) fn report_verified(&self, decision: Option<Option<Change>>) {
        if let Some(change) = decision {
            self.report_breaker(change);
            self.breaker.wake();
        }
    }

    /// The server has granted something that is no session on this connection.
    pub(super) fn granted(&self, on: ConnectionId) {
        let verified = self.verify(&mut self.state(), on);
        self.report_verified(verified);
    }

    /// A dial has logged in that began when the host had been evicted so often.
    pub(super) fn connected(
        self: &Arc<Self>,
        connection: Arc<dyn Connection>,
        login: LoginCharge,
        took: Duration,
        permit: ConnectPermit,
        evictions: u64,
    ) -> ConnectionId {
        if let Some(address) = connection.peer_addr() {
            self.arrived_at(address);
        }
        let is_probe = permit.is_probe();
        let lifetime = self.timeouts.lifetime.mul_f64(0.9 + 0.2 * fastrand::f64());
        let (id, effects) = {
            let mut state = self.state();
            let now = now();
            let id = ConnectionId(self.reporter.next_connection());
            let connected = LiveConnection {
                connection: connection.clone(),
                unverified: Some(permit),
                _login: login,
            };
            state.connections.insert(id, connected);
            state.out_of_descriptors = None;
            self.breaker.logged_in();
            if let Some(sessions) = connection.server().sessions_at_most {
                state.host.restrict(sessions);
            }
            if state.host.evictions() == evictions {
                state.host.connected(id, now, now + lifetime);
            } else {
                state.host.connected_before_evict(id, now);
            }
            (id, state.host.take_effects())
        };
        // Before what follows from it, such as that another one goes.
        self.report_on(id, Some(&connection), EventKind::Dialled { took });
        self.carry_out(effects);
        if self.budget.limiter().is_wanted() {
            // The caller that it was made for may have gone.
            self.budget.limiter().notify();
        }
        let group = Arc::downgrade(self);
        if is_probe {
            self.release_in_time(id);
        }
        connection.close_signal().on_end(move |cause| {
            if let Some(group) = group.upgrade() {
                group.died(id, cause);
            }
        });
        id
    }

    /// Dials wait for this connection to be verified for no longer than a check may take.
    fn release_in_time(self: &Arc<Self>, id: ConnectionId) {
        let (group, limit) = (Arc::downgrade(self), self.timeouts.check);
        self.runtime.spawn(async move {
            tokio::time::sleep(limit).await;
            let Some(group) = group.upgrade() else { return };
            let released = {
                let mut state = group.state();
                let connected = state.connections.get_mut(&id);
                let permit = connected.and_then(|connected| connected.unverified.as_mut());
                permit.map(|permit| *permit = group.breaker.released(*permit))
            };
            if released.is_some() {
                group.breaker.wake();
            }
        });
    }

    /// We end this connection: what it would have shown is not known.
    pub(super) fn abandon_unverified(&self, id: ConnectionId) {
        let permit = self.state().unverified(id);
        self.report_verified(permit.map(|permit| self.breaker.abandoned(permit)));
    }

    /// A connection has ended. One that the server ended before it was verified is a failed dial.
    fn died(self: &Arc<Self>, id: ConnectionId, cause: &Cause) {
        let (gone, lost, failed, effects) = {
            let mut state = self.state();
            let now = now();
            state.unclaimed.retain(|idle| idle.connection != id);
            let ended_here = state.host.is_leaving(id);
            let (lost, failed) = match state.unverified(id) {
                Some(permit) if !ended_here => {
                    let lost = !cause.is_not_utf8();
                    let error = self.closed_after_login(lost, cause);
                    let (decision, change) = self.breaker.unusable(Some(permit), error, lost, now);
                    let (until, again) = (decision.not_before, decision.try_again);
                    let (lost, told) = state.host.died_unverified(id, now, until, again);
                    let pause = until.saturating_duration_since(now);
                    (lost, Ok((decision.error, pause, change, told)))
                }
                permit => {
                    let change = permit.map(|permit| self.breaker.abandoned(permit));
                    (state.host.died(id, now), Err(change))
                }
            };
            (
                state.connections.remove(&id),
                lost,
                failed,
                state.host.take_effects(),
            )
        };
        let connection = gone.as_ref().map(|gone| &gone.connection);
        let kind = match lost {
            None => EventKind::Closed,
            Some(lost) => EventKind::Died {
                cause: cause.clone(),
                lost,
            },
        };
        match failed {
            Err(abandoned) => {
                self.report_verified(abandoned);
                self.carry_out(effects);
                self.report_on(id, connection, kind);
            }
            Ok((error, pause, change, told)) => {
                self.report_on(id, connection, kind);
                // Before what follows from it, such as the next dial.
                let failure = EventKind::DialFailed {
                    error: error.clone(),
                    pause,
                };
                self.report_on(id, connection, failure);
                self.report_breaker(change);
                self.carry_out(effects);
                self.breaker.wake();
                fail_waiters(told, &error);
            }
        }
        drop(gone);
        self.ended.notify_waiters();
        if self.budget.limiter().is_wanted() {
            // It may have been one for helper commands, which took no permit of the limit.
            self.budget.limiter().notify();
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
