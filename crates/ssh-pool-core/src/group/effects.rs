//! Carries out the effects of the host state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::connection_state::CloseSeq;
use super::host_state::{ConnectionId, Effect, Handoff, RefusalOutcome, StateEvent};
use super::{ConnectionGroup, IdleChannel, Opening, fail_waiters, poll_then_spawn, size};
use crate::error::Error;
use crate::event::EventKind;
use crate::transport::{Channel, OpenError};

/// What follows from an idle channel being taken: usually the next one is opened. Begun when this
/// is dropped, so that a command can go out first: a server does one thing after the other.
pub(crate) struct DeferredEffects {
    group: Weak<ConnectionGroup>,
    effects: Vec<Effect>,
}

impl DeferredEffects {
    pub(super) fn after(group: &Arc<ConnectionGroup>, effects: Vec<Effect>) -> Option<Self> {
        (!effects.is_empty()).then(|| Self {
            group: Arc::downgrade(group),
            effects,
        })
    }
}

impl Drop for DeferredEffects {
    fn drop(&mut self) {
        if let Some(group) = self.group.upgrade() {
            group.carry_out(std::mem::take(&mut self.effects));
        }
    }
}

impl ConnectionGroup {
    pub(super) fn carry_out(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(effect);
        }
    }

    fn carry_out_one(self: &Arc<Self>, effect: Effect) {
        match effect {
            Effect::Connect => self.connect(),
            Effect::Open {
                on,
                close_seq,
                since,
            } => self.open(on, close_seq, since),
            Effect::Ping { on, close_seq } => self.ping(on, close_seq),
            Effect::Disconnect(on) => self.disconnect(on),
            Effect::CheckLiveness(on) => self.check_liveness(on),
            Effect::ServeFromIdle => {
                // First those that could not be parked.
                let mut idle_channels = std::mem::take(&mut self.state().unclaimed);
                idle_channels.extend(self.channels.take_idle(|_| true));
                for idle in idle_channels {
                    self.return_channel(idle);
                }
            }
            Effect::RaiseCapacity => {
                let most = self.state().host.channels_at_most();
                self.channels.raise_capacity(size(most));
            }
            Effect::DropStaleIdle => {
                let alive: Vec<_> = self.state().host.alive().collect();
                for idle in self
                    .channels
                    .take_idle(|idle| !alive.contains(&idle.connection))
                {
                    self.return_channel(idle);
                }
            }
            Effect::Report(event) => self.report_event(event),
            Effect::WakeAt(at) => {
                let group = Arc::downgrade(self);
                self.runtime.spawn(async move {
                    tokio::time::sleep_until(at.into()).await;
                    if let Some(group) = group.upgrade() {
                        group.transition(|state, now| state.host.wake(now));
                    }
                });
            }
        }
    }

    fn report_event(&self, event: StateEvent) {
        match event {
            StateEvent::Learned(sessions) => self.report(EventKind::LimitLearned { sessions }),
            StateEvent::Retired(on, reason) => {
                let connection = self.connection(on);
                self.report_on(on, connection.as_ref(), EventKind::Retired { reason });
            }
        }
    }

    /// Opens a channel, whatever becomes of the caller: a dropped open would keep its slot on the
    /// server.
    fn open(self: &Arc<Self>, on: ConnectionId, close_seq: CloseSeq, since: Instant) {
        let group = self.clone();
        let connection = self.connection(on);
        poll_then_spawn::start(&self.runtime, async move {
            let result = match connection {
                Some(connection) => connection.open().await,
                None => Err(OpenError::Lost),
            };
            match result {
                Ok(channel) => group.opened(on, close_seq, since, channel),
                Err(OpenError::Refused { reason, .. }) => group.refused(on, close_seq, reason),
                Err(OpenError::Lost) => group.transition(|state, _| state.host.open_lost(on)),
            }
        });
    }

    fn opened(
        self: &Arc<Self>,
        on: ConnectionId,
        close_seq: CloseSeq,
        since: Instant,
        channel: Channel,
    ) {
        let receiver = channel.receiver.clone();
        let in_use = Arc::new(AtomicBool::new(false));
        let (handoff, until, verified) = self.transition(|state, now| {
            let handoff = state.host.opened(on, close_seq, now);
            in_use.store(matches!(handoff, Handoff::To(_)), Ordering::Relaxed);
            (handoff, now, self.verify(state, on))
        });
        self.report_verified(verified);
        let idle = IdleChannel {
            connection: on,
            channel,
            opening: Opening { since, until },
            in_use: in_use.clone(),
            deferred: None,
        };
        if !matches!(handoff, Handoff::Discard) {
            receiver.watch(self.event_scope(on, idle.channel.sender.peer_addr()));
            let group = Arc::downgrade(self);
            receiver.on_end(move |end| {
                if let Some(group) = group.upgrade() {
                    group.channel_ended(on, &in_use, end);
                }
            });
        }
        self.deliver(handoff, idle);
    }

    fn refused(self: &Arc<Self>, on: ConnectionId, close_seq: CloseSeq, reason: String) {
        let kind = EventKind::SessionRefused {
            reason: reason.clone(),
        };
        self.report_on(on, self.connection(on).as_ref(), kind);
        let told = self.transition(|state, now| match state.host.refused(on, close_seq, now) {
            RefusalOutcome::Absorbed => None,
            RefusalOutcome::Hard(waiters) => {
                let error = Error::SessionRefused {
                    target: self.name().into(),
                    reason,
                };
                let permit = state.unverified(on);
                let (decision, change) = self.breaker.unusable(permit, error, false, now);
                Some((waiters, decision.error, change))
            }
        });
        if let Some((waiters, error, change)) = told {
            self.report_breaker(change);
            self.breaker.wake();
            fail_waiters(waiters, &error);
        }
    }

    fn ping(self: &Arc<Self>, on: ConnectionId, close_seq: CloseSeq) {
        let group = self.clone();
        let connection = self.connection(on);
        self.runtime.spawn(async move {
            if let Some(connection) = connection {
                connection.ping().await;
            }
            group.transition(|state, now| state.host.pinged(on, close_seq, now));
        });
    }

    fn disconnect(self: &Arc<Self>, on: ConnectionId) {
        self.abandon_unverified(on);
        if let Some(connection) = self.connection(on) {
            self.runtime
                .spawn(async move { connection.disconnect().await });
        }
    }
}
