//! How many bytes of output the library keeps for all commands and streams of a pool together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The pool's count of them.
#[derive(Debug)]
pub(crate) struct Buffered {
    limit: usize,
    bytes: AtomicUsize,
}

impl Buffered {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: AtomicUsize::new(0),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one stream has of it. Dropped, it is given back.
#[derive(Debug, Default)]
pub(crate) struct Tab {
    /// `None`: nobody counts.
    pool: Option<Arc<Buffered>>,
    bytes: usize,
}

impl Tab {
    pub(crate) fn new(pool: Option<Arc<Buffered>>) -> Self {
        Self { pool, bytes: 0 }
    }

    /// So many bytes more are kept. If the pool may not keep them, the error is its limit.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), usize> {
        if let Some(pool) = &self.pool {
            // In one step: what does not fit is never there, not even for a moment in which the few
            // bytes of somebody else would not fit for it.
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

    /// So many bytes are kept no longer.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        if let Some(pool) = &self.pool {
            let bytes = bytes.min(self.bytes);
            self.bytes -= bytes;
            pool.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn give_back_all(&mut self) {
        self.give_back(self.bytes);
    }
}

impl Drop for Tab {
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
        let mut one = Tab::new(Some(pool.clone()));
        let mut other = Tab::new(Some(pool.clone()));
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
    fn what_is_too_much_keeps_nobody_from_what_fits() {
        const ROUNDS: usize = 100_000;
        let pool = Arc::new(Buffered::new(10));
        let (mut greedy, mut modest) = (Tab::new(Some(pool.clone())), Tab::new(Some(pool)));
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
        let mut refused = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| rounds(&mut || assert_eq!(greedy.add(11), Err(10))));
            rounds(&mut || {
                refused += usize::from(modest.add(1).is_err());
                modest.give_back_all();
            });
        });
        assert_eq!(refused, 0);
    }
}
