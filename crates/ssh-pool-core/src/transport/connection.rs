//! One authenticated russh session, and the session channels on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use russh::keys::ssh_encoding::Decode;
use russh::{ChannelId, ChannelWriteHalf, Disconnect, Sig, client};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::arithmetic::ExpensiveSessions;
use super::client::{ChannelTable, Client};
use super::{
    Channel, ChannelSender, CloseSignal, Connection, Endpoint, EnvNames, Gone, ListenError,
    Listener, OpenError, Request, ServerProfile, Unsent, Writer, stuck,
};
use crate::address::Address;
use crate::error::{Cause, Error};
use crate::login_shell::LoginShell;
use crate::printable;
use crate::pty::Pty;
use crate::receiver::ChannelReceiver;

/// How long a disconnect may take before the socket is closed.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) struct SshConnection {
    handle: Arc<client::Handle<Client>>,
    channels: Arc<ChannelTable>,
    socket: CancellationToken,
    server: ServerProfile,
    /// The threads that the session runs on, if they are not the program's.
    _threads: Option<Arc<ExpensiveSessions>>,
    /// Closes the socket when the connection is dropped, also while a write half is held.
    _on_drop: DropGuard,
}

impl SshConnection {
    pub(super) fn new(
        handle: client::Handle<Client>,
        channels: Arc<ChannelTable>,
        socket: CancellationToken,
        endpoint: &Endpoint,
        threads: Option<Arc<ExpensiveSessions>>,
    ) -> Self {
        let handle = Arc::new(handle);
        stuck::watch(
            &handle,
            channels.clone(),
            socket.clone(),
            endpoint.keepalive_interval,
            endpoint.keepalive_misses,
        );
        Self {
            server: channels.server().profile(&endpoint.user),
            _threads: threads,
            handle,
            channels,
            _on_drop: socket.clone().drop_guard(),
            socket,
        }
    }
}

impl SshConnection {
    fn opened(
        &self,
        result: Result<russh::Channel<client::Msg>, russh::Error>,
    ) -> Result<Channel, OpenError> {
        match result {
            Ok(channel) => {
                let handle = Some(self.handle.clone());
                Ok(SshChannelSender::open(
                    channel,
                    handle,
                    &self.channels,
                    self.server,
                ))
            }
            Err(russh::Error::ChannelOpenFailure(reason)) => Err(OpenError::Refused {
                code: reason.code(),
                reason: format!(
                    "{}, reason {}",
                    printable(reason.description()),
                    reason.code()
                ),
            }),
            Err(error) => {
                let error = Cause::of_peer(error);
                tracing::debug!(%error, "an open was lost with its connection");
                Err(OpenError::Lost)
            }
        }
    }
}

