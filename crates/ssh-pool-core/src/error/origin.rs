//! Whom an error is about, what its call had waited for, and what its command had written.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::{Error, PartialOutput};
use crate::waited::Waited;

/// The target of an [`Error`], as `user@host:port`. Reads like a `str`.
///
/// An error of a call that had to wait knows for how long: see [`Error::waited`].
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Error;
///
/// fn is_about(error: &Error, target: &str) -> bool {
///     matches!(error, Error::Closed { target: origin } if &**origin == target)
/// }
/// ```
#[derive(Clone)]
pub struct Origin {
    name: Arc<str>,
    /// Set where the call returns: what failed may have been shared, its waits were not. In one place,
    /// because each error has room for it.
    call: Option<Arc<CallContext>>,
}

/// What is known of the call that has failed.
#[derive(Default)]
struct CallContext {
    waited: Waited,
    output: Option<Arc<PartialOutput>>,
}

impl Deref for Origin {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

impl From<Arc<str>> for Origin {
    fn from(name: Arc<str>) -> Self {
        Self { name, call: None }
    }
}

impl From<&Arc<str>> for Origin {
    fn from(name: &Arc<str>) -> Self {
        name.clone().into()
    }
}

impl From<&str> for Origin {
    fn from(name: &str) -> Self {
        Arc::<str>::from(name).into()
    }
}

impl From<String> for Origin {
    fn from(name: String) -> Self {
        Arc::<str>::from(name).into()
    }
}

impl Origin {
    /// The same, of a call that has waited like this.
    pub(crate) fn after(mut self, waited: &Waited) -> Self {
        let output = self.call.and_then(|call| call.output.clone());
        let waited = *waited;
        let known = output.is_some() || !waited.is_zero();
        self.call = known.then(|| Arc::new(CallContext { waited, output }));
        self
    }

    pub(super) fn output(&self) -> Option<&PartialOutput> {
        self.call.as_ref()?.output.as_deref()
    }

    pub(super) fn set_output(&mut self, output: PartialOutput) {
        let waited = self.call.as_ref().map(|call| call.waited);
        self.call = Some(Arc::new(CallContext {
            waited: waited.unwrap_or_default(),
            output: Some(Arc::new(output)),
        }));
    }
}

/// The origin of an error, by reference or by mutable reference. The one variant without a target
/// is about what the caller passed in.
macro_rules! origin {
    ($error:expr) => {
        match $error {
            Error::InvalidInput { .. } => None,
            Error::Resolve { target, .. }
            | Error::Connect { target, .. }
            | Error::NotSsh { target, .. }
            | Error::Throttled { target, .. }
            | Error::KeyExchange { target, .. }
            | Error::HostKey { target, .. }
            | Error::Identity { target, .. }
            | Error::AuthRejected { target, .. }
            | Error::AuthLost { target, .. }
            | Error::ClosedAfterLogin { target, .. }
            | Error::Timeout { target, .. }
            | Error::SessionRefused { target, .. }
            | Error::ExecRefused { target, .. }
            | Error::PtyRefused { target, .. }
            | Error::SubsystemRefused { target, .. }
            | Error::StreamRefused { target, .. }
            | Error::ForwardRefused { target, .. }
            | Error::Listen { target, .. }
            | Error::NotKilled { target, .. }
            | Error::Unproven { target, .. }
            | Error::ConnectionLost { target, .. }
            | Error::ClosedWithoutStatus { target, .. }
            | Error::Repeated { target, .. }
            | Error::OutputLimit { target, .. }
            | Error::QueueFull { target, .. }
            | Error::StreamLimit { target, .. }
            | Error::Descriptors { target, .. }
            | Error::RuntimeEnded { target, .. }
            | Error::Closed { target, .. } => Some(target),
        }
    };
}

impl Error {
    pub(super) fn origin(&self) -> Option<&Origin> {
        origin!(self)
    }

    pub(super) fn origin_mut(&mut self) -> Option<&mut Origin> {
        origin!(self)
    }

    /// The target that it is about, as `user@host:port`. `None` for what the caller passed in.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.origin().map(|origin| &**origin)
    }

    /// What the call that failed had waited for before it had a channel, over all attempts. Of
    /// several calls that share one failure each has its own; the [`source`](std::error::Error)
    /// of an error has none.
    #[must_use]
    pub fn waited(&self) -> Waited {
        self.origin()
            .and_then(|origin| Some(origin.call.as_ref()?.waited))
            .unwrap_or_default()
    }

    /// The call that returns this error has waited like this.
    pub(crate) fn having_waited(mut self, waited: &Waited) -> Self {
        if let Some(origin) = self.origin_mut() {
            *origin = origin.clone().after(waited);
        }
        self
    }
}
