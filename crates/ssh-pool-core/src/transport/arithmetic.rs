//! Threads for sessions whose key exchange is expensive.
//!
//! russh computes on the task of the session, at login and at each change of keys. Such a session
//! runs on one of these threads, so that its arithmetic delays neither a task of the program nor
//! another connection, other than those to servers of this kind.

use std::io;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads at most. Each of them has three descriptors.
const MOST: usize = 4;

/// Started when they are needed, and ended with the pool and its last connection.
#[derive(Debug, Default)]
pub(super) struct ExpensiveSessions {
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    started: Vec<Thread>,
    next: usize,
}

/// Ends when it is dropped, without being waited for: that may happen in an async context.
#[derive(Debug)]
struct Thread {
    runtime: Handle,
    _end: DropGuard,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        std::thread::Builder::new()
            .name("ssh-pool-kex".into())
            .spawn(move || runtime.block_on(ended))?;
        Ok(Self {
            runtime: handle,
            _end: end.drop_guard(),
        })
    }
}

impl ExpensiveSessions {
    /// The thread for the next session: a new one as long as there are fewer than processors.
    fn next(&self) -> io::Result<Handle> {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let started = threads.started.len();
        if started < most.min(MOST) {
            match Thread::start() {
                Ok(thread) => threads.started.push(thread),
                Err(error) if started == 0 => return Err(error),
                Err(error) => tracing::debug!(%error, "one thread less for key exchanges"),
            }
        }
        threads.next = (threads.next + 1) % threads.started.len().max(1);
        let thread = threads.started.get(threads.next);
        let runtime = thread.map(|thread| thread.runtime.clone());
        runtime.ok_or_else(|| io::Error::other("no thread for a key exchange"))
    }

    /// Runs this future here, and the tasks that it spawns on one of the threads.
    pub(super) async fn spawning<T>(&self, future: impl Future<Output = T>) -> io::Result<T> {
        let runtime = self.next()?;
        let mut future = pin!(future);
        let result = std::future::poll_fn(|cx| {
            let _entered = runtime.enter();
            future.as_mut().poll(cx)
        });
        Ok(result.await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_run_on_other_threads_and_end_with_them() {
        let sessions = ExpensiveSessions::default();
        let here = std::thread::current().id();
        let (dropped, ended) = tokio::sync::oneshot::channel::<()>();
        let task = async move {
            let there = std::thread::current().id();
            tokio::spawn(async move {
                let _dropped = dropped;
                std::future::pending::<()>().await;
            });
            there
        };
        let there = sessions.spawning(async { tokio::spawn(task).await });
        let there = there.await.unwrap().unwrap();
        assert_ne!(there, here);
        drop(sessions);
        ended.await.expect_err("the task was dropped");
    }
}