impl Connection for SshConnection {
    fn open(&self) -> BoxFuture<'_, Result<Channel, OpenError>> {
        async { self.opened(self.handle.channel_open_session().await) }.boxed()
    }

    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, Result<Channel, OpenError>> {
        async move {
            let handle = &self.handle;
            self.opened(match to {
                Address::Tcp { host, port } => {
                    // The originator is for the server's log (RFC 4254, section 7.2).
                    handle
                        .channel_open_direct_tcpip(host, u32::from(*port), "127.0.0.1", 0)
                        .await
                }
                Address::Unix(path) => {
                    let path = path.to_string_lossy();
                    handle.channel_open_direct_streamlocal(path).await
                }
            })
        }
        .boxed()
    }

    fn listen<'a>(
        &'a self,
        on: &'a Address,
        listener: Listener,
    ) -> BoxFuture<'a, Result<Address, ListenError>> {
        async move {
            let listener = Arc::new(listener);
            // Registered before the request: what the server accepts may arrive with its answer.
            self.channels.listen(on.clone(), listener.clone());
            let answer = match on {
                Address::Tcp { host, port } => {
                    let answer = self.handle.tcpip_forward(host, u32::from(*port)).await;
                    answer.map(|allocated| match u16::try_from(allocated) {
                        Ok(allocated) if *port == 0 => (host.as_str(), allocated).into(),
                        _ => on.clone(),
                    })
                }
                Address::Unix(path) => {
                    let path = path.to_string_lossy();
                    let answer = self.handle.streamlocal_forward(path).await;
                    answer.map(|()| on.clone())
                }
            };
            self.channels.traffic.answered();
            match answer {
                Ok(address) => {
                    if address != *on {
                        self.channels.listen(address.clone(), listener);
                        self.channels.unlisten(on);
                    }
                    Ok(address)
                }
                Err(error) => {
                    self.channels.unlisten(on);
                    Err(match error {
                        russh::Error::RequestDenied => ListenError::Denied,
                        _ => ListenError::Lost,
                    })
                }
            }
        }
        .boxed()
    }

    fn unlisten<'a>(&'a self, on: &'a Address) -> BoxFuture<'a, ()> {
        async move {
            let answer = match on {
                Address::Tcp { host, port } => {
                    self.handle
                        .cancel_tcpip_forward(host, u32::from(*port))
                        .await
                }
                Address::Unix(path) => {
                    let path = path.to_string_lossy();
                    self.handle.cancel_streamlocal_forward(path).await
                }
            };
            self.channels.traffic.answered();
            if let Err(error) = answer {
                let error = Cause::of_peer(error);
                tracing::debug!(%on, %error, "the server did not stop listening");
            }
            // What it accepted before it stopped still had a listener.
            self.channels.unlisten(on);
        }
        .boxed()
    }

    fn ping(&self) -> BoxFuture<'_, ()> {
        async {
            let answer = self.handle.send_ping().await;
            self.channels.traffic.answered();
            if let Err(error) = answer {
                let error = Cause::of_peer(error);
                tracing::trace!(%error, "no round trip: the connection is gone");
            }
        }
        .boxed()
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        async {
            let goodbye = async {
                if self
                    .handle
                    .disconnect(Disconnect::ByApplication, "", "")
                    .await
                    .is_ok()
                {
                    self.channels.close_signal.ended().await;
                }
            };
            if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
                tracing::debug!("the session did not end after the goodbye: closing its socket");
                self.socket.cancel();
            }
        }
        .boxed()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.channels.peer_addr
    }

    fn server(&self) -> ServerProfile {
        self.server
    }

    fn close_signal(&self) -> &CloseSignal {
        &self.channels.close_signal
    }

    fn quiet_for(&self) -> Duration {
        let last_heard = &self.channels.last_heard;
        last_heard.quiet_for(Instant::now(), SystemTime::now())
    }
}

pub(super) struct SshChannelSender {
    writer: ChannelWriteHalf<client::Msg>,
    /// Of a channel that a request may begin on.
    handle: Option<Arc<client::Handle<Client>>>,
    channels: Arc<ChannelTable>,
    receiver: Arc<ChannelReceiver>,
    server: ServerProfile,
}

impl SshChannelSender {
    fn open(
        channel: russh::Channel<client::Msg>,
        handle: Option<Arc<client::Handle<Client>>>,
        channels: &Arc<ChannelTable>,
        server: ServerProfile,
    ) -> Channel {
        let receiver = channels.claim(channel.id());
        // The callbacks deliver what the peer sends. Without a reader russh's own queue fails at
        // once instead of filling up and stopping the whole session.
        let (_reader, writer) = channel.split();
        let sender = Arc::new(Self {
            writer,
            handle,
            channels: channels.clone(),
            receiver: receiver.clone(),
            server,
        });
        Channel { sender, receiver }
    }

    /// A channel that the server has opened, and that has not been answered.
    pub(super) fn incoming(
        channel: russh::Channel<client::Msg>,
        channels: &Arc<ChannelTable>,
    ) -> Channel {
        // Who has logged in matters to signals alone, and no command runs here.
        Self::open(channel, None, channels, channels.server().profile(""))
    }
}

/// Rides in russh's queue directly before an exec request, as data for a channel that does not
/// exist. russh drops it when its session loop gets there, or with the loop: then it is known
/// whether the request behind it still finds its channel. Without that, a channel that the server
/// closes while the request is queued would leave open whether the command has started: servers
/// execute what reaches them after their own CLOSE.
struct ExecFence {
    receiver: Arc<ChannelReceiver>,
    round: u32,
}

