//! Answers that do not come while somebody waits for them.

use std::time::Instant;

use super::{Action, Slots};

impl<W> Slots<W> {
    /// A waiter counts on what was asked for in its name: an open, or a round trip that shows a
    /// slot to be free. Where no answer has come for as long as a check may take, the connection is
    /// suspect.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.waiters.is_empty() {
            return;
        }
        let mut next: Option<Instant> = None;
        for (id, connection) in self.connections.iter_mut().filter(|(_, c)| !c.retiring) {
            let due = |since: Instant| since.checked_add(self.rules.check);
            let Some(mut at) = connection.unanswered.and_then(due) else {
                continue;
            };
            if at <= now {
                self.actions.push(Action::Suspect(id));
                connection.unanswered = Some(now);
                at = now + self.rules.check;
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        if let Some(next) = next
            && self.watch_at.is_none()
        {
            self.watch_at = Some(next);
            self.actions.push(Action::WakeAt(next));
        }
    }
}

#[cfg(test)]
mod tests;
