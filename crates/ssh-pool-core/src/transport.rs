//! What the pool needs of an SSH implementation, and nothing more. Only the folder below names
//! one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::algorithms::Algorithms;
use crate::buffered::Buffered;
use crate::error::{Cause, Error, HostKeyProblem, Phase};
use crate::event::Reporter;
use crate::host_key::HostKeyPolicy;
use crate::identity::Identity;
use crate::login_shell::LoginShell;
use crate::pty::Pty;
use crate::receiver::ChannelReceiver;
use crate::sync::{Mutex, MutexGuard};

mod agent;
mod algorithms;
mod arithmetic;
mod auth;
mod client;
mod config;
mod connect;
mod connection;
mod handshake_progress;
mod happy_eyeballs;
mod keys;
mod known_hosts;
mod last_heard;
mod messages;
mod offer;
mod phase_cell;
mod quirks;
mod read_timeout;
mod sizes;
mod stopwatch;
mod stream;
mod stuck;
mod traffic;
mod translate;

#[cfg(test)]
pub(crate) mod scripted;

pub(crate) use algorithms::check as check_algorithms;
pub(crate) use connect::Russh;
pub(crate) use connection::check_pty;
pub(crate) use keys::check as check_identity;
pub(crate) use known_hosts::check_pin;
pub(crate) use phase_cell::PhaseCell;
pub(crate) use sizes::{Sizes, TooLong};
#[cfg(feature = "internals")]
pub(crate) use {
    handshake_progress::identified,
    known_hosts::{HostKeyDecision, host_key_decision, remember},
};

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
    pub(crate) algorithms: Arc<Algorithms>,
    pub(crate) connect_timeout: Duration,
    pub(crate) agent_timeout: Duration,
    /// How long the server has to accept the connection, and then to identify itself, if that is
    /// less.
    pub(crate) hello_timeout: Duration,
    /// How far the dial has come that is under way.
    pub(crate) phase_cell: Arc<PhaseCell>,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_misses: usize,
    pub(crate) auth_attempts: usize,
    pub(crate) auth_cooldown: Duration,
    /// Bytes and time after which keys are changed.
    pub(crate) rekey: (usize, Duration),
    /// A reader that does not read holds the whole connection up: it is not shared.
    pub(crate) isolated: bool,
    /// Counts the memory of what waits to be read or collected.
    pub(crate) buffered: Option<Arc<Buffered>>,
    /// Hears what the server says to people during a login.
    pub(crate) reporter: Option<Arc<Reporter>>,
}

/// Dropped when the socket of a connection has been closed, and not before.
pub(crate) type SocketGuard = Box<dyn Send + Sync>;

/// Which of the addresses that a name resolves to a dial may use: the connections of one host go to
/// one address. Each dial has its own.
pub(crate) trait AddressChoice: Send + Sync {
    /// The address to try first, if the name still resolves to it.
    fn preferred(&self) -> Option<SocketAddr>;

    /// The only address that may be used now, whether or not it is among those that the name
    /// resolves to. It may change while the dial waits for an answer.
    fn required(&self, resolved: &[SocketAddr]) -> Option<SocketAddr>;

    /// The dial has a TCP connection to this address. `Err`: it has to use another address, and
    /// closes this connection. `Ok` binds the other dials of the host until this one has ended.
    fn claim(&self, address: SocketAddr, resolved: &[SocketAddr]) -> Result<(), SocketAddr>;

    /// This address did not accept a TCP connection.
    fn unreachable(&self, address: SocketAddr);

    /// The server there has said what it is, and so whether it counts failed logins.
    fn charges_failed_logins(&self, _charges: bool) {}
}

/// Makes connections.
pub(crate) trait Transport: Send + Sync + 'static {
    /// From nothing to an authenticated connection, within the endpoint's connect timeout, in which
    /// the time is not counted that agents and decryption take. A dropped or failed dial leaves no
    /// socket behind.
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        choice: &'a dyn AddressChoice,
        socket_guard: SocketGuard,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>>;
}

/// A failed dial.
#[derive(Debug, Clone)]
pub(crate) struct ConnectError {
    pub(crate) error: Error,
    /// The server was reached and may have been overloaded or restarting: worth another try.
    pub(crate) transient: bool,
}

impl ConnectError {
    /// The server may count it as a failed login.
    pub(crate) fn is_failed_login(&self) -> bool {
        match &self.error {
            Error::AuthRejected { .. } | Error::AuthLost { .. } => true,
            Error::Timeout { phase, .. } => matches!(phase, Phase::Agent | Phase::Auth),
            // There was none left to reach an agent with, in the middle of a login.
            Error::Descriptors { .. } => !self.transient,
            _ => false,
        }
    }

