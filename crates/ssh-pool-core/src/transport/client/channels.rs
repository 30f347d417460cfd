//! The channels of one connection: where what the server says on each of them goes.

use std::collections::{HashMap, hash_map};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use russh::ChannelId;

use crate::address::Address;
use crate::buffered::Buffered;
use crate::error::Cause;
use crate::inbox::{End, Inbox};
use crate::login_shell::LoginShell;
use crate::sync::{Mutex, MutexGuard};
use crate::transport::pulse::Pulse;
use crate::transport::traffic::Traffic;
use crate::transport::{EnvNames, Lifeline, Listener, quirks};
use crate::valve::Valve;

/// The channels of a connection, shared between its session loop and those who open channels.
#[derive(Default)]
pub(in crate::transport) struct Channels {
    inboxes: Mutex<HashMap<ChannelId, Entry>>,
    listeners: std::sync::Mutex<HashMap<Address, Arc<Listener>>>,
    pub(super) server: OnceLock<quirks::Server>,
    pub(in crate::transport) peer_addr: Option<SocketAddr>,
    /// A signal of ours has ended a command.
    pub(super) signals_arrive: AtomicBool,
    /// Something was executed, since when the server sends small packets at once.
    pub(in crate::transport) prompt: Arc<AtomicBool>,
    pub(in crate::transport) env_names: EnvNames,
    pub(in crate::transport) login_shell: Arc<LoginShell>,
    pub(in crate::transport) lifeline: Lifeline,
    pub(in crate::transport) pulse: Arc<Pulse>,
    pub(in crate::transport) traffic: Arc<Traffic>,
    /// Of a connection that is shared with nobody.
    pub(in crate::transport) valve: Option<Arc<Valve>>,
    buffered: Option<Arc<Buffered>>,
}

/// What a server may say on one channel besides data: answers to every environment variable, how
/// it ended. What comes after is ignored.
const REMARKS: u32 = 4096;

struct Entry {
    inbox: Arc<Inbox>,
    /// How often the server has said anything but data.
    remarks: u32,
    /// The opener has fetched it.
    claimed: bool,
    /// The channel is over. The peer may close one before its opener has fetched it; then the
    /// opener takes the entry away.
    over: bool,
}

impl Channels {
    pub(in crate::transport) fn new(
        peer_addr: SocketAddr,
        valve: Option<Arc<Valve>>,
        buffered: Option<Arc<Buffered>>,
    ) -> Self {
        Self {
            peer_addr: Some(peer_addr),
            valve,
            buffered,
            ..Self::default()
        }
    }

    fn inboxes(&self) -> MutexGuard<'_, HashMap<ChannelId, Entry>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the server, from its identification line.
    pub(in crate::transport) fn server(&self) -> quirks::Server {
        self.server.get().copied().unwrap_or_default()
    }

    fn unclaimed(&self) -> Entry {
        Entry {
            inbox: Arc::new(Inbox::new(self.valve.clone(), self.buffered.clone())),
            remarks: 0,
            claimed: false,
            over: false,
        }
    }

    /// For the opener of a channel: its inbox.
    pub(in crate::transport) fn claim(&self, id: ChannelId) -> Arc<Inbox> {
        let mut inboxes = self.inboxes();
        let entry = inboxes.entry(id).or_insert_with(|| self.unclaimed());
        entry.claimed = true;
        let inbox = entry.inbox.clone();
        if entry.over {
            inboxes.remove(&id);
        } else if let Some(cause) = self.lifeline.cause() {
            // The session ended between the confirmation and now.
            inboxes.remove(&id);
            drop(inboxes);
            inbox.end(End::Lost(cause));
        }
        inbox
    }

    /// What the server accepts on this address arrives here.
    pub(in crate::transport) fn listen(&self, on: Address, listener: Arc<Listener>) {
        let mut listeners = self.listeners();
        listeners.insert(on, listener);
    }

    pub(in crate::transport) fn unlisten(&self, on: &Address) {
        self.listeners().remove(on);
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Arc<Listener>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Who listens there. A server may spell a host differently than we did; its port decides.
    pub(super) fn listener(&self, on: &Address) -> Option<Arc<Listener>> {
        let listeners = self.listeners();
        if let Some(listener) = listeners.get(on) {
            return Some(listener.clone());
        }
        let mut same_port = listeners
            .iter()
            .filter(|(address, _)| on.port().is_some() && address.port() == on.port());
        match (same_port.next(), same_port.next()) {
            (Some((_, listener)), None) => Some(listener.clone()),
            _ => None,
        }
    }

    pub(super) fn confirmed(&self, id: ChannelId) {
        if let hash_map::Entry::Vacant(entry) = self.inboxes().entry(id) {
            entry.insert(self.unclaimed());
            self.traffic.expected();
        }
    }

    /// Where data of this channel goes.
    pub(super) fn of_data(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        let inbox = self.inboxes().get(&id).map(|entry| entry.inbox.clone())?;
        self.traffic.expected();
        Some(inbox)
    }

    /// Where anything else about it goes.
    pub(super) fn of_remark(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        let mut inboxes = self.inboxes();
        let entry = inboxes.get_mut(&id)?;
        entry.remarks = entry.remarks.saturating_add(1);
        if entry.remarks > REMARKS {
            return None;
        }
        self.traffic.expected();
        Some(entry.inbox.clone())
    }

    /// See [`Wire::may_sweep`](crate::transport::Wire::may_sweep).
    pub(in crate::transport) fn may_sweep(&self) -> bool {
        self.signals_arrive.load(Ordering::Relaxed)
            && !self.inboxes().values().any(|entry| entry.inbox.lingers())
    }

    /// We have closed this channel.
    pub(in crate::transport) fn end_here(&self, id: ChannelId) {
        if let Some(inbox) = self.take(id) {
            inbox.end_here();
        }
    }

    pub(super) fn end(&self, id: ChannelId, end: End) {
        if let Some(inbox) = self.take(id) {
            inbox.end(end);
        }
    }

    /// The inbox of a channel that is over.
    fn take(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        let mut inboxes = self.inboxes();
        let entry = inboxes.get_mut(&id)?;
        self.traffic.expected();
        entry.over = true;
        let inbox = entry.inbox.clone();
        if entry.claimed {
            inboxes.remove(&id);
        }
        Some(inbox)
    }

    /// The connection is gone: the pool first, so that nobody is handed a dead channel, then
    /// everybody who uses one.
    pub(in crate::transport) fn end_all(&self, cause: Cause) {
        self.lifeline.end(cause.clone());
        self.listeners().clear();
        let all = std::mem::take(&mut *self.inboxes());
        for entry in all.into_values() {
            entry.inbox.end(End::Lost(cause.clone()));
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use super::*;
    use crate::transport::link::no_channel;

    #[test]
    fn a_server_that_says_too_much_on_a_channel_is_heard_no_more_but_for_its_data() {
        let channels = Channels::default();
        let id = no_channel().expect("a number");
        channels.claim(id);
        let heard = (0..2 * REMARKS).filter(|_| channels.of_remark(id).is_some());
        assert_eq!(heard.count(), 4096);
        assert!(channels.of_data(id).is_some());
    }
}
