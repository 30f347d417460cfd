//! How much of everything.

/// What one key may be used for: RFC 4253, section 9 asks for a new one after a gigabyte.
const LONGEST_KEY: usize = 1 << 30;
/// Below this a connection would do little else than change keys.
const SHORTEST_KEY: usize = 64 << 10;

/// How much the pool may use. Every limit counts things, none of them time: see
/// [`Timeouts`](crate::Timeouts) for that.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// let limits = ssh_pool::Limits::default().connections_per_host(2).output_bytes(1 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    pub(crate) sessions_per_connection: u32,
    pub(crate) connections_per_host: u32,
    pub(crate) isolated_per_host: u32,
    pub(crate) grouped_per_host: u32,
    pub(crate) streams_per_connection: u32,
    pub(crate) stream_bytes: usize,
    pub(crate) handshakes_per_host: u32,
    pub(crate) handshakes: u32,
    pub(crate) login_burst: u32,
    pub(crate) output_bytes: usize,
    pub(crate) buffered_bytes: usize,
    pub(crate) queued_commands: usize,
    pub(crate) connections: u32,
    pub(crate) auth_attempts: usize,
    pub(crate) rekey_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_connection: 10,
            connections_per_host: 4,
            isolated_per_host: 128,
            grouped_per_host: 512,
            streams_per_connection: 512,
            stream_bytes: 4 << 20,
            handshakes_per_host: 4,
            handshakes: 64,
            login_burst: 128,
            output_bytes: 64 << 20,
            buffered_bytes: 1 << 30,
            queued_commands: 16_384,
            connections: 4_096,
            auth_attempts: 5,
            rekey_bytes: LONGEST_KEY,
        }
    }
}

impl Limits {
    /// Commands at once on one connection. Default: 10, sshd's default `MaxSessions`.
    ///
    /// This is where the pool starts, except with a dropbear before 2024.86, which loses
    /// connections with more than one session. A server that refuses more lowers it for that host;
    /// the learned limit is in `HostStatus` and rises again to this one.
    #[must_use]
    pub fn sessions_per_connection(mut self, sessions: u32) -> Self {
        self.sessions_per_connection = sessions;
        self
    }

    /// Connections to one host that take new commands; callers who may not share connections count
    /// as different hosts. Default: 4, so that 40 commands run at once before any of them queues.
    ///
    /// One more is there while an old or worn one is replaced: they are replaced one after the
    /// other. What still runs after `Timeouts::drain` on one that has been replaced, or after
    /// `Host::evict`, comes on top. So do connections whose sessions are all held by streams that
    /// share (`Command::shared` children and subsystems), up to `isolated_per_host`: no command waits
    /// for longer than a second for such a stream to end.
    #[must_use]
    pub fn connections_per_host(mut self, connections: u32) -> Self {
        self.connections_per_host = connections;
        self
    }

    /// Isolated connections to one host: one for each `Command::spawn` and each stream that does
    /// not share. Counted apart from the shared ones. Default: 128; the next one waits for one of
    /// them to end, and after `Timeouts::acquire` fails with
    /// [`Error::StreamLimit`](crate::Error::StreamLimit). Programs whose streams need one another
    /// group them: see [`StreamGroup`](crate::StreamGroup).
    ///
    /// Each is a login (about 30 ms of processor on either side), about 110 kB here and 5 MB of sshd
    /// processes on the server, and is kept for `Timeouts::idle`.
    #[must_use]
    pub fn isolated_per_host(mut self, connections: u32) -> Self {
        self.isolated_per_host = connections;
        self
    }

    /// Isolated connections to one host for the further streams of groups that have one already: see
    /// [`StreamGroup`](crate::StreamGroup). They are not counted in
    /// [`isolated_per_host`](Limits::isolated_per_host), and do not wait for
    /// [`connections`](Limits::connections). Default: 512; an attached `docker compose up` of 40
    /// services takes 80. It is a guard against runaway programs: at this limit the next stream
    /// fails at once, with [`Error::StreamLimit`](crate::Error::StreamLimit).
    #[must_use]
    pub fn grouped_per_host(mut self, connections: u32) -> Self {
        self.grouped_per_host = connections;
        self
    }

    /// Shared streams (TCP and Unix sockets) on one connection. They are no sessions, so sshd's
    /// `MaxSessions` does not count them. Default: 512, below the 1,000 channels of dropbear. Where
    /// every connection is full the next stream waits; no further connection is dialled for it. When
    /// its time is over it fails with [`Error::StreamLimit`](crate::Error::StreamLimit), and at once
    /// for a [`StreamGroup`](crate::StreamGroup) that has streams.
    #[must_use]
    pub fn streams_per_connection(mut self, streams: u32) -> Self {
        self.streams_per_connection = streams;
        self
    }