    /// The server may have seen this attempt.
    pub(crate) fn reached_server(&self) -> bool {
        match &self.error {
            // Lost after TCP had connected.
            Error::Connect { .. } => self.transient,
            // In the middle of a login.
            Error::Descriptors { .. } => !self.transient,
            Error::HostKey { .. } => self.is_host_key_rejected(),
            // An identity may fail before the login, as a file does, or during it, as an agent does.
            error => error.phase() >= Phase::Banner,
        }
    }

    /// The server has shown its key, and we have hung up on it.
    pub(crate) fn is_host_key_rejected(&self) -> bool {
        match &self.error {
            // Found before it was asked.
            Error::HostKey { reason, .. } => !matches!(reason, HostKeyProblem::Unreadable { .. }),
            _ => false,
        }
    }
}

/// One live, authenticated connection. Dropping the last reference closes it.
pub(crate) trait Connection: Send + Sync + 'static {
    /// Opens a session channel. Not cancel safe: an open that is dropped half-way keeps its slot
    /// on the server, so it runs in a task of its own.
    fn open(&self) -> BoxFuture<'_, Result<Channel, OpenError>>;

    /// Opens a channel to an address that the server connects to. Not cancel safe either.
    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, Result<Channel, OpenError>>;

    /// Asks the server to listen, and returns where it does. What it accepts arrives at `listener`
    /// until `unlisten`, or the end of the connection.
    fn listen<'a>(
        &'a self,
        on: &'a Address,
        listener: Listener,
    ) -> BoxFuture<'a, Result<Address, ListenError>>;

    /// The server stops listening there.
    fn unlisten<'a>(&'a self, on: &'a Address) -> BoxFuture<'a, ()>;

    /// One round trip. Ends early when the connection dies.
    fn ping(&self) -> BoxFuture<'_, ()>;

    /// Says goodbye and closes.
    fn disconnect(&self) -> BoxFuture<'_, ()>;

    /// The address of the server. `None`: the connection is no TCP connection of its own.
    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// The server at the other end.
    fn server(&self) -> ServerProfile;

    /// The end of this connection.
    fn close_signal(&self) -> &CloseSignal;

    /// How long ago anything came from the server, whatever it was. A machine that was suspended
    /// heard nothing.
    fn quiet_for(&self) -> Duration;

    /// Whether that is less than `time`.
    fn heard_within(&self, time: Duration) -> bool {
        self.quiet_for() < time
    }
}

/// An opened channel.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(crate) sender: Arc<dyn ChannelSender>,
    pub(crate) receiver: Arc<ChannelReceiver>,
}

/// Why an open failed.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The server said no: with this reason of RFC 4254, section 5.1, in these words.
    Refused { code: u32, reason: String },
    /// The connection is gone.
    Lost,
}

/// Why the server does not listen.
#[derive(Debug)]
pub(crate) enum ListenError {
    /// It said no, without a reason: the reply has no room for one.
    Denied,
    /// The connection is gone.
    Lost,
}

/// Takes what the server has accepted for us. Called in the session loop: must not wait.
pub(crate) type Listener = Box<dyn Fn(Incoming) + Send + Sync>;

/// A connection that the server has accepted, and wants a channel for.
pub(crate) struct Incoming {
    /// Answers the server, and takes the channel.
    pub(crate) accept: BoxFuture<'static, Channel>,
    /// Refuses the channel.
    pub(crate) reject: BoxFuture<'static, ()>,
}

/// The connection no longer takes what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The connection no longer takes what is sent.
    Gone,
    /// The server would end the connection. Nothing has happened to it, nor to the channel.
    TooLong(TooLong),
}

impl From<Gone> for Unsent {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<TooLong> for Unsent {
    fn from(long: TooLong) -> Self {
        Self::TooLong(long)
    }
}

/// What is known of the server at the other end of a connection, from its identification line, and
/// of what it does for the user who has logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerProfile {
    /// The sessions at once that it handles correctly, where that is fewer than it grants.
    pub(crate) sessions_at_most: Option<u32>,
    pub(crate) signals: Signals,
    /// The longest strings that it takes.
    pub(crate) sizes: Sizes,
}

