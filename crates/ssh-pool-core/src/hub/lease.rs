//! A channel while it belongs to one command, and the wait for one.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::channels::{self, Pooled};
use super::closing::{Counted, Idler};
use super::slots::{ConnectionId, Hand, Ticket};
use super::{Answer, Hub, StreamHold};
use crate::inbox::Sink;
use crate::transport::Channel;

/// A place in the queue. Dropped, it gives the place up, and passes on what had already been
/// handed to it.
pub(super) struct Waiting {
    hub: Arc<Hub>,
    ticket: Option<Ticket>,
    answer: oneshot::Receiver<Answer>,
}

impl Waiting {
    pub(super) fn new(hub: Arc<Hub>, ticket: Ticket, answer: oneshot::Receiver<Answer>) -> Self {
        Self {
            hub,
            ticket: Some(ticket),
            answer,
        }
    }

    pub(super) async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.ticket = None;
        answer.unwrap_or_else(|_| Err(self.hub.closed_error()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        self.answer.close();
        match self.answer.try_recv() {
            Ok(Ok(ready)) => self.hub.give_back(ready),
            _ => self.hub.abandon(ticket),
        }
    }
}

/// An opened channel for one command.
///
/// Dropped unused, the channel is a spare again. Once the command has begun, the lease is kept by
/// the channel's inbox: it ends when the channel has ended, whatever became of the caller.
pub(crate) struct Lease {
    hub: Arc<Hub>,
    /// Until it is dropped.
    pooled: Option<Pooled>,
    connection: ConnectionId,
    /// Of a stream.
    _hold: StreamHold,
    _unattended: Option<Counted>,
}

impl Lease {
    pub(super) fn new(hub: Arc<Hub>, pooled: Pooled) -> Self {
        Self {
            hub,
            connection: pooled.connection,
            pooled: Some(pooled),
            _hold: StreamHold::default(),
            _unattended: None,
        }
    }

    /// No command will be waited for on its channel.
    pub(crate) fn leave_unattended(&mut self, idler: Idler) {
        self._unattended = Some(Counted::new(&self.hub, idler));
    }

    /// The hub that its channel is of.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// It is a stream's from now on.
    pub(crate) fn hold(&mut self, hold: StreamHold) {
        self._hold = hold;
    }

    /// For traces.
    pub(crate) fn connection(&self) -> u64 {
        self.connection.0
    }

    /// The connection that its channel is on.
    pub(crate) fn on(&self) -> ConnectionId {
        self.connection
    }

    /// The channel is used from now on. `None`: it died while it lay idle; take another.
    pub(crate) fn begin(self, stdout: Sink, stderr: Sink) -> Option<Channel> {
        let channel = self.pooled.as_ref()?.channel.clone();
        match channel.inbox.begin(stdout, stderr, self) {
            Ok(()) => Some(channel),
            Err(_dead) => None,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else {
            return;
        };
        match self.hub.hand_on(&pooled) {
            Hand::Spare => {
                drop(pooled);
                self.hub.match_idle();
            }
            hand => self.hub.place(hand, channels::take_out(pooled)),
        }
    }
}
