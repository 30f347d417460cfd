//! Wakes those who wait for what happens on a channel.

use tokio::sync::Notify;

/// Who waits for what. Each is woken for that alone: it may be asleep in another runtime, where that
/// costs system calls and two changes of thread.
#[derive(Default)]
pub(super) struct News {
    /// The channel has ended, or said too much.
    pub(super) end: Notify,
    /// The command's status is known, or the channel has ended.
    pub(super) exit: Notify,
    /// A step on the way, or one of those.
    pub(super) step: Notify,
}

impl News {
    /// The channel has ended.
    pub(super) fn all(&self) {
        self.end.notify_waiters();
        self.exit.notify_waiters();
        self.step.notify_waiters();
    }
}
