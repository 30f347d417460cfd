//! A channel while it belongs to one command, and the wait for one.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::channels::{self, Pooled};
use super::closing::{UnattendedGuard, UnattendedUse};
use super::host_state::{ConnectionId, Handoff, WaiterId};
use super::{ChannelResult, ConnectionGroup, StreamHold};
use crate::receiver::Sink;
use crate::transport::Channel;

/// A place in the queue. Dropped, it gives the place up, and passes on what had already been
/// handed to it.
pub(super) struct WaitGuard {
    group: Arc<ConnectionGroup>,
    waiter_id: Option<WaiterId>,
    answer: oneshot::Receiver<ChannelResult>,
}

impl WaitGuard {
    pub(super) fn new(
        group: Arc<ConnectionGroup>,
        waiter_id: WaiterId,
        answer: oneshot::Receiver<ChannelResult>,
    ) -> Self {
        Self {
            group,
            waiter_id: Some(waiter_id),
            answer,
        }
    }

    pub(super) async fn answer(mut self) -> ChannelResult {
        let answer = (&mut self.answer).await;
        self.waiter_id = None;
        answer.unwrap_or_else(|_| Err(self.group.closed_error()))
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let Some(waiter_id) = self.waiter_id.take() else {
            return;
        };
        self.answer.close();
        match self.answer.try_recv() {
            Ok(Ok(idle)) => self.group.return_channel(idle),
            _ => self.group.abandon(waiter_id),
        }
    }
}

/// An opened channel for one command.
///
/// Dropped unused, the channel is idle again. Once the command has begun, the channel's receiver
/// keeps the guard and drops it when the channel has ended, whatever became of the caller.
pub(crate) struct ChannelGuard {
    group: Arc<ConnectionGroup>,
    /// Until it is dropped.
    pooled: Option<Pooled>,
    connection: ConnectionId,
    /// Of a stream.
    _hold: StreamHold,
    _unattended: Option<UnattendedGuard>,
}

impl ChannelGuard {
    pub(super) fn new(group: Arc<ConnectionGroup>, pooled: Pooled) -> Self {
        Self {
            group,
            connection: pooled.connection,
            pooled: Some(pooled),
            _hold: StreamHold::default(),
            _unattended: None,
        }
    }

    /// No command will be waited for on its channel.
    pub(crate) fn leave_unattended(&mut self, usage: UnattendedUse) {
        self._unattended = Some(UnattendedGuard::new(&self.group, usage));
    }

    /// The group that its channel is of.
    pub(crate) fn group(&self) -> &Arc<ConnectionGroup> {
        &self.group
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
        match channel.receiver.begin(stdout, stderr, self) {
            Ok(()) => Some(channel),
            Err(_dead) => None,
        }
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else {
            return;
        };
        match self.group.next_handoff(&pooled) {
            Handoff::Idle => {
                drop(pooled);
                self.group.match_idle();
            }
            handoff => self.group.deliver(handoff, channels::take_out(pooled)),
        }
    }
}
