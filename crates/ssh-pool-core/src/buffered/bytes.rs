//! A buffer that counts what it has allocated.

use super::BufferReservation;

/// Up to this capacity a buffer doubles when it grows, and keeps its rest when it is handed over.
const SMALL: usize = 4 << 10;

/// A larger one grows by its size divided by this. That is paid for with copies: eight for each byte
/// at most, and none where the allocator moves pages instead, as glibc does.
const STEP: usize = 8;

/// From this capacity on, output that is collected for the end of a command is kept in pieces. A large
/// buffer that grows is copied by the allocator again and again, on the thread that serves the
/// connection, and leaves holes in its heap that no limit counts.
const WHOLE: usize = 256 << 10;
/// The largest piece.
const PIECE: usize = 1 << 20;

/// Bytes that are added at the back and read at the front, or gathered and taken as a whole. The pool
/// counts the memory they take, also what is allocated and not filled.
#[derive(Debug, Default)]
pub(crate) struct CountedBytes {
    /// Full pieces, before `bytes`.
    full: Vec<Vec<u8>>,
    /// How much is in those.
    in_full: usize,
    bytes: Vec<u8>,
    /// As many of them have been read.
    read: usize,
    reservation: BufferReservation,
}

impl CountedBytes {
    pub(crate) fn new(reservation: BufferReservation) -> Self {
        Self {
            reservation,
            ..Self::default()
        }
    }

    pub(crate) fn reservation(&self) -> &BufferReservation {
        &self.reservation
    }