    /// Bytes of a shared stream that wait for a slow reader; more of them are
    /// [`Error::OutputLimit`](crate::Error::OutputLimit), and the end of that stream. Default: 4
    /// MiB. An isolated stream has no such limit: it holds the remote process back.
    #[must_use]
    pub fn stream_bytes(mut self, bytes: usize) -> Self {
        self.stream_bytes = bytes;
        self
    }

    /// Handshakes at once with one address, over all users and identities. Default: 4, well below
    /// the 10 unauthenticated connections at which sshd's default `MaxStartups 10:30:100` begins
    /// to drop. What has to be run to end a cancelled command is one more.
    ///
    /// Of identities that have not been let in yet, or were refused last, no more than two log in
    /// at once at one address (host and port), and after two failures one every five seconds: sshd
    /// charges failed logins to our address, and refuses all connections from there when there are
    /// too many (`PerSourcePenalties`, OpenSSH 9.8 and later). So a cold start of many users or
    /// identities at one address takes longer, within their callers' deadlines. Those that have
    /// been let in do not wait for that, and log in three at once at most: even their keys may be
    /// gone.
    #[must_use]
    pub fn handshakes_per_host(mut self, handshakes: u32) -> Self {
        self.handshakes_per_host = handshakes;
        self
    }

    /// Handshakes at once in the whole pool. Default: 64.
    #[must_use]
    pub fn handshakes(mut self, handshakes: u32) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// Connections to one address (host and port) that may end early before further logins there wait.
    /// Default: 128. It is a budget over all users, identities and purposes of the pool, so that no
    /// server and no caller can make the pool log in without bound: a server that ends each connection,
    /// callers who retry at once or call `Host::evict` in a loop.
    ///
    /// A connection that ends within 30 s of its login takes one from the budget when it ends, and so
    /// does an attempt that reached the server and failed. Two are given back each second. A connection
    /// that is up, or that lasted longer, takes nothing. So one address sees in any `T` seconds at most
    /// `up × (1 + T / 30) + login_burst + 2 × T` logins, where `up` is the most connections and
    /// handshakes that the pool had there at once.
    ///
    /// A login that the budget does not admit waits within its callers' deadlines, in order;
    /// [`EventKind::LoginDelayed`](crate::EventKind::LoginDelayed) says so, and so does the error when
    /// a deadline passes. The time is part of `Waited::dial`.
    #[must_use]
    pub fn login_burst(mut self, connections: u32) -> Self {
        self.login_burst = connections;
        self
    }

    /// Bytes that `Command::output` keeps of each of stdout and stderr. Default: 64 MiB. A command
    /// that writes more fails with [`Error::OutputLimit`](crate::Error::OutputLimit).
    #[must_use]
    pub fn output_bytes(mut self, bytes: usize) -> Self {
        self.output_bytes = bytes;
        self
    }

    /// Memory in bytes that output takes in the whole pool, until it is handed over: of all commands
    /// that run as `Command::output`, of children in `Child::wait_with_output`, and of all streams
    /// what their readers have not read. Default: 1 GiB.
    ///
    /// What is allocated counts, which is up to an eighth more than what has come. A command or a
    /// shared stream that needs more than is left fails with
    /// [`Error::OutputLimit`](crate::Error::OutputLimit), however little its own share is. An isolated
    /// stream never does: while all of these together have a quarter of the limit, each holds its peer
    /// back at 64 KiB instead of 1 MiB.
    ///
    /// Not counted: what each connection needs for itself and for the packets on their way (idle about
    /// 100 KiB, busy up to 512 KiB), those 64 KiB of an isolated one, and what has been handed over.
    /// The feature `sftp` is handed its packets: up to 64 MiB of each `Sftp::read`, and up to 8 MiB of
    /// each transfer, are not counted.
    /// An output of more than 256 KiB is kept in pieces and joined at the end, one output of the pool at
    /// a time. For that moment it may exceed the limit by up to an eighth.
    #[must_use]
    pub fn buffered_bytes(mut self, bytes: usize) -> Self {
        self.buffered_bytes = bytes;
        self
    }

