//! What goes wrong, and when.

use std::fmt;

use serde::Serialize;

/// What happens in one round. In each of them more commands come at once than `MaxSessions` allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Everybody finds no connection, and wants one: starters side by side.
    Cold,
    /// Nothing but the commands, on a connection that is there.
    Overflow,
    /// The ssh master is killed. ssh-pool has none, so it loses a connection in another way: the
    /// server's processes for its busiest one are killed.
    MasterKilled,
    /// The server's processes for all connections are killed.
    ServerSideKilled,
    /// The ssh master is stopped (SIGSTOP), and stays so to the end of the round. For ssh-pool it is
    /// the server's processes for its busiest connection: what holds it no longer answers.
    Stopped,
    /// The way between the two passes nothing on for a while.
    Frozen,
    /// The server is restarted, and its connections are killed.
    Restart,
}

impl Fault {
    /// In the order in which they come, again and again.
    pub(crate) const ALL: [Self; 7] = [
        Self::Cold,
        Self::Overflow,
        Self::MasterKilled,
        Self::ServerSideKilled,
        Self::Stopped,
        Self::Frozen,
        Self::Restart,
    ];

    /// What strikes in that round.
    pub(crate) fn of(round: usize) -> Self {
        let mut faults = Self::ALL.into_iter().cycle();
        faults.nth(round % Self::ALL.len()).unwrap_or(Self::Cold)
    }

    /// Whether it strikes while commands run.
    pub(crate) fn strikes(self) -> bool {
        !matches!(self, Self::Cold | Self::Overflow)
    }

    /// How many logins nobody can do without.
    pub(crate) fn logins(self) -> usize {
        usize::from(self != Self::Overflow)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cold => "cold start",
            Self::Overflow => "above MaxSessions",
            Self::MasterKilled => "master killed",
            Self::ServerSideKilled => "server's side killed",
            Self::Stopped => "master stopped",
            Self::Frozen => "network frozen",
            Self::Restart => "server restarted",
        })
    }
}
