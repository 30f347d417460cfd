//! One host is one machine: the connections to one name and port go to one address, whichever
//! identity they use and whatever they are for.
//!
//! The address is *bound* while a dial that has connected to it is under way, and while connections
//! to it are in service. Then all dials use it. Without either, a dial may use any address that the
//! name resolves to, the last one first. The address changes, and what is in service at the old one
//! is retired, when a dial has logged in at another one:
//!
//! | connections in service | the name still resolves to the address | a dial uses |
//! |---|---|---|
//! | yes | yes | the address; another one after two failures in a row, if no connection there takes new commands |
//! | yes | no | another one; the address, for a minute after the last change |
//! | no  | yes | the address, or whichever accepts 250 ms later |
//! | no  | no  | another one |
//!
//! A resolver that answers with another address each time would have each dial replace the last
//! connections. Therefore the address stays for a minute after a change.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::host_state::ConnectionId;
use super::{ConnectionGroup, SessionCounts, now};
use crate::event::EventKind;
use crate::transport::AddressChoice;

/// After a change the address stays for so long, though the name resolves to others.
const STAY: Duration = Duration::from_secs(60);

/// After this many failed TCP connections in a row an address binds no dial on account of
/// connections that take no new commands, such as one that follows a log.
const UNREACHABLE_AFTER: u32 = 2;

/// What the connections in service at an address are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum InService {
    /// There are none.
    Nothing,
    /// They finish what they run, and take nothing else.
    Occupied,
    /// At least one takes new commands.
    Commands,
}

/// The address of a host, as plain state.
#[derive(Debug, Default)]
struct AddressPin {
    /// Where the last dial has logged in.
    current: Option<SocketAddr>,
    changed_at: Option<Instant>,
    /// TCP connections to `current` that have failed since one did not.
    failures: u32,
    /// Where dials that are under way have connected, and how many they are.
    claimed: Option<(SocketAddr, u32)>,
}

impl AddressPin {
    fn required(
        &self,
        resolved: &[SocketAddr],
        now: Instant,
        in_service: impl FnOnce(SocketAddr) -> InService,
    ) -> Option<SocketAddr> {
        if let Some((address, _)) = self.claimed {
            return Some(address);
        }
        let current = self.current?;
        let stays = |at: Instant| now.saturating_duration_since(at) < STAY;
        let may_stay = resolved.contains(&current) || self.changed_at.is_some_and(stays);
        let bound = may_stay
            && match in_service(current) {
                InService::Nothing => false,
                InService::Occupied => self.failures < UNREACHABLE_AFTER,
                InService::Commands => true,
            };
        bound.then_some(current)
    }

    fn claim(&mut self, address: SocketAddr) {
        if self.current == Some(address) {
            self.failures = 0;
        }
        let dials = self.claimed.map_or(0, |(_, dials)| dials);
        self.claimed = Some((address, dials + 1));
    }

    fn release(&mut self) {
        self.claimed = (self.claimed)
            .map(|(address, dials)| (address, dials.saturating_sub(1)))
            .filter(|(_, dials)| *dials > 0);
    }

    fn unreachable(&mut self, address: SocketAddr) {
        if self.current == Some(address) {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// A dial has logged in there. Returns the address before, if it was another one.
    fn set(&mut self, address: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let before = self.current.replace(address);
        let changed = before.filter(|before| *before != address);
        if changed.is_some() {
            self.changed_at = Some(now);
            self.failures = 0;
        }
        changed
    }
}

/// The address of a host, and the groups that share it.
#[derive(Default)]
pub(super) struct Peer {
    pin: Mutex<AddressPin>,
    groups: Mutex<Vec<Weak<ConnectionGroup>>>,
}

impl Peer {
    /// Taken before the state of a group, never after.
    fn pin(&self) -> MutexGuard<'_, AddressPin> {
        self.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections of this group go to the same address as those of the others.
    pub(super) fn join(&self, group: &Arc<ConnectionGroup>) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.len() == groups.capacity() {
            groups.retain(|group| group.strong_count() > 0);
        }
        groups.push(Arc::downgrade(group));
    }

    fn groups(&self) -> Vec<Arc<ConnectionGroup>> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.iter().filter_map(Weak::upgrade).collect()
    }

    fn required(
        &self,
        pin: &AddressPin,
        resolved: &[SocketAddr],
        groups: &mut Vec<Arc<ConnectionGroup>>,
    ) -> Option<SocketAddr> {
        pin.required(resolved, now(), |address| {
            *groups = self.groups();
            let in_service = groups.iter().map(|group| group.in_service_at(address));
            in_service.max().unwrap_or(InService::Nothing)
        })
    }
}

