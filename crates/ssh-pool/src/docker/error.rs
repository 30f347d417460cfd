//! What can go wrong between a caller and a Docker daemon.

use std::fmt;
use std::io;
use std::sync::Arc;

use ssh_pool_core::CommandState;

use super::socket::SocketPath;
use crate::reason;

/// Why a request has no response, or a stream could not go on.
///
/// A response with an error status is no error here. `Display` names the host, the socket, the reason
/// and what to do on one line; [`source`](std::error::Error::source) is the operating system's error,
/// where there is one. [`find`](Error::find) finds the error of the pool.
///
/// ```
/// use ssh_pool::CommandState;
/// use ssh_pool::docker::Error;
///
/// /// Whether a request that failed can have had an effect.
/// fn may_have_worked(error: &Error) -> bool {
///     error.command_state() == CommandState::Unknown
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// The path cannot be that of a Docker socket. Nothing was sent.
    InvalidSocket {
        /// The path, escaped.
        path: String,
        /// What is wrong with it, and what would be right.
        reason: &'static str,
    },

    /// SSH did not get as far as the daemon: no connection, no room, or the pool is closed. The
    /// request was not sent.
    Stream {
        /// The host, as `user@host:port`.
        target: String,
        /// The socket.
        path: String,
        /// What SSH says.
        source: Box<ssh_pool_core::Error>,
    },

    /// Neither way leads to a daemon: the server opens no stream to the socket, which is the
    /// source, and `docker system dial-stdio` ended there without an answer.
    Unreachable {
        /// The host, as `user@host:port`.
        target: String,
        /// The socket.
        path: String,
        /// How `docker system dial-stdio` ended, and the first 1 KiB of what it wrote to standard
        /// error, escaped.
        dial_stdio: String,
        /// Whether a request may have reached the daemon all the same.
        state: CommandState,
        /// Why there is no stream to the socket.
        source: Box<ssh_pool_core::Error>,
    },

    /// `docker system dial-stdio` failed after it had begun to answer.
    BrokenOff {
        /// The host, as `user@host:port`.
        target: String,
        /// The socket.
        path: String,
        /// How it ended, and the first 1 KiB of what it wrote to standard error, escaped.
        dial_stdio: String,
    },

    /// The SSH connection was lost, or a shared stream was read too slowly, while the request was
    /// on its way or its response was read.
    CutOff {
        /// The host, as `user@host:port`.
        target: String,
        /// The socket.
        path: String,
        /// Whether the request may have reached the daemon.
        state: CommandState,
        /// What SSH says.
        source: Box<ssh_pool_core::Error>,
    },

    /// HTTP went wrong: the daemon closed the connection without a response, or what answers is
    /// no Docker daemon.
    Http {
        /// The host, as `user@host:port`.
        target: String,
        /// The socket.
        path: String,
        /// Whether the request may have reached the daemon.
        state: CommandState,
        /// What HTTP says.
        source: HttpCause,
    },

    /// The request cannot be sent: its URI has no path.
    InvalidRequest,
}

/// The error of HTTP underneath: opaque, so that no type of the client is part of this interface.
///
/// Its words, with those of its own causes, are in the error.
///
/// ```
/// use ssh_pool::docker::Error;
///
/// fn words(error: &Error) -> Option<String> {
///     match error {
///         Error::Http { source, .. } => Some(source.to_string()),
///         _ => None,
///     }
/// }
/// ```
#[derive(Clone)]
pub struct HttpCause(Arc<dyn std::error::Error + Send + Sync>);

