//! Streams through a server: to TCP ports, Unix sockets and subsystems.

use std::fmt;
use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::address::Address;
use crate::child::{ChildStdin, Source};
use crate::connection_handle::ConnectionHandle;
use crate::error::{Error, Phase, Refusal, Stream};
use crate::group::{
    self, Admission, ConnectionGroup, ConnectionId, Deadline, GroupKind, Reached, StreamPermit,
};
use crate::host_pools::HostPools;
use crate::process::{self, ExecRequest, Process, ProcessEnd};
use crate::receiver::Sink;
use crate::run;
use crate::runtime::within;
use crate::stream_group::StreamGroup;
use crate::terminate::TerminationOutcome;
use crate::transport::{Channel, OpenError, Request};
use crate::waited::Waited;

/// After a stream was dropped, the other side has this long to end it too.
const LINGER: Duration = Duration::from_secs(5);

/// A stream through the server, to a TCP port, a Unix socket or a subsystem.
///
/// Reading ends with a clean end if the other side has ended it; a lost connection is an error
/// whose inner error is [`Error::ConnectionLost`](crate::Error::ConnectionLost). Shutting it down
/// says that no more will be written, and leaves reading as it is.
///
/// Dropped, it is shut down; the other side has 5 s to end it too before its channel is closed.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let mut stream = host.connect_tcp("localhost", 6379).await?;
/// stream.write_all(b"PING\r\n").await?;
/// let mut answer = [0; 7];
/// stream.read_exact(&mut answer).await?;
/// assert_eq!(&answer, b"+PONG\r\n");
/// # Ok(())
/// # }
/// ```
pub struct ChannelStream {
    source: Source,
    writer: ChildStdin,
    channel: Channel,
    connection: ConnectionHandle,
    runtime: Handle,
    /// Of a subsystem.
    _process: Option<Process>,
}

impl fmt::Debug for ChannelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelStream")
            .field("host", &self.source.target)
            .finish_non_exhaustive()
    }
}

impl ChannelStream {
    fn new(
        channel: Channel,
        group: &Arc<ConnectionGroup>,
        on: ConnectionId,
        limit: usize,
        process: Option<Process>,
    ) -> Self {
        let source = Source {
            receiver: channel.receiver.clone(),
            target: group.name().into(),
            limit,
        };
        let runtime = group.runtime().clone();
        Self {
            writer: ChildStdin::new(channel.clone(), source.clone(), runtime.clone()),
            source,
            channel,
            connection: ConnectionHandle::new(group, on),
            runtime,
            _process: process,
        }
    }

    /// The address of the SSH server that the stream goes through: see
    /// [`Output::peer_addr`](crate::Output::peer_addr).
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.channel.sender.peer_addr()
    }

    /// The SSH connection that the stream is on.
    #[must_use]
    pub fn connection(&self) -> ConnectionHandle {
        self.connection.clone()
    }

    /// A stream that the server has opened, with a stream permit of its own.
    pub(crate) fn incoming(
        channel: Channel,
        stream_permit: &StreamPermit,
        sink: Sink,
        limit: usize,
    ) -> Self {
        channel.receiver.attach(sink);
        Self::new(
            channel,
            stream_permit.group(),
            stream_permit.on(),
            limit,
            None,
        )
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.source.poll_read(Stream::Stdout, cx, buf)
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        let Channel { sender, receiver } = self.channel.clone();
        if receiver.has_ended() {
            return;
        }
        // The writer's own drop sends EOF.
        receiver.stop();
        self.runtime.spawn(async move {
            if tokio::time::timeout(LINGER, receiver.ended())
                .await
                .is_err()
            {
                sender.close().await;
            }
        });
    }
}

/// Where a stream goes.
#[derive(Debug, Clone)]
enum To {
    Address(Address),
    Subsystem(String),
}

