//! Answers that are overdue while a caller waits for them.

use std::time::Instant;

use super::{Effect, HostState};
use crate::event::Retirement;

/// How many times as long as a check a connection may owe an answer while other things are heard
/// from it: the answer may be behind them.
const BEHIND: u32 = 5;

impl<W> HostState<W> {
    /// A waiter counts on what was asked for in its name: an open, or a round trip that shows a
    /// slot to be free. Where no answer has come for as long as a check may take, the connection is
    /// checked; after five times as long it takes nothing new, whatever else it says.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.waiters.is_empty() {
            return;
        }
        let mut next: Option<Instant> = None;
        let mut silent = Vec::new();
        let most = self.config.check.saturating_mul(BEHIND);
        for (id, connection) in self.connections.iter_mut().filter(|(_, c)| !c.retiring) {
            let due = |since: Instant| since.checked_add(self.config.check);
            let Some(mut at) = connection.unanswered.and_then(due) else {
                continue;
            };
            if at <= now {
                // The first who waits for it in a long while gives it one more check.
                let suspected = connection.unanswered != connection.pending_since;
                let pending_since = |since| now.saturating_duration_since(since) >= most;
                if suspected && connection.pending_since.is_some_and(pending_since) {
                    silent.push(id);
                    continue;
                }
                self.effects.push(Effect::CheckLiveness(id));
                connection.unanswered = Some(now);
                at = now + self.config.check;
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        if let Some(next) = next
            && self.watch_at.is_none()
        {
            self.watch_at = Some(next);
            self.effects.push(Effect::WakeAt(next));
        }
        for id in silent {
            self.retire(id, Retirement::Unresponsive, now);
        }
    }
}

#[cfg(test)]
mod tests;