    /// What has not been read, of bytes that are not gathered.
    pub(crate) fn unread(&self) -> &[u8] {
        debug_assert!(self.full.is_empty(), "joined before it is read");
        self.bytes.get(self.read..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.in_full + self.bytes.len() - self.read
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

    /// The same for bytes that are taken as a whole: see [`into_vecs`](Self::into_vecs).
    pub(crate) fn gather(&mut self, more: &[u8]) -> Result<(), usize> {
        let room = self.bytes.capacity() - self.bytes.len();
        if self.bytes.capacity() < WHOLE || more.len() <= room {
            return self.extend(more);
        }
        let (here, there) = more.split_at(room);
        let ample = (self.len() / STEP).min(PIECE).max(there.len());
        let wanted = match self.reservation.add(ample) {
            Ok(()) => ample,
            Err(_) => {
                self.reservation.add(there.len())?;
                there.len()
            }
        };
        let mut piece = Vec::new();
        piece.reserve_exact(wanted);
        self.reservation.add_anyway(piece.capacity() - wanted);
        piece.extend_from_slice(there);
        self.bytes.extend_from_slice(here);
        self.in_full += self.bytes.len();
        self.full.push(std::mem::replace(&mut self.bytes, piece));
        Ok(())
    }

    /// Makes one buffer of the pieces, at once: for few of them.
    pub(crate) fn join(&mut self) {
        if self.full.is_empty() {
            return;
        }
        let total = self.len();
        let (mut whole, pieces) = self.begin_join();
        for piece in pieces {
            self.append(&mut whole, &piece, total);
        }
        self.bytes = whole;
    }

    /// The same. Other tasks have their turn after each piece. One output of the pool is joined at a
    /// time, because each takes up to twice its memory meanwhile.
    async fn join_in_turns(&mut self) {
        if self.full.is_empty() {
            return;
        }
        let pool = self.reservation.pool.clone();
        let _one = match &pool {
            Some(pool) => Some(pool.joining.lock().await),
            None => None,
        };
        let total = self.len();
        let (mut whole, pieces) = self.begin_join();
        for piece in pieces {
            self.append(&mut whole, &piece, total);
            drop(piece);
            tokio::task::yield_now().await;
        }
        self.bytes = whole;
    }

    /// All bytes of each of the two, in one buffer, which are not counted from now on. `None`: the
    /// runtime of the pool has ended.
    pub(crate) async fn into_vecs(mut self, mut other: Self) -> Option<(Vec<u8>, Vec<u8>)> {
        if !self.full.is_empty() || !other.full.is_empty() {
            // In a task of the pool: a caller need not poll, and would hold up all other joins.
            let joined = tokio::spawn(async move {
                self.join_in_turns().await;
                // The first one counts until both can be handed over.
                other.join_in_turns().await;
                (self, other)
            });
            (self, other) = joined.await.ok()?;
        }
        Some((self.take(), other.take()))
    }

    /// The pieces, and a buffer for all of them if there is room for it beside them.
    fn begin_join(&mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut whole, total) = (Vec::new(), self.len());
        if self.reservation.add(total).is_ok() || self.reservation.add_joined(total) {
            whole.reserve_exact(total);
            self.reservation.add_anyway(whole.capacity() - total);
        }
        self.discard_read();
        self.in_full = 0;
        let mut pieces = std::mem::take(&mut self.full);
        pieces.push(std::mem::take(&mut self.bytes));
        (whole, pieces)
    }

    /// Without a buffer for all, it grows as the pieces go. Each is let go after this.
    fn append(&mut self, whole: &mut Vec<u8>, piece: &Vec<u8>, total: usize) {
        let (length, before) = (whole.len(), whole.capacity());
        if piece.len() > before - length {
            let more = piece.len().max(length / STEP).min(total - length);
            whole.reserve_exact(more);
            self.reservation.add_anyway(whole.capacity() - before);
        }
        whole.extend_from_slice(piece);
        self.reservation.give_back(piece.capacity());
    }

    /// Adds a few bytes that are kept whatever the limit is.
    pub(crate) fn extend_anyway(&mut self, more: &[u8]) {
        if self.extend(more).is_err() {
            let before = self.bytes.capacity();
            self.bytes.reserve_exact(more.len());
            self.reservation.add_anyway(self.bytes.capacity() - before);
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
        let wanted = match self.reservation.add(ample - capacity) {
            Ok(()) => ample,
            Err(_) => {
                self.reservation.add(needed - capacity)?;
                needed
            }
        };
        self.bytes.reserve_exact(wanted - self.bytes.len());
        // An allocator may give more than it was asked for.
        self.reservation.add_anyway(self.bytes.capacity() - wanted);
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
            self.clear();
        }
    }

    /// The same bytes, apart from here, with the part of the count that they have.
    pub(crate) fn split_off(&mut self) -> Self {
        let rest = Self::new(self.reservation.empty());
        std::mem::replace(self, rest)
    }

    pub(crate) fn clear(&mut self) {
        drop(self.split_off());
    }

    /// Without what has been read.
    pub(crate) fn into_unread(mut self) -> Self {
        self.discard_read();
        self
    }

    /// What has not been read, which is not counted from now on.
    fn take(&mut self) -> Vec<u8> {
        self.discard_read();
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() > SMALL {
            bytes.shrink_to_fit();
        }
        self.reservation.give_back_all();
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
            let mut bytes = CountedBytes::new(BufferReservation::new(Some(pool.clone())));
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
    fn what_is_gathered_is_never_moved_and_is_whole_at_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        for (limit, piece) in [(usize::MAX, 7), (usize::MAX, 32 << 10), (9 << 20, 32 << 10)] {
            let pool = Arc::new(Buffered::new(limit));
            let mut bytes = CountedBytes::new(BufferReservation::new(Some(pool.clone())));
            let mut sent = Vec::new();
            while sent.len() < 8 << 20 {
                let next: Vec<u8> = (sent.len()..sent.len() + piece)
                    .map(|n| (n % 251) as u8)
                    .collect();
                bytes.gather(&next).expect("it fits");
                sent.extend(next);
                let pieces = bytes.full.iter().chain([&bytes.bytes]);
                let allocated: usize = pieces.clone().map(Vec::capacity).sum();
                assert_eq!(bytes.len(), sent.len());
                assert_eq!(pool.bytes(), allocated, "pieces of {piece}");
                assert!(allocated <= 2 * SMALL.min(sent.len()) + sent.len() + sent.len() / STEP);
                assert!(pieces.clone().all(|one| one.capacity() <= PIECE));
            }
            let mut whole = bytes.split_off();
            assert_eq!(bytes.len(), 0);
            if piece == 7 {
                whole.join();
                assert!(whole.unread() == sent);
            }
            let other = CountedBytes::default();
            let (whole, _) = runtime.block_on(whole.into_vecs(other)).expect("it runs");
            assert!(whole == sent && whole.capacity() == sent.len());
            assert_eq!(pool.bytes(), 0);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_gathered_in_part() {
        let pool = Arc::new(Buffered::new(600_000));
        let mut bytes = CountedBytes::new(BufferReservation::new(Some(pool.clone())));
        while bytes.gather(&[1; 7_001]).is_ok() {}
        let length = bytes.len();
        assert!(
            length.is_multiple_of(7_001) && length > 600_000 - 2 * 7_001,
            "{length}"
        );
        assert_eq!(bytes.split_off().len(), length);
        assert_eq!((bytes.len(), pool.bytes()), (0, 0));
    }

    #[test]
    fn a_pool_can_be_filled_to_the_last_byte() {
        let pool = Arc::new(Buffered::new(100_000));
        let mut bytes = CountedBytes::new(BufferReservation::new(Some(pool.clone())));
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
        let mut bytes = CountedBytes::new(BufferReservation::new(Some(pool.clone())));
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
