//! One authenticated russh session, and the session channels on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use russh::{ChannelWriteHalf, Disconnect, Sig, client};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Channels, Client};
use super::{Channel, Gone, Lifeline, Link, OpenError, Wire};

/// How long a goodbye may take before the socket is pulled away.
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) struct SshLink {
    handle: client::Handle<Client>,
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
            handle,
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
                    Ok(Channel {
                        wire: Arc::new(SshWire(writer)),
                        inbox,
                    })
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

    fn lifeline(&self) -> &Lifeline {
        &self.channels.lifeline
    }
}

struct SshWire(ChannelWriteHalf<client::Msg>);

impl Wire for SshWire {
    fn exec(&self, line: Vec<u8>) -> BoxFuture<'_, Result<(), Gone>> {
        async { self.0.exec(true, line).await.map_err(gone) }.boxed()
    }

    fn send(&self, data: Bytes) -> BoxFuture<'_, Result<(), Gone>> {
        async { self.0.data_bytes(data).await.map_err(gone) }.boxed()
    }

    fn eof(&self) -> BoxFuture<'_, Result<(), Gone>> {
        async { self.0.eof().await.map_err(gone) }.boxed()
    }

    fn signal(&self, name: &'static str) -> BoxFuture<'_, Result<(), Gone>> {
        async move { self.0.signal(Sig::Custom(name.into())).await.map_err(gone) }.boxed()
    }
}

/// Sending only ever fails because the session's task has ended; its reason is in the lifeline.
fn gone(_: russh::Error) -> Gone {
    Gone
}
