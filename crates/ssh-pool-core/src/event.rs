//! What happens inside a pool, for those who want to know: a stream of events, and a line in the
//! trace for each.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use crate::error::{Cause, Error, ServerMessage, Stream};

/// How many events a reader may be behind before it misses the oldest.
const BEHIND: usize = 1024;

/// Something that has happened to the connections of a pool.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(pool: ssh_pool::Pool) -> Result<(), ssh_pool::Error> {
/// if let Some(event) = pool.events().next().await {
///     println!("{:?} {} {}", event.at, event.target, event.kind);
/// }
/// # Ok(())
/// # }
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// When, by this machine's clock. What happens on two threads at the same time is reported in
    /// either order.
    pub at: SystemTime,
    /// To which host: `user@host:port`. Empty for what concerns the whole pool.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serialize::text"))]
    pub target: Arc<str>,
    /// To which of its connections: its number in the trace and in
    /// [`ConnectionStatus::number`](crate::ConnectionStatus::number). No other connection of the pool
    /// has it, to whichever host and whatever for.
    pub connection: Option<u64>,
    /// The address that this connection goes to. `None` for events that are not about one connection,
    /// and for a connection that is no TCP connection of its own.
    pub peer_addr: Option<SocketAddr>,
    /// What.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub kind: EventKind,
}

/// What has happened.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::EventKind;
///
/// /// Whether an operator should look at it.
/// fn is_alarming(kind: &EventKind) -> bool {
///     match kind {
///         EventKind::BreakerOpened { .. } | EventKind::QueueFull { .. } => true,
///         EventKind::Died { lost, .. } => *lost > 0,
///         _ => false, // more kinds may come
///     }
/// }
/// ```
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "kind", rename_all = "snake_case")
)]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind {
    /// A connection was made and authenticated.
    Dialled {
        /// From the start of the dial, with the wait for its share of `Limits::handshakes`.
        took: Duration,
    },
    /// A connection could not be made, or ended before the server had granted anything on it: then this
    /// comes after `Dialled` and `Died`.
    DialFailed {
        /// Why not.
        error: Error,
        /// No other dial before this has passed.
        pause: Duration,
    },
    /// A login waits before the server is asked.
    LoginDelayed {
        /// It waits for so long at least: others may be before it.
        wait: Duration,
        /// What for.
        reason: LoginDelay,
    },
    /// The server said something to people during a login, before it is known what comes of that: its
    /// banner, an instruction, why it disconnects. At most nine for each login.
    ServerMessage {
        /// What it said.
        message: ServerMessage,
    },
    /// Dials have failed, and from now on the error answers callers at once.
    BreakerOpened {
        /// Why the last dial failed.
        error: Error,
        /// No connection is attempted before this has passed; the next caller after it makes one. A
        /// dial that was under way beside that one and fails later may make it longer, which is not
        /// reported again: `HostStatus::breaker` shows what is left of it.
        retry_in: Duration,
    },
    /// The pause is over and a connection is wanted, by a caller or as the replacement of one that
    /// is in use: one dial shows whether the host is back.
    BreakerHalfOpen,
    /// It is back, or `Host::evict` was called: dials are made as they are needed.
    BreakerClosed,
    /// The server refused a session. The queue absorbs it.
    SessionRefused {
        /// The server's reason (RFC 4254, section 5.1).
        reason: String,
    },
    /// How many sessions a connection to this host holds was learned anew: sshd's `MaxSessions`.
    LimitLearned {
        /// The number of sessions.
        sessions: u32,
    },
    /// A connection takes no new commands; those that run on it finish.
    Retired {
        /// Why.
        reason: Retirement,
    },
    /// The host has another address, and its connections to the old one have been
    /// [retired](Retirement::AddressChanged): no new command runs there. This is seen by a dial: the
    /// name no longer resolves to the old address, or that does not accept connections and another
    /// one does. Each target with connections to the old address has this event.
    AddressChanged {
        /// Where the connections of the host went.
        from: SocketAddr,
        /// Where they go now.
        to: SocketAddr,
    },
    /// A retired connection has said goodbye.
    Closed,
    /// A connection has ended without being closed from this side.
    Died {
        /// Why, as far as is known.
        cause: Cause,
        /// Commands and streams that were on it, and ended with it.
        lost: u32,
    },
    /// As many callers wait for a channel as `Limits::queued_commands` allows, and one was turned
    /// away. Told again only when fewer than half as many have waited in between.
    QueueFull {
        /// The limit, in callers.
        limit: usize,
    },
    /// More output came than may be kept, and the command or stream was cut off:
    /// [`Error::OutputLimit`].
    Overrun {
        /// Which stream.
        stream: Stream,
        /// The cap, in bytes.
        limit: usize,
    },
    /// A command that no caller waits for was sent `SIGTERM` and `SIGKILL`, and the server has not said
    /// that it has ended. It may still be running and hold its session, so its connection takes no
    /// new ones: see [`Error::NotKilled`].
    Leaked {
        /// So long was tried to end it.
        after: Duration,
    },
    /// An [idempotent](crate::Command::idempotent) command was lost with its connection, and is run
    /// again.
    Rerun {
        /// How often it has been tried so far.
        attempts: u32,
        /// What the last attempt failed with.
        error: Error,
        /// The next one begins after this.
        pause: Duration,
    },
    /// The reader of this stream was so slow that it has missed events.
    Missed {
        /// The number of events.
        events: u64,
    },
}

