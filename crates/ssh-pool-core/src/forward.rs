//! Port forwarding: sockets on one side, streams through the server on the other.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::address::Address;
use crate::error::{Cause, Error, Origin, Phase};
use crate::group::{Admission, ConnectionGroup, Deadline, GroupKind, Reached, StreamPermit};
use crate::host_pools::HostPools;
use crate::limits::Limits;
use crate::receiver::Sink;
use crate::stream::{ChannelStream, Connect};
use crate::stream_group::StreamGroup;
use crate::transport::{Connection, Incoming, ListenError};
use crate::waited::Waited;

/// A forwarded port or socket. Dropped, it listens no more, and its streams are cut. When its pool
/// is closed it listens no more either, and its streams may end as running commands may.
///
/// From [`Host::forward_local`](crate::Host::forward_local) and
/// [`Host::forward_remote`](crate::Host::forward_remote).
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// // This machine's port 8080 is the server's port 80, as long as `forward` is there.
/// let forward = host.forward_local(("localhost", 8080), ("localhost", 80)).await?;
/// println!("http://{}/", forward.address());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropped, it listens no more"]
pub struct Forward {
    address: Address,
    target: Origin,
    /// Of a remote one: what it stands on.
    connection: Option<Arc<dyn Connection>>,
    _stop: DropGuard,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("host", &self.target)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Forward {
    /// Where it listens: with the port that was allocated, if port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until the connection under a remote forward is lost, and with it the forward. A local
    /// one connects anew for each stream, so for it this never ends. Cancel safe.
    pub async fn lost(&self) -> Error {
        let Some(connection) = &self.connection else {
            return std::future::pending().await;
        };
        let close_signal = connection.close_signal();
        close_signal.ended().await;
        Error::ConnectionLost {
            target: self.target.clone(),
            phase: Phase::Running,
            source: (close_signal.cause()).unwrap_or_else(|| Cause::new("the connection ended")),
        }
    }
}

/// A socket on this machine.
trait LocalSocket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> LocalSocket for T {}

enum LocalListener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, Address),
}

impl LocalListener {
    async fn bind(on: &Address) -> io::Result<Self> {
        match on {
            Address::Tcp { host, port } => {
                // ssh's -L listens on loopback if no address is given.
                let host = if host.is_empty() { "localhost" } else { host };
                Ok(Self::Tcp(TcpListener::bind((host, *port)).await?))
            }
            #[cfg(unix)]
            Address::Unix(path) => Ok(Self::Unix(
                tokio::net::UnixListener::bind(path)?,
                on.clone(),
            )),
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.into()),
            #[cfg(unix)]
            Self::Unix(_, address) => Ok(address.clone()),
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn LocalSocket>> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, _) = listener.accept().await?;
                tcp.set_nodelay(true)?;
                Ok(Box::new(tcp))
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

#[cfg(unix)]
impl Drop for LocalListener {
    fn drop(&mut self) {
        if let Self::Unix(_, Address::Unix(path)) = self
            && let Err(error) = std::fs::remove_file(&*path)
        {
            tracing::debug!(path = %path.display(), %error, "a socket file stays behind");
        }
    }
}

/// Connects to an address from this machine.
async fn dial(to: &Address) -> io::Result<Box<dyn LocalSocket>> {
    match to {
        Address::Tcp { host, port } => {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp))
        }
        #[cfg(unix)]
        Address::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Copies both ways until both have ended. Ending one way ends the other side's reading only.
async fn join(mut local: Box<dyn LocalSocket>, mut remote: ChannelStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut local, &mut remote).await {
        tracing::debug!(%error, "a forwarded stream was cut off");
    }
}

/// Listens on this machine; the server connects to `to`.
pub(crate) async fn local(
    pools: Arc<HostPools>,
    stream_group: Option<StreamGroup>,
    on: Address,
    to: Address,
    limits: &Limits,
) -> Result<Forward, Error> {
    on.validate()?;
    to.validate()?;
    let target = Origin::from(pools.shared().name());
    let failed = |error| Error::Listen {
        target: target.clone(),
        on: on.clone(),
        source: Cause::new(error),
    };
    let deadline = pools.shared().acquire_deadline(None);
    // A name may have to be looked up.
    let bound = tokio::time::timeout_at(deadline.at.into(), LocalListener::bind(&on));
    let bound = (bound.await).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let listener = bound.map_err(failed)?;
    let address = listener.address().map_err(failed)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    let runtime = pools.shared().runtime().clone();
    let connect = Connect::address(pools.clone(), to, limits.stream_bytes);
    // A client of the forward may need a further connection before it ends those that it has.
    let connect = connect.in_group(Some(stream_group.unwrap_or_default()));
    let (streams, group) = (runtime.clone(), pools.shared().clone());
    runtime.spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let accepted = group.closing().run_until_cancelled(listener.accept());
            let local = match accepted.await {
                None => return,
                Some(Ok(local)) => local,
                Some(Err(error)) => {
                    // Out of descriptors, or a client that has gone: neither ends the forward.
                    tracing::warn!(%error, "a forwarded connection was not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connect = connect.clone();
            streams.spawn(token.clone().run_until_cancelled_owned(async move {
                match connect.await {
                    Ok(remote) => join(local, remote).await,
                    Err(error) => tracing::warn!(%error, "a forwarded connection goes nowhere"),
                }
            }));
        }
    }));
    Ok(Forward {
        address,
        target: pools.shared().name().into(),
        connection: None,
        _stop: stop.drop_guard(),
    })
}

