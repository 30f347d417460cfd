//! What a server sends that nothing asked for.
//!
//! Most messages of a connection belong to a channel that is in use, or answer a request. A server
//! may send others: keepalives, a few host keys after the login, IGNORE and DEBUG. They cost
//! processor time, and russh logs many of them, one line each, with the server's words in it. So a
//! connection ends when there are too many. One short message beside each that is of use is not too
//! many: asyncssh sends an IGNORE before each of its data, whatever the cipher (RFC 4251, section 9.3.1).
//!
//! The socket sees when a packet begins, and not what it is. The session's callbacks say which
//! messages were of use, and russh has handled a packet when it asks for the next one. So a packet
//! behind which no callback has said so was not asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use tokio::time::Instant;

/// Messages at once, and bytes in them: sshd announces its host keys in one of 2 kB.
const MESSAGES: u32 = 256;
const BYTES: usize = 128 << 10;
/// How many more each second. sshd's `ClientAliveInterval` is at least a second.
const MESSAGES_A_SECOND: u32 = 8;
const BYTES_A_SECOND: usize = 4 << 10;
/// russh reads the beginning of a packet by itself: a length, or a cipher's block. The rest is
/// longer, for it holds a tag.
const BEGINNING: usize = 16;
/// A reply of a key exchange with ML-KEM has more than 1 kB.
const LONGEST_ANSWER: usize = 2 << 10;
/// An empty IGNORE, padded, with the longest tag.
const SHORT: usize = 128;
/// KEXINIT, the reply, NEWKEYS and EXT_INFO (RFC 8308, section 2.4).
const KEY_EXCHANGE: u32 = 4;
/// Less than the data is for which a server makes room in the window.
const SENT_FOR_ONE_ADJUSTMENT: usize = 32;

/// Told by the callbacks of a session, read by its socket.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    expected: AtomicU32,
    /// Bytes that have been sent, and that no adjustment of a window has answered.
    sent: AtomicUsize,
}

impl Traffic {
    /// The message that is being handled belongs to something.
    pub(super) fn expected(&self) {
        self.expected.fetch_add(1, Ordering::Relaxed);
    }

    /// A message that no callback tells of has answered a request.
    pub(super) fn answered(&self) {
        self.expected.fetch_add(2, Ordering::Relaxed);
    }

    /// Keys have been exchanged.
    pub(super) fn keys_exchanged(&self) {
        self.expected.fetch_add(KEY_EXCHANGE, Ordering::Relaxed);
    }

    /// A window was made larger, which is for data that was sent.
    pub(super) fn window_adjusted(&self) {
        let taken = self
            .sent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| {
                sent.checked_sub(SENT_FOR_ONE_ADJUSTMENT)
            });
        if taken.is_ok() {
            self.expected();
        }
    }

    pub(super) fn sent(&self, bytes: usize) {
        // Wrapping around after 2^64 bytes would do no harm.
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take_expected(&self) -> u32 {
        match self.expected.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.expected.swap(0, Ordering::Relaxed),
        }
    }
}

/// Counts the packets of one connection.
pub(super) struct PacketMeter {
    traffic: Arc<Traffic>,
    /// Still wanted by the read that is under way.
    wanted: usize,
    /// Of the packet so far.
    size: usize,
    messages: u32,
    bytes: usize,
    since: Instant,
}

impl PacketMeter {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        Self {
            traffic,
            wanted: 0,
            size: 0,
            messages: 0,
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// Before a read of this many bytes. `counts` is false as long as the dial has a deadline.
    pub(super) fn before(&mut self, wanted: usize, counts: bool) -> io::Result<()> {
        if wanted == self.wanted {
            return Ok(());
        }
        self.wanted = wanted;
        if wanted <= BEGINNING {
            let size = std::mem::take(&mut self.size);
            let expected = self.traffic.take_expected();
            if counts {
                return self.handled(size, expected);
            }
        }
        Ok(())
    }

    pub(super) fn after(&mut self, read: usize) {
        self.wanted = self.wanted.saturating_sub(read);
        self.size += read;
    }

