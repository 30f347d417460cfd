//! What a pool is doing, for people and dashboards. Reading it probes nothing.

/// A snapshot of a whole pool.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Every host that is or was recently in use, by target.
    pub hosts: Vec<HostStatus>,
}

/// A snapshot of one host, as one identity and host-key policy sees it.
///
/// Counts of things are of this moment; those that say "so far" are totals.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostStatus {
    /// `user@host:port`.
    pub target: String,
    /// Connections that take new commands.
    pub connections: u32,
    /// Connections that only wait for their last commands.
    pub retiring: u32,
    /// Dials under way.
    pub dialling: u32,
    /// Sessions in use: commands that run, and cancelled ones that the server has not let go of.
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
    /// Failed dials so far.
    pub failed_dials: u64,
    /// Sessions that the server refused so far. The queue absorbed them.
    pub refused_opens: u64,
    /// Sessions that the server granted so far.
    pub opens: u64,
    /// Sessions handed to commands so far.
    pub commands: u64,
    /// The most connections there were at once, retiring ones included.
    pub peak_connections: u32,
    /// The last failed dial since the last successful one, in words.
    pub last_error: Option<String>,
}

impl From<crate::hub::Snapshot> for HostStatus {
    fn from(snapshot: crate::hub::Snapshot) -> Self {
        let crate::hub::Snapshot {
            tally, connections, ..
        } = &snapshot;
        let sum = |count: fn(&crate::hub::View) -> u32| connections.iter().map(count).sum();
        Self {
            target: snapshot.name.to_string(),
            connections: sum(|connection| u32::from(!connection.retiring)),
            retiring: sum(|connection| u32::from(connection.retiring)),
            dialling: snapshot.dialling,
            running: sum(|connection| connection.leased),
            spare: sum(|connection| connection.ready),
            opening: sum(|connection| connection.opening),
            cooling: sum(|connection| connection.cooling),
            waiting: snapshot.waiting,
            learned_sessions: snapshot.learned,
            dials: tally.dials,
            failed_dials: tally.failed_dials,
            refused_opens: tally.refused_opens,
            opens: tally.opens,
            commands: tally.commands,
            peak_connections: tally.peak_connections,
            last_error: snapshot.last_error.as_ref().map(ToString::to_string),
        }
    }
}
