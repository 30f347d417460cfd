//! Servers that accept a login and then end each connection, and servers that accept none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{ConnectError, ScriptedConnection, Server};
use crate::error::{Cause, Error};

/// What makes the server end a connection, every time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ConnectionEnding {
    #[default]
    Never,
    /// So long after its login, whatever is on it.
    After(Duration),
    /// The first open, which is not answered.
    AtOpen,
    /// The first open, which is granted.
    AfterOpen,
    /// The first command, which has started.
    AtExec,
    /// It refuses each connection: there are too many.
    Throttles,
    /// It resets connections in the key exchange.
    Resets,
    /// It speaks another protocol.
    Garbage,
}

/// An attempt to log in, or the connection that came of it.
pub(super) struct Up(Server);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.state().up.push((Instant::now(), -1));
    }
}

impl ConnectionEnding {
    pub(super) fn after_login(self, connection: &Arc<ScriptedConnection>) {
        if let ConnectionEnding::After(time) = self {
            let connection = Arc::downgrade(connection);
            tokio::spawn(async move {
                sleep(time).await;
                if let Some(connection) = connection.upgrade() {
                    connection.die("ended by the server");
                }
            });
        }
    }
}

impl ScriptedConnection {
    /// Ends the connection if this is what ends it.
    pub(super) fn ends_at(&self, moment: ConnectionEnding) -> bool {
        let ends = self.server.state().ending == moment;
        if ends {
            self.die("ended by the server");
        }
        ends
    }
}

impl Server {
    /// From now on connections end like this.
    pub(crate) fn end_each(&self, ending: ConnectionEnding) {
        self.state().ending = ending;
    }

    /// When each attempt to log in began (1) and its connection ended (-1), in order.
    pub(crate) fn up(&self) -> Vec<(Instant, i32)> {
        self.state().up.clone()
    }

    pub(super) fn begin_login(&self) -> Up {
        self.state().up.push((Instant::now(), 1));
        Up(self.clone())
    }

    pub(super) fn ends_at_exec(&self, connection: u32) -> bool {
        let connections = {
            let state = self.state();
            match state.ending {
                ConnectionEnding::AtExec => state.connections.clone(),
                _ => return false,
            }
        };
        let mut connections = connections.iter().filter_map(std::sync::Weak::upgrade);
        if let Some(connection) = connections.find(|other| other.id == connection) {
            connection.die("ended by the server");
        }
        true
    }

    /// How the next dial ends, if it fails.
    pub(super) fn next_failure(&self, name: &Arc<str>) -> Option<ConnectError> {
        let mut state = self.state();
        let (target, source) = (name.into(), Cause::new("closed"));
        let (error, transient) = match state.ending {
            ConnectionEnding::Throttles => {
                let message = "Exceeded MaxStartups".into();
                let error = Error::Throttled {
                    target,
                    message,
                    source,
                };
                (error, true)
            }
            ConnectionEnding::Resets => {
                let lost = true;
                let error = Error::KeyExchange {
                    target,
                    lost,
                    source,
                };
                (error, true)
            }
            ConnectionEnding::Garbage => {
                let received = "220 ready".into();
                let error = Error::NotSsh {
                    target,
                    received,
                    source,
                };
                (error, false)
            }
            _ => return state.failures.pop_front(),
        };
        Some(ConnectError { error, transient })
    }
}
