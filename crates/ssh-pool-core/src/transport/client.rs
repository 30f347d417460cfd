//! The callbacks of one session. They run inside russh's session loop, so they only ever move
//! bytes and flags: no waiting, no I/O.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt;
use russh::client::{self, DisconnectReason, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};

use super::Incoming;
use super::connection::SshChannelSender;
use super::handshake_progress::HandshakeProgress;
use super::known_hosts::{HostKeyDecision, TrustStore};
use super::messages::Messages;
use super::quirks;
use super::translate::{is_fin, is_not_utf8, signal_name};
use crate::address::Address;
use crate::error::{Cause, MessageKind, NotUtf8, Phase, Stream};
use crate::output::ExitStatus;
use crate::printable;
use crate::receiver::{ChannelEnd, ReplyAction};

mod channels;

pub(super) use channels::ChannelTable;

/// SSH_EXTENDED_DATA_STDERR (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// The handler of one session. It is dropped when the session's task ends, for whatever reason.
pub(super) struct Client {
    channels: Arc<ChannelTable>,
    progress: Arc<HandshakeProgress>,
    messages: Arc<Messages>,
    trust: Arc<TrustStore>,
    /// The host key that was judged, for the dial to store if it is new.
    accepted: Arc<std::sync::Mutex<Option<russh::keys::PublicKey>>>,
    reason: Option<Cause>,
}

impl Client {
    pub(super) fn new(
        channels: Arc<ChannelTable>,
        progress: Arc<HandshakeProgress>,
        messages: Arc<Messages>,
        trust: Arc<TrustStore>,
        accepted: Arc<std::sync::Mutex<Option<russh::keys::PublicKey>>>,
    ) -> Self {
        Self {
            channels,
            progress,
            messages,
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
        if let Some(receiver) = self.channels.of_remark(id)
            && receiver.reply(accepted) == ReplyAction::Close
        {
            session.close(id)?;
            self.channels.end_here(id);
        }
        Ok(())
    }

    /// Hands a connection that the server has accepted to its listener. Dropping the handle refuses
    /// it.
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
            let sender = SshChannelSender::incoming(channel, &channels);
            if let Some(reply) = take(&reply) {
                reply.accept().await;
            }
            sender
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

    async fn auth_banner(
        &mut self,
        banner: &str,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.messages.add(MessageKind::Banner, banner);
        Ok(())
    }

    async fn check_server_key(
        &mut self,
        key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        self.progress.enter(Phase::HostKey);
        let key = key.public_key();
        match self.trust.decide(&key) {
            HostKeyDecision::Trusted => {}
            HostKeyDecision::TrustedNew => {
                let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                *accepted = Some(key);
            }
            HostKeyDecision::Refused(problem) => {
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
            && let Some(receiver) = self.channels.of_data(id)
        {
            receiver.data(Stream::Stdout, data);
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
            && let Some(receiver) = self.channels.of_data(id)
        {
            receiver.data(Stream::Stderr, data);
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
        if let Some(receiver) = self.channels.of_remark(id) {
            receiver.exit(ExitStatus::from_code(code));
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
        if let Some(receiver) = self.channels.of_remark(id) {
            if receiver.is_cancelled() {
                self.channels.signals_arrive.store(true, Ordering::Relaxed);
            }
            receiver.exit(ExitStatus::from_signal(signal_name(signal)));
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(receiver) = self.channels.of_remark(id) {
            receiver.eof();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.end(id, ChannelEnd::Closed);
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
                if self.progress.phase() <= Phase::Auth {
                    self.messages.add(MessageKind::Disconnect, &info.message);
                }
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
                } else if matches!(
                    error,
                    russh::Error::WrongServerSig | russh::Error::SshKey(_)
                ) {
                    Cause::new(
                        "when keys were changed the server could not prove that it holds its host \
                         key: someone may be in between",
                    )
                } else if is_not_utf8(&error) {
                    Cause::new(NotUtf8)
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
