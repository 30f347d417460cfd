//! HTTP requests to a Docker daemon.

use std::fmt;
use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri, Version, request::Parts};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::{TrySendError, http1};
use ssh_pool_core::{CommandState, Host};
use tokio::sync::{Semaphore, oneshot};

use super::body::AnyBody;
use super::connector::{Connector, Sharing};
use super::error::Error;
use super::idle_pool::{self, IdlePool, Keep, Sender};
use super::route::{Route, route};

/// Requests at once on shared connections while it is not known that a stream leads to the socket.
/// Each may be a process and a session, and commands need sessions too.
const CAUTIOUS: usize = 8;
/// The others that streams allow: `Limits::streams_per_connection` has room for both.
const CONFIDENT: usize = 248;
/// An SSH connection may be lost under a stream that has just been opened.
const TRIES: usize = 3;

/// The Docker daemon of a host. Cheap to clone; making one dials nothing.
///
/// Each [`request`](Docker::request) gets the kind of connection that it needs:
///
/// - Lists, inspections, starts and other short answers share SSH connections with each other and
///   with commands. Where the server opens streams to the socket they take no session. HTTP
///   connections are kept for 5 s, 32 of them at most; through `docker system dial-stdio`, where
///   each is a process and a session, for 1 s, and 8 at most. One whose SSH connection is retired is
///   not used again, and closed within a second.
/// - Logs, events, attached and executed commands, archives, images, builds, requests with a large
///   body, and all that this does not know have an SSH connection to themselves. There a response
///   that is not read holds back the daemon and no other request. `Limits::isolated_per_host` of
///   them can be open at once; the next waits for up to `Timeouts::acquire`. Where some are held
///   until others have been opened, make the client with a handle of a stream group:
///   `Docker::new(&host.in_group(&group))`; see [`StreamGroup`](crate::StreamGroup).
///
/// A short answer that is not read is cut off beyond `Limits::stream_bytes`, as every shared stream
/// is.
///
/// `Pool::close` waits for HTTP connections that are kept, as for all streams: about a second, for it
/// retires their SSH connections.
///
/// ```no_run
/// use ssh_pool::docker::Docker;
///
/// # fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::docker::Error> {
/// let docker = Docker::new(&host); // /var/run/docker.sock; dials nothing
/// let rootless = Docker::at(&host, "/run/user/1000/docker.sock")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Docker(Arc<Inner>);

struct Inner {
    connector: Connector,
    idle_pool: Arc<IdlePool>,
    gate: Semaphore,
    /// The gate has been opened.
    confident: AtomicBool,
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Docker").field(&self.0.connector).finish()
    }
}

impl Docker {
    /// The daemon at `/var/run/docker.sock`.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self::over(Connector::new(host))
    }

    /// A daemon at another socket, such as that of a rootless one:
    /// `/run/user/1000/docker.sock`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSocket`] for a path that is empty, relative, not UTF-8, or has a NUL or
    /// another control character in it.
    pub fn at(host: &Host, path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::over(Connector::at(host, path)?))
    }

    fn over(connector: Connector) -> Self {
        Self(Arc::new(Inner {
            connector,
            idle_pool: Arc::default(),
            gate: Semaphore::new(CAUTIOUS),
            confident: AtomicBool::new(false),
        }))
    }

    /// The transport underneath, with what it has learned.
    #[must_use]
    pub fn connector(&self) -> Connector {
        self.0.connector.clone()
    }

    /// Sends a request, and returns when the head of the response is there.
    ///
    /// Only the path and the query of its URI matter: `/v1.41/containers/json`. For `attach` and
    /// `exec`, ask for an upgrade (`Connection: Upgrade`, `Upgrade: tcp`) and pass the response to
    /// [`hyper::upgrade::on`]. A response with an error status is a response.
    ///
    /// There is no deadline but that for the connection (`Timeouts::acquire`): a daemon may take
    /// its time. Put `tokio::time::timeout` around it.
    ///
    /// # Errors
    ///
    /// [`Error::Stream`] and [`Error::Unreachable`] when there is no way to the daemon;
    /// [`Error::CutOff`], [`Error::BrokenOff`] and [`Error::Http`] when the request was on its way;
    /// [`Error::InvalidRequest`]. A request that was not sent is sent on another connection. One
    /// that may have been sent is not sent again, unless it is a `GET` or `HEAD` without a body that
    /// went out on a kept connection.
    ///
    /// While the body is read, errors are hyper's: see [`Error::find`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, the response or its body closes the stream, unless all of it has been
    /// read; as with any HTTP client, the daemon may do what it was asked to.
    pub fn request<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, Error>> + Send + use<B>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let inner = self.0.clone();
        let (head, body) = request.into_parts();
        let body = AnyBody::new(body);
        let host = inner.connector.socket().host().clone();
        host.within(async move {
            let head = normal(head)?;
            let route = route(&head, &body.size_hint());
            // Held until the head of the response is there: an unread body holds up no request.
            let _permit = match route {
                Route::Look | Route::Act => inner.gate.acquire().await.ok(),
                Route::Wait | Route::Stream => None,
            };
            inner.send(head, body, route).await
        })
    }
}

