//! Streams of one program, which may need another one before it ends those that it has.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Streams that belong to one program, on any hosts of a pool.
///
/// A program that holds a stream and cannot end it before it has another one must not wait for a
/// limit that its own streams, or those of programs like it, have filled: such a wait has no end.
/// `git push` with a hook that fetches is one, `docker compose up` with many services another. Both
/// are grouped by the library: each program that is started by the features `git` and `docker` is a
/// group, with all that it starts, and so is each [`Host::forward_local`](crate::Host::forward_local)
/// and each `Sftp`, with the commands that it runs.
///
/// The rule: **the first stream of a group queues as any other. While the group has a stream, its
/// further ones wait for no other stream to end.** They do not count towards
/// `Limits::isolated_per_host`, exceed `Limits::connections` where that is reached, and are not turned
/// away by `Limits::queued_commands`. What bounds them is
/// [`Limits::grouped_per_host`](crate::Limits::grouped_per_host): at that limit the error is
/// [`Error::StreamLimit`](crate::Error::StreamLimit), at once. They take turns for handshakes, which end
/// by themselves, and wait no longer than `Timeouts::acquire`.
///
/// A stream counts from the moment it has its connection until its channel has closed. Commands run
/// with `output()` or `status()` do not count, for they end without the caller; those of a group that
/// has a stream wait for no other stream either.
///
/// Cheap to clone; the clones are one group.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn follow(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// use ssh_pool::StreamGroup;
///
/// let host = host.in_group(&StreamGroup::new());
/// let logs = host.command("journalctl").arg("--follow").spawn().await?;
/// // Needed before the logs end: it never waits for them.
/// let shell = host.command("sh").spawn().await?;
/// # drop((logs, shell));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StreamGroup(Arc<watch::Sender<usize>>);

impl fmt::Debug for StreamGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamGroup")
            .field("open", &self.open())
            .finish()
    }
}

/// Clones of one group are equal.
impl PartialEq for StreamGroup {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StreamGroup {}

impl Default for StreamGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamGroup {
    /// A group without streams.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// How many streams it has now.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.0.borrow()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open() > 0
    }

    /// Waits until it has a stream. Cancel safe.
    pub(crate) async fn opened(&self) {
        // The sender is here, so this waits and does not fail.
        self.0.subscribe().wait_for(|open| *open > 0).await.ok();
    }

    /// One more stream, for as long as the guard lives.
    pub(crate) fn join(&self) -> Membership {
        self.0.send_modify(|open| *open += 1);
        Membership(self.clone())
    }
}

/// A stream of a group. Dropped, it is none any more.
#[derive(Debug)]
pub(crate) struct Membership(StreamGroup);

impl Drop for Membership {
    fn drop(&mut self) {
        let group = &self.0.0;
        group.send_modify(|open| *open = open.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_group_counts_its_streams_and_wakes_those_that_wait_for_the_first() {
        let group = StreamGroup::new();
        let mut opened = Box::pin(group.opened());
        assert!(opened.as_mut().now_or_never().is_none());
        let streams = [group.join(), group.clone().join()];
        opened.await;
        assert_eq!(group.open(), 2);
        drop(streams);
        assert_eq!(group.open(), 0);
        assert!(group.opened().now_or_never().is_none());
    }
}
