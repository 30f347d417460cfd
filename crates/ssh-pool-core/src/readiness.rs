//! Waiting for a host that is being set up.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::Error;
use crate::group::Deadline;
use crate::host_pools::HostPools;
use crate::runtime::within;
use crate::waited::Waited;

/// A wait for a host that is being set up: `.await` it. From
/// [`Host::wait_until_ready`](crate::Host::wait_until_ready).
///
/// The pool tries about once a second, whatever earlier failures it remembers, and keeps to the limits
/// that it always keeps to: one dial at a time, `Limits::login_burst`, and, where the server counts
/// failed logins (OpenSSH 9.8 and later, `PerSourcePenalties`), one of those every five seconds.
/// A server has two seconds to accept a connection, and as long to identify itself, so that a
/// connection from before it was ready is not waited for.
///
/// It waits while the name is unknown, while connections are refused, reset, closed or throttled, while
/// the server is silent, while something else answers, such as a load balancer that has no server yet
/// ([`Error::NotSsh`]), and while a login or a session is refused. What waiting does not mend is an error
/// at once: a host key that is unknown (see [`for_host_key`](Self::for_host_key)), has changed or is
/// revoked, no algorithm in common, an identity that cannot be used here, a pool that is closed.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn provision(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use std::time::Duration;
///
/// // Something else writes the machine's key into known_hosts when it has learned it.
/// host.wait_until_ready(Duration::from_secs(300)).for_host_key().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is tried until it is awaited"]
pub struct Readiness {
    pools: Arc<HostPools>,
    deadline: Duration,
    for_host_key: bool,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness")
            .field("host", self.pools.shared().name())
            .field("deadline", &self.deadline)
            .field("for_host_key", &self.for_host_key)
            .finish()
    }
}

impl Readiness {
    pub(crate) fn new(pools: Arc<HostPools>, deadline: Duration) -> Self {
        Self {
            pools,
            deadline,
            for_host_key: false,
        }
    }

    /// Waits for the host key as well, while it is in no known_hosts file. Each try hangs up on the
    /// server when it has shown its key, which sshd counts since 9.8; so use it only where
    /// something else adds the key. A key that has changed or is revoked is an error at once.
    ///
    /// Default: an unknown host key is an error at once.
    pub fn for_host_key(mut self) -> Self {
        self.for_host_key = true;
        self
    }
}

impl IntoFuture for Readiness {
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    /// Waits. There is a connection with a channel ready afterwards, as after
    /// [`Host::warm`](crate::Host::warm).
    ///
    /// # Errors
    ///
    /// At the deadline, what the last try that had come to an end has failed with: [`Error::Connect`],
    /// [`Error::NotSsh`], [`Error::AuthRejected`], …; [`Error::Timeout`] where that was silence, or none had
    /// ended. At once, what waiting does not mend: [`Error::Identity`],
    /// [`Error::HostKey`], no algorithm in common, [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dial that was started continues.
    fn into_future(self) -> Self::IntoFuture {
        let runtime = self.pools.shared().runtime().clone();
        let wait = async move {
            let deadline = Deadline::after(self.deadline);
            let mut waited = Waited::default();
            let ready =
                self.pools
                    .shared()
                    .wait_until_ready(deadline, self.for_host_key, &mut waited);
            let ready = ready.await;
            ready.map_err(|error| error.having_waited(&waited))
        };
        within(&runtime, wait).boxed()
    }
}
