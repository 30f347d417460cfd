//! One authenticated russh session, and the session channels on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use russh::keys::ssh_encoding::Decode;
use russh::{ChannelId, ChannelWriteHalf, Disconnect, Sig, client};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Channels, Client};
use super::{Channel, Gone, Lifeline, Link, OpenError, Wire};
use crate::inbox::Inbox;

/// How long a goodbye may take before the socket is pulled away.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) struct SshLink {
    handle: Arc<client::Handle<Client>>,
    channels: Arc<Channels>,
    socket: CancellationToken,
    /// Pulls the socket away when the link is dropped, whoever still holds a write half.
    _on_drop: DropGuard,
}

impl SshLink {
    pub(super) fn new(
        handle: client::Handle<Client>,
        channels: Arc<Channels>,
        socket: CancellationToken,
    ) -> Self {
        Self {
            handle: Arc::new(handle),
            channels,
            _on_drop: socket.clone().drop_guard(),
            socket,
        }
    }
}

impl Link for SshLink {
    fn open(&self) -> BoxFuture<'_, Result<Channel, OpenError>> {
        async {
            match self.handle.channel_open_session().await {
                Ok(channel) => {
                    let inbox = self.channels.claim(channel.id());
                    // The callbacks deliver what the peer sends. Without a reader russh's own
                    // queue fails at once instead of filling up and stopping the whole session.
                    let (_reader, writer) = channel.split();
                    let handle = self.handle.clone();
                    let wire = Arc::new(SshWire {
                        writer,
                        handle,
                        inbox: inbox.clone(),
                    });
                    Ok(Channel { wire, inbox })
                }
                Err(russh::Error::ChannelOpenFailure(reason)) => Err(OpenError::Refused(format!(
                    "{}, reason {}",
                    reason.description().escape_debug(),
                    reason.code()
                ))),
                Err(error) => {
                    tracing::debug!(%error, "an open was lost with its connection");
                    Err(OpenError::Lost)
                }
            }
        }
        .boxed()
    }

    fn ping(&self) -> BoxFuture<'_, ()> {
        async {
            if let Err(error) = self.handle.send_ping().await {
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
                    self.channels.lifeline.ended().await;
                }
            };
            if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
                tracing::debug!("the session did not end after the goodbye: closing its socket");
                self.socket.cancel();
            }
        }
        .boxed()
    }

    fn sessions_at_most(&self) -> Option<u32> {
        self.channels.sessions_at_most()
    }

    fn lifeline(&self) -> &Lifeline {
        &self.channels.lifeline
    }
}

struct SshWire {
    writer: ChannelWriteHalf<client::Msg>,
    handle: Arc<client::Handle<Client>>,
    inbox: Arc<Inbox>,
}

/// Rides in russh's queue directly before an exec request, as data for a channel that does not
/// exist. russh drops it when its session loop gets there, or with the loop: then it is known
/// whether the request behind it still finds its channel. Without that, a channel that the server
/// closes while the request is queued would leave open whether the command has started: servers
/// execute what reaches them after their own CLOSE.
struct Scout {
    inbox: Arc<Inbox>,
    round: u32,
}

impl AsRef<[u8]> for Scout {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        self.inbox.exec_due(self.round);
    }
}

/// A channel number that is never given out: a server would have to grant four billion first.
fn no_channel() -> Option<ChannelId> {
    ChannelId::decode(&mut [u8::MAX; 4].as_slice()).ok()
}

impl Wire for SshWire {
    fn exec(&self, line: Vec<u8>) -> BoxFuture<'_, Result<(), Gone>> {
        async {
            if let Some(nowhere) = no_channel() {
                let scout = Bytes::from_owner(Scout {
                    inbox: self.inbox.clone(),
                    round: self.inbox.round(),
                });
                self.handle.data(nowhere, scout).await.map_err(|_| Gone)?;
            }
            self.writer.exec(true, line).await.map_err(gone)
        }
        .boxed()
    }

    fn send(&self, data: Bytes) -> BoxFuture<'_, Result<(), Gone>> {
        async { self.writer.data_bytes(data).await.map_err(gone) }.boxed()
    }

    fn eof(&self) -> BoxFuture<'_, Result<(), Gone>> {
        async { self.writer.eof().await.map_err(gone) }.boxed()
    }

    fn signal(&self, name: &'static str) -> BoxFuture<'_, Result<(), Gone>> {
        async move {
            self.writer
                .signal(Sig::Custom(name.into()))
                .await
                .map_err(gone)
        }
        .boxed()
    }
}

/// Sending only ever fails because the session's task has ended; its reason is in the lifeline.
fn gone(_: russh::Error) -> Gone {
    Gone
}
