//! An error on one line.

use ssh_pool::{CommandState, Error};

/// An error with its causes, where it happened, and whether it is safe to run the command again.
#[must_use]
pub fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in anyhow::Chain::new(error).skip(1) {
        text += &format!(": {cause}");
    }
    let state = match error.command_state() {
        _ if error.is_killed() => "ended, and what it had done by then is done",
        CommandState::NotStarted => "not started",
        CommandState::Unknown => "may have run",
    };
    format!("{text} [phase: {}; command: {state}]", error.phase())
}