    /// A packet of this size has been handled.
    fn handled(&mut self, size: usize, expected: u32) -> io::Result<()> {
        // The first packet is yet to come.
        if size == 0 {
            return Ok(());
        }
        if let Some(others) = expected.checked_sub(1) {
            self.messages = self.messages.saturating_sub(expected);
            let others = usize::try_from(others).unwrap_or(usize::MAX);
            let used = others.saturating_mul(LONGEST_ANSWER).saturating_add(SHORT);
            self.bytes = self.bytes.saturating_sub(used);
            return Ok(());
        }
        let now = Instant::now();
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            let passed = u32::try_from(seconds).unwrap_or(u32::MAX);
            let messages = MESSAGES_A_SECOND.saturating_mul(passed);
            let passed = usize::try_from(seconds).unwrap_or(usize::MAX);
            let bytes = BYTES_A_SECOND.saturating_mul(passed);
            self.messages = self.messages.saturating_sub(messages);
            self.bytes = self.bytes.saturating_sub(bytes);
            self.since = now;
        }
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.messages > MESSAGES || self.bytes > BYTES {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server floods the connection with messages that nothing asked for",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Reads a packet with a body of this size, as russh does, in pieces of at most `piece`.
    fn packet(meter: &mut PacketMeter, body: usize, piece: usize) -> io::Result<()> {
        for part in [4, body] {
            let mut wanted = part;
            while wanted > 0 {
                meter.before(wanted, true)?;
                // Nothing has come yet: asked again.
                meter.before(wanted, true)?;
                let read = wanted.min(piece);
                meter.after(read);
                wanted -= read;
            }
        }
        Ok(())
    }

    fn meter() -> (Arc<Traffic>, PacketMeter) {
        let traffic = Arc::new(Traffic::default());
        (traffic.clone(), PacketMeter::new(traffic))
    }

    #[tokio::test(start_paused = true)]
    async fn what_belongs_to_a_channel_may_come_without_end() {
        for piece in [1, 3, 17, 40_000] {
            let (traffic, mut meter) = meter();
            for _ in 0..10 * MESSAGES {
                packet(&mut meter, 33, piece).unwrap();
                traffic.expected();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_that_nothing_asked_for_ends_the_connection() {
        for piece in [1, 3, 17, 40_000] {
            let (_, mut meter) = meter();
            let good = (0..10 * MESSAGES).take_while(|_| packet(&mut meter, 33, piece).is_ok());
            // A packet is counted when the next one begins.
            assert_eq!(good.count(), MESSAGES as usize + 1, "pieces of {piece}");
            let (_, mut meter) = self::meter();
            packet(&mut meter, BYTES + 1, piece).unwrap();
            packet(&mut meter, 33, piece).unwrap_err();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keepalives_key_exchanges_and_answers_are_no_flood() {
        let (traffic, mut meter) = meter();
        for _ in 0..10 * MESSAGES {
            // A keepalive.
            packet(&mut meter, 60, 64).unwrap();
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        for _ in 0..10 * MESSAGES {
            for _ in 0..3 {
                packet(&mut meter, 60, 64).unwrap();
            }
            traffic.keys_exchanged();
            packet(&mut meter, 60, 64).unwrap();
            // A round trip of ours.
            packet(&mut meter, 60, 64).unwrap();
            traffic.answered();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_ignore_beside_each_message_of_use_is_no_flood() {
        let (traffic, mut meter) = meter();
        for _ in 0..10 * MESSAGES {
            packet(&mut meter, 80, 64).unwrap();
            packet(&mut meter, 33, 64).unwrap();
            traffic.expected();
        }
        // Long ones are.
        let flood = (0..10 * MESSAGES).all(|_| {
            packet(&mut meter, 1 << 10, 64).is_ok()
                && packet(&mut meter, 33, 64)
                    .map(|()| traffic.expected())
                    .is_ok()
        });
        assert!(!flood);
    }

    #[tokio::test(start_paused = true)]
    async fn windows_are_adjusted_for_data_and_not_without_end() {
        let (traffic, mut meter) = meter();
        for _ in 0..10 * MESSAGES {
            traffic.sent(SENT_FOR_ONE_ADJUSTMENT);
            packet(&mut meter, 33, 64).unwrap();
            traffic.window_adjusted();
        }
        let flood = (0..10 * MESSAGES).all(|_| {
            traffic.window_adjusted();
            packet(&mut meter, 33, 64).is_ok()
        });
        assert!(!flood);
    }
}