/// The server listens; we connect to `to`.
pub(crate) async fn remote(
    pools: Arc<HostPools>,
    stream_group: Option<StreamGroup>,
    on: Address,
    to: Address,
    limits: &Limits,
) -> Result<Forward, Error> {
    let mut waited = Waited::default();
    let forward = remote_timed(pools, stream_group, on, to, limits, &mut waited).await;
    forward.map_err(|error| error.having_waited(&waited))
}

async fn remote_timed(
    pools: Arc<HostPools>,
    stream_group: Option<StreamGroup>,
    on: Address,
    to: Address,
    limits: &Limits,
    waited: &mut Waited,
) -> Result<Forward, Error> {
    on.validate()?;
    to.validate()?;
    let deadline = pools.isolated().acquire_deadline(None);
    let stop = CancellationToken::new();
    let room = usize::try_from(limits.streams_per_connection).unwrap_or(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(room));
    let failures = Arc::new(Failures::default());
    let mut admission = Admission::stream(stream_group);
    loop {
        let stream_permit =
            pools.acquire_stream_permit(GroupKind::Isolated, &mut admission, deadline, waited);
        let stream_permit = Arc::new(stream_permit.await?);
        let (id, connection) = (stream_permit.on(), stream_permit.connection().clone());
        let group = stream_permit.group().clone();
        let listener = {
            let (group, to, stop) = (group.clone(), to.clone(), stop.clone());
            let (room, failures) = (room.clone(), failures.clone());
            // Each stream keeps the connection; the listener itself must not, it is kept by it.
            let stream_permit = Arc::downgrade(&stream_permit);
            Box::new(move |incoming| {
                let Some(stream_permit) = stream_permit.upgrade() else {
                    return;
                };
                let (room, failures) = (room.clone(), failures.clone());
                let work = answer(
                    stream_permit,
                    group.clone(),
                    to.clone(),
                    room,
                    failures,
                    incoming,
                );
                group
                    .runtime()
                    .spawn(stop.clone().run_until_cancelled_owned(work));
            })
        };
        match listen(&group, stream_permit.clone(), &on, listener, deadline).await? {
            Some(address) => {
                let (there, token, closing) = (address.clone(), stop.clone(), group.clone());
                group.runtime().spawn(async move {
                    tokio::select! {
                        () = token.cancelled() => {}
                        () = closing.closing().cancelled() => {}
                        () = stream_permit.connection().close_signal().ended() => {}
                    }
                    stream_permit.connection().unlisten(&there).await;
                });
                return Ok(Forward {
                    address,
                    target: group.name().into(),
                    connection: Some(connection),
                    _stop: stop.drop_guard(),
                });
            }
            // That connection has ended.
            None => group.lost_under(&mut admission, id, Some(&connection), Reached::Server)?,
        }
    }
}

async fn listen(
    group: &Arc<ConnectionGroup>,
    stream_permit: Arc<StreamPermit>,
    on: &Address,
    listener: crate::transport::Listener,
    deadline: Deadline,
) -> Result<Option<Address>, Error> {
    stream_permit.connection().server().sizes.address(on)?;
    let asked = stream_permit.connection().listen(on, listener);
    match tokio::time::timeout_at(deadline.at.into(), asked).await {
        Ok(Ok(address)) => {
            stream_permit.granted();
            Ok(Some(address))
        }
        Ok(Err(ListenError::Lost)) => Ok(None),
        Ok(Err(ListenError::Denied)) => Err(Error::ForwardRefused {
            target: group.name().into(),
            on: on.clone(),
        }),
        Err(_) => Err(group.unanswered(deadline.after, "the server was asked to listen")),
    }
}

/// Connections of one forward that were not accepted. The server decides how many there are, so not
/// each of them is a line in the log.
#[derive(Default)]
struct Failures(AtomicU64);

impl Failures {
    /// Counts one. Returns how many there are if that is to be shown: 1, 2, 4, 8 and so on.
    fn next_shown(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}

/// Takes one connection that the server has accepted.
async fn answer(
    stream_permit: Arc<StreamPermit>,
    group: Arc<ConnectionGroup>,
    to: Address,
    room: Arc<Semaphore>,
    failures: Arc<Failures>,
    incoming: Incoming,
) {
    let Ok(_permit) = room.try_acquire() else {
        if let Some(count) = failures.next_shown() {
            tracing::warn!(host = %group.name(), count, "too many forwarded connections");
        }
        return incoming.reject.await;
    };
    let deadline = group.acquire_deadline(None);
    let dialled = tokio::time::timeout_at(deadline.at.into(), dial(&to)).await;
    match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(local) => {
            let channel = incoming.accept.await;
            let remote = ChannelStream::incoming(channel, &stream_permit, Sink::Read(None), 0);
            join(local, remote).await;
        }
        Err(error) => {
            if let Some(count) = failures.next_shown() {
                tracing::debug!(%to, %error, count, "a forwarded connection goes nowhere");
            }
            incoming.reject.await;
        }
    }
}
