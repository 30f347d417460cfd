//! Whether the command line of a channel runs: its tag says so.

use std::sync::Arc;
use std::time::Duration;

use super::herald::Heard;
use super::intake::{Intake, Overrun};
use super::{Inbox, State};
use crate::error::Stream;
use crate::login_shell::LoginShell;

/// How long the tag of a command that has ended may take.
const PROOF: Duration = Duration::from_secs(2);

impl State {
    /// The tag has come on this stream, so it will not come on the other one.
    pub(super) fn hear(&mut self, stream: Stream, heard: Heard) -> Result<(), Overrun> {
        if let (Some(shell), Some(posix)) = (&self.tag_for, heard.posix) {
            shell.learn(posix);
        }
        let other = match stream {
            Stream::Stdout => Stream::Stderr,
            Stream::Stderr => Stream::Stdout,
        };
        self.intake(other).expect_no_more()
    }

    pub(super) fn announced(&self) -> bool {
        self.stdout.announced() || self.stderr.announced()
    }
}

impl Inbox {
    /// The command says a tag before anything else, on a line that begins like this and is not for
    /// the reader. On which stream depends on the account: a terminal has one for both, and so has a
    /// forced command that keeps a log. With a `shell`, of which the tag may say what it is, the tag is
    /// the proof that the line runs.
    pub(crate) fn expect_tag(&self, line: Vec<u8>, shell: Option<Arc<LoginShell>>) {
        let mut state = self.state();
        state.tag_for = shell;
        state.stdout.expect(line.clone());
        state.stderr.expect(line);
    }

    /// Waits until the command has said its tag, or never will. Cancel safe.
    pub(crate) async fn announced(&self) -> bool {
        let over = |state: &State| state.announced() || state.end.is_some();
        self.until(&self.news.step, over).await;
        self.state().announced()
    }

    /// Waits until the command's status is known, or never will be; and for the tag of a command that
    /// has one, which the status may overtake as it may other bytes. Cancel safe.
    pub(crate) async fn exited_and_proven(&self) {
        self.exited().await;
        let settled =
            |state: &State| state.tag_for.is_none() || state.announced() || state.end.is_some();
        if tokio::time::timeout(PROOF, self.until(&self.news.step, settled))
            .await
            .is_err()
        {
            tracing::debug!("the command has ended, and there is no sign that it ran");
        }
    }

    /// What came in the place of the tag, escaped, while that is missing; standard error first.
    pub(crate) fn unproven(&self) -> Option<String> {
        let state = self.state();
        if state.tag_for.is_none() || state.announced() {
            return None;
        }
        let said = |intake: &Intake| {
            let bytes = intake.before_tag().unwrap_or_default();
            bytes.trim_ascii().escape_ascii().to_string()
        };
        let mut words = said(&state.stderr);
        if words.is_empty() {
            words = said(&state.stdout);
        }
        Some(words)
    }
}
