//! What befalls the connections to the server.

use std::sync::atomic::Ordering;

use super::Server;

impl Server {
    /// Nothing passes any more on the connections there are, and nobody is told. `false`: it does
    /// again.
    pub(crate) fn forget_connections(&self, forget: bool) {
        for link in self
            .state()
            .links
            .iter()
            .filter_map(std::sync::Weak::upgrade)
        {
            link.line.forgotten.send_replace(forget);
        }
    }

    /// The connections there are take nothing that is sent, as when russh's queue is full. `false`:
    /// they do again.
    pub(crate) fn stall_connections(&self, stall: bool) {
        let links: Vec<_> = self.state().links.clone();
        for link in links.iter().filter_map(std::sync::Weak::upgrade) {
            link.line.stalled.send_replace(stall);
        }
    }

    /// The same for later ones.
    pub(crate) fn stall_later_connections(&self, stall: bool) {
        self.state().stalls = stall;
    }

    /// The connections there are die when something is sent on them, and not before.
    pub(crate) fn reset_when_used(&self) {
        let links: Vec<_> = self.state().links.clone();
        for link in links.iter().filter_map(std::sync::Weak::upgrade) {
            link.line.reset.store(true, Ordering::Relaxed);
        }
    }

    /// Every connection dies at once.
    pub(crate) fn kill_connections(&self) {
        let links = std::mem::take(&mut self.state().links);
        for link in links.iter().filter_map(std::sync::Weak::upgrade) {
            link.die("killed");
        }
    }
}
