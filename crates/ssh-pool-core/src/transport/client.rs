//! The callbacks of one session. They run inside russh's session loop, so they only ever move
//! bytes and flags: no waiting, no I/O.

use std::collections::{HashMap, hash_map};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

use futures_util::FutureExt;
use russh::client::{self, DisconnectReason, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};

use super::known_hosts::{Judgement, TrustStore};
use super::link::SshWire;
use super::progress::Progress;
use super::pulse::Pulse;
use super::quirks;
use super::traffic::Traffic;
use super::translate::{is_fin, signal_name};
use super::{EnvNames, Incoming, Lifeline, Listener};
use crate::address::Address;
use crate::buffered::Buffered;
use crate::error::{Cause, Phase, Stream};
use crate::inbox::{End, Flow, Inbox};
use crate::login_shell::LoginShell;
use crate::output::ExitStatus;
use crate::printable;
use crate::sync::{Mutex, MutexGuard};
use crate::valve::Valve;

/// SSH_EXTENDED_DATA_STDERR (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// The channels of a connection, shared between its session loop and those who open channels.
#[derive(Default)]
pub(super) struct Channels {
    inboxes: Mutex<HashMap<ChannelId, Entry>>,
    listeners: std::sync::Mutex<HashMap<Address, Arc<Listener>>>,
    server: OnceLock<quirks::Server>,
    pub(super) peer_addr: Option<SocketAddr>,
    /// A signal of ours has ended a command.
    signals_arrive: AtomicBool,
    /// Something was executed, since when the server sends small packets at once.
    pub(super) prompt: Arc<AtomicBool>,
    pub(super) env_names: EnvNames,
    pub(super) login_shell: Arc<LoginShell>,
    pub(super) lifeline: Lifeline,
    pub(super) pulse: Arc<Pulse>,
    pub(super) traffic: Arc<Traffic>,
    /// Of a connection that is shared with nobody.
    pub(super) valve: Option<Arc<Valve>>,
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
    pub(super) fn new(
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
    pub(super) fn server(&self) -> quirks::Server {
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
    pub(super) fn claim(&self, id: ChannelId) -> Arc<Inbox> {
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
    pub(super) fn listen(&self, on: Address, listener: Arc<Listener>) {
        let mut listeners = self.listeners();
        listeners.insert(on, listener);
    }

    pub(super) fn unlisten(&self, on: &Address) {
        self.listeners().remove(on);
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Arc<Listener>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Who listens there. A server may spell a host differently than we did; its port decides.
    fn listener(&self, on: &Address) -> Option<Arc<Listener>> {
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

    fn confirmed(&self, id: ChannelId) {
        if let hash_map::Entry::Vacant(entry) = self.inboxes().entry(id) {
            entry.insert(self.unclaimed());
            self.traffic.expected();
        }
    }

    /// Where data of this channel goes.
    fn of_data(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        let inbox = self.inboxes().get(&id).map(|entry| entry.inbox.clone())?;
        self.traffic.expected();
        Some(inbox)
    }

    /// Where anything else about it goes.
    fn of_remark(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        let mut inboxes = self.inboxes();
        let entry = inboxes.get_mut(&id)?;
        entry.remarks = entry.remarks.saturating_add(1);
        if entry.remarks > REMARKS {
            return None;
        }
        self.traffic.expected();
        Some(entry.inbox.clone())
    }

    /// See [`Wire::may_sweep`](super::Wire::may_sweep).
    pub(super) fn may_sweep(&self) -> bool {
        self.signals_arrive.load(Ordering::Relaxed)
            && !self.inboxes().values().any(|entry| entry.inbox.lingers())
    }

    /// We have closed this channel.
    pub(super) fn end_here(&self, id: ChannelId) {
        if let Some(inbox) = self.take(id) {
            inbox.end_here();
        }
    }

    fn end(&self, id: ChannelId, end: End) {
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
    fn end_all(&self, cause: Cause) {
        self.lifeline.end(cause.clone());
        self.listeners().clear();
        let all = std::mem::take(&mut *self.inboxes());
        for entry in all.into_values() {
            entry.inbox.end(End::Lost(cause.clone()));
        }
    }
}

/// The handler of one session. It is dropped when the session's task ends, for whatever reason.
pub(super) struct Client {
    channels: Arc<Channels>,
    progress: Arc<Progress>,
    trust: Arc<TrustStore>,
    /// The host key that was judged, for the dial to store if it is new.
    accepted: Arc<std::sync::Mutex<Option<russh::keys::PublicKey>>>,
    reason: Option<Cause>,
}

impl Client {
    pub(super) fn new(
        channels: Arc<Channels>,
        progress: Arc<Progress>,
        trust: Arc<TrustStore>,
        accepted: Arc<std::sync::Mutex<Option<russh::keys::PublicKey>>>,
    ) -> Self {
        Self {
            channels,
            progress,
            trust,
            accepted,
            reason: None,
        }
    }

    /// Answers a request of a channel, and closes the channel if that is what comes of it.
    fn reply(
        &self,
        id: ChannelId,
        accepted: bool,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(inbox) = self.channels.of_remark(id)
            && inbox.reply(accepted) == Flow::Close
        {
            session.close(id)?;
            self.channels.end_here(id);
        }
        Ok(())
    }

    /// Hands a connection that the server has accepted to whoever listens there. Dropping the
    /// handle refuses it.
    fn incoming(
        &self,
        on: &Address,
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
    ) {
        let Some(listener) = self.channels.listener(on) else {
            let on = printable(on.to_string());
            tracing::debug!(
                on,
                "refused a channel from the server: nothing listens there"
            );
            return;
        };
        self.channels.traffic.expected();
        let channels = self.channels.clone();
        let reply = Arc::new(std::sync::Mutex::new(Some(reply)));
        let take = move |reply: &std::sync::Mutex<Option<client::ChannelOpenHandle>>| {
            reply.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let other = reply.clone();
        let accept = async move {
            let wire = SshWire::incoming(channel, &channels);
            if let Some(reply) = take(&reply) {
                reply.accept().await;
            }
            wire
        };
        let reject = async move {
            if let Some(reply) = take(&other) {
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
            }
        };
        listener(Incoming {
            accept: accept.boxed(),
            reject: reject.boxed(),
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let cause = self.reason.take();
        self.channels
            .end_all(cause.unwrap_or_else(|| Cause::new("the session ended")));
    }
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        self.progress.enter(Phase::HostKey);
        let key = key.public_key();
        match self.trust.judge(&key) {
            Judgement::Trusted => {}
            Judgement::TrustedNew => {
                let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                *accepted = Some(key);
            }
            Judgement::Refused(problem) => {
                self.progress.refuse(problem);
                return Ok(false);
            }
        }
        self.progress.enter(Phase::Auth);
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        _names: &russh::Names,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.traffic.keys_exchanged();
        let server = quirks::Server::identify(session.remote_sshid());
        self.channels.server.get_or_init(|| server);
        if server.has_login_shells() {
            self.channels.login_shell.expect();
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.confirmed(id);
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if !data.is_empty()
            && let Some(inbox) = self.channels.of_data(id)
        {
            inbox.data(Stream::Stdout, data);
        }
        Ok(())
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        kind: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if kind == STDERR
            && !data.is_empty()
            && let Some(inbox) = self.channels.of_data(id)
        {
            inbox.data(Stream::Stderr, data);
        }
        Ok(())
    }

    async fn channel_success(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.reply(id, true, session)
    }

    async fn channel_failure(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.reply(id, false, session)
    }

    async fn exit_status(
        &mut self,
        id: ChannelId,
        code: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(inbox) = self.channels.of_remark(id) {
            inbox.exit(ExitStatus::from_code(code));
        }
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _core_dumped: bool,
        _message: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(inbox) = self.channels.of_remark(id) {
            if inbox.is_cancelled() {
                self.channels.signals_arrive.store(true, Ordering::Relaxed);
            }
            inbox.exit(ExitStatus::from_signal(signal_name(signal)));
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(inbox) = self.channels.of_remark(id) {
            inbox.eof();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.end(id, End::Closed);
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _id: ChannelId,
        _reason: ChannelOpenFailure,
        _description: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.traffic.expected();
        Ok(())
    }

    async fn window_adjusted(
        &mut self,
        _id: ChannelId,
        _new_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.traffic.window_adjusted();
        Ok(())
    }

    // The server may open what it was asked to listen for; everything else is refused. Dropping
    // the handle says so on the wire.

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        connected_address: &str,
        connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Ok(port) = u16::try_from(connected_port) {
            self.incoming(&(connected_address, port).into(), channel, reply);
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<client::Msg>,
        socket_path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.incoming(&PathBuf::from(socket_path).into(), channel, reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<client::Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<client::Msg>,
        _socket_path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<client::Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.reason = Some(Cause::new(format!(
                    "the server disconnected: {:?} \"{}\"",
                    info.reason_code,
                    printable(&info.message)
                )));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.reason = Some(if is_fin(&error) {
                    Cause::new("the server closed the connection without a word")
                } else {
                    Cause::of_peer(error.to_string())
                });
                // A login that was under way finds it in the session's result.
                Err(error)
            }
        }
    }
}

#[cfg(all(test, feature = "model"))]
#[path = "client_model.rs"]
mod model;
