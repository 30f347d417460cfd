//! How many callers may wait for a channel at once, over all hosts of a pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Hub;
use super::losses::Losses;
use crate::error::Error;
use crate::event::EventKind;
use crate::stream_group::StreamGroup;

/// The places of one pool.
pub(crate) struct Queue {
    limit: usize,
    waiting: AtomicUsize,
    /// Somebody was turned away, and it has not been half empty since.
    overflowed: AtomicBool,
}

/// A caller's place among those who wait. Dropped, it is free.
#[must_use]
struct Place(Arc<Queue>);

/// A caller on the way to a channel, over all rounds of a call.
#[derive(Default)]
pub(crate) struct Entry {
    /// While they wait.
    place: Option<Place>,
    /// They have had what they came for. If it was of no use, they have to come back, and then
    /// nobody turns them away.
    let_in: bool,
    /// The connections that have ended under the call before its request was sent.
    pub(super) losses: Losses,
    /// Whose call it is.
    group: Option<StreamGroup>,
    /// What it is for stays open for as long as the caller likes.
    stream: bool,
}

impl Entry {
    /// For a command of that group, which the library runs to its end.
    pub(crate) fn of(group: Option<StreamGroup>) -> Self {
        Self {
            group,
            ..Self::default()
        }
    }

    /// For a stream of that group.
    pub(crate) fn stream(group: Option<StreamGroup>) -> Self {
        Self {
            stream: true,
            ..Self::of(group)
        }
    }

    /// They have what they came for, and wait no longer.
    pub(crate) fn let_in(&mut self) {
        self.place = None;
        self.let_in = true;
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.stream
    }

    pub(crate) fn group(&self) -> Option<&StreamGroup> {
        self.group.as_ref()
    }

    /// The caller's group has streams: it may not be able to end them before it is served.
    pub(super) fn holds_streams(&self) -> bool {
        self.group.as_ref().is_some_and(StreamGroup::is_open)
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

    fn enter(self: &Arc<Self>) -> Option<Place> {
        let one_more = |waiting| (waiting < self.limit).then_some(waiting + 1);
        (self.waiting)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
            .then(|| Place(self.clone()))
    }

    /// For somebody who has been let in before: there is a place, whatever the limit.
    fn come_back(self: &Arc<Self>) -> Place {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }

    /// Somebody is turned away. Whether that is news: a queue that stays about full is no news for
    /// each of its callers.
    fn overflow(&self) -> bool {
        !self.overflowed.swap(true, Ordering::Relaxed)
    }
}

impl Drop for Place {
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

impl Hub {
    /// Turns a caller away who would have to wait and has no place, before anything has begun that
    /// is of no use without them, such as a dial.
    pub(super) fn admit(&self, entry: &Entry) -> Result<(), Error> {
        let new = !entry.let_in && entry.place.is_none() && !entry.holds_streams();
        match self.budget.queue() {
            Some(queue) if new && queue.is_full() && !self.channels.has_idle() => {
                Err(self.turned_away(queue))
            }
            _ => Ok(()),
        }
    }

    /// The caller has to wait. One who has a place keeps it.
    pub(super) fn take_place(&self, entry: &mut Entry) -> Result<(), Error> {
        let Some(queue) = self.budget.queue().filter(|_| entry.place.is_none()) else {
            return Ok(());
        };
        let place = match entry.let_in || entry.holds_streams() {
            true => Some(queue.come_back()),
            false => queue.enter(),
        };
        entry.place = Some(place.ok_or_else(|| self.turned_away(queue))?);
        Ok(())
    }

    fn turned_away(&self, queue: &Queue) -> Error {
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
        let mut places: Vec<_> = (0..3).map(|_| queue.enter().expect("a place")).collect();
        assert!(queue.is_full() && queue.enter().is_none());
        assert_eq!(queue.waiting(), 3);
        places.pop();
        assert!(!queue.is_full());
        places.push(queue.enter().expect("a place"));
        drop(places);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn whoever_comes_back_has_a_place_and_those_who_are_new_wait_until_there_is_one() {
        let queue = Arc::new(Queue::new(1));
        let place = queue.enter().expect("a place");
        let back = queue.come_back();
        assert_eq!(queue.waiting(), 2);
        drop(place);
        assert!(queue.is_full() && queue.enter().is_none());
        drop(back);
        assert!(queue.enter().is_some());
    }

    #[test]
    fn an_overflow_is_news_once_until_the_queue_was_half_empty() {
        let queue = Arc::new(Queue::new(4));
        let mut places: Vec<_> = (0..4).map(|_| queue.enter().expect("a place")).collect();
        assert!(queue.overflow());
        assert!(!queue.overflow());
        places.pop();
        assert!(!queue.overflow(), "still three of four");
        places.pop();
        assert!(queue.overflow());
    }
}
