//! How long for everything.

use std::time::Duration;

/// How long the pool waits, keeps and remembers.
///
/// ```
/// use std::time::Duration;
/// # use ssh_pool_core as ssh_pool;
/// let timeouts = ssh_pool::Timeouts::default().connect(Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) agent: Duration,
    pub(crate) acquire: Duration,
    pub(crate) patience: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_misses: usize,
    pub(crate) check_after: Duration,
    pub(crate) check: Duration,
    pub(crate) rekey: Duration,
    pub(crate) idle: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) limit_recovery: Duration,
    pub(crate) auth_cooldown: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            agent: Duration::from_secs(20),
            acquire: Duration::from_secs(30),
            patience: Duration::from_millis(250),
            keepalive_interval: Duration::from_secs(15),
            keepalive_misses: 3,
            check_after: Duration::from_secs(5),
            check: Duration::from_secs(2),
            rekey: Duration::from_secs(60 * 60),
            idle: Duration::from_secs(5 * 60),
            lifetime: Duration::from_secs(60 * 60),
            limit_recovery: Duration::from_secs(5 * 60),
            auth_cooldown: Duration::from_secs(60),
            kill_grace: Duration::from_secs(2),
            drain: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// For one dial: reading key files, name lookup, TCP, banner, key exchange and authentication
    /// together, from the moment when the budget of handshakes allows it. Default: 10 s. When it
    /// passes, the socket is closed, and all callers that waited for this connection fail.
    ///
    /// It does not count the time that agents take ([`agent`](Self::agent)), nor the time in which an
    /// encrypted key is decrypted, which happens once for a pool and may take five minutes.
    #[must_use]
    pub fn connect(mut self, timeout: Duration) -> Self {
        self.connect = timeout;
        self
    }

    /// For one answer of an agent: the list of its keys, or a signature, for which it may have to ask
    /// its owner. Default: 20 s. When it passes, the next identity is tried; if none is left, the
    /// error is [`Error::Identity`](crate::Error::Identity) and names the agent.
    ///
    /// The requests of a pool to one agent take turns, and the time begins with the turn. The server
    /// waits meanwhile: sshd for `LoginGraceTime`, 120 s by default.
    #[must_use]
    pub fn agent(mut self, timeout: Duration) -> Self {
        self.agent = timeout;
        self
    }

    /// From the call to a channel that is ready for the command: queueing, dials and their
    /// retries. Default: 30 s.
    ///
    /// A server has as long to answer the request after that: [`Command::spawn`](crate::Command::spawn)
    /// counts both together. A command without a deadline of its own that has not been answered by
    /// then, while a later round trip has, fails with [`Error::Timeout`](crate::Error::Timeout) in
    /// `Phase::Exec`.
    #[must_use]
    pub fn acquire(mut self, timeout: Duration) -> Self {
        self.acquire = timeout;
        self
    }

    /// How long the oldest waiting command waits for a slot on the connections there are, before
    /// another connection is dialled. Default: 250 ms, so that a burst of short commands costs no
    /// further login. Zero dials at once.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A connection that was quiet for this long is asked for a sign of life, as ssh's
    /// `ServerAliveInterval` does. Default: 15 s.
    #[must_use]
    pub fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.keepalive_interval = interval;
        self
    }

    /// Unanswered keepalives after which a connection is dead, as ssh's `ServerAliveCountMax`.
    /// Default: 3. What ran on it gets [`Error::ConnectionLost`](crate::Error::ConnectionLost),
    /// one interval after the last of them. A process that did not run meanwhile (SIGSTOP) gives
    /// the server one more interval to answer.
    ///
    /// A connection that takes nothing is dead as well, whatever is heard from it: one whose server
    /// does not finish a change of keys (RFC 4253, section 9) within this time and two intervals.
    #[must_use]
    pub fn keepalive_misses(mut self, misses: usize) -> Self {
        self.keepalive_misses = misses;
        self
    }

    /// A connection from which nothing was heard for this long is asked for one round trip before
    /// a command goes out on it, or a stream. Default: 5 s. A command that is sent to a server
    /// which is no longer there may or may not have run; one that is not sent goes elsewhere.
    ///
    /// Connections in use are not checked, and only commands wait for a check. The time that a machine
    /// was suspended counts as quiet. Zero checks before each command.
    #[must_use]
    pub fn check_after(mut self, quiet: Duration) -> Self {
        self.check_after = quiet;
        self
    }

    /// How long a connection may take to answer that, or to open a channel that a caller waits for
    /// while nothing else comes from it either; five times as long, if something does. Default: 2 s.
    /// After that it takes no new commands (`Retirement::Unresponsive`), and another one is used or
    /// dialled. What runs on it goes on: the keepalives decide whether it is dead.
    #[must_use]
    pub fn check(mut self, timeout: Duration) -> Self {
        self.check = timeout;
        self
    }

    /// A connection changes its keys after this long, as with ssh's `RekeyLimit`. Default: 1 h (RFC
    /// 4253, section 9). As for `Limits::rekey_bytes`, a shared connection does so only with a value
    /// below the default; it is replaced after [`lifetime`](Self::lifetime).
    #[must_use]
    pub fn rekey(mut self, interval: Duration) -> Self {
        self.rekey = interval;
        self
    }

    /// A connection that ran nothing for this long is closed. Default: 5 min.
    #[must_use]
    pub fn idle(mut self, timeout: Duration) -> Self {
        self.idle = timeout;
        self
    }

    /// A connection older than this (± 10 %, drawn for each) is replaced. While its host is in
    /// use (something runs, or has within the last second, or waits) it serves on until another
    /// one is connected; then it takes no new commands, and is closed when its last one has
    /// finished. Where the other one cannot be connected it stays. Default: 1 h.
    ///
    /// An isolated connection is closed when what runs on it ends.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// After this long without a refused session, a learned session limit is raised by one.
    /// Default: 5 min.
    #[must_use]
    pub fn limit_recovery(mut self, interval: Duration) -> Self {
        self.limit_recovery = interval;
        self
    }

    /// For this long after a refused login, the same login is not tried again; the remembered
    /// error answers instead. Default: 60 s. However short it is, no more logins fail at one address
    /// than sshd puts up with: see [`Limits::handshakes_per_host`](crate::Limits::handshakes_per_host).
    #[must_use]
    pub fn auth_cooldown(mut self, cooldown: Duration) -> Self {
        self.auth_cooldown = cooldown;
        self
    }

    /// How long a cancelled command has to end after `SIGTERM`, before it gets `SIGKILL`. Default:
    /// 2 s. Zero: `SIGKILL` follows at once.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = grace;
        self
    }

    /// How long `Pool::close` lets running commands finish before it disconnects. Default: 30 s.
    ///
    /// A connection that has been replaced finishes its commands however long they take. For this
    /// long no other connection of the host is replaced beside it: see
    /// `Limits::connections_per_host`.
    #[must_use]
    pub fn drain(mut self, timeout: Duration) -> Self {
        self.drain = timeout;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), crate::Error> {
        let positive = [
            (self.connect, "connect"),
            (self.agent, "agent"),
            (self.acquire, "acquire"),
            (self.keepalive_interval, "keepalive_interval"),
            (self.check, "check"),
            (self.rekey, "rekey"),
            (self.idle, "idle"),
            (self.lifetime, "lifetime"),
            (self.limit_recovery, "limit_recovery"),
        ];
        // A year: far beyond any use, and far below where adding it to a clock could overflow.
        let longest = Duration::from_secs(366 * 24 * 60 * 60);
        let rest = [
            (self.patience, "patience"),
            (self.check_after, "check_after"),
            (self.auth_cooldown, "auth_cooldown"),
            (self.drain, "drain"),
            (self.kill_grace, "kill_grace"),
        ];
        let problem = |name: &str, what: &str| crate::Error::InvalidInput {
            what: "timeouts",
            reason: format!("{name} {what}"),
        };
        if self.keepalive_misses == 0 {
            return Err(problem("keepalive_misses", "must be at least 1"));
        }
        for (value, name) in positive {
            if value.is_zero() {
                return Err(problem(name, "must be longer than zero"));
            }
        }
        for (value, name) in positive.into_iter().chain(rest) {
            if value > longest {
                return Err(problem(name, "must not be longer than a year"));
            }
        }
        Ok(())
    }
}
