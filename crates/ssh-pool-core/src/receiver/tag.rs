//! Whether the command line of a channel runs: its tag says so.

use std::sync::Arc;
use std::time::Duration;

use super::stream_buffer::{BufferOverflow, StreamBuffer};
use super::tag_filter::TagLine;
use super::{ChannelReceiver, ReceiverState};
use crate::error::Stream;
use crate::login_shell::LoginShell;

/// How long the tag of a command that has ended may take.
const TAG_TIMEOUT: Duration = Duration::from_secs(2);

impl ReceiverState {
    /// The tag has come on this stream, so it will not come on the other one.
    pub(super) fn tag_received(
        &mut self,
        stream: Stream,
        heard: TagLine,
    ) -> Result<(), BufferOverflow> {
        if let (Some(shell), Some(posix)) = (&self.tag_for, heard.posix) {
            shell.learn(posix);
        }
        let other = match stream {
            Stream::Stdout => Stream::Stderr,
            Stream::Stderr => Stream::Stdout,
        };
        self.stream_buffer(other).expect_no_more()
    }

    pub(super) fn tag_seen(&self) -> bool {
        self.stdout.tag_seen() || self.stderr.tag_seen()
    }
}

impl ChannelReceiver {
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
    pub(crate) async fn tag_seen(&self) -> bool {
        let over = |state: &ReceiverState| state.tag_seen() || state.end.is_some();
        self.until(&self.notify.step, over).await;
        self.state().tag_seen()
    }

    /// Waits until the command's status is known, or never will be; and for the tag of a command that
    /// has one, which the status may overtake as it may other bytes. Cancel safe.
    pub(crate) async fn exited_and_tagged(&self) {
        self.exited().await;
        let settled = |state: &ReceiverState| {
            state.tag_for.is_none() || state.tag_seen() || state.end.is_some()
        };
        if tokio::time::timeout(TAG_TIMEOUT, self.until(&self.notify.step, settled))
            .await
            .is_err()
        {
            tracing::debug!("the command has ended, and there is no sign that it ran");
        }
    }

    /// What came in the place of the tag, escaped, while that is missing; standard error first.
    pub(crate) fn text_before_tag(&self) -> Option<String> {
        let state = self.state();
        if state.tag_for.is_none() || state.tag_seen() {
            return None;
        }
        let said = |stream_buffer: &StreamBuffer| {
            let bytes = stream_buffer.before_tag().unwrap_or_default();
            bytes.trim_ascii().escape_ascii().to_string()
        };
        let mut words = said(&state.stderr);
        if words.is_empty() {
            words = said(&state.stdout);
        }
        Some(words)
    }
}
