//! HTTP connections between two requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use ssh_pool_core::ConnectionHandle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::body::AnyBody;

/// An HTTP connection, and the SSH connection that it is on.
pub(super) struct Sender {
    pub(super) http: SendRequest<AnyBody>,
    /// What reads and writes for it.
    pub(super) driver: JoinHandle<()>,
    pub(super) connection: ConnectionHandle,
}

/// What `http` makes of a request.
type Answer<T> = Result<(Response<Incoming>, Option<T>), TrySendError<Request<AnyBody>>>;

impl Sender {
    /// Sends a request, and waits for the head of the response. Without the sender if its connection has
    /// ended meanwhile.
    pub(super) async fn send(self, request: Request<AnyBody>) -> Answer<Self> {
        let Self {
            http,
            mut driver,
            connection,
        } = self;
        let (response, http) = send(http, &mut driver, request).await?;
        let sender = http.map(|http| Self {
            http,
            driver,
            connection,
        });
        Ok((response, sender))
    }
}

async fn send(
    mut http: SendRequest<AnyBody>,
    driver: &mut JoinHandle<()>,
    request: Request<AnyBody>,
) -> Answer<SendRequest<AnyBody>> {
    let mut answer = Box::pin(http.try_send_request(request));
    tokio::select! {
        biased;
        answered = &mut answer => answered.map(|response| (response, Some(http))),
        // A request sent while the driver ends stays in hyper's queue until `http` is dropped.
        _ = driver => {
            drop(http);
            answer.await.map(|response| (response, None))
        }
    }
}

/// How often expired connections are looked for.
const LOOK: Duration = Duration::from_millis(500);

/// How many are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    most: usize,
    time: Duration,
}

/// Streams to a socket weigh nothing. Shorter than any firewall forgets a connection, so that one
/// which is used again is alive.
pub(super) const STREAMS: Keep = Keep {
    most: 32,
    time: Duration::from_secs(5),
};

/// Each is a process, and a session that commands could use.
pub(super) const PROCESSES: Keep = Keep {
    most: 8,
    time: Duration::from_secs(1),
};

/// Those that may be used again, on shared SSH connections.
#[derive(Default)]
pub(super) struct IdlePool(Mutex<PoolState>);

#[derive(Default)]
struct PoolState {
    idle: Vec<Idle>,
    /// First come, first served.
    waiting: VecDeque<oneshot::Sender<Sender>>,
    /// How many need what these take up.
    reserved_slots: usize,
    reaping: bool,
}

struct Idle {
    sender: Sender,
    until: Instant,
}

impl IdlePool {
    /// The one that was used last, for it is the least likely to have ended unnoticed.
    pub(super) fn take(&self) -> Option<Sender> {
        loop {
            let idle = self.state().idle.pop()?;
            let sender = &idle.sender;
            let may_serve = sender.http.is_ready() && !sender.connection.is_retiring();
            if may_serve && idle.until > Instant::now() {
                return Some(idle.sender);
            }
        }
    }

    /// Makes room for one more process: closes one that is idle, and while the guard lives those
    /// that would become idle.
    pub(super) fn make_room(self: &Arc<Self>) -> ReservedSlot {
        let mut state = self.state();
        state.reserved_slots += 1;
        let idle = state.idle.pop();
        drop(state);
        drop(idle);
        ReservedSlot(self.clone())
    }

    /// Waits for one that another request has just finished with.
    pub(super) fn wait(&self) -> oneshot::Receiver<Sender> {
        let (hand_over, waiting) = oneshot::channel();
        let mut state = self.state();
        state.waiting.retain(|other| !other.is_closed());
        state.waiting.push_back(hand_over);
        waiting
    }

    /// Hands it to the oldest waiter, or keeps it. On an SSH connection that is retired it is closed: it
    /// would keep that connection alive, which may lead to a machine that the host name no longer means.
    pub(super) fn put(self: &Arc<Self>, mut sender: Sender, keep: Keep) {
        if sender.connection.is_retiring() {
            return;
        }
        // No lock is held while a task is woken.
        while let Some(waiting) = self.next_waiting() {
            match waiting.send(sender) {
                Ok(()) => return,
                Err(back) => sender = back,
            }
        }
        let mut state = self.state();
        if state.reserved_slots > 0 || state.idle.len() >= keep.most {
            return;
        }
        state.idle.push(Idle {
            sender,
            until: Instant::now() + keep.time,
        });
        if !std::mem::replace(&mut state.reaping, true) {
            drop(state);
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    fn next_waiting(&self) -> Option<oneshot::Sender<Sender>> {
        let mut state = self.state();
        // Then it is closed and not handed out.
        if state.reserved_slots > 0 {
            return None;
        }
        state.waiting.pop_front()
    }

    /// Closes those that have expired or ended, or whose SSH connection is retired. Returns whether any
    /// are left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let (kept, over): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.idle)
                .into_iter()
                .partition(|Idle { sender, until }| {
                    let over = sender.http.is_closed() || sender.connection.is_retiring();
                    *until > now && !over
                });
        state.idle = kept;
        let left = !state.idle.is_empty();
        state.reaping = left;
        drop(state);
        // Their tasks are woken by this.
        drop(over);
        left
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reserves the session of an idle connection: while this exists, none is kept.
#[must_use]
pub(super) struct ReservedSlot(Arc<IdlePool>);

impl Drop for ReservedSlot {
    fn drop(&mut self) {
        self.0.state().reserved_slots -= 1;
    }
}

/// Sweeps until nothing is left.
async fn reap(pool: Weak<IdlePool>) {
    loop {
        tokio::time::sleep(LOOK).await;
        // When the last client has been dropped, so have they.
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;

    use super::*;

    /// More than a request on a busy machine takes.
    const HANG: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_request_ends_whose_connection_ends_as_it_is_sent() {
        for round in 0..20_000 {
            let (near, _far) = tokio::io::duplex(64);
            let (http, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
            let waits = Arc::new(AtomicBool::new(false));
            let ends = Arc::new(AtomicBool::new(false));
            let mut driver = tokio::spawn({
                let (waits, ends) = (waits.clone(), ends.clone());
                async move {
                    waits.store(true, Ordering::SeqCst);
                    while !ends.load(Ordering::SeqCst) {
                        std::hint::spin_loop();
                    }
                    drop(connection);
                }
            });
            while !waits.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            ends.store(true, Ordering::SeqCst);
            // At another moment each time.
            for _ in 0..round % 50 {
                std::hint::spin_loop();
            }
            let sent = send(http, &mut driver, Request::new(AnyBody::empty()));
            let Ok(sent) = tokio::time::timeout(HANG, sent).await else {
                panic!("round {round} hangs");
            };
            assert!(sent.is_err(), "nobody has answered");
        }
    }
}
