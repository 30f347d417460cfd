//! The connection under a stream or a child, as its holder may look at it.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::group::{ConnectionGroup, ConnectionId};

/// The SSH connection that carries a stream or a child. It keeps nothing open.
///
/// A connection that is retired ([`Retirement`](crate::Retirement) says why) stays until the last
/// stream on it has ended. A stream that is kept between two uses should be replaced then: it would
/// keep the old connection for ever.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// let mut redis = host.connect_tcp("localhost", 6379).await?;
/// // Later, before it is used again:
/// if redis.connection().is_retiring() {
///     redis = host.connect_tcp("localhost", 6379).await?;
/// }
/// # drop(redis);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConnectionHandle {
    group: Weak<ConnectionGroup>,
    id: ConnectionId,
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionHandle")
            .field("number", &self.id.0)
            .field("retiring", &self.is_retiring())
            .finish()
    }
}

impl ConnectionHandle {
    pub(crate) fn new(group: &Arc<ConnectionGroup>, id: ConnectionId) -> Self {
        Self {
            group: Arc::downgrade(group),
            id,
        }
    }

    /// Whether nothing new is put on this connection: it is retired, or it is isolated and due to be,
    /// or it has ended. Asks nothing of the server.
    #[must_use]
    pub fn is_retiring(&self) -> bool {
        (self.group.upgrade()).is_none_or(|group| group.is_retiring(self.id))
    }
}
