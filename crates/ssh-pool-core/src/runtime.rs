//! The runtime that the tasks of pools run in: threads of this library's own, one runtime for all
//! pools of a process. So a pool outlives every runtime of its callers, serves several of them, and
//! callers that have none.
//!
//! A caller's future is polled by the caller, [`within`] the runtime of the pool: its timers and
//! tasks belong to that one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{mem, process, thread};

use futures_util::FutureExt;
use pin_project_lite::pin_project;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that work at once, at most. One encrypts about 1 GB/s.
const MOST_THREADS: usize = 8;

/// Of the process with that number. Started with the first pool, and kept: the threads of an idle
/// runtime sleep.
static OWN: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// The runtime of this library.
pub(crate) fn own() -> io::Result<Handle> {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    of_process(&mut own, process::id())
}

fn of_process(own: &mut Option<(u32, Runtime)>, process: u32) -> io::Result<Handle> {
    match own {
        Some((owner, runtime)) if *owner == process => return Ok(runtime.handle().clone()),
        // A fork has none of its threads, and would wait for them if it were dropped.
        _ => mem::forget(own.take()),
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads.min(MOST_THREADS))
        .thread_name("ssh-pool")
        .enable_all()
        .build()?;
    Ok(own.insert((process, runtime)).1.handle().clone())
}

/// Whether a runtime has been shut down: it starts no task any more.
pub(crate) fn has_ended(runtime: &Handle) -> bool {
    let started = runtime.spawn(async {}).now_or_never();
    started.is_some_and(|result| result.is_err_and(|error| error.is_cancelled()))
}

pin_project! {
    /// See [`within`].
    #[must_use]
    pub(crate) struct Within<F> {
        runtime: Handle,
        #[pin]
        future: F,
    }
}

/// The same future, polled within the runtime of a pool, whatever polls it.
pub(crate) fn within<F: Future>(runtime: &Handle, future: F) -> Within<F> {
    Within {
        runtime: runtime.clone(),
        future,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = this.runtime.enter();
        this.future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn there_is_one_runtime_and_it_serves_callers_that_have_none() {
        let runtime = own().unwrap();
        assert_eq!(runtime.id(), own().unwrap().id());
        let work = within(&runtime, async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::spawn(async { 1 }).await.unwrap()
        });
        let waker = std::sync::Arc::new(Unpark(thread::current())).into();
        let (mut work, mut cx) = (std::pin::pin!(work), Context::from_waker(&waker));
        let answer = loop {
            match work.as_mut().poll(&mut cx) {
                Poll::Ready(answer) => break answer,
                Poll::Pending => thread::park(),
            }
        };
        assert_eq!(answer, 1);
    }

    #[test]
    fn a_fork_gets_a_runtime_of_its_own() {
        let mut own = None;
        let mut of = |process| of_process(&mut own, process).unwrap();
        let parent = of(1);
        assert_eq!(parent.id(), of(1).id());
        let child = of(2);
        assert_ne!(parent.id(), child.id());
        assert!(!has_ended(&parent), "dropped, and its threads waited for");
        assert_eq!(child.id(), of(2).id());
    }

    #[test]
    fn a_runtime_that_has_ended_is_told_from_one_that_is_there() {
        let other = Builder::new_current_thread().build().unwrap();
        let handle = other.handle().clone();
        for _ in 0..100 {
            assert!(!has_ended(&own().unwrap()) && !has_ended(&handle));
        }
        drop(other);
        assert!(has_ended(&handle));
    }

    struct Unpark(thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
}
