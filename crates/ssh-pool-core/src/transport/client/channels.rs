//! The channels of one connection: where what the server says on each of them goes.

use std::collections::{HashMap, hash_map};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use russh::ChannelId;

use crate::address::Address;
use crate::buffered::Buffered;
use crate::error::Cause;
use crate::login_shell::LoginShell;
use crate::read_gate::ReadGate;
use crate::receiver::{ChannelEnd, ChannelReceiver};
use crate::sync::{Mutex, MutexGuard};
use crate::transport::last_heard::LastHeard;
use crate::transport::traffic::Traffic;
use crate::transport::{CloseSignal, EnvNames, Listener, quirks};

/// The channels of a connection, shared between its session loop and those who open channels.
#[derive(Default)]
pub(in crate::transport) struct ChannelTable {
    receivers: Mutex<HashMap<ChannelId, ChannelEntry>>,
    listeners: std::sync::Mutex<HashMap<Address, Arc<Listener>>>,
    pub(super) server: OnceLock<quirks::Server>,
    pub(in crate::transport) peer_addr: Option<SocketAddr>,
    /// A signal of ours has ended a command.
    pub(super) signals_arrive: AtomicBool,
    /// Something was executed, since when the server sends small packets at once.
    pub(in crate::transport) prompt: Arc<AtomicBool>,
    pub(in crate::transport) env_names: EnvNames,
    pub(in crate::transport) login_shell: Arc<LoginShell>,
    pub(in crate::transport) close_signal: CloseSignal,
    pub(in crate::transport) last_heard: Arc<LastHeard>,
    pub(in crate::transport) traffic: Arc<Traffic>,
    /// Of a connection that is not shared.
    pub(in crate::transport) read_gate: Option<Arc<ReadGate>>,
    buffered: Option<Arc<Buffered>>,
}

/// What a server may say on one channel besides data: answers to every environment variable, how
/// it ended. What comes after is ignored.
const REMARKS: u32 = 4096;

struct ChannelEntry {
    receiver: Arc<ChannelReceiver>,
    /// How often the server has said anything but data.
    remarks: u32,
    /// The opener has fetched it.
    claimed: bool,
    /// The channel is over. The peer may close one before its opener has fetched it; then the
    /// opener takes the entry away.
    over: bool,
}

impl ChannelTable {
    pub(in crate::transport) fn new(
        peer_addr: SocketAddr,
        read_gate: Option<Arc<ReadGate>>,
        buffered: Option<Arc<Buffered>>,
    ) -> Self {
        Self {
            peer_addr: Some(peer_addr),
            read_gate,
            buffered,
            ..Self::default()
        }
    }

    fn receivers(&self) -> MutexGuard<'_, HashMap<ChannelId, ChannelEntry>> {
        self.receivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the server, from its identification line.
    pub(in crate::transport) fn server(&self) -> quirks::Server {
        self.server.get().copied().unwrap_or_default()
    }

    fn unclaimed(&self) -> ChannelEntry {
        ChannelEntry {
            receiver: Arc::new(ChannelReceiver::new(
                self.read_gate.clone(),
                self.buffered.clone(),
            )),
            remarks: 0,
            claimed: false,
            over: false,
        }
    }

    /// For the opener of a channel: its receiver.
    pub(in crate::transport) fn claim(&self, id: ChannelId) -> Arc<ChannelReceiver> {
        let mut receivers = self.receivers();
        let entry = receivers.entry(id).or_insert_with(|| self.unclaimed());
        entry.claimed = true;
        let receiver = entry.receiver.clone();
        if entry.over {
            receivers.remove(&id);
        } else if let Some(cause) = self.close_signal.cause() {
            // The session ended between the confirmation and now.
            receivers.remove(&id);
            drop(receivers);
            receiver.end(ChannelEnd::Lost(cause));
        }
        receiver
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
        if let hash_map::Entry::Vacant(entry) = self.receivers().entry(id) {
            entry.insert(self.unclaimed());
            self.traffic.expected();
        }
    }

    /// Where data of this channel goes.
    pub(super) fn of_data(&self, id: ChannelId) -> Option<Arc<ChannelReceiver>> {
        let receiver = self
            .receivers()
            .get(&id)
            .map(|entry| entry.receiver.clone())?;
        self.traffic.expected();
        Some(receiver)
    }

    /// Where anything else about it goes.
    pub(super) fn of_remark(&self, id: ChannelId) -> Option<Arc<ChannelReceiver>> {
        let mut receivers = self.receivers();
        let entry = receivers.get_mut(&id)?;
        entry.remarks = entry.remarks.saturating_add(1);
        if entry.remarks > REMARKS {
            return None;
        }
        self.traffic.expected();
        Some(entry.receiver.clone())
    }

    /// See [`ChannelSender::may_signal_leaderless`](crate::transport::ChannelSender::may_signal_leaderless).
    pub(in crate::transport) fn may_signal_leaderless(&self) -> bool {
        self.signals_arrive.load(Ordering::Relaxed)
            && !self
                .receivers()
                .values()
                .any(|entry| entry.receiver.lingers())
    }

    /// We have closed this channel.
    pub(in crate::transport) fn end_here(&self, id: ChannelId) {
        if let Some(receiver) = self.take(id) {
            receiver.end_here();
        }
    }

    pub(super) fn end(&self, id: ChannelId, end: ChannelEnd) {
        if let Some(receiver) = self.take(id) {
            receiver.end(end);
        }
    }

    /// The receiver of a channel that is over.
    fn take(&self, id: ChannelId) -> Option<Arc<ChannelReceiver>> {
        let mut receivers = self.receivers();
        let entry = receivers.get_mut(&id)?;
        self.traffic.expected();
        entry.over = true;
        let receiver = entry.receiver.clone();
        if entry.claimed {
            receivers.remove(&id);
        }
        Some(receiver)
    }

    /// The connection is gone: the pool first, so that no dead channel is handed out, then the
    /// users of its channels.
    pub(in crate::transport) fn end_all(&self, cause: Cause) {
        self.close_signal.end(cause.clone());
        self.listeners().clear();
        let all = std::mem::take(&mut *self.receivers());
        for entry in all.into_values() {
            entry.receiver.end(ChannelEnd::Lost(cause.clone()));
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use super::*;
    use crate::transport::connection::no_channel;

    #[test]
    fn a_server_that_says_too_much_on_a_channel_is_heard_no_more_but_for_its_data() {
        let channels = ChannelTable::default();
        let id = no_channel().expect("a number");
        channels.claim(id);
        let heard = (0..2 * REMARKS).filter(|_| channels.of_remark(id).is_some());
        assert_eq!(heard.count(), 4096);
        assert!(channels.of_data(id).is_some());
    }
}
