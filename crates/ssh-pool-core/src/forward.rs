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
use crate::hub::{Berth, Deadline, Entry, Hub, Lane, Reached};
use crate::inbox::Sink;
use crate::lanes::Lanes;
use crate::limits::Limits;
use crate::stream::{ChannelStream, Connect};
use crate::stream_group::StreamGroup;
use crate::transport::{Incoming, Link, ListenError};
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
    link: Option<Arc<dyn Link>>,
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
        let Some(link) = &self.link else {
            return std::future::pending().await;
        };
        let lifeline = link.lifeline();
        lifeline.ended().await;
        Error::ConnectionLost {
            target: self.target.clone(),
            phase: Phase::Running,
            source: (lifeline.cause()).unwrap_or_else(|| Cause::new("the connection ended")),
        }
    }
}

/// A socket on this machine.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, Address),
}

impl Listener {
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

    async fn accept(&self) -> io::Result<Box<dyn Socket>> {
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
impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Address::Unix(path)) = self
            && let Err(error) = std::fs::remove_file(&*path)
        {
            tracing::debug!(path = %path.display(), %error, "a socket file stays behind");
        }
    }
}

/// Connects to an address from this machine.
async fn dial(to: &Address) -> io::Result<Box<dyn Socket>> {
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
async fn join(mut local: Box<dyn Socket>, mut remote: ChannelStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut local, &mut remote).await {
        tracing::debug!(%error, "a forwarded stream was cut off");
    }
}

/// Listens on this machine; the server connects to `to`.
pub(crate) async fn local(
    lanes: Arc<Lanes>,
    group: Option<StreamGroup>,
    on: Address,
    to: Address,
    limits: &Limits,
) -> Result<Forward, Error> {
    on.validate()?;
    to.validate()?;
    let target = Origin::from(lanes.shared().name());
    let failed = |error| Error::Listen {
        target: target.clone(),
        on: on.clone(),
        source: Cause::new(error),
    };
    let deadline = lanes.shared().acquire_deadline(None);
    // A name may have to be looked up.
    let bound = tokio::time::timeout_at(deadline.at.into(), Listener::bind(&on));
    let bound = (bound.await).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let listener = bound.map_err(failed)?;
    let address = listener.address().map_err(failed)?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    let runtime = lanes.shared().runtime().clone();
    let connect = Connect::address(lanes.clone(), to, limits.stream_bytes);
    // A client of the forward may need a further connection before it ends those that it has.
    let connect = connect.in_group(Some(group.unwrap_or_default()));
    let (streams, hub) = (runtime.clone(), lanes.shared().clone());
    runtime.spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let accepted = hub.closing().run_until_cancelled(listener.accept());
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
        target: lanes.shared().name().into(),
        link: None,
        _stop: stop.drop_guard(),
    })
}

/// The server listens; we connect to `to`.
pub(crate) async fn remote(
    lanes: Arc<Lanes>,
    group: Option<StreamGroup>,
    on: Address,
    to: Address,
    limits: &Limits,
) -> Result<Forward, Error> {
    let mut waited = Waited::default();
    let forward = remote_timed(lanes, group, on, to, limits, &mut waited).await;
    forward.map_err(|error| error.having_waited(&waited))
}

async fn remote_timed(
    lanes: Arc<Lanes>,
    group: Option<StreamGroup>,
    on: Address,
    to: Address,
    limits: &Limits,
    waited: &mut Waited,
) -> Result<Forward, Error> {
    on.validate()?;
    to.validate()?;
    let deadline = lanes.isolated().acquire_deadline(None);
    let stop = CancellationToken::new();
    let room = usize::try_from(limits.streams_per_connection).unwrap_or(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(room));
    let failures = Arc::new(Failures::default());
    let mut entry = Entry::stream(group);
    loop {
        let berth = lanes.stream_berth(Lane::Isolated, &mut entry, deadline, waited);
        let berth = Arc::new(berth.await?);
        let (connection, link) = (berth.on(), berth.link().clone());
        let hub = berth.hub().clone();
        let listener = {
            let (hub, to, stop) = (hub.clone(), to.clone(), stop.clone());
            let (room, failures) = (room.clone(), failures.clone());
            // Each stream keeps the connection; the listener itself must not, it is kept by it.
            let berth = Arc::downgrade(&berth);
            Box::new(move |incoming| {
                let Some(berth) = berth.upgrade() else { return };
                let (room, failures) = (room.clone(), failures.clone());
                let work = answer(berth, hub.clone(), to.clone(), room, failures, incoming);
                hub.runtime()
                    .spawn(stop.clone().run_until_cancelled_owned(work));
            })
        };
        match listen(&hub, berth.clone(), &on, listener, deadline).await? {
            Some(address) => {
                let (there, token, closing) = (address.clone(), stop.clone(), hub.clone());
                hub.runtime().spawn(async move {
                    tokio::select! {
                        () = token.cancelled() => {}
                        () = closing.closing().cancelled() => {}
                        () = berth.link().lifeline().ended() => {}
                    }
                    berth.link().unlisten(&there).await;
                });
                return Ok(Forward {
                    address,
                    target: hub.name().into(),
                    link: Some(link),
                    _stop: stop.drop_guard(),
                });
            }
            // That connection has ended.
            None => hub.lost_under(&mut entry, connection, Some(&link), Reached::Server)?,
        }
    }
}

async fn listen(
    hub: &Arc<Hub>,
    berth: Arc<Berth>,
    on: &Address,
    listener: crate::transport::Listener,
    deadline: Deadline,
) -> Result<Option<Address>, Error> {
    berth.link().server().sizes.address(on)?;
    let asked = berth.link().listen(on, listener);
    match tokio::time::timeout_at(deadline.at.into(), asked).await {
        Ok(Ok(address)) => {
            berth.granted();
            Ok(Some(address))
        }
        Ok(Err(ListenError::Lost)) => Ok(None),
        Ok(Err(ListenError::Denied)) => Err(Error::ForwardRefused {
            target: hub.name().into(),
            on: on.clone(),
        }),
        Err(_) => Err(hub.unanswered(deadline.after, "the server was asked to listen")),
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
    berth: Arc<Berth>,
    hub: Arc<Hub>,
    to: Address,
    room: Arc<Semaphore>,
    failures: Arc<Failures>,
    incoming: Incoming,
) {
    let Ok(_permit) = room.try_acquire() else {
        if let Some(count) = failures.next_shown() {
            tracing::warn!(host = %hub.name(), count, "too many forwarded connections");
        }
        return incoming.reject.await;
    };
    let deadline = hub.acquire_deadline(None);
    let dialled = tokio::time::timeout_at(deadline.at.into(), dial(&to)).await;
    match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(local) => {
            let channel = incoming.accept.await;
            let remote = ChannelStream::incoming(channel, &berth, Sink::Read(None), 0);
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
