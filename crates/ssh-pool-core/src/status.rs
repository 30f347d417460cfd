//! What a pool is doing, for people and dashboards. Reading it probes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::group::{ConnectionSnapshot, Counters, GroupSnapshot, SessionCounts};
use crate::host_pools::HostPools;

/// A snapshot of a whole pool.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(pool: ssh_pool::Pool) -> Result<(), ssh_pool::Error> {
/// let status = pool.status();
/// println!("{} of {} connections", status.connections, status.connections_limit);
/// for host in status.hosts {
///     println!("{}: {} run, {} wait", host.target, host.running, host.waiting);
/// }
/// # Ok(())
/// # }
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Every host that is or was recently in use, by target.
    pub hosts: Vec<HostStatus>,
    /// Callers who wait for a session or a connection.
    pub waiting: usize,
    /// How many of them there may be: `Limits::queued_commands`.
    pub waiting_limit: usize,
    /// Connections to all hosts, whatever for and in whatever state, and dials under way.
    pub connections: usize,
    /// How many of them there may be: `Limits::connections`.
    pub connections_limit: u32,
    /// Memory in bytes that output takes which is kept for commands and for readers of streams. Files
    /// that `Sftp::read` holds are not counted.
    pub buffered_bytes: usize,
    /// How much it may take: `Limits::buffered_bytes`.
    pub buffered_bytes_limit: usize,
}

/// A snapshot of one host, as one identity and host-key policy sees it.
///
/// Counts of things are of this moment; those that say "so far" are totals.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// let status = host.status();
/// println!("{}: {} connections, {} run", status.target, status.connections, status.running);
/// if let Some(error) = status.last_error {
///     println!("cannot be reached: {error}");
/// }
/// # Ok(())
/// # }
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostStatus {
    /// `user@host:port`.
    pub target: String,
    /// Connections that take new commands, side by side.
    pub connections: u32,
    /// How many of them there may be: `Limits::connections_per_host`.
    pub connections_limit: u32,
    /// Connections that only wait for their last commands.
    pub retiring: u32,
    /// Isolated connections: one for each spawned command or stream that does not share, and those
    /// that wait for the next. With those for groups.
    pub isolated: u32,
    /// How many of them there may be: `Limits::isolated_per_host`.
    pub isolated_limit: u32,
    /// Isolated connections in use. With those for groups.
    pub isolated_busy: u32,
    /// Those who wait for an isolated connection.
    pub isolated_waiting: usize,
    /// Of the isolated connections those beyond their limit, for further streams of a
    /// [`StreamGroup`](crate::StreamGroup).
    pub grouped: u32,
    /// How many of them there may be: `Limits::grouped_per_host`.
    pub grouped_limit: u32,
    /// Streams and forwards on shared connections.
    pub streams: u32,
    /// Dials under way.
    pub dialling: u32,
    /// Sessions in use on shared connections, retiring ones included: each from the moment when it is
    /// handed to a call until the server has closed it. That are the commands of `output` and `status`,
    /// commands that were spawned with [`shared`](crate::Command::shared), subsystems likewise, and
    /// those whose call was dropped or timed out and which the server has not let go of. Not counted:
    /// what has a connection to itself, as spawned commands have by default
    /// ([`isolated_busy`](Self::isolated_busy)), streams to addresses ([`streams`](Self::streams)), and
    /// what the pool runs to end commands. See [`ConnectionStatus::running`] for each connection.
    pub running: u32,
    /// Opened sessions that wait for a command.
    pub spare: u32,
    /// Sessions being opened.
    pub opening: u32,
    /// Sessions that have ended and that the server may not have freed yet.
    pub cooling: u32,
    /// Commands that wait for a session.
    pub waiting: usize,
    /// How many sessions a connection to this host holds, as far as is known: sshd's
    /// `MaxSessions`. Begins at `Limits::sessions_per_connection`, with an old dropbear at 1.
    pub learned_sessions: u32,
    /// Successful dials so far.
    pub dials: u64,
    /// Failed dials so far, with those whose connection ended before the server granted anything on it.
    pub failed_dials: u64,
    /// Sessions that the server refused so far. The queue absorbed them.
    pub refused_opens: u64,
    /// Sessions that the server granted so far.
    pub opens: u64,
    /// Sessions handed to commands so far.
    pub commands: u64,
    /// The most shared connections there were at once, retiring ones included.
    pub peak_connections: u32,
    /// The last failed dial since the last successful one, in words.
    pub last_error: Option<String>,
    /// Whether this host is dialled at all.
    pub breaker: Breaker,
    /// Each connection there is, retiring ones included: those that are shared first, then isolated
    /// ones, those for groups, then those for helper commands; of each kind the oldest first.
    pub each_connection: Vec<ConnectionStatus>,
}

