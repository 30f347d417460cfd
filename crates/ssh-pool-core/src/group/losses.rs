//! Connections that end under a request before it is sent.
//!
//! Nothing has started, so the request goes to another connection. It may be the reason, though: a
//! server that cannot take what precedes it ends one connection after the other, each with the
//! commands of others. So a request is not carried on for ever.
//!
//! A connection that had ended before the request got there says nothing about the request: a
//! network that forgot its connections, or a server that was restarted, ends all of them. Those
//! are not counted. A connection counts if it was alive when the request got there:
//!
//! - something of the request was sent on it, and it had been heard from within
//!   `Timeouts::check_after`, or had answered when it was asked;
//! - or it was made since the call began.
//!
//! A channel that the server closes while its connection lives costs a pause from the fourth on: a
//! server that closes every channel would otherwise be asked for thousands a second.
//!
//! After the first loss each further connection is asked for a sign of life before anything is
//! sent on it, however short its silence: then the first rule holds without doubt.

use std::sync::Arc;
use std::time::Duration;

use super::host_state::ConnectionId;
use super::{Admission, ConnectionGroup, doubled, jitter};
use crate::error::{Cause, Error, Phase};
use crate::transport::Connection;

/// A request under which this many connections have ended is not tried on another.
const MOST: u32 = 2;

/// What one call has lost.
#[derive(Default)]
pub(super) struct Losses {
    counted: u32,
    /// A connection has ended, counted or not.
    any: bool,
    /// Channels of live connections that the server closed before the request was sent.
    closed_channels: u32,
    /// The newest connection of the pool when the call began.
    newest: Option<u64>,
}

/// This many channels are replaced without a pause. Old dropbear closes unused channels.
const CLOSED_AT_ONCE: u32 = 3;
/// The longest pause before another channel.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a connection that has ended under a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Nothing of the request was sent.
    Not,
    /// What precedes it was sent, or may have been.
    Server,
}

impl Admission {
    /// Whether a connection has ended under the call, so that the next one has to be asked first.
    pub(crate) fn is_wary(&self) -> bool {
        self.losses.any
    }

    /// The server has closed a channel before the request was sent, and the connection lives.
    pub(crate) fn channel_closed(&mut self) {
        self.losses.closed_channels += 1;
    }

    /// How long to wait before the next channel.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let closed = self.losses.closed_channels;
        let count = closed
            .checked_sub(CLOSED_AT_ONCE)
            .filter(|count| *count > 0)?;
        Some(jitter(doubled(count).min(LONGEST_PAUSE)))
    }
}

impl ConnectionGroup {
    /// A call begins a round here.
    pub(crate) fn begin(&self, admission: &mut Admission) {
        let newest = || self.reporter.newest_connection();
        admission.losses.newest.get_or_insert_with(newest);
    }

    /// A connection has ended under the call before its request was sent.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] if the request is not tried on another.
    pub(crate) fn lost_under(
        &self,
        admission: &mut Admission,
        on: ConnectionId,
        connection: Option<&Arc<dyn Connection>>,
        reached: Reached,
    ) -> Result<(), Error> {
        let losses = &mut admission.losses;
        losses.any = true;
        let made_since = losses.newest.is_some_and(|newest| on.0 > newest);
        losses.counted += u32::from(made_since || reached == Reached::Server);
        tracing::debug!(
            host = %self.name(),
            connection = on.0,
            ?reached,
            counted = losses.counted,
            "a connection ended under a request that was not sent"
        );
        if losses.counted < MOST {
            return Ok(());
        }
        let cause = connection.and_then(|connection| connection.close_signal().cause());
        Err(Error::ConnectionLost {
            target: self.name().into(),
            phase: Phase::Channel,
            source: cause.unwrap_or_else(|| Cause::new("the connection ended")),
        })
    }
}
