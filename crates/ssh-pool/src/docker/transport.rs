//! Which of the two ways to a daemon works.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ssh_pool_core::Error;

/// The direct way is better. So it is tried again after a while, though it was refused.
const REMEMBER_FOR: Duration = Duration::from_secs(300);

/// What has been learned, for all streams of one connector.
#[derive(Debug, Default)]
pub(super) struct TransportMemory(Mutex<TransportState>);

#[derive(Debug, Default)]
struct TransportState {
    /// There was a stream to the socket once. A refusal since then says that the daemon is down, or
    /// that the server's settings were changed; not that there is a better way.
    direct: bool,
    /// `docker system dial-stdio` has answered: when, and why it was tried.
    dial_stdio: Option<(Instant, Error)>,
}

impl TransportMemory {
    /// Why the direct way need not be tried.
    pub(super) fn fallback_reason(&self) -> Option<Error> {
        let state = self.state();
        let (learned, refusal) = state.dial_stdio.as_ref()?;
        (learned.elapsed() < REMEMBER_FOR).then(|| refusal.clone())
    }

    /// Whether there was ever a stream to the socket.
    pub(super) fn is_direct(&self) -> bool {
        self.state().direct
    }

    pub(super) fn direct_works(&self) {
        *self.state() = TransportState {
            direct: true,
            dial_stdio: None,
        };
    }

    /// Said when it has answered: that it was started proves nothing.
    pub(super) fn dial_stdio_works(&self, refusal: &Error) {
        let mut state = self.state();
        let known =
            matches!(&state.dial_stdio, Some((learned, _)) if learned.elapsed() < REMEMBER_FOR);
        if !state.direct && !known {
            state.dial_stdio = Some((Instant::now(), refusal.clone()));
        }
    }

    pub(super) fn dial_stdio_fails(&self) {
        self.state().dial_stdio = None;
    }

    fn state(&self) -> MutexGuard<'_, TransportState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Error {
        Error::InvalidInput {
            what: "test",
            reason: String::new(),
        }
    }

    #[test]
    fn dial_stdio_is_remembered_once_it_has_answered_and_until_it_fails() {
        let transports = TransportMemory::default();
        assert!(transports.fallback_reason().is_none());
        transports.dial_stdio_works(&refusal());
        assert!(transports.fallback_reason().is_some());
        transports.dial_stdio_fails();
        assert!(transports.fallback_reason().is_none());
    }

    #[test]
    fn where_the_direct_way_has_worked_it_is_always_tried_first() {
        let transports = TransportMemory::default();
        transports.dial_stdio_works(&refusal());
        transports.direct_works();
        assert!(transports.fallback_reason().is_none() && transports.is_direct());
        transports.dial_stdio_works(&refusal());
        assert!(transports.fallback_reason().is_none() && transports.is_direct());
    }
}