impl HttpCause {
    pub(crate) fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Debug for HttpCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for HttpCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for HttpCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InvalidSocket { path, reason } => {
                write!(f, "invalid path of a Docker socket, \"{path}\": {reason}")
            }
            Error::Stream {
                target,
                path,
                source,
            } => {
                let reason = reason::of_ssh(source);
                write!(
                    f,
                    "{target}: no stream to the Docker socket {path}: {reason}"
                )
            }
            Error::Unreachable {
                target,
                path,
                dial_stdio,
                source,
                ..
            } => write!(
                f,
                "{target}: no Docker daemon at {path}: {}; docker system dial-stdio says: \
                 {dial_stdio}; check that dockerd runs, and that the account may use its socket",
                reason::of_ssh(source)
            ),
            Error::BrokenOff {
                target,
                path,
                dial_stdio,
            } => write!(
                f,
                "{target}: docker system dial-stdio for {path} broke off: {dial_stdio}; check the \
                 daemon"
            ),
            Error::CutOff {
                target,
                path,
                source,
                ..
            } => {
                let reason = reason::of_ssh(source);
                write!(
                    f,
                    "{target}: the stream to the Docker socket {path} was cut off: {reason}"
                )
            }
            Error::Http {
                target,
                path,
                source,
                ..
            } => {
                write!(
                    f,
                    "{target}: no HTTP response from the Docker socket {path}: {source}"
                )?;
                f.write_str("; check that a Docker daemon listens there")
            }
            Error::InvalidRequest => {
                f.write_str("not a request for a Docker daemon: its URI must have a path")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.below()?.source()
    }
}

impl Error {
    /// What SSH says.
    fn below(&self) -> Option<&ssh_pool_core::Error> {
        match self {
            Error::Stream { source, .. }
            | Error::Unreachable { source, .. }
            | Error::CutOff { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether the request may have reached the daemon, and so may have had an effect.
    #[must_use]
    pub fn command_state(&self) -> CommandState {
        match self {
            Error::InvalidSocket { .. } | Error::Stream { .. } | Error::InvalidRequest => {
                CommandState::NotStarted
            }
            Error::Unreachable { state, .. }
            | Error::CutOff { state, .. }
            | Error::Http { state, .. } => *state,
            Error::BrokenOff { .. } => CommandState::Unknown,
        }
    }

    /// Finds an error of this module or of the pool in the source chain of another error, such as
    /// the one that reading a response body gives.
    ///
    /// hyper and bollard wrap what a stream says in errors of their own, and the standard library's
    /// chain of sources leaves out what an [`io::Error`] holds. This looks there too. bollard's
    /// `IOError` passes itself off as what it holds: for this type, give it the `err` in there.
    #[must_use]
    pub fn find<'a, T: std::error::Error + 'static>(
        error: &'a (dyn std::error::Error + 'static),
    ) -> Option<&'a T> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            if let Some(found) = error.downcast_ref::<Box<T>>() {
                return Some(found);
            }
            let below = error.downcast_ref::<Self>().and_then(Self::below);
            if let Some(found) =
                below.and_then(|below| (below as &dyn std::any::Any).downcast_ref())
            {
                return Some(found);
            }
            let held = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match held {
                Some(held) => Some(held),
                None => error.source(),
            };
        }
        None
    }

    /// What became of a request, by what hyper says of it.
    pub(super) fn of_request(
        error: hyper::Error,
        socket: &SocketPath,
        state: CommandState,
    ) -> Self {
        if let Some(found) = Self::find::<Self>(&error) {
            return found.clone().in_state(state);
        }
        let (target, path) = socket.names();
        match Self::find::<ssh_pool_core::Error>(&error).cloned() {
            Some(source) => Self::CutOff {
                target,
                path,
                state,
                source: Box::new(source),
            },
            None => Self::Http {
                target,
                path,
                state,
                source: HttpCause::new(error),
            },
        }
    }

    /// The daemon has ended a connection on which it was to be asked for more.
    pub(super) fn hung_up(socket: &SocketPath) -> Self {
        let (target, path) = socket.names();
        Self::Http {
            target,
            path,
            state: CommandState::NotStarted,
            source: HttpCause::new(io::Error::other("it ended the connection after a ping")),
        }
    }

    /// The caller knows better than the stream whether it has sent a request.
    fn in_state(mut self, now: CommandState) -> Self {
        if let Self::Unreachable { state, .. }
        | Self::CutOff { state, .. }
        | Self::Http { state, .. } = &mut self
        {
            *state = now;
        }
        self
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::InvalidSocket { .. } | Error::InvalidRequest => io::ErrorKind::InvalidInput,
            Error::Unreachable { .. } => io::ErrorKind::ConnectionRefused,
            Error::BrokenOff { .. } | Error::CutOff { .. } => io::ErrorKind::ConnectionReset,
            Error::Stream { .. } | Error::Http { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