    /// Callers who wait for a session or a connection, in the whole pool: commands, children,
    /// streams, `Host::warm`. Default: 16,384. One more gets
    /// [`Error::QueueFull`](crate::Error::QueueFull) at once. A call that is served without waiting
    /// is not counted. One that was served, and has to wait again because its connection turns out to
    /// be gone, is counted, and is not turned away.
    #[must_use]
    pub fn queued_commands(mut self, callers: usize) -> Self {
        self.queued_commands = callers;
        self
    }

    /// Connections of the whole pool: to all hosts, shared and isolated, those that only wait for
    /// their last commands included. Default: 4,096. A dial beyond that waits within its callers'
    /// deadlines, in order, and the connection that has been idle for longest is closed to make
    /// room. No command is cut off for it. What has to be run to end a cancelled command (see
    /// [`Command`](crate::Command#cancelling)) does not wait for room: the connection for that is one
    /// more, which is not counted. Nor does the call of a [`StreamGroup`](crate::StreamGroup) that has a
    /// stream.
    #[must_use]
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Keys and passwords offered in one login, over all identities and an agent's keys. Default:
    /// 5, one below sshd's default `MaxAuthTries`.
    #[must_use]
    pub fn auth_attempts(mut self, attempts: usize) -> Self {
        self.auth_attempts = attempts;
        self
    }

    /// Bytes in one direction after which a connection changes its keys, between 64 KiB and 1 GiB, as
    /// ssh's `RekeyLimit`. Default: 1 GiB (RFC 4253, section 9). See also `Timeouts::rekey`.
    ///
    /// With the default, a shared connection changes its keys only when the server asks for it. With a
    /// smaller value this side asks too, and russh 0.65 ends the connection if more than 4 MiB arrive
    /// before the server's answer.
    #[must_use]
    pub fn rekey_bytes(mut self, bytes: usize) -> Self {
        self.rekey_bytes = bytes;
        self
    }

    /// Checks the limits of one target against those of its pool: what is counted for the whole pool,
    /// or for an address over all users, cannot differ.
    pub(crate) fn check_within(&self, pool: &Self) -> Result<(), crate::Error> {
        let same = [
            (self.handshakes == pool.handshakes, "handshakes"),
            (
                self.handshakes_per_host == pool.handshakes_per_host,
                "handshakes_per_host",
            ),
            (self.login_burst == pool.login_burst, "login_burst"),
            (self.connections == pool.connections, "connections"),
            (
                self.queued_commands == pool.queued_commands,
                "queued_commands",
            ),
            (self.buffered_bytes == pool.buffered_bytes, "buffered_bytes"),
        ];
        match same.into_iter().find(|(same, _)| !same) {
            None => Ok(()),
            Some((_, name)) => Err(crate::Error::InvalidInput {
                what: "limits",
                reason: format!(
                    "{name} is not a limit of one target; begin with a clone of the pool's Limits, \
                     and set {name} with PoolBuilder::limits"
                ),
            }),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), crate::Error> {
        let zero = [
            (self.sessions_per_connection, "sessions_per_connection"),
            (self.connections_per_host, "connections_per_host"),
            (self.isolated_per_host, "isolated_per_host"),
            (self.grouped_per_host, "grouped_per_host"),
            (self.streams_per_connection, "streams_per_connection"),
            (self.handshakes_per_host, "handshakes_per_host"),
            (self.handshakes, "handshakes"),
            (
                u32::try_from(self.auth_attempts).unwrap_or(u32::MAX),
                "auth_attempts",
            ),
        ];
        let too_many = 1024;
        for (some, name) in [
            (self.connections > 0, "connections"),
            (self.login_burst > 0, "login_burst"),
            (self.queued_commands > 0, "queued_commands"),
            (self.buffered_bytes > 0, "buffered_bytes"),
        ] {
            if !some {
                return Err(crate::Error::InvalidInput {
                    what: "limits",
                    reason: format!("{name} is 0, it must be at least 1"),
                });
            }
        }
        for (value, name) in zero {
            if value == 0 || value > too_many {
                return Err(crate::Error::InvalidInput {
                    what: "limits",
                    reason: format!("{name} is {value}, it must be between 1 and {too_many}"),
                });
            }
        }
        if !(SHORTEST_KEY..=LONGEST_KEY).contains(&self.rekey_bytes) {
            return Err(crate::Error::InvalidInput {
                what: "limits",
                reason: format!(
                    "rekey_bytes is {}, it must be between {SHORTEST_KEY} and {LONGEST_KEY}",
                    self.rekey_bytes
                ),
            });
        }
        Ok(())
    }
}