/// A stream that is to be opened: `.await` it.
///
/// By default it gets a connection of its own, where a reader that does not read holds up the other
/// side of this stream only. See [`shared`](Connect::shared).
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use std::time::Duration;
///
/// let log = host.connect_unix("/run/app/log.sock").shared();
/// let log = log.timeout(Duration::from_secs(3)).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is opened before it is awaited"]
#[derive(Clone)]
pub struct Connect {
    pools: Arc<HostPools>,
    to: To,
    shared: bool,
    stream_bytes: usize,
    timeout: Option<Duration>,
    stream_group: Option<StreamGroup>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("host", self.pools.shared().name())
            .field("to", &self.to)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Connect {
    fn new(pools: Arc<HostPools>, to: To, stream_bytes: usize) -> Self {
        Self {
            pools,
            to,
            shared: false,
            stream_bytes,
            timeout: None,
            stream_group: None,
        }
    }

    pub(crate) fn in_group(mut self, stream_group: Option<StreamGroup>) -> Self {
        self.stream_group = stream_group;
        self
    }

    pub(crate) fn address(pools: Arc<HostPools>, to: Address, stream_bytes: usize) -> Self {
        Self::new(pools, To::Address(to), stream_bytes)
    }

    pub(crate) fn subsystem(pools: Arc<HostPools>, name: String, stream_bytes: usize) -> Self {
        Self::new(pools, To::Subsystem(name), stream_bytes)
    }

    /// Shares a connection with commands and other streams: right for many light streams. What
    /// arrives is always taken off the connection; if more than `Limits::stream_bytes` wait to be
    /// read, the stream is cut off with [`Error::OutputLimit`].
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// A deadline for opening it. Default: `Timeouts::acquire`, which a longer one does not
    /// lengthen.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn open(self) -> Result<ChannelStream, Error> {
        let mut waited = Waited::default();
        let opened = self.open_timed(&mut waited).await;
        opened.map_err(|error| error.having_waited(&waited))
    }

    async fn open_timed(self, waited: &mut Waited) -> Result<ChannelStream, Error> {
        let group = self.pools.of_stream(self.shared).clone();
        let deadline = group.acquire_deadline(self.timeout.map(Deadline::after));
        let cap = self.shared.then_some(self.stream_bytes);
        let limit = self.stream_bytes;
        let mut admission = Admission::stream(self.stream_group);
        match self.to {
            To::Address(to) => {
                to.validate()?;
                let kind = if self.shared {
                    GroupKind::Shared
                } else {
                    GroupKind::Isolated
                };
                let sink = Sink::Read(cap);
                let opened = connect(
                    &self.pools,
                    kind,
                    to,
                    sink,
                    &mut admission,
                    deadline,
                    waited,
                );
                let (channel, group, on) = opened.await?;
                Ok(ChannelStream::new(channel, &group, on, limit, None))
            }
            To::Subsystem(name) => {
                if name.is_empty() || name.contains('\0') {
                    return Err(Error::InvalidInput {
                        what: "subsystem",
                        reason: "it needs a name without NUL bytes".into(),
                    });
                }
                let exec_request = ExecRequest {
                    length: name.len(),
                    request: Request::Subsystem(name),
                    env: Vec::new(),
                    pty: None,
                    stdout: Sink::Read(cap),
                    stderr: Sink::Discard,
                    // sshd signals no subsystem. It ends with its input, or with its channel.
                    detached: true,
                    verbatim: false,
                    in_folder: false,
                };
                let process = start(
                    &self.pools,
                    &group,
                    &exec_request,
                    &mut admission,
                    deadline,
                    waited,
                )
                .await?;
                let channel = process.channel().clone();
                let (group, on) = (process.group().clone(), process.on());
                Ok(ChannelStream::new(
                    channel,
                    &group,
                    on,
                    limit,
                    Some(process),
                ))
            }
        }
    }
}

impl IntoFuture for Connect {
    type Output = Result<ChannelStream, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    /// Opens the stream.
    ///
    /// # Errors
    ///
    /// [`Error::StreamRefused`] and [`Error::SubsystemRefused`] when the server does not open it,
    /// everything of a dial, [`Error::Timeout`] when there is no room in time,
    /// [`Error::StreamLimit`] when that is because of other streams,
    /// [`Error::QueueFull`] when too many wait for some already, [`Error::Closed`];
    /// [`Error::InvalidInput`] for a name or a path that is longer than the server takes.
    /// A connection that is lost on the way is replaced; after a second one that was alive when it
    /// was asked it is [`Error::ConnectionLost`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing; a stream that was opened for it is closed.
    fn into_future(self) -> Self::IntoFuture {
        let runtime = self.pools.shared().runtime().clone();
        within(&runtime, self.open()).boxed()
    }
}

