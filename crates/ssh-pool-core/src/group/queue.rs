//! How many callers may wait for a channel at once, over all hosts of a pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::ConnectionGroup;
use super::losses::Losses;
use crate::error::Error;
use crate::event::EventKind;
use crate::stream_group::StreamGroup;

/// The permits of one pool.
pub(crate) struct Queue {
    limit: usize,
    waiting: AtomicUsize,
    /// A caller was refused, and it has not been half empty since.
    overflowed: AtomicBool,
}

/// A caller's place among the waiters. Dropped, it is free.
#[must_use]
struct QueuePermit(Arc<Queue>);

/// A caller on the way to a channel, over all rounds of a call.
#[derive(Default)]
pub(crate) struct Admission {
    /// While the caller waits.
    permit: Option<QueuePermit>,
    /// The caller was served once. If the channel was unusable, the caller comes back and is not
    /// refused.
    admitted: bool,
    /// The connections that have ended under the call before its request was sent.
    pub(super) losses: Losses,
    /// Whose call it is.
    stream_group: Option<StreamGroup>,
    /// What it is for stays open for as long as the caller likes.
    stream: bool,
}

impl Admission {
    /// For a command of that stream group, which the library runs to its end.
    pub(crate) fn of(stream_group: Option<StreamGroup>) -> Self {
        Self {
            stream_group,
            ..Self::default()
        }
    }

    /// For a stream of that stream group.
    pub(crate) fn stream(stream_group: Option<StreamGroup>) -> Self {
        Self {
            stream: true,
            ..Self::of(stream_group)
        }
    }

    /// The caller has been served, and waits no longer.
    pub(crate) fn admitted(&mut self) {
        self.permit = None;
        self.admitted = true;
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.stream
    }

    pub(crate) fn stream_group(&self) -> Option<&StreamGroup> {
        self.stream_group.as_ref()
    }

    /// The caller's stream group has streams: it may not be able to end them before it is served.
    pub(super) fn holds_streams(&self) -> bool {
        self.stream_group.as_ref().is_some_and(StreamGroup::is_open)
    }
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            waiting: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.waiting() >= self.limit
    }

    fn enter(self: &Arc<Self>) -> Option<QueuePermit> {
        let one_more = |waiting| (waiting < self.limit).then_some(waiting + 1);
        (self.waiting)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
            .then(|| QueuePermit(self.clone()))
    }

    /// For a caller that was admitted before: there is a permit, whatever the limit.
    fn readmit(self: &Arc<Self>) -> QueuePermit {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        QueuePermit(self.clone())
    }

    /// A caller is refused. Returns whether to report it: a queue that stays full is reported once.
    fn overflow(&self) -> bool {
        !self.overflowed.swap(true, Ordering::Relaxed)
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let Queue {
            limit,
            waiting,
            overflowed,
        } = &*self.0;
        let left = waiting.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        if left <= limit / 2 && overflowed.load(Ordering::Relaxed) {
            overflowed.store(false, Ordering::Relaxed);
        }
    }
}

impl ConnectionGroup {
    /// Refuses a caller that would have to wait and has no permit, before anything is started for it,
    /// such as a dial.
    pub(super) fn admit(&self, admission: &Admission) -> Result<(), Error> {
        let new = !admission.admitted && admission.permit.is_none() && !admission.holds_streams();
        match self.budget.queue() {
            Some(queue) if new && queue.is_full() && !self.channels.has_idle() => {
                Err(self.queue_full(queue))
            }
            _ => Ok(()),
        }
    }

    /// The caller has to wait, and keeps a permit that it has.
    pub(super) fn take_queue_permit(&self, admission: &mut Admission) -> Result<(), Error> {
        let Some(queue) = self.budget.queue().filter(|_| admission.permit.is_none()) else {
            return Ok(());
        };
        let permit = match admission.admitted || admission.holds_streams() {
            true => Some(queue.readmit()),
            false => queue.enter(),
        };
        admission.permit = Some(permit.ok_or_else(|| self.queue_full(queue))?);
        Ok(())
    }

    fn queue_full(&self, queue: &Queue) -> Error {
        let limit = queue.limit;
        if queue.overflow() {
            self.report(EventKind::QueueFull { limit });
        }
        Error::QueueFull {
            target: self.name().into(),
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_the_limit_says_and_each_comes_back() {
        let queue = Arc::new(Queue::new(3));
        let mut permits: Vec<_> = (0..3).map(|_| queue.enter().expect("a place")).collect();
        assert!(queue.is_full() && queue.enter().is_none());
        assert_eq!(queue.waiting(), 3);
        permits.pop();
        assert!(!queue.is_full());
        permits.push(queue.enter().expect("a place"));
        drop(permits);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_readmitted_caller_has_a_permit_and_new_ones_wait_for_one() {
        let queue = Arc::new(Queue::new(1));
        let permit = queue.enter().expect("a place");
        let back = queue.readmit();
        assert_eq!(queue.waiting(), 2);
        drop(permit);
        assert!(queue.is_full() && queue.enter().is_none());
        drop(back);
        assert!(queue.enter().is_some());
    }

    #[test]
    fn an_overflow_is_reported_once_until_the_queue_was_half_empty() {
        let queue = Arc::new(Queue::new(4));
        let mut permits: Vec<_> = (0..4).map(|_| queue.enter().expect("a place")).collect();
        assert!(queue.overflow());
        assert!(!queue.overflow());
        permits.pop();
        assert!(!queue.overflow(), "still three of four");
        permits.pop();
        assert!(queue.overflow());
    }
}
