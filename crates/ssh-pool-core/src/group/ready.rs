//! Waiting for a host that is being set up: it refuses, is silent, or does not know the key yet.

use std::sync::Arc;
use std::time::Duration;

use super::{ConnectionGroup, Deadline, now};
use crate::error::{Error, HostKeyProblem};
use crate::status::Breaker;
use crate::waited::Waited;

/// Between the beginnings of two tries, at least. One that was refused a login waits a little longer:
/// see the breaker.
const PERIOD: Duration = Duration::from_secs(1);

/// As long as this exists, failures of the host are no news, and their pauses short.
struct ReadinessGuard(Arc<ConnectionGroup>);

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        self.0.breaker.end_await();
    }
}

impl ConnectionGroup {
    fn awaited(self: &Arc<Self>) -> ReadinessGuard {
        let change = self.breaker.begin_await();
        let awaited = ReadinessGuard(self.clone());
        self.report_breaker(change);
        // What was learned before is no reason to wait.
        self.transition(|state, now| state.host.forget_pause(now));
        self.breaker.wake();
        awaited
    }

    /// Tries until there is a connection with an idle channel. Cancel safe.
    ///
    /// # Errors
    ///
    /// At the deadline the last failure; at once, a failure that waiting does not mend.
    pub(crate) async fn wait_until_ready(
        self: &Arc<Self>,
        deadline: Deadline,
        for_host_key: bool,
        waited: &mut Waited,
    ) -> Result<(), Error> {
        let _awaited = self.awaited();
        let mut last = None;
        loop {
            let next = now() + PERIOD;
            match self.warm(deadline, waited).await {
                Ok(()) => return Ok(()),
                // What a try that was under way would have come to is not known.
                Err(error @ Error::Timeout { .. }) if deadline.is_over() => {
                    return Err(error.last_failure().or(last).unwrap_or(error));
                }
                Err(error) if deadline.is_over() => return Err(error),
                Err(error) if !may_come(&error, for_host_key) => return Err(error),
                Err(error) => last = Some(error),
            }
            // Before that its memory would answer.
            let open = match self.breaker.breaker() {
                Breaker::Open { retry_in } => now() + retry_in,
                _ => next,
            };
            let until = next.max(open).min(deadline.at);
            tokio::time::sleep_until(until.into()).await;
            waited.back_off += now().saturating_duration_since(next - PERIOD);
            if deadline.is_over()
                && let Some(error) = last
            {
                return Err(error);
            }
        }
    }
}

/// Whether a host that fails like this may still be on its way.
fn may_come(error: &Error, for_host_key: bool) -> bool {
    match error {
        // The key may not be authorised yet, the account may not be set up.
        Error::AuthRejected { .. } | Error::SessionRefused { .. } => true,
        // Its name may not be there yet; or what is in front of it answers in its place.
        Error::Resolve { .. } | Error::NotSsh { .. } => true,
        Error::HostKey {
            reason: HostKeyProblem::Unknown { .. },
            ..
        } => for_host_key,
        error => error.is_transient(),
    }
}
