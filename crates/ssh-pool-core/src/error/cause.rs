//! What is underneath an error.

use std::fmt;
use std::sync::Arc;

/// The cause of an [`Error`](crate::Error): opaque, so that no dependency's type is part of this
/// API, and shared, because one failed dial answers many waiters.
///
/// Read it through [`std::error::Error::source`].
#[derive(Clone)]
pub struct Cause(pub(super) Arc<dyn std::error::Error + Send + Sync + 'static>);

impl Cause {
    /// Wraps any error.
    pub(crate) fn new(
        error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        Self(Arc::from(error.into()))
    }
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