/// Opens a channel to an address, and says on which connection.
async fn connect(
    pools: &Arc<HostPools>,
    kind: GroupKind,
    to: Address,
    sink: Sink,
    admission: &mut Admission,
    deadline: Deadline,
    waited: &mut Waited,
) -> Result<(Channel, Arc<ConnectionGroup>, ConnectionId), Error> {
    loop {
        let stream_permit = pools
            .acquire_stream_permit(kind, admission, deadline, waited)
            .await?;
        let group = &stream_permit.group().clone();
        let (on, connection) = (stream_permit.on(), stream_permit.connection().clone());
        connection.server().sizes.address(&to)?;
        let asked = group::now();
        let opened = open(group, stream_permit, to.clone(), sink);
        let opened = group.while_there(on, &connection, deadline, opened);
        let opened = tokio::time::timeout_at(deadline.at.into(), opened).await;
        waited.channel += group::now().saturating_duration_since(asked);
        match opened {
            Ok(Some(Ok(channel))) => return Ok((channel, group.clone(), on)),
            Ok(Some(Err(OpenError::Refused { code, reason }))) => {
                return Err(Error::StreamRefused {
                    target: group.name().into(),
                    to,
                    refusal: Refusal::from_code(code),
                    message: reason,
                });
            }
            Ok(Some(Err(OpenError::Lost)) | None) => {
                group.lost_under(admission, on, Some(&connection), Reached::Server)?;
            }
            Err(_) => {
                let asked = "the server was asked for the stream";
                return Err(group.unanswered(deadline.after, asked));
            }
        }
    }
}

/// Opens it in a task of its own: a dropped open would keep its channel on the server.
async fn open(
    group: &Arc<ConnectionGroup>,
    stream_permit: StreamPermit,
    to: Address,
    sink: Sink,
) -> Option<Result<Channel, OpenError>> {
    let (answer, opened) = oneshot::channel();
    group.runtime().spawn(async move {
        let opened = match stream_permit.connection().connect(&to).await {
            Ok(channel) => {
                stream_permit.granted();
                channel.receiver.watch(stream_permit.event_scope());
                channel.receiver.attach(sink);
                // From now on its end frees the stream permit.
                channel.receiver.on_end(move |end| stream_permit.leave(end));
                Ok(channel)
            }
            Err(error) => {
                drop(stream_permit);
                Err(error)
            }
        };
        let opened = opened.map(|channel| Unclaimed {
            channel: Some(channel),
            runtime: Handle::current(),
        });
        // Who waits for it may have gone, or may go before they look: it is closed either way.
        drop(answer.send(opened));
    });
    opened.await.ok()?.map(Unclaimed::claim).transpose()
}

/// A channel on its way to who wants it. Dropped on the way, it is closed.
struct Unclaimed {
    channel: Option<Channel>,
    runtime: Handle,
}

impl Unclaimed {
    fn claim(mut self) -> Option<Channel> {
        self.channel.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some(Channel { sender, receiver }) = self.channel.take() else {
            return;
        };
        self.runtime.spawn(async move {
            receiver.stop();
            sender.close().await;
        });
    }
}

/// Starts a subsystem, and waits until the server has accepted it.
async fn start(
    pools: &Arc<HostPools>,
    group: &Arc<ConnectionGroup>,
    exec_request: &ExecRequest,
    admission: &mut Admission,
    deadline: Deadline,
    waited: &mut Waited,
) -> Result<Process, Error> {
    loop {
        let mut process =
            process::start(pools, group, exec_request, admission, deadline, waited).await?;
        // While it has no owner, no other code would close it, whether it is accepted or not.
        process.set_over();
        let receiver = &process.channel().receiver;
        let answer = async {
            receiver.answered().await;
            match receiver.outcome().accepted {
                Some(true) => None,
                _ => Some(process.classify(usize::MAX).await),
            }
        };
        let Ok(answer) = tokio::time::timeout_at(deadline.at.into(), answer).await else {
            let (phase, after) = (Phase::Exec, deadline.after);
            return Err(run::timed_out(
                group,
                phase,
                after,
                TerminationOutcome::Unknown,
            ));
        };
        let Some(end) = answer else {
            process.hand_over();
            return Ok(process);
        };
        match end {
            ProcessEnd::Failed(Error::ExecRefused { target }) => {
                let name = match &exec_request.request {
                    Request::Subsystem(name) => name.clone(),
                    Request::Exec(_) => String::new(),
                };
                return Err(Error::SubsystemRefused { target, name });
            }
            ProcessEnd::Failed(error) => return Err(error),
            ProcessEnd::NeverStarted => process.never_started(admission)?,
            // It has ended before it was accepted, with a status: no server does that.
            ProcessEnd::Done(_) => {
                return Err(Error::ClosedWithoutStatus {
                    target: group.name().into(),
                });
            }
        }
    }
}
