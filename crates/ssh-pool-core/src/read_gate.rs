//! Holds a peer back: while the read gate is shut, its connection reads nothing from the network.
//!
//! Only for a connection that is not shared. The unread bytes fill the server's window and the
//! buffers of the kernels between, and then the remote process blocks as it would on a pipe.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

#[derive(Debug, Default)]
pub(crate) struct ReadGate {
    /// How many channels want it shut.
    holders: AtomicUsize,
    reader: AtomicWaker,
}

impl ReadGate {
    /// One more channel wants it shut.
    pub(crate) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::AcqRel);
    }

    /// A channel that wanted it shut wants it open.
    pub(crate) fn release(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.reader.wake();
        }
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.holders.load(Ordering::Acquire) > 0
    }

    /// Ready while it is open.
    pub(crate) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let open = || self.holders.load(Ordering::Acquire) == 0;
        if open() {
            return Poll::Ready(());
        }
        self.reader.register(cx.waker());
        // It may have been opened since.
        if open() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