/// As it goes to the daemon: no scheme and no authority, but a `Host`.
fn normal(mut head: Parts) -> Result<Parts, Error> {
    let path = head.uri.path_and_query().cloned();
    head.uri = path.ok_or(Error::InvalidRequest)?.into();
    head.version = Version::HTTP_11;
    head.headers
        .entry(HOST)
        .or_insert(HeaderValue::from_static("docker"));
    Ok(head)
}

impl Inner {
    async fn send(
        &self,
        head: Parts,
        body: AnyBody,
        route: Route,
    ) -> Result<Response<Incoming>, Error> {
        // A copy of what may be asked twice.
        let mut again = (route == Route::Look && body.is_end_stream()).then(|| head.clone());
        let mut request = Request::from_parts(head, body);
        let mut tries = TRIES;
        let mut stale = false;
        loop {
            let (sender, used) = match stale {
                false => self.connection(route).await?,
                true => (self.fresh(route).await?, false),
            };
            let mut error = match sender.send(request).await {
                Ok((response, sender)) => {
                    if let Some(sender) = sender {
                        self.give_back(sender, route);
                    }
                    return Ok(response);
                }
                Err(error) => error,
            };
            if let Some(unsent) = error.take_message() {
                tries -= usize::from(!used);
                if tries == 0 {
                    return Err(self.failed(error.into_error(), CommandState::NotStarted));
                }
                request = unsent;
            } else if let (true, Some(head)) = (used, again.take()) {
                stale = true;
                request = Request::from_parts(head, AnyBody::empty());
            } else {
                return Err(self.failed(error.into_error(), CommandState::Unknown));
            }
        }
    }

    fn failed(&self, error: hyper::Error, state: CommandState) -> Error {
        Error::of_request(error, self.connector.socket(), state)
    }

    /// A connection for such a request, and whether it was used before.
    async fn connection(&self, route: Route) -> Result<(Sender, bool), Error> {
        match route {
            Route::Wait | Route::Stream => return Ok((self.fresh(route).await?, false)),
            // It may be sent twice, and so on one that has ended unnoticed.
            Route::Look => {
                if let Some(sender) = self.idle_pool.take() {
                    return Ok((sender, true));
                }
            }
            // A daemon may end a connection at any time between two requests. So it gets a fresh
            // one, and for a process the session of an unused one.
            Route::Act => {
                let direct = self.connector.transports().is_direct();
                let _room = (!direct).then(|| self.idle_pool.make_room());
                return Ok((self.fresh(route).await?, false));
            }
        }
        let mut waiting = self.idle_pool.wait();
        tokio::select! {
            Ok(sender) = &mut waiting => Ok((sender, true)),
            fresh = self.fresh(route) => {
                if let Ok(sender) = waiting.try_recv() {
                    self.idle_pool.put(sender, self.keep());
                }
                Ok((fresh?, false))
            }
        }
    }

