//! How much memory the output of all commands and streams of a pool takes together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

mod bytes;

pub(crate) use bytes::CountedBytes;

/// Streams that hold their peer back may have the pool's limit divided by this, together.
const HELD_BACK: usize = 4;

/// An output that is joined may exceed the pool's limit by the limit divided by this, for the moment
/// of the copy. Larger ones grow piece by piece, which costs more copies.
const JOINED: usize = 8;

/// The pool's count of it.
#[derive(Debug)]
pub(crate) struct Buffered {
    limit: usize,
    bytes: AtomicUsize,
    /// Of these, what belongs to streams that hold their peer back.
    held_back: AtomicUsize,
    /// Held while an output is joined.
    joining: Mutex<()>,
}

impl Buffered {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: AtomicUsize::new(0),
            held_back: AtomicUsize::new(0),
            joining: Mutex::default(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one stream has of it. Dropped, it is given back.
#[derive(Debug, Default)]
pub(crate) struct BufferReservation {
    /// `None`: nothing is counted.
    pool: Option<Arc<Buffered>>,
    bytes: usize,
    /// The stream holds its peer back, so nothing of it can be refused.
    holds_back: bool,
}

impl BufferReservation {
    pub(crate) fn new(pool: Option<Arc<Buffered>>) -> Self {
        Self {
            pool,
            bytes: 0,
            holds_back: false,
        }
    }

    /// Of a stream that holds its peer back.
    pub(crate) fn holding_back(pool: Option<Arc<Buffered>>) -> Self {
        Self {
            pool,
            bytes: 0,
            holds_back: true,
        }
    }

    /// For more bytes of the same stream.
    fn empty(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            bytes: 0,
            holds_back: self.holds_back,
        }
    }

    /// For more bytes of the same pool, which can be refused.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.pool.clone())
    }

    /// As many bytes more are kept. If the pool may not keep them, the error is its limit.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), usize> {
        if self.holds_back {
            self.add_anyway(bytes);
            return Ok(());
        }
        if let Some(pool) = &self.pool {
            // In one step: what does not fit is never there, not even for a moment in which a few
            // bytes of another stream would not fit for it.
            let with_these = |kept: usize| {
                let all = kept.checked_add(bytes);
                all.filter(|all| *all <= pool.limit)
            };
            (pool.bytes)
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_these)
                .map_err(|_| pool.limit)?;
            self.bytes += bytes;
        }
        Ok(())
    }

    /// The same for bytes that are kept whatever the limit is.
    pub(crate) fn add_anyway(&mut self, bytes: usize) {
        if let Some(pool) = &self.pool {
            pool.bytes.fetch_add(bytes, Ordering::Relaxed);
            if self.holds_back {
                pool.held_back.fetch_add(bytes, Ordering::Relaxed);
            }
            self.bytes += bytes;
        }
    }

    /// The same for an output that is joined, if it is a small part of the limit.
    fn add_joined(&mut self, bytes: usize) -> bool {
        let small = (self.pool.as_ref()).is_none_or(|pool| bytes <= pool.limit / JOINED);
        if small {
            self.add_anyway(bytes);
        }
        small
    }

    /// Whether the streams that hold their peer back have as much as they may have together.
    pub(crate) fn is_short(&self) -> bool {
        let full =
            |pool: &Arc<Buffered>| pool.held_back.load(Ordering::Relaxed) >= pool.limit / HELD_BACK;
        self.holds_back && self.pool.as_ref().is_some_and(full)
    }

    /// As many bytes are kept no longer.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        if let Some(pool) = &self.pool {
            let bytes = bytes.min(self.bytes);
            self.bytes -= bytes;
            pool.bytes.fetch_sub(bytes, Ordering::Relaxed);
            if self.holds_back {
                pool.held_back.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn give_back_all(&mut self) {
        self.give_back(self.bytes);
    }
}

impl Drop for BufferReservation {
    fn drop(&mut self) {
        self.give_back_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_given_back_once_and_no_more_than_the_limit_is_kept() {
        let pool = Arc::new(Buffered::new(10));
        let mut one = BufferReservation::new(Some(pool.clone()));
        let mut other = BufferReservation::new(Some(pool.clone()));
        assert_eq!((one.add(6), other.add(4)), (Ok(()), Ok(())));
        assert_eq!(other.add(1), Err(10));
        assert_eq!(pool.bytes(), 10);
        one.give_back(2);
        assert_eq!(other.add(2), Ok(()));
        one.give_back(100);
        assert_eq!(pool.bytes(), 6, "only what was its own");
        drop((one, other));
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn streams_that_hold_back_are_refused_nothing_and_are_short_of_a_quarter() {
        let pool = Arc::new(Buffered::new(40));
        let mut stream = BufferReservation::holding_back(Some(pool.clone()));
        assert_eq!(stream.add(9), Ok(()));
        assert!(!stream.is_short());
        assert_eq!(stream.add(91), Ok(()));
        assert!(stream.is_short());
        let mut command = stream.another();
        assert_eq!((command.add(1), pool.bytes()), (Err(40), 100));
        assert!(!command.is_short());
        stream.give_back(91);
        assert_eq!((command.add(1), stream.is_short()), (Ok(()), false));
    }

    #[test]
    fn what_is_too_much_does_not_block_what_fits() {
        const ROUNDS: usize = 100_000;
        let pool = Arc::new(Buffered::new(10));
        let (mut greedy, mut modest) = (
            BufferReservation::new(Some(pool.clone())),
            BufferReservation::new(Some(pool)),
        );
        // Each goes on until both have had their rounds, so that they meet.
        let done = AtomicUsize::new(0);
        let rounds = |round: &mut dyn FnMut()| {
            for count in 1.. {
                round();
                let over = done.fetch_add(usize::from(count == ROUNDS), Ordering::Relaxed);
                if count >= ROUNDS && over == 2 {
                    return;
                }
            }
        };
        // Counted and not asserted there: a panic would keep the other thread waiting.
        let (mut taken, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| rounds(&mut || taken += usize::from(greedy.add(11).is_ok())));
            rounds(&mut || {
                refused += usize::from(modest.add(1).is_err());
                modest.give_back_all();
            });
        });
        assert_eq!((taken, refused), (0, 0));
    }
}
