//! The transport: streams to a Docker daemon.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
#[cfg(unix)]
use ssh_pool_core::StreamGroup;
use ssh_pool_core::{Error as SshError, Host};
use tower_service::Service;

use super::dial_stdio::DialStdio;
use super::error::Error;
use super::socket::SocketPath;
use super::stream::Stream;
use super::transport::TransportMemory;

/// Connects to the Docker daemon of a host, whatever URI it is asked for: a connector for
/// `hyper_util::client::legacy::Client`.
///
/// [`Docker`](super::Docker) is this with a client on top, which knows which requests may share
/// an SSH connection. A hyper-util client of your own does not, so here all streams are isolated
/// unless you say [`shared`](Connector::shared). It keeps an isolated stream for as long as it keeps
/// the HTTP connection: with isolated streams set its `pool_max_idle_per_host(0)`.
///
/// Clones share what they learn: if the server opens no stream to the socket, and `docker system
/// dial-stdio` has answered, it is used straight away for the next five minutes, unless it fails. If
/// there has ever been a stream to the socket, that way is always tried first.
///
/// ```no_run
/// use ssh_pool::docker::Connector;
///
/// # fn example(host: ssh_pool::Host) {
/// let connector = Connector::new(&host).shared(); // for hyper_util::client::legacy::Client
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Connector {
    socket: SocketPath,
    transports: Arc<TransportMemory>,
    shared: bool,
}

/// On which kind of connection: streams are no sessions and weigh little; processes are and do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    pub(super) direct: bool,
    pub(super) dial_stdio: bool,
}

impl Connector {
    /// To `/var/run/docker.sock`. Dials nothing.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self::to(SocketPath::usual(host))
    }

    /// To a socket elsewhere, such as that of a rootless daemon: `/run/user/1000/docker.sock`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSocket`] for a path that is empty, relative, not UTF-8, or has a NUL or
    /// another control character in it.
    pub fn at(host: &Host, path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::to(SocketPath::at(host, path.as_ref())?))
    }

    fn to(socket: SocketPath) -> Self {
        Self {
            socket,
            transports: Arc::default(),
            shared: false,
        }
    }

    /// Puts its streams on connections with others, by the rule of
    /// [`Connect::shared`](crate::Connect::shared): a stream that is read too slowly is cut
    /// off. Right for a client that reads its responses at once.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// The same, with what it has learned, for the streams of that group.
    #[cfg(unix)]
    pub(super) fn in_group(&self, group: &StreamGroup) -> Self {
        Self {
            socket: self.socket.in_group(group),
            ..self.clone()
        }
    }

    pub(super) fn socket(&self) -> &SocketPath {
        &self.socket
    }

    pub(super) fn transports(&self) -> &TransportMemory {
        &self.transports
    }

    /// Opens a stream, by the way that works.
    pub(super) async fn connect(&self, sharing: Sharing) -> Result<Stream, Error> {
        let refusal = match self.transports.fallback_reason() {
            Some(refusal) => refusal,
            None => {
                let mut connect = self.socket.host().connect_unix(self.socket.path());
                if sharing.direct {
                    connect = connect.shared();
                }
                match connect.await {
                    Ok(stream) => {
                        self.transports.direct_works();
                        return Ok(Stream::direct(stream));
                    }
                    // sshd gives one answer for a socket that is not there, one that it may not
                    // open, and AllowStreamLocalForwarding no.
                    Err(refusal @ SshError::StreamRefused { .. }) => refusal,
                    Err(source) => {
                        let (target, path) = self.socket.names();
                        return Err(Error::Stream {
                            target,
                            path,
                            source: Box::new(source),
                        });
                    }
                }
            }
        };
        tracing::debug!(reason = %refusal, "docker system dial-stdio instead of a stream");
        let process = DialStdio::start(&self.socket, &self.transports, refusal, sharing.dial_stdio);
        Ok(Stream::dial_stdio(process.await?))
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// Opens a stream; the URI does not matter.
    ///
    /// # Errors
    ///
    /// [`Error::Stream`], and [`Error::Unreachable`] if `docker system dial-stdio` may not be run
    /// either. If it fails later on, the first read says so.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing; a stream that was opened for it is closed, and a process
    /// ended.
    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let sharing = Sharing {
                direct: connector.shared,
                dial_stdio: connector.shared,
            };
            connector.connect(sharing).await
        })
    }
}
