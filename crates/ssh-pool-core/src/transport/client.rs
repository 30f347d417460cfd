//! The callbacks of one session. They run inside russh's session loop, so they only ever move
//! bytes and flags: no waiting, no I/O.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError};

use russh::client::{self, DisconnectReason, Session};
use russh::{Channel, ChannelId, Sig};

use super::Lifeline;
use super::known_hosts::{Judgement, TrustStore};
use super::progress::Progress;
use super::quirks;
use crate::error::{Cause, Phase, Stream};
use crate::inbox::{End, Flow, Inbox};
use crate::output::ExitStatus;
use crate::sync::{Mutex, MutexGuard};

/// SSH_EXTENDED_DATA_STDERR (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// The channels of a connection, shared between its session loop and those who open channels.
#[derive(Default)]
pub(super) struct Channels {
    inboxes: Mutex<HashMap<ChannelId, Entry>>,
    sessions_at_most: OnceLock<u32>,
    pub(super) lifeline: Lifeline,
}

struct Entry {
    inbox: Arc<Inbox>,
    /// The opener has fetched it.
    claimed: bool,
    /// The channel is over. The peer may close one before its opener has fetched it; then the
    /// opener takes the entry away.
    over: bool,
}

impl Channels {
    fn inboxes(&self) -> MutexGuard<'_, HashMap<ChannelId, Entry>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the server's weaknesses.
    pub(super) fn sessions_at_most(&self) -> Option<u32> {
        self.sessions_at_most.get().copied()
    }

    /// For the opener of a channel: its inbox.
    pub(super) fn claim(&self, id: ChannelId) -> Arc<Inbox> {
        let mut inboxes = self.inboxes();
        let entry = inboxes.entry(id).or_insert_with(Entry::unclaimed);
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

    fn confirmed(&self, id: ChannelId) {
        self.inboxes().entry(id).or_insert_with(Entry::unclaimed);
    }

    fn find(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.inboxes().get(&id).map(|entry| entry.inbox.clone())
    }

    fn end(&self, id: ChannelId, end: End) {
        let inbox = {
            let mut inboxes = self.inboxes();
            let Some(entry) = inboxes.get_mut(&id) else {
                return;
            };
            entry.over = true;
            let inbox = entry.inbox.clone();
            if entry.claimed {
                inboxes.remove(&id);
            }
            inbox
        };
        inbox.end(end);
    }

    /// The connection is gone: the pool first, so that nobody is handed a dead channel, then
    /// everybody who uses one.
    fn end_all(&self, cause: Cause) {
        self.lifeline.end(cause.clone());
        let all = std::mem::take(&mut *self.inboxes());
        for entry in all.into_values() {
            entry.inbox.end(End::Lost(cause.clone()));
        }
    }
}

impl Entry {
    fn unclaimed() -> Self {
        Self {
            inbox: Arc::default(),
            claimed: false,
            over: false,
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

    /// Hands something to a channel, and closes the channel if that is what comes of it.
    fn deliver(
        &self,
        id: ChannelId,
        session: &mut Session,
        deliver: impl FnOnce(&Inbox) -> Flow,
    ) -> Result<(), russh::Error> {
        if let Some(inbox) = self.channels.find(id)
            && deliver(&inbox) == Flow::Close
        {
            session.close(id)?;
            self.channels.end(id, End::ClosedHere);
        }
        Ok(())
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
        if let Some(most) = quirks::sessions_at_most(session.remote_sshid()) {
            self.channels.sessions_at_most.get_or_init(|| most);
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
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.deliver(id, session, |inbox| inbox.data(Stream::Stdout, data))
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        kind: u32,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if kind == STDERR {
            self.deliver(id, session, |inbox| inbox.data(Stream::Stderr, data))?;
        }
        Ok(())
    }

    async fn channel_success(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.deliver(id, session, |inbox| inbox.reply(true))
    }

    async fn channel_failure(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.deliver(id, session, |inbox| inbox.reply(false))
    }

    async fn exit_status(
        &mut self,
        id: ChannelId,
        code: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(inbox) = self.channels.find(id) {
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
        if let Some(inbox) = self.channels.find(id) {
            inbox.exit(ExitStatus::from_signal(signal_name(signal)));
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(inbox) = self.channels.find(id) {
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

    // We asked for no forwarding: whatever the server wants to open is refused. Dropping the
    // handle says so on the wire.

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
        _channel: Channel<client::Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<client::Msg>,
        _socket_path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        drop(reply);
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
                    info.message.escape_debug()
                )));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.reason = Some(Cause::new(error.to_string()));
                // A login that was under way finds it in the session's result.
                Err(error)
            }
        }
    }
}

fn signal_name(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        // The variants are spelt like the names of RFC 4254, section 6.10.
        named => format!("{named:?}"),
    }
}

#[cfg(all(test, feature = "model"))]
#[path = "client_model.rs"]
mod model;
