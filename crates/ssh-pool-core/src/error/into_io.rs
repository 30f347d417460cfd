//! An error where `std::io::Error` is wanted.

use std::io::{self, ErrorKind};

use super::Error;

/// The error itself is inside: [`io::Error::get_ref`] and `downcast_ref` bring it back. The kind says
/// as much as a kind can: `TimedOut`, `PermissionDenied` for logins and host keys, `ConnectionReset`
/// for lost connections, `QuotaExceeded` and `ResourceBusy` for limits, and what the operating system
/// said where a connection was refused.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Error, Target};
///
/// fn read() -> std::io::Result<Target> {
///     Ok("deploy@web-1:0".parse::<Target>()?)
/// }
/// let error = read().unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
/// let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
/// assert!(matches!(inner, Some(Error::InvalidInput { .. })));
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(kind(&error), error)
    }
}

fn kind(error: &Error) -> ErrorKind {
    match error {
        error if error.is_timeout() => ErrorKind::TimedOut,
        Error::InvalidInput { .. } => ErrorKind::InvalidInput,
        Error::Resolve { .. } => ErrorKind::HostUnreachable,
        Error::Connect { source, .. } => source.io_error_kind().unwrap_or(ErrorKind::NotConnected),
        Error::NotSsh { .. }
        | Error::KeyExchange { lost: false, .. }
        | Error::AuthLost { lost: false, .. }
        | Error::ClosedAfterLogin { lost: false, .. } => ErrorKind::InvalidData,
        Error::HostKey { .. } | Error::Identity { .. } | Error::AuthRejected { .. } => {
            ErrorKind::PermissionDenied
        }
        Error::SessionRefused { .. }
        | Error::ExecRefused { .. }
        | Error::PtyRefused { .. }
        | Error::SubsystemRefused { .. }
        | Error::StreamRefused { .. }
        | Error::ForwardRefused { .. } => ErrorKind::ConnectionRefused,
        Error::KeyExchange { lost: true, .. }
        | Error::AuthLost { lost: true, .. }
        | Error::ClosedAfterLogin { lost: true, .. }
        | Error::ConnectionLost { .. }
        | Error::ClosedWithoutStatus { .. } => ErrorKind::ConnectionReset,
        Error::OutputLimit { .. } => ErrorKind::QuotaExceeded,
        Error::Throttled { .. } | Error::QueueFull { .. } | Error::StreamLimit { .. } => {
            ErrorKind::ResourceBusy
        }
        Error::Listen { source, .. } => source.io_error_kind().unwrap_or(ErrorKind::Other),
        Error::Closed { .. } => ErrorKind::NotConnected,
        Error::Repeated { source, .. } => kind(source),
        _ => ErrorKind::Other,
    }
}