/// What a login waits for.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Event, EventKind, LoginDelay};
///
/// /// Whether somebody should look at the keys.
/// fn has_wrong_identity(event: &Event) -> bool {
///     matches!(event.kind, EventKind::LoginDelayed { reason: LoginDelay::FailedLogins, .. })
/// }
/// ```
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoginDelay {
    /// The login budget of its address: see [`Limits::login_burst`](crate::Limits::login_burst).
    Budget,
    /// Failed logins at its address, of whichever identity. OpenSSH (9.8 and later,
    /// `PerSourcePenalties`) charges an address five seconds for each, and turns it away from fifteen
    /// on: a login goes out when it may fail as well without that.
    FailedLogins,
}

/// Why a connection takes no new commands.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Event, EventKind, Retirement};
///
/// fn has_moved(event: &Event) -> bool {
///     matches!(event.kind, EventKind::Retired { reason: Retirement::AddressChanged })
/// }
/// ```
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retirement {
    /// It ran nothing for `Timeouts::idle`.
    Idle,
    /// It is older than `Timeouts::lifetime`. If its host is in use, another one has been connected
    /// before this.
    Lifetime,
    /// `Host::evict` was called.
    Evicted,
    /// The host has another address: [`EventKind::AddressChanged`].
    AddressChanged,
    /// `Pool::close` was called.
    PoolClosed,
    /// Channels that this side had to close first have used it up. It is replaced like one that is
    /// old.
    Worn,
    /// The server gives it no sessions any more.
    Refused,
    /// It was asked for a sign of life, and gave none within `Timeouts::check`. It may be dead.
    Unresponsive,
    /// It was idle, and another one needed its room: under `Limits::connections`, or because file
    /// descriptors ran out.
    MadeRoom,
}