    async fn fresh(&self, route: Route) -> Result<Sender, Error> {
        let sharing = Sharing {
            direct: route != Route::Stream,
            dial_stdio: matches!(route, Route::Look | Route::Act),
        };
        let stream = self.connector.connect(sharing).await?;
        let (direct, connection) = (stream.is_direct(), stream.connection());
        if direct && !self.confident.swap(true, Ordering::Relaxed) {
            self.gate.add_permits(CONFIDENT);
        }
        let not_started = |error| self.failed(error, CommandState::NotStarted);
        let (http, driver) = http1::handshake(stream).await.map_err(not_started)?;
        let (tell, told) = oneshot::channel();
        let driver = tokio::spawn(async move {
            // Callers that wait for a response or read a body get it too.
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "an HTTP connection to a Docker daemon has ended");
                tell.send(error).ok();
            }
        });
        let sender = Sender {
            http,
            driver,
            connection,
        };
        match ready(sender, !direct).await {
            Ok(Some(sender)) => Ok(sender),
            Ok(None) => Err(Error::hung_up(self.connector.socket())),
            Err(error) => {
                // One that ends before its first request reports why to no other caller.
                let ended = error.is_closed() || error.is_canceled();
                let why = if ended { told.await.ok() } else { None };
                Err(not_started(why.unwrap_or(error)))
            }
        }
    }

    /// Keeps it, once the response has been read.
    fn give_back(&self, mut sender: Sender, route: Route) {
        if matches!(route, Route::Wait | Route::Stream) {
            return;
        }
        let keep = self.keep();
        if sender.http.is_ready() {
            return self.idle_pool.put(sender, keep);
        }
        let idle_pool = Arc::downgrade(&self.idle_pool);
        tokio::spawn(async move {
            if sender.http.ready().await.is_ok()
                && let Some(idle_pool) = idle_pool.upgrade()
            {
                idle_pool.put(sender, keep);
            }
        });
    }

    fn keep(&self) -> Keep {
        match self.connector.transports().is_direct() {
            true => idle_pool::STREAMS,
            false => idle_pool::PROCESSES,
        }
    }
}

/// Waits until a request can be sent. Of `docker system dial-stdio`, asks for a sign of life first: that
/// it has started says nothing. This way a request is sent only where there is a daemon, and a failure
/// before that is certain to have had no effect.
/// `None`: the daemon has answered and hung up.
async fn ready(mut sender: Sender, ping: bool) -> Result<Option<Sender>, hyper::Error> {
    sender.http.ready().await?;
    if !ping {
        return Ok(Some(sender));
    }
    let mut request = Request::new(AnyBody::empty());
    *request.uri_mut() = Uri::from_static("/_ping");
    let host = HeaderValue::from_static("docker");
    request.headers_mut().insert(HOST, host);
    let sent = sender.send(request).await;
    let (response, mut sender) = sent.map_err(TrySendError::into_error)?;
    let mut body = response.into_body();
    // It is two bytes long.
    for _ in 0..16 {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(frame) => drop(frame?),
            None => break,
        }
    }
    if let Some(sender) = &mut sender {
        sender.http.ready().await?;
    }
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(uri: &str) -> Result<String, Error> {
        let request = Request::get(uri).body(()).unwrap();
        normal(request.into_parts().0).map(|head| head.uri.to_string())
    }

    #[test]
    fn only_path_and_query_are_sent() {
        for uri in ["http://docker/info?a=b", "/info?a=b", "unix://x:1/info?a=b"] {
            assert_eq!(sent(uri).unwrap(), "/info?a=b");
        }
        assert_eq!(sent("http://docker").unwrap(), "/");
    }

    #[test]
    fn a_uri_without_a_path_is_no_request() {
        let error = sent("docker").unwrap_err();
        assert!(matches!(error, Error::InvalidRequest), "{error:?}");
        assert_eq!(error.command_state(), CommandState::NotStarted);
    }
}
