//! What befalls the connections to the server.

use std::sync::atomic::Ordering;

use super::{ConnectError, Server};
use crate::error::{Cause, Error};

impl Server {
    /// Nothing passes any more on the connections there are, and no error is reported. `false`: it
    /// does again.
    pub(crate) fn forget_connections(&self, forget: bool) {
        for connection in self
            .state()
            .connections
            .iter()
            .filter_map(std::sync::Weak::upgrade)
        {
            connection.line.forgotten.send_replace(forget);
        }
    }

    /// The connections there are take nothing that is sent, as when russh's queue is full. `false`:
    /// they do again.
    pub(crate) fn stall_connections(&self, stall: bool) {
        let connections: Vec<_> = self.state().connections.clone();
        for connection in connections.iter().filter_map(std::sync::Weak::upgrade) {
            connection.line.stalled.send_replace(stall);
        }
    }

    /// The same for later ones.
    pub(crate) fn stall_later_connections(&self, stall: bool) {
        self.state().stalls = stall;
    }

    /// The connections there are die when something is sent on them, and not before.
    pub(crate) fn reset_when_used(&self) {
        let connections: Vec<_> = self.state().connections.clone();
        for connection in connections.iter().filter_map(std::sync::Weak::upgrade) {
            connection.line.reset.store(true, Ordering::Relaxed);
        }
    }

    /// Nothing is answered to opens on the connections there are.
    pub(crate) fn ignore_opens(&self) {
        let connections: Vec<_> = self.state().connections.clone();
        for connection in connections.iter().filter_map(std::sync::Weak::upgrade) {
            connection.line.ignores_opens.send_replace(true);
        }
    }

    /// The server says something on each connection.
    pub(crate) fn talk(&self) {
        let connections: Vec<_> = self.state().connections.clone();
        for connection in connections.iter().filter_map(std::sync::Weak::upgrade) {
            connection.line.hear();
        }
    }

    /// Every connection dies at once.
    pub(crate) fn kill_connections(&self) {
        let connections = std::mem::take(&mut self.state().connections);
        for connection in connections.iter().filter_map(std::sync::Weak::upgrade) {
            connection.die("killed");
        }
    }
}

/// A dial that fails as if nothing listened there.
pub(crate) fn connection_refused() -> ConnectError {
    let source = Cause::new("connection refused");
    ConnectError {
        error: Error::Connect {
            target: "tester@test:22".into(),
            source,
        },
        transient: false,
    }
}
