//! What is underneath an error.

use std::fmt;
use std::sync::Arc;

use crate::printable;

/// The cause of an [`Error`](crate::Error): opaque, so that no dependency's type is part of this
/// API, and shared, because one failed dial answers many waiters.
///
/// Read it through [`std::error::Error::source`].
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
        let io = std::iter::successors(Some(first), |error| error.source())
            .any(|error| error.is::<std::io::Error>());
        if io {
            Self::new(error)
        } else {
            Self::new(printable(error.to_string()))
        }
    }
}

/// Whether an error, or what is underneath it, says that this process (EMFILE) or this machine
/// (ENFILE) has no file descriptors left. std has no kind for it.
pub(crate) fn no_descriptors(error: &(dyn std::error::Error + 'static)) -> bool {
    const CODES: &[i32] = if cfg!(windows) {
        &[4, 10024]
    } else {
        &[24, 23] // the same numbers on every Unix
    };
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>()?.raw_os_error())
        .any(|code| CODES.contains(&code))
}

impl Cause {
    /// The kind of the I/O error underneath, if there is one.
    #[must_use]
    pub fn io_error_kind(&self) -> Option<std::io::ErrorKind> {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(&*self.0);
        while let Some(current) = error {
            if let Some(io) = current.downcast_ref::<std::io::Error>() {
                return Some(io.kind());
            }
            error = current.source();
        }
        None
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