/// What a server does with a signal request (RFC 4254, section 6.9), to which there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signals {
    /// It reaches the process group of the command, as far as is known.
    Group,
    /// It is ignored. The command has a process group of its own.
    Ignored,
    /// It reaches the login shell alone, which shares its group with the server.
    Shell,
}

/// What begins on a session channel.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// A command line (RFC 4254, section 6.5).
    Exec(Vec<u8>),
    /// A subsystem (RFC 4254, section 6.5).
    Subsystem(String),
}

/// Writes as the peer's window allows. Shutting it down is EOF.
pub(crate) type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// The sending end of a channel. Everything is sent in order. A request that is longer than the
/// server takes is not sent.
pub(crate) trait ChannelSender: Send + Sync + 'static {
    /// Asks for something to begin, with a reply.
    fn start(&self, request: Request) -> BoxFuture<'_, Result<(), Unsent>>;

    /// Asks for an environment variable, with a reply if wanted.
    fn env(&self, name: String, value: String, reply: bool) -> BoxFuture<'_, Result<(), Unsent>>;

    /// Asks for a terminal, with a reply.
    fn pty<'a>(&'a self, pty: &'a Pty) -> BoxFuture<'a, Result<(), Unsent>>;

    /// The terminal has another size.
    fn resize(&self, columns: u32, rows: u32) -> BoxFuture<'_, Result<(), Gone>>;

    /// Sends data as the peer's window allows. Race it with the channel's end: a writer on a
    /// channel that has closed is not woken.
    fn send(&self, data: Bytes) -> BoxFuture<'_, Result<(), Gone>>;

    /// For many writes. The same race.
    fn writer(&self) -> Writer;

    /// No more data from us.
    fn eof(&self) -> BoxFuture<'_, Result<(), Gone>>;

    /// Asks the server to signal the remote process.
    fn signal(&self, name: String) -> BoxFuture<'_, Result<(), Unsent>>;

    /// Closes the channel from this end, which ends its receiver.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// The address of the server: see [`Connection::peer_addr`].
    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// The server at the other end.
    fn server(&self) -> ServerProfile;

    /// Whether processes of this connection whose login shell has ended can only be those of
    /// commands that are being ended: this server has been seen to pass a signal on, so it runs no
    /// forced command, and no other command of the connection is in that state.
    fn may_signal_leaderless(&self) -> bool;

    /// What the server said about environment variables on this connection.
    fn env_names(&self) -> &EnvNames;

    /// What is known of the login shell of this connection's account.
    fn login_shell(&self) -> &Arc<LoginShell>;
}

/// Which environment variables a server takes, by name: sshd decides by its `AcceptEnv` as it was
/// when the connection was made.
#[derive(Debug, Default)]
pub(crate) struct EnvNames(std::sync::Mutex<HashMap<String, bool>>);

impl EnvNames {
    /// Whether it takes this one, if that is known.
    pub(crate) fn taken(&self, name: &str) -> Option<bool> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(name).copied()
    }

    pub(crate) fn learn(&self, name: &str, taken: bool) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), taken);
    }
}

/// Called once when a connection has ended.
type CloseHook = Box<dyn FnOnce(&Cause) + Send>;

#[derive(Default)]
struct CloseState {
    ended: Option<Cause>,
    hook: Option<CloseHook>,
}

/// Tells that a connection has ended, and why.
#[derive(Default)]
pub(crate) struct CloseSignal {
    close_state: Mutex<CloseState>,
    gone: CancellationToken,
}

impl CloseSignal {
    fn close_state(&self) -> MutexGuard<'_, CloseState> {
        self.close_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection has ended. Only the first reason counts.
    pub(crate) fn end(&self, cause: Cause) {
        let hook = {
            let mut close_state = self.close_state();
            if close_state.ended.is_some() {
                return;
            }
            close_state.ended = Some(cause.clone());
            close_state.hook.take()
        };
        if let Some(hook) = hook {
            hook(&cause);
        }
        self.gone.cancel();
    }

    /// Calls `hook` when the connection has ended: now, if it has already. One hook at a time.
    pub(crate) fn on_end(&self, hook: impl FnOnce(&Cause) + Send + 'static) {
        let mut close_state = self.close_state();
        match close_state.ended.clone() {
            Some(cause) => {
                drop(close_state);
                hook(&cause);
            }
            None => close_state.hook = Some(Box::new(hook)),
        }
    }

    /// Waits until the connection has ended and its hook has run. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.gone.cancelled().await;
    }

    /// Why it ended, if it has.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.close_state().ended.clone()
    }
}
