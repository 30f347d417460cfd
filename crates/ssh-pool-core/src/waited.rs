//! Where the time of a call went before it had its channel.

use std::future::{Future, poll_fn};
use std::ops::AddAssign;
use std::task::Poll;
use std::time::Duration;

/// Where the time went between a call and the moment when it had its channel, over all attempts.
///
/// All zero for a command that found a channel ready: then no clock is read either. What runs on
/// the server afterwards is not in it.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
/// let output = host.command("true").output().await?;
/// let waited = output.waited;
/// println!("waited {:?}, of which {:?} for a connection", waited.total(), waited.dial);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Waited {
    /// Every session was busy.
    pub queue: Duration,
    /// There was no connection, and one was being made; with everything that it had to wait for
    /// itself: its share of `Limits::handshakes` and of `Limits::connections`, the login budget of its
    /// address (`Limits::login_burst`), another dial that
    /// shows whether the host is there, a pause after the server has turned dials away, or after
    /// logins at its address have failed.
    pub dial: Duration,
    /// There was no connection, and after a failed dial the next one was not allowed yet; and the
    /// pauses between attempts of an [idempotent](crate::Command::idempotent) command.
    pub back_off: Duration,
    /// The server was asked for a sign of life, where nothing had been heard for
    /// `Timeouts::check_after`, also if none came; to open the channel; and then for what has to be
    /// known before the request: the variables that it takes, a terminal.
    pub channel: Duration,
}

impl Waited {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.queue + self.dial + self.back_off + self.channel
    }

    /// Each part by its name.
    #[cfg(feature = "metrics")]
    pub(crate) fn parts(&self) -> [(&'static str, Duration); 4] {
        [
            ("queue", self.queue),
            ("dial", self.dial),
            ("back_off", self.back_off),
            ("channel", self.channel),
        ]
    }

    /// A wait of `all`, of which so much is known. What is not, was spent in the queue.
    pub(crate) fn split(
        all: Duration,
        dial: Duration,
        back_off: Duration,
        channel: Duration,
    ) -> Self {
        let mut rest = all;
        let mut take = |part: Duration| {
            let part = part.min(rest);
            rest -= part;
            part
        };
        let (dial, back_off, channel) = (take(dial), take(back_off), take(channel));
        Self {
            queue: rest,
            dial,
            back_off,
            channel,
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Puts the parts into a span of the trace, if there was anything.
    pub(crate) fn record(&self, span: &tracing::Span) {
        if self.is_zero() {
            return;
        }
        for (name, time) in [
            ("queue_ms", self.queue),
            ("dial_ms", self.dial),
            ("back_off_ms", self.back_off),
            ("channel_ms", self.channel),
        ] {
            span.record(name, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

impl AddAssign for Waited {
    fn add_assign(&mut self, more: Self) {
        self.queue += more.queue;
        self.dial += more.dial;
        self.back_off += more.back_off;
        self.channel += more.channel;
    }
}

/// Does `work`, and sets a mark if it cannot be done at once: what need not wait costs no look at
/// the clock. A mark that is not needed is dropped right behind it.
pub(crate) async fn marked<T, M>(
    work: impl Future<Output = T>,
    mark: impl FnOnce() -> M,
) -> (T, Option<M>) {
    let mut work = std::pin::pin!(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => (done, None),
        Poll::Pending => {
            let mark = mark();
            (work.await, Some(mark))
        }
    }
}