/// The circuit breaker of a host as one identity sees it. It holds dials up, and no command on a
/// connection that lives.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::Breaker;
///
/// match host.status().breaker {
///     Breaker::Closed => println!("it is there, as far as is known"),
///     Breaker::Open { retry_in } => println!("it is down; the next attempt is in {retry_in:?}"),
///     _ => println!("it is being tried"),
/// }
/// # Ok(())
/// # }
/// ```
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breaker {
    /// Dials are made as they are needed.
    Closed,
    /// Dials have failed, and callers were told. Callers get the same error at once until the pause
    /// is over: at first about 100 ms, longer with every failure and for a host that takes long to
    /// fail, up to 30 s; after a refused login it is `Timeouts::auth_cooldown`.
    /// [`Host::evict`](crate::Host::evict) ends it.
    Open {
        /// How much of the pause is left. Zero: the next caller is let through, and makes it
        /// half-open; or a connection in use does that is old and gets a successor. An unused host
        /// is not dialled.
        retry_in: Duration,
    },
    /// One dial shows whether the host is back. Callers wait for it; from the third failure in a
    /// row on, those who come meanwhile get the last error at once.
    HalfOpen,
}

/// A snapshot of one connection. Reading it sends nothing.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// for connection in host.status().each_connection {
///     let (number, age) = (connection.number, connection.age);
///     println!("{number} to {:?}, {age:?} old", connection.peer_addr);
/// }
/// # Ok(())
/// # }
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Its number, as in traces and in [`Event::connection`](crate::Event::connection). No other
    /// connection of the pool has it, to whichever host and whatever for; a later one has a higher
    /// one.
    pub number: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// The address of the server, which is the same for all connections that take new commands.
    /// `None`: it is no TCP connection of its own.
    pub peer_addr: Option<SocketAddr>,
    /// How long ago it was made.
    pub age: Duration,
    /// How long ago anything came from the server, whatever it was. With a server that is there it
    /// is not much more than `Timeouts::keepalive_interval`.
    pub last_heard: Duration,
    /// Sessions in use: at most one unless it is [`Purpose::Shared`] or [`Purpose::Errands`]. Each
    /// counts until the server has closed it.
    pub running: u32,
    /// Opened sessions that wait for a command.
    pub spare: u32,
    /// Streams and forwards, which are no sessions to the server.
    pub streams: u32,
    /// Whether it takes nothing new any more, and only waits for what is on it.
    pub retiring: bool,
    /// Whether it was quiet for `Timeouts::check_after` and is being asked for a sign of life.
    pub checking: bool,
}

impl ConnectionStatus {
    fn of(purpose: Purpose, connection: &ConnectionSnapshot) -> Self {
        let counts = &connection.counts;
        Self {
            number: counts.id.0,
            purpose,
            peer_addr: connection.peer_addr,
            age: connection.age,
            last_heard: connection.quiet_for,
            running: counts.in_use,
            spare: counts.idle,
            streams: counts.streams,
            retiring: counts.retiring,
            checking: connection.checking,
        }
    }
}

