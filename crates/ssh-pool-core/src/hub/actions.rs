//! What the books ask for is carried out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::sessions::Mark;
use super::slots::{Action, ConnectionId, Fact, Hand, Refusal};
use super::{Hub, Opening, Ready, eager, size, tell};
use crate::error::Error;
use crate::event::EventKind;
use crate::transport::{Channel, OpenError};

/// What follows from a spare's being taken: as a rule the next one is opened. Begun when this is
/// dropped, so that a command can go out first: a server does one thing after the other.
pub(crate) struct Next {
    hub: Weak<Hub>,
    actions: Vec<Action>,
}

impl Next {
    pub(super) fn after(hub: &Arc<Hub>, actions: Vec<Action>) -> Option<Self> {
        (!actions.is_empty()).then(|| Self {
            hub: Arc::downgrade(hub),
            actions,
        })
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.carry_out(std::mem::take(&mut self.actions));
        }
    }
}

impl Hub {
    pub(super) fn carry_out(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            self.do_one(action);
        }
    }

    fn do_one(self: &Arc<Self>, action: Action) {
        match action {
            Action::Dial => self.dial(),
            Action::Open { on, mark, since } => self.open(on, mark, since),
            Action::Ping { on, mark } => self.ping(on, mark),
            Action::Disconnect(on) => self.disconnect(on),
            Action::Suspect(on) => self.suspect(on),
            Action::Reclaim => {
                // Those first for which there was no way to the idle ones.
                let mut spares = std::mem::take(&mut self.books().unclaimed);
                spares.extend(self.channels.take_idle(|_| true));
                for ready in spares {
                    self.give_back(ready);
                }
            }
            Action::Widen => {
                let most = self.books().slots.channels_at_most();
                self.channels.widen(size(most));
            }
            Action::Sweep => {
                let alive: Vec<_> = self.books().slots.alive().collect();
                for ready in self
                    .channels
                    .take_idle(|ready| !alive.contains(&ready.connection))
                {
                    self.give_back(ready);
                }
            }
            Action::Report(fact) => self.report_fact(fact),
            Action::WakeAt(at) => {
                let hub = Arc::downgrade(self);
                self.runtime.spawn(async move {
                    tokio::time::sleep_until(at.into()).await;
                    if let Some(hub) = hub.upgrade() {
                        hub.transition(|books, now| books.slots.wake(now));
                    }
                });
            }
        }
    }

    fn report_fact(&self, fact: Fact) {
        match fact {
            Fact::Learned(sessions) => self.report(EventKind::LimitLearned { sessions }),
            Fact::Retired(on, reason) => {
                let link = self.link(on);
                self.report_on(on, link.as_ref(), EventKind::Retired { reason });
            }
        }
    }

    /// Opens a channel, whatever becomes of the caller: a dropped open would keep its slot on the
    /// server.
    fn open(self: &Arc<Self>, on: ConnectionId, mark: Mark, since: Instant) {
        let hub = self.clone();
        let link = self.link(on);
        eager::start(&self.runtime, async move {
            let result = match link {
                Some(link) => link.open().await,
                None => Err(OpenError::Lost),
            };
            match result {
                Ok(channel) => hub.opened(on, mark, since, channel),
                Err(OpenError::Refused { reason, .. }) => hub.refused(on, mark, reason),
                Err(OpenError::Lost) => hub.transition(|books, _| books.slots.open_lost(on)),
            }
        });
    }

    fn opened(self: &Arc<Self>, on: ConnectionId, mark: Mark, since: Instant, channel: Channel) {
        let inbox = channel.inbox.clone();
        let leased = Arc::new(AtomicBool::new(false));
        let (hand, until, verified) = self.transition(|books, now| {
            let hand = books.slots.opened(on, mark, now);
            leased.store(matches!(hand, Hand::To(_)), Ordering::Relaxed);
            (hand, now, self.verify(books, on))
        });
        self.tell_verdict(verified);
        let ready = Ready {
            connection: on,
            channel,
            opening: Opening { since, until },
            leased: leased.clone(),
            next: None,
        };
        if !matches!(hand, Hand::Discard) {
            inbox.watch(self.witness(on, ready.channel.wire.peer_addr()));
            let hub = Arc::downgrade(self);
            inbox.on_end(move |end| {
                if let Some(hub) = hub.upgrade() {
                    hub.channel_ended(on, &leased, end);
                }
            });
        }
        self.place(hand, ready);
    }

    fn refused(self: &Arc<Self>, on: ConnectionId, mark: Mark, reason: String) {
        let kind = EventKind::SessionRefused {
            reason: reason.clone(),
        };
        self.report_on(on, self.link(on).as_ref(), kind);
        let told = self.transition(|books, now| match books.slots.refused(on, mark, now) {
            Refusal::Absorbed => None,
            Refusal::Hard(waiters) => {
                let error = Error::SessionRefused {
                    target: self.name().into(),
                    reason,
                };
                let leave = books.unverified(on);
                let (verdict, change) = self.dials.unusable(leave, error, false, now);
                Some((waiters, verdict.error, change))
            }
        });
        if let Some((waiters, error, change)) = told {
            self.report_breaker(change);
            self.dials.wake();
            tell(waiters, &error);
        }
    }

    fn ping(self: &Arc<Self>, on: ConnectionId, mark: Mark) {
        let hub = self.clone();
        let link = self.link(on);
        self.runtime.spawn(async move {
            if let Some(link) = link {
                link.ping().await;
            }
            hub.transition(|books, now| books.slots.pinged(on, mark, now));
        });
    }

    fn disconnect(self: &Arc<Self>, on: ConnectionId) {
        self.give_up(on);
        if let Some(link) = self.link(on) {
            self.runtime.spawn(async move { link.disconnect().await });
        }
    }
}
