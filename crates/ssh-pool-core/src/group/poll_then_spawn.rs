//! Work that begins where it is asked for, and becomes a task when it has to wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Polls it once, here. If it is not done then, it goes on in a task of its own as soon as it is
/// woken. A task from the beginning would have to be woken twice, each time at the expense of other
/// tasks on that thread.
pub(super) fn start(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
    let rest = Arc::new(Continuation {
        runtime: runtime.clone(),
        state: Mutex::new(PollState::Polled { woken: false }),
    });
    let waker = Waker::from(rest.clone());
    let mut work: Work = Box::pin(work);
    let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
    let mut state = rest.state();
    match (polled, &*state) {
        (Poll::Ready(()), _) => *state = PollState::Over,
        (Poll::Pending, PollState::Polled { woken: true }) => {
            *state = PollState::Over;
            drop(state);
            runtime.spawn(work);
        }
        (Poll::Pending, _) => *state = PollState::Waiting(work),
    }
}

struct Continuation {
    runtime: Handle,
    state: Mutex<PollState>,
}

enum PollState {
    Polled { woken: bool },
    Waiting(Work),
    Over,
}

impl Continuation {
    fn state(&self) -> MutexGuard<'_, PollState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Continuation {
    fn wake(self: Arc<Self>) {
        let mut state = self.state();
        match std::mem::replace(&mut *state, PollState::Over) {
            PollState::Polled { .. } => *state = PollState::Polled { woken: true },
            PollState::Waiting(work) => {
                drop(state);
                self.runtime.spawn(work);
            }
            PollState::Over => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn tasks() -> usize {
        Handle::current().metrics().num_alive_tasks()
    }

    #[tokio::test]
    async fn what_need_not_wait_is_done_at_once_and_needs_no_task() {
        let (done, mut seen) = oneshot::channel();
        start(&Handle::current(), async move {
            done.send(()).expect("it is received");
        });
        assert_eq!(seen.try_recv(), Ok(()));
        assert_eq!(tasks(), 0);
    }

    #[tokio::test]
    async fn what_waits_goes_on_when_it_is_woken() {
        let (go, wait) = oneshot::channel::<()>();
        let (done, seen) = oneshot::channel();
        start(&Handle::current(), async move {
            wait.await.expect("it is told to go on");
            done.send(()).expect("it is received");
        });
        assert_eq!(tasks(), 0, "it waits without a task");
        go.send(()).expect("it waits");
        seen.await.expect("done");
    }

    #[tokio::test]
    async fn what_is_woken_while_it_is_polled_goes_on() {
        let (done, seen) = oneshot::channel();
        let mut polled = 0;
        let work = std::future::poll_fn(move |cx| {
            polled += 1;
            cx.waker().wake_by_ref();
            if polled < 3 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        });
        start(&Handle::current(), async move {
            work.await;
            done.send(()).expect("it is received");
        });
        seen.await.expect("done");
    }

    #[tokio::test]
    async fn what_waits_for_a_dropped_sender_goes_on_too() {
        let (go, wait) = oneshot::channel::<()>();
        let (kept, lost) = oneshot::channel::<()>();
        start(&Handle::current(), async move {
            drop(wait.await);
            drop(kept);
        });
        drop(go);
        lost.await.expect_err("it was dropped");
    }
}
