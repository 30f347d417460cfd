//! What a server says to people during one login.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Endpoint;
use crate::error::{MessageKind, ServerMessage};
use crate::event::{EventKind, Reporter};
use crate::printable;

/// Messages kept of one login: the first ones, and the last one.
const KEPT: usize = 8;

/// Shared by the session's callbacks, which hear them, and the login, whose error holds them.
#[derive(Debug, Default)]
pub(super) struct Messages {
    list: Mutex<Vec<ServerMessage>>,
    /// A password has been sent, and the server has said neither yes nor no.
    password_pending: AtomicBool,
    events: Option<(Arc<Reporter>, Arc<str>)>,
}

impl Messages {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let reporter = endpoint.reporter.clone();
        Self {
            list: Mutex::default(),
            password_pending: AtomicBool::new(false),
            events: reporter.map(|reporter| (reporter, endpoint.name.clone())),
        }
    }

    /// The server said this. Blank texts are not kept.
    pub(super) fn add(&self, kind: MessageKind, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        if text.trim_ascii().is_empty() {
            return;
        }
        let text = printable(text.trim_ascii_end());
        let message = ServerMessage { kind, text };
        let is_told = {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            let has_room = list.len() < KEPT;
            list.truncate(KEPT - 1);
            list.push(message.clone());
            // There is one of this kind at most.
            has_room || kind == MessageKind::Disconnect
        };
        if let Some((reporter, target)) = self.events.as_ref().filter(|_| is_told) {
            reporter.report(target, None, EventKind::ServerMessage { message });
        }
    }

    pub(super) fn set_password_pending(&self, pending: bool) {
        self.password_pending.store(pending, Ordering::Relaxed);
    }

    pub(super) fn is_password_pending(&self) -> bool {
        self.password_pending.load(Ordering::Relaxed)
    }

    /// All of them, in order.
    pub(super) fn list(&self) -> Vec<ServerMessage> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_messages_are_kept_escaped_and_the_last_is_one_of_them() {
        let messages = Messages::default();
        messages.add(MessageKind::Banner, " \n");
        assert_eq!(messages.list(), []);
        for number in 0..1000 {
            messages.add(MessageKind::Banner, format!("\u{1b}{number}\n"));
        }
        let list = messages.list();
        assert_eq!(list.len(), KEPT);
        assert_eq!(list[0].text, "\\u{1b}0");
        assert_eq!(list[KEPT - 1].text, "\\u{1b}999");
    }
}
