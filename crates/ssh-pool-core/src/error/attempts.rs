//! What only the memory of past attempts can add to an error.

use std::time::Duration;

use super::Error;

impl Error {
    /// What had failed before a deadline passed.
    pub(crate) fn last_failure(&self) -> Option<Self> {
        match self {
            Error::Timeout {
                source: Some(source),
                after,
                ..
            } if !after.is_zero() => source.failure().cloned(),
            _ => None,
        }
    }

    /// Sets the number of attempts in a row that have failed.
    pub(crate) fn attempted(mut self, times: u32) -> Self {
        if let Error::ClosedAfterLogin { attempts, .. } = &mut self {
            *attempts = times;
        }
        self
    }

    /// The next attempt is made after this.
    pub(crate) fn retried_in(mut self, pause: Duration) -> Self {
        if let Error::ClosedAfterLogin { retry_in, .. } = &mut self {
            // For people, to the millisecond.
            *retry_in = Duration::from_millis(pause.as_millis().try_into().unwrap_or(u64::MAX));
        }
        self
    }
}