impl fmt::Display for Retirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "it was idle",
            Self::Lifetime => "it was old",
            Self::Evicted => "it was evicted",
            Self::AddressChanged => "the host has another address",
            Self::PoolClosed => "the pool is closed",
            Self::Worn => "it was worn",
            Self::Refused => "the server gives it no sessions",
            Self::Unresponsive => "it does not answer",
            Self::MadeRoom => "another one needed its room",
        })
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialled { took } => write!(f, "connected after {took:?}"),
            Self::DialFailed { error, pause } => {
                write!(f, "dial failed: {error}; no other for {pause:?}")
            }
            Self::LoginDelayed { wait, reason } => match reason {
                LoginDelay::Budget => {
                    write!(
                        f,
                        "the login budget of the address admits none for {wait:?}"
                    )
                }
                LoginDelay::FailedLogins => {
                    write!(
                        f,
                        "logins have failed at the address: no other for {wait:?}"
                    )
                }
            },
            Self::ServerMessage { message } => write!(f, "the server says: {message}"),
            Self::BreakerOpened { error, retry_in } => {
                write!(f, "breaker open for {retry_in:?}: {error}")
            }
            Self::BreakerHalfOpen => f.write_str("breaker half-open: one dial decides"),
            Self::BreakerClosed => f.write_str("breaker closed"),
            Self::SessionRefused { reason } => write!(f, "session open refused ({reason})"),
            Self::LimitLearned { sessions } => write!(f, "a connection holds {sessions} sessions"),
            Self::Retired { reason } => write!(f, "connection retired: {reason}"),
            Self::AddressChanged { from, to } => {
                write!(f, "the address of the host has changed from {from} to {to}")
            }
            Self::Closed => f.write_str("connection closed"),
            Self::Died { cause, lost } => {
                write!(f, "connection died: {cause}; {lost} were on it")
            }
            Self::QueueFull { limit } => {
                write!(
                    f,
                    "{limit} wait for a channel, and one more was turned away"
                )
            }
            Self::Overrun { stream, limit } => {
                write!(
                    f,
                    "more than {limit} bytes of {stream} came, and it was cut off"
                )
            }
            Self::Leaked { after } => {
                write!(f, "a command did not end for certain within {after:?}")
            }
            Self::Rerun {
                attempts, pause, ..
            } => write!(f, "lost at attempt {attempts}: run again after {pause:?}"),
            Self::Missed { events } => write!(f, "{events} events were missed"),
        }
    }
}

/// The events of a pool from the moment of [`Pool::events`](crate::Pool::events) on.
///
/// A reader that is more than 1,024 events behind gets [`EventKind::Missed`] for the oldest of
/// them. Nothing waits for a reader.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(pool: ssh_pool::Pool) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::EventKind;
///
/// let mut events = pool.events();
/// while let Some(event) = events.next().await {
///     if let EventKind::Died { cause, lost } = &event.kind {
///         eprintln!("{}: lost {lost} commands: {cause}", event.target);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` when the pool is gone.
    ///
    /// # Cancel safety
    ///
    /// No event is lost by dropping the future.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(Event::missed(events)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event, if it has happened already.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.0.try_recv() {
            Ok(event) => Some(event),
            Err(broadcast::error::TryRecvError::Lagged(events)) => Some(Event::missed(events)),
            Err(_) => None,
        }
    }
}

impl Event {
    fn missed(events: u64) -> Self {
        Self {
            at: SystemTime::now(),
            target: "".into(),
            connection: None,
            peer_addr: None,
            kind: EventKind::Missed { events },
        }
    }
}

/// Sends the events of a pool to its listeners. Called outside of every lock.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    /// Made for the first who listens: it has room for all events at once.
    listeners: OnceLock<broadcast::Sender<Event>>,
    /// The number of the newest connection of the pool.
    newest: AtomicU64,
}

impl Reporter {
    /// A number for a new connection, which no other one of the pool has had.
    pub(crate) fn next_connection(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn newest_connection(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    pub(crate) fn listen(&self) -> Events {
        let sender = self
            .listeners
            .get_or_init(|| broadcast::Sender::new(BEHIND));
        Events(sender.subscribe())
    }

    pub(crate) fn report(
        &self,
        target: &Arc<str>,
        connection: Option<ConnectionRef>,
        kind: EventKind,
    ) {
        let peer_addr = connection.and_then(|connection| connection.peer_addr);
        let connection = connection.map(|connection| connection.number);
        tracing::debug!(
            host = %target,
            connection,
            peer_addr = peer_addr.map(tracing::field::display),
            "{kind}"
        );
        #[cfg(feature = "metrics")]
        crate::metrics::count(target, &kind);
        if let Some(listeners) = self.listeners.get() {
            let event = Event {
                at: SystemTime::now(),
                target: target.clone(),
                connection,
                peer_addr,
                kind,
            };
            // There may be no listener any more.
            drop(listeners.send(event));
        }
    }
}

/// The connection that an event is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionRef {
    pub(crate) number: u64,
    pub(crate) peer_addr: Option<SocketAddr>,
}

/// Tells what happens on one connection.
#[derive(Debug, Clone)]
pub(crate) struct EventScope {
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) target: Arc<str>,
    pub(crate) connection: ConnectionRef,
}

impl EventScope {
    pub(crate) fn report(&self, kind: EventKind) {
        (self.reporter).report(&self.target, Some(self.connection), kind);
    }
}
