//! Notifications of what happens on a channel.

use tokio::sync::Notify;

/// One notification for each thing that a task waits for. A task in another runtime is woken by system
/// calls and two thread switches, so it is woken only for the event that it waits for.
#[derive(Default)]
pub(super) struct ChannelNotify {
    /// The channel has ended, or said too much.
    pub(super) end: Notify,
    /// The command's status is known, or the channel has ended.
    pub(super) exit: Notify,
    /// A step on the way, or one of those.
    pub(super) step: Notify,
}

impl ChannelNotify {
    /// The channel has ended.
    pub(super) fn all(&self) {
        self.end.notify_waiters();
        self.exit.notify_waiters();
        self.step.notify_waiters();
    }
}
