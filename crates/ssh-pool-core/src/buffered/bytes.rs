//! A buffer that counts what it has allocated.

use super::Tab;

/// Up to this capacity a buffer doubles when it grows, and keeps its rest when it is handed over.
const SMALL: usize = 4 << 10;

/// A larger one grows by one part in so many. That is paid for with copies: eight for each byte at
/// most, and none where the allocator moves pages instead, as glibc does.
const STEP: usize = 8;

/// Bytes that are added at the back and read at the front. The pool counts the memory they take,
/// also what is allocated and not filled.
#[derive(Debug, Default)]
pub(crate) struct CountedBytes {
    bytes: Vec<u8>,
    /// As many of them have been read.
    read: usize,
    tab: Tab,
}

impl CountedBytes {
    pub(crate) fn new(tab: Tab) -> Self {
        Self {
            bytes: Vec::new(),
            read: 0,
            tab,
        }
    }

    pub(crate) fn tab(&self) -> &Tab {
        &self.tab
    }

    /// What has not been read.
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.read
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes at the back. If the pool may not keep them, the error is its limit.
    pub(crate) fn extend(&mut self, more: &[u8]) -> Result<(), usize> {
        self.reserve(more.len())?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// The same for a few bytes that are kept whatever the limit is.
    pub(crate) fn extend_anyway(&mut self, more: &[u8]) {
        if self.extend(more).is_err() {
            let before = self.bytes.capacity();
            self.bytes.reserve_exact(more.len());
            self.tab.add_anyway(self.bytes.capacity() - before);
            self.bytes.extend_from_slice(more);
        }
    }

    fn reserve(&mut self, more: usize) -> Result<(), usize> {
        let fits = |bytes: &Vec<u8>| more <= bytes.capacity() - bytes.len();
        if fits(&self.bytes) {
            return Ok(());
        }
        // Moves no more than has been read.
        if self.read > 0 && self.read >= self.len() {
            self.discard_read();
            if fits(&self.bytes) {
                return Ok(());
            }
        }
        let capacity = self.bytes.capacity();
        let needed = self.bytes.len().saturating_add(more);
        let step = if capacity < SMALL { 1 } else { STEP };
        let ample = capacity.saturating_add(capacity / step).max(needed);
        let wanted = match self.tab.add(ample - capacity) {
            Ok(()) => ample,
            Err(_) => {
                self.tab.add(needed - capacity)?;
                needed
            }
        };
        self.bytes.reserve_exact(wanted - self.bytes.len());
        // An allocator may give more than it was asked for.
        self.tab.add_anyway(self.bytes.capacity() - wanted);
        Ok(())
    }

    fn discard_read(&mut self) {
        self.bytes.drain(..self.read);
        self.read = 0;
    }

    /// As many bytes at the front have been read. An empty buffer keeps no memory.
    pub(crate) fn advance(&mut self, count: usize) {
        self.read = self.read.saturating_add(count).min(self.bytes.len());
        if self.is_empty() {
            drop(self.take());
        }
    }

    /// What has not been read, which is not counted from now on.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.discard_read();
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() > SMALL {
            bytes.shrink_to_fit();
        }
        self.tab.give_back_all();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Buffered;
    use super::*;

    #[test]
    fn all_that_is_allocated_is_counted_and_little_of_it_is_not_filled() {
        for piece in [1, 7, 100, 32 << 10, 100_000] {
            let pool = Arc::new(Buffered::new(usize::MAX));
            let mut bytes = CountedBytes::new(Tab::new(Some(pool.clone())));
            for _ in 0..3_000_000 / piece {
                bytes.extend(&vec![1; piece]).unwrap();
                let allocated = bytes.bytes.capacity();
                assert_eq!(pool.bytes(), allocated, "pieces of {piece}");
                let filled = bytes.len();
                assert!(allocated <= 2 * SMALL.min(filled) + filled + filled / STEP);
            }
            let length = bytes.len();
            let bytes = bytes.take();
            assert_eq!((bytes.len(), bytes.capacity()), (length, length));
            assert_eq!(pool.bytes(), 0);
        }
    }

    #[test]
    fn a_pool_can_be_filled_to_the_last_byte() {
        let pool = Arc::new(Buffered::new(100_000));
        let mut bytes = CountedBytes::new(Tab::new(Some(pool.clone())));
        for _ in 0..1_000 {
            bytes.extend(&[1; 100]).expect("it fits");
        }
        assert_eq!(bytes.extend(&[1]), Err(100_000));
        assert_eq!((bytes.len(), pool.bytes()), (100_000, 100_000));
        bytes.extend_anyway(&[2; 3]);
        assert_eq!(bytes.unread().last(), Some(&2));
        bytes.advance(100_003);
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn a_stream_that_is_read_as_it_comes_needs_no_more_than_it_holds() {
        let pool = Arc::new(Buffered::new(usize::MAX));
        let mut bytes = CountedBytes::new(Tab::new(Some(pool.clone())));
        let (mut written, mut read) = (0_u32, 0_u32);
        for _ in 0..10_000 {
            for _ in 0..100 {
                bytes.extend(&[written as u8]).unwrap();
                written += 1;
            }
            while bytes.len() > 1_000 {
                assert_eq!(bytes.unread().first(), Some(&(read as u8)));
                bytes.advance(1);
                read += 1;
            }
            assert!(pool.bytes() <= 2 * SMALL, "{}", pool.bytes());
        }
    }
}