/// What one dial knows of the address of its host. Dropped, the dial has ended.
pub(super) struct ConnectAddress {
    peer: Arc<Peer>,
    claimed: AtomicBool,
    /// The server counts failed logins, as far as is known.
    charges: AtomicBool,
}

impl ConnectAddress {
    pub(super) fn new(peer: Arc<Peer>) -> Self {
        Self {
            peer,
            claimed: AtomicBool::new(false),
            charges: AtomicBool::new(true),
        }
    }

    pub(super) fn charges(&self) -> bool {
        self.charges.load(Ordering::Relaxed)
    }

    fn release(&self, pin: &mut AddressPin) {
        if self.claimed.swap(false, Ordering::Relaxed) {
            pin.release();
        }
    }
}

impl AddressChoice for ConnectAddress {
    fn preferred(&self) -> Option<SocketAddr> {
        self.peer.pin().current
    }

    fn required(&self, resolved: &[SocketAddr]) -> Option<SocketAddr> {
        // The last handle to a group may be one of these: it is dropped after the lock.
        let mut groups = Vec::new();
        let pin = self.peer.pin();
        self.peer.required(&pin, resolved, &mut groups)
    }

    fn claim(&self, address: SocketAddr, resolved: &[SocketAddr]) -> Result<(), SocketAddr> {
        let mut groups = Vec::new();
        let mut pin = self.peer.pin();
        self.release(&mut pin);
        match self.peer.required(&pin, resolved, &mut groups) {
            Some(other) if other != address => Err(other),
            _ => {
                pin.claim(address);
                self.claimed.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn unreachable(&self, address: SocketAddr) {
        self.peer.pin().unreachable(address);
    }

    fn charges_failed_logins(&self, charges: bool) {
        self.charges.store(charges, Ordering::Relaxed);
    }
}

impl Drop for ConnectAddress {
    fn drop(&mut self) {
        let mut pin = self.peer.pin();
        self.release(&mut pin);
    }
}

impl ConnectionGroup {
    /// What the connections to this address that are in service are good for.
    fn in_service_at(&self, address: SocketAddr) -> InService {
        let state = self.state();
        let there = |counts: &SessionCounts| {
            let connection = state.connection(counts.id);
            !counts.retiring
                && connection.and_then(|connection| connection.peer_addr()) == Some(address)
        };
        let for_commands = !self.budget.is_for_control();
        let isolated = self.endpoint.isolated;
        let takes = |counts: SessionCounts| match counts.in_use + counts.streams {
            _ if !for_commands => InService::Occupied,
            1.. if isolated => InService::Occupied,
            _ => InService::Commands,
        };
        let in_service = state.host.session_counts().filter(there).map(takes);
        in_service.max().unwrap_or(InService::Nothing)
    }

    /// Retires the connections to other addresses than this one. `false`: there were none.
    fn leave_other_addresses(self: &Arc<Self>, address: SocketAddr) -> bool {
        self.transition(|state, now| {
            let elsewhere = |id: &ConnectionId| {
                let connection = state.connection(*id);
                let peer = connection.and_then(|connection| connection.peer_addr());
                peer.is_some_and(|peer| peer != address)
            };
            let left: Vec<_> = state.host.alive().filter(elsewhere).collect();
            state.host.change_address(&left, now);
            !left.is_empty()
        })
    }

    /// Whether the host has another address than this one.
    pub(crate) fn has_left(&self, address: Option<SocketAddr>) -> bool {
        let current = self.budget.peer().pin().current;
        current.is_some() && address.is_some() && current != address
    }

    /// A dial has logged in at this address, and its connection is not in service yet. If the host
    /// was elsewhere, its connections are retired first, so that no new command runs there once one
    /// runs here.
    pub(super) fn arrived_at(&self, address: SocketAddr) {
        let peer = self.budget.peer();
        let mut targets = vec![self.name().clone()];
        if peer.pin().current.is_some_and(|current| current != address) {
            for group in peer.groups() {
                if group.leave_other_addresses(address) && !targets.contains(group.name()) {
                    targets.push(group.name().clone());
                }
            }
        }
        let to = address;
        // Of two dials that have arrived together one changes it, and tells.
        let changed = peer.pin().set(to, now());
        if let Some(from) = changed {
            for target in targets {
                let kind = EventKind::AddressChanged { from, to };
                self.reporter.report(&target, None, kind);
            }
        }
    }
}

#[cfg(test)]
mod tests;
