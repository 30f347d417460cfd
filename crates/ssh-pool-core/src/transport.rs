//! What the pool needs of an SSH implementation, and nothing more. Only the folder below names
//! one.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::error::{Cause, Error};
use crate::host_key::HostKeyPolicy;
use crate::identity::Identity;
use crate::inbox::Inbox;
use crate::sync::{Mutex, MutexGuard};

mod auth;
mod client;
mod config;
mod dial;
mod keys;
mod known_hosts;
mod link;
mod progress;
mod quirks;
mod stream;

#[cfg(test)]
pub(crate) mod scripted;

pub(crate) use dial::Russh;
pub(crate) use keys::check as check_identity;
pub(crate) use known_hosts::check_pin;

/// Everything that decides which connection a command may ride on, and how it is dialled.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// For messages: `user@host:port`.
    pub(crate) name: Arc<str>,
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) identity: Identity,
    pub(crate) policy: HostKeyPolicy,
    pub(crate) connect_timeout: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_misses: usize,
    pub(crate) auth_attempts: usize,
    pub(crate) auth_cooldown: Duration,
}

#[cfg(test)]
impl Endpoint {
    /// An endpoint that nobody dials.
    pub(crate) fn for_tests() -> Self {
        Self {
            name: "tester@test:22".into(),
            user: "tester".into(),
            host: "test".into(),
            port: 22,
            identity: Identity::password("not a secret"),
            policy: HostKeyPolicy::dangerous_accept_any(),
            connect_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(15),
            keepalive_misses: 3,
            auth_attempts: 5,
            auth_cooldown: Duration::from_secs(60),
        }
    }
}

/// Makes connections.
pub(crate) trait Transport: Send + Sync + 'static {
    /// From nothing to an authenticated connection, within the endpoint's connect timeout. A
    /// dropped or failed dial leaves no socket behind.
    fn dial<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>>;
}

/// A failed dial.
#[derive(Debug, Clone)]
pub(crate) struct DialError {
    pub(crate) error: Error,
    /// The server was reached and may have been overloaded or restarting: worth another try.
    pub(crate) passing: bool,
}

/// One live, authenticated connection. Dropping the last reference closes it.
pub(crate) trait Link: Send + Sync + 'static {
    /// Opens a session channel. Not cancel safe: an open that is dropped half-way keeps its slot
    /// on the server, so it runs in a task of its own.
    fn open(&self) -> BoxFuture<'_, Result<Channel, OpenError>>;

    /// One round trip. Ends early when the connection dies.
    fn ping(&self) -> BoxFuture<'_, ()>;

    /// Says goodbye and closes.
    fn disconnect(&self) -> BoxFuture<'_, ()>;

    /// How many sessions this server can be trusted with, if it is known for less than it allows.
    fn sessions_at_most(&self) -> Option<u32> {
        None
    }

    /// The end of this connection.
    fn lifeline(&self) -> &Lifeline;
}

/// An opened session channel.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) inbox: Arc<Inbox>,
}

/// Why an open failed.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The server said no, in these words.
    Refused(String),
    /// The connection is gone.
    Lost,
}

/// The connection no longer takes what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// The sending end of a session channel. Everything is sent in order.
pub(crate) trait Wire: Send + Sync + 'static {
    /// Asks for the command to be executed, with a reply.
    fn exec(&self, line: Vec<u8>) -> BoxFuture<'_, Result<(), Gone>>;

    /// Sends data as the peer's window allows. Race it with the channel's end: nobody wakes a
    /// writer on a channel that has closed.
    fn send(&self, data: Bytes) -> BoxFuture<'_, Result<(), Gone>>;

    /// No more data from us.
    fn eof(&self) -> BoxFuture<'_, Result<(), Gone>>;

    /// Asks the server to signal the remote process.
    fn signal(&self, name: &'static str) -> BoxFuture<'_, Result<(), Gone>>;
}

/// Called once when a connection has ended.
type Hook = Box<dyn FnOnce(&Cause) + Send>;

#[derive(Default)]
struct Life {
    ended: Option<Cause>,
    hook: Option<Hook>,
}

/// Tells that a connection has ended, and why.
#[derive(Default)]
pub(crate) struct Lifeline {
    life: Mutex<Life>,
    gone: CancellationToken,
}

impl Lifeline {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection has ended. Only the first reason counts.
    pub(crate) fn end(&self, cause: Cause) {
        let hook = {
            let mut life = self.life();
            if life.ended.is_some() {
                return;
            }
            life.ended = Some(cause.clone());
            life.hook.take()
        };
        if let Some(hook) = hook {
            hook(&cause);
        }
        self.gone.cancel();
    }

    /// Calls `hook` when the connection has ended: now, if it has already. One hook at a time.
    pub(crate) fn on_end(&self, hook: impl FnOnce(&Cause) + Send + 'static) {
        let mut life = self.life();
        match life.ended.clone() {
            Some(cause) => {
                drop(life);
                hook(&cause);
            }
            None => life.hook = Some(Box::new(hook)),
        }
    }

    /// Waits until the connection has ended and its hook has run. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.gone.cancelled().await;
    }

    /// Why it ended, if it has.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.life().ended.clone()
    }
}