impl AsRef<[u8]> for ExecFence {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

impl Drop for ExecFence {
    fn drop(&mut self) {
        self.receiver.exec_dequeued(self.round);
    }
}

/// A channel number that is never given out: a server would have to grant four billion first.
pub(super) fn no_channel() -> Option<ChannelId> {
    ChannelId::decode(&mut [u8::MAX; 4].as_slice()).ok()
}

impl ChannelSender for SshChannelSender {
    fn start(&self, request: Request) -> BoxFuture<'_, Result<(), Unsent>> {
        async {
            match &request {
                Request::Exec(line) => self.server.sizes.line(line.len())?,
                Request::Subsystem(name) => self.server.sizes.string("subsystem", name.len())?,
            }
            if let (Some(handle), Some(nowhere)) = (&self.handle, no_channel()) {
                let exec_fence = Bytes::from_owner(ExecFence {
                    receiver: self.receiver.clone(),
                    round: self.receiver.round(),
                });
                handle.data(nowhere, exec_fence).await.map_err(|_| Gone)?;
            }
            self.channels.prompt.store(true, Ordering::Relaxed);
            match request {
                Request::Exec(line) => self.writer.exec(true, line).await,
                Request::Subsystem(name) => self.writer.request_subsystem(true, name).await,
            }
            .map_err(gone)?;
            Ok(())
        }
        .boxed()
    }

    fn env(&self, name: String, value: String, reply: bool) -> BoxFuture<'_, Result<(), Unsent>> {
        async move {
            self.server.sizes.variable(&name, &value)?;
            let sent = self.writer.set_env(reply, name, value).await;
            Ok(sent.map_err(gone)?)
        }
        .boxed()
    }

    fn pty<'a>(&'a self, pty: &'a Pty) -> BoxFuture<'a, Result<(), Unsent>> {
        async move {
            self.server.sizes.pty(pty)?;
            let modes: Vec<_> = (pty.modes.iter())
                .filter_map(|(number, value)| Some((russh::Pty::from_u8(*number)?, *value)))
                .collect();
            let sent = (self.writer)
                .request_pty(true, &pty.term, pty.columns, pty.rows, 0, 0, &modes)
                .await;
            Ok(sent.map_err(gone)?)
        }
        .boxed()
    }

    fn resize(&self, columns: u32, rows: u32) -> BoxFuture<'_, Result<(), Gone>> {
        async move {
            self.writer
                .window_change(columns, rows, 0, 0)
                .await
                .map_err(gone)
        }
        .boxed()
    }

    fn send(&self, data: Bytes) -> BoxFuture<'_, Result<(), Gone>> {
        async { self.writer.data_bytes(data).await.map_err(gone) }.boxed()
    }

    fn writer(&self) -> Writer {
        Box::pin(self.writer.make_writer())
    }

    fn eof(&self) -> BoxFuture<'_, Result<(), Gone>> {
        async { self.writer.eof().await.map_err(gone) }.boxed()
    }

    fn signal(&self, name: String) -> BoxFuture<'_, Result<(), Unsent>> {
        async move {
            self.server.sizes.string("signal", name.len())?;
            let sent = self.writer.signal(Sig::Custom(name)).await;
            Ok(sent.map_err(gone)?)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            // A connection that does not take this has ended, and says so to the receiver.
            if self.writer.close().await.is_ok() {
                self.channels.end_here(self.writer.id());
            }
        }
        .boxed()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.channels.peer_addr
    }

    fn server(&self) -> ServerProfile {
        self.server
    }

    fn may_signal_leaderless(&self) -> bool {
        self.channels.may_signal_leaderless()
    }

    fn env_names(&self) -> &EnvNames {
        &self.channels.env_names
    }

    fn login_shell(&self) -> &Arc<LoginShell> {
        &self.channels.login_shell
    }
}

/// Refuses a terminal that cannot be asked for.
pub(crate) fn check_pty(pty: &Pty) -> Result<(), Error> {
    let unknown = |number: u8| number == 0 || russh::Pty::from_u8(number).is_none();
    match pty.modes.iter().find(|(number, _)| unknown(*number)) {
        None => Ok(()),
        Some((number, _)) => Err(Error::InvalidInput {
            what: "terminal mode",
            reason: format!("RFC 4254, section 8 has no mode {number}"),
        }),
    }
}

/// Sending only ever fails because the session's task has ended; its reason is in the close signal.
fn gone(_: russh::Error) -> Gone {
    Gone
}