/// What a connection is for.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::Purpose;
///
/// let all = host.status().each_connection;
/// let shared = all.iter().filter(|connection| connection.purpose == Purpose::Shared);
/// println!("{} take commands", shared.count());
/// # Ok(())
/// # }
/// ```
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Commands and streams side by side.
    Shared,
    /// One command or stream at a time.
    Isolated,
    /// The same, for further streams of a [`StreamGroup`](crate::StreamGroup), beyond the limit.
    Grouped,
    /// What the pool itself has to do, such as to end a cancelled command.
    Errands,
}

impl HostStatus {
    pub(crate) fn of(pools: &HostPools) -> Self {
        let limits = pools.limits();
        let shared = pools.shared().snapshot();
        let isolated = pools.isolated_if_used().map(|group| group.snapshot());
        let grouped = pools.grouped_if_used().map(|group| group.snapshot());
        let control = pools.control_if_used().map(|group| group.snapshot());
        let all = [
            (Purpose::Shared, Some(&shared)),
            (Purpose::Isolated, isolated.as_ref()),
            (Purpose::Grouped, grouped.as_ref()),
            (Purpose::Errands, control.as_ref()),
        ];
        let used = || (all.iter()).filter_map(|(purpose, group)| Some((*purpose, (*group)?)));
        let sum = |snapshot: &GroupSnapshot, count: fn(&SessionCounts) -> u32| {
            let session_counts = snapshot
                .connections
                .iter()
                .map(|connection| &connection.counts);
            session_counts.map(count).sum()
        };
        let of = |group: &Option<GroupSnapshot>, count: fn(&SessionCounts) -> u32| {
            group.as_ref().map_or(0, |snapshot| sum(snapshot, count))
        };
        let of_isolated =
            |count: fn(&SessionCounts) -> u32| of(&isolated, count) + of(&grouped, count);
        let apart = || isolated.iter().chain(&grouped);
        let of_shared = |count: fn(&SessionCounts) -> u32| sum(&shared, count);
        // Totals of every connection, whatever it is for.
        let total = |count: fn(&Counters) -> u64| {
            used().map(|(_, snapshot)| count(&snapshot.counters)).sum()
        };
        Self {
            target: shared.name.to_string(),
            connections: of_shared(|connection| u32::from(!connection.retiring)),
            connections_limit: limits.connections_per_host,
            retiring: of_shared(|connection| u32::from(connection.retiring)),
            isolated: of_isolated(|connection| u32::from(!connection.retiring)),
            isolated_limit: limits.isolated_per_host,
            isolated_busy: of_isolated(|connection| {
                u32::from(connection.in_use + connection.streams > 0)
            }),
            isolated_waiting: apart().map(|snapshot| snapshot.waiting).sum(),
            grouped: of(&grouped, |connection| u32::from(!connection.retiring)),
            grouped_limit: limits.grouped_per_host,
            streams: of_shared(|connection| connection.streams),
            dialling: shared.connecting + apart().map(|snapshot| snapshot.connecting).sum::<u32>(),
            running: of_shared(|connection| connection.in_use),
            spare: of_shared(|connection| connection.idle),
            opening: of_shared(|connection| connection.opening),
            cooling: of_shared(|connection| connection.releasing),
            waiting: shared.waiting,
            learned_sessions: shared.learned,
            dials: total(|counters| counters.dials),
            failed_dials: total(|counters| counters.failed_dials),
            refused_opens: total(|counters| counters.refused_opens),
            opens: total(|counters| counters.opens),
            commands: total(|counters| counters.commands),
            peak_connections: shared.counters.peak_connections,
            last_error: shared.last_error.as_ref().map(ToString::to_string),
            breaker: shared.breaker,
            each_connection: used()
                .flat_map(|(purpose, snapshot)| {
                    let connections = snapshot.connections.iter();
                    connections.map(move |connection| ConnectionStatus::of(purpose, connection))
                })
                .collect(),
        }
    }
}
