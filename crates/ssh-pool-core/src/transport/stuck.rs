//! Whether a session loop takes what is sent to it.
//!
//! russh takes nothing from its queue while keys are changed (RFC 4253, section 9). A server that
//! begins that and does not end it may go on talking, so it is not silent; but nothing goes out any
//! more, neither requests nor keepalives.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::client::{ChannelTable, Client};
use super::connection::no_channel;
use crate::error::Cause;

/// Ends the connection when its session loop has taken nothing, and has written nothing, for as long
/// as the peer may be silent: one interval more than keepalives may be missed.
pub(super) fn watch(
    handle: &Arc<Handle<Client>>,
    channels: Arc<ChannelTable>,
    socket: CancellationToken,
    interval: Duration,
    misses: usize,
) {
    let handle = Arc::downgrade(handle);
    tokio::spawn(async move {
        let stuck = stuck(
            interval,
            misses,
            || taken(handle.clone()),
            // On a slow line one write may take long. What is held back may be the answer.
            || {
                let held_back = channels
                    .read_gate
                    .as_ref()
                    .is_some_and(|read_gate| read_gate.is_shut());
                (channels.last_heard.writes(), held_back)
            },
        );
        tokio::select! {
            () = channels.close_signal.ended() => return,
            () = stuck => {}
        }
        channels.end_all(Cause::new(
            "the connection takes nothing: the server does not finish a change of keys",
        ));
        socket.cancel();
    });
}

/// Completes when one of the `sent` is not taken for so long, while nothing is written and nothing
/// held back. A process that did not run meanwhile misses one interval for it.
async fn stuck<F: Future<Output = ()>>(
    interval: Duration,
    misses: usize,
    sent: impl Fn() -> F,
    state: impl Fn() -> (u64, bool),
) {
    loop {
        tokio::time::sleep(interval).await;
        let mut sent = std::pin::pin!(sent());
        let (mut before, mut missed) = (state().0, 0);
        while tokio::time::timeout(interval, sent.as_mut()).await.is_err() {
            let (writes, held_back) = state();
            if held_back || writes != before {
                (before, missed) = (writes, 0);
                continue;
            }
            if missed >= misses {
                return;
            }
            missed += 1;
        }
    }
}

/// Data for a channel that does not exist: russh drops it when its session loop gets there, and
/// sends nothing.
struct Probe {
    _taken: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Probe {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

/// Waits until the loop has taken something. It holds no handle meanwhile, which would keep the
/// connection.
async fn taken(handle: Weak<Handle<Client>>) {
    let (Some(handle), Some(nowhere)) = (handle.upgrade(), no_channel()) else {
        return;
    };
    let (sender, taken) = oneshot::channel();
    let probe = Bytes::from_owner(Probe { _taken: sender });
    // A session that has ended takes nothing, and the close signal says so.
    handle.data(nowhere, probe).await.ok();
    drop(handle);
    // It is dropped, and never sent.
    taken.await.ok();
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds it is stuck, if that is within a thousand.
    async fn stuck_after<F: Future<Output = ()>>(
        sent: impl Fn() -> F,
        state: impl Fn() -> (u64, bool),
    ) -> Option<u64> {
        let began = tokio::time::Instant::now();
        let stuck = stuck(SECOND, 3, sent, state);
        let stuck = tokio::time::timeout(SECOND * 1000, stuck).await;
        stuck.ok().map(|()| began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_takes_nothing_is_stuck_after_one_interval_more_than_may_be_missed() {
        let never = std::future::pending::<()>;
        assert_eq!(stuck_after(never, || (0, false)).await, Some(1 + 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_takes_something_now_and_then_is_not_stuck() {
        let slow = || tokio::time::sleep(SECOND * 7 / 2);
        assert_eq!(stuck_after(slow, || (0, false)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_writes_or_is_held_back_is_not_stuck() {
        let never = std::future::pending::<()>;
        let writes = Cell::new(0);
        let writing = || (writes.replace(writes.get() + 1), false);
        assert_eq!(stuck_after(never, writing).await, None);
        assert_eq!(stuck_after(never, || (0, true)).await, None);
    }
}
