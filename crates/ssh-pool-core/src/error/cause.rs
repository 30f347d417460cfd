//! What is underneath an error.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Error;
use super::message::as_not_used;
use super::text::Words;
use crate::printable;

/// The cause of an [`Error`](crate::Error): opaque, so that no dependency's type is part of this
/// API, and shared, because one failed dial answers many waiters.
///
/// Its words are in those of the error. If it comes from the operating system,
/// [`io_error`](Cause::io_error) has the kind and the code.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Error;
///
/// /// Whether nothing listens on the port of the server.
/// fn is_down(error: &Error) -> bool {
///     let refused = Some(std::io::ErrorKind::ConnectionRefused);
///     matches!(error, Error::Connect { source, .. } if source.io_error_kind() == refused)
/// }
/// ```
#[derive(Clone)]
pub struct Cause(pub(super) Arc<dyn std::error::Error + Send + Sync + 'static>);

impl Cause {
    /// Wraps any error that holds no words of the other side.
    pub(crate) fn new(
        error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Self(Arc::from(error.into()))
    }

    /// Wraps an error of the protocol, in whose text and causes there may be words of a server or
    /// an agent. Only an I/O error keeps its type: its words are the operating system's.
    pub(crate) fn of_peer(
        error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        let error = error.into();
        let first: &(dyn std::error::Error + 'static) = &*error;
        let io = chain(first).any(|error| error.is::<io::Error>());
        if io {
            Self::new(error)
        } else {
            Self::new(printable(error.to_string()))
        }
    }
}

/// The server has sent a text that is not UTF-8 on a connection that was logged in. russh decodes texts
/// before any callback sees them, and ends the session.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server sent a text that is not UTF-8, such as why it refuses a channel, how a command ended, or \
     why it disconnects"
)]
pub(crate) struct NotUtf8;

/// A server has accepted the connection, and closed it before it identified itself.
#[derive(Debug)]
pub(crate) struct Unidentified {
    pub(crate) address: SocketAddr,
    pub(crate) cause: Cause,
}

impl fmt::Display for Unidentified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        write!(
            f,
            "{address} accepted the connection and closed it before it said what it is"
        )?;
        match cause.io_error() {
            Some(error) if error.raw_os_error().is_some() => write!(f, " ({})", words_of(error)),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Unidentified {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause.0)
    }
}

/// None of several identities can be used.
#[derive(Debug)]
pub(crate) struct NoneUsable {
    /// As [`not_used`](super::not_used) names them.
    pub(crate) each: Vec<String>,
    pub(crate) first: Cause,
}

impl fmt::Display for NoneUsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (identity, reason) in self.each.iter().filter_map(|name| as_not_used(name)) {
            write!(f, "{separator}{identity}: {reason}")?;
            separator = "; ";
        }
        Ok(())
    }
}

impl std::error::Error for NoneUsable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.first.below()
    }
}

/// A server says what no SSH server of today says in the place of its identification.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unfit(pub(crate) String);

/// An error and everything underneath it.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Whether an error, or what is underneath it, says that this process (EMFILE) or this machine
/// (ENFILE) has no file descriptors left. std has no kind for it.
pub(crate) fn no_descriptors(error: &(dyn std::error::Error + 'static)) -> bool {
    const CODES: &[i32] = if cfg!(windows) {
        &[4, 10024]
    } else {
        &[24, 23] // the same numbers on every Unix
    };
    chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
        .any(|code| CODES.contains(&code))
}

/// What an I/O error says, without its code.
pub(crate) fn words_of(error: &io::Error) -> String {
    let text = error.to_string();
    let code = (error.raw_os_error()).map(|code| format!(" (os error {code})"));
    let words = code.and_then(|code| text.strip_suffix(&code).map(str::to_owned));
    words.unwrap_or(text)
}

impl Cause {
    /// The I/O error underneath, if there is one.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        chain(&*self.0).find_map(|error| error.downcast_ref())
    }

    /// The kind of the I/O error underneath, if there is one.
    #[must_use]
    pub fn io_error_kind(&self) -> Option<io::ErrorKind> {
        self.io_error().map(io::Error::kind)
    }

    /// What an error with this cause has as its source: the operating system's error, for its code.
    /// Everything else is in the words of that error already, and would be read twice.
    pub(super) fn below(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let error = self
            .io_error()
            .filter(|error| error.raw_os_error().is_some())?;
        Some(error)
    }

    /// What it says, and what is underneath it, on one line. Of the operating system the words.
    pub(super) fn reason(&self) -> String {
        let mut reason = String::new();
        for error in chain(&*self.0) {
            let failure = error.downcast_ref::<Error>();
            let text = match (failure, error.downcast_ref::<io::Error>()) {
                (Some(failure), _) => Words(failure).to_string(),
                (None, Some(error)) => words_of(error),
                (None, None) => error.to_string(),
            };
            if !reason.contains(&text) {
                let separator = if reason.is_empty() { "" } else { ": " };
                reason.extend([separator, &text]);
            }
            if failure.is_some() {
                break; // it has the reason in its words
            }
        }
        reason
    }

    /// An earlier failure of the pool's own.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.0.downcast_ref()
    }

    pub(super) fn unidentified(&self) -> Option<&Unidentified> {
        self.0.downcast_ref()
    }

    pub(super) fn none_usable(&self) -> Option<&NoneUsable> {
        self.0.downcast_ref()
    }

    pub(crate) fn is_not_utf8(&self) -> bool {
        self.0.is::<NotUtf8>()
    }

    pub(super) fn is_unfit(&self) -> bool {
        self.0.is::<Unfit>()
    }

    pub(crate) fn no_descriptors(&self) -> bool {
        no_descriptors(&*self.0)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
