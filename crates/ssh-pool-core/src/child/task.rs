//! Tasks that live as long as their child.

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::streams::{ChildStderr, ChildStdin, ChildStdout, Source};
use crate::error::Stream;

/// A task that is aborted when this is dropped.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(runtime.spawn(work))
    }

    /// Waits until it has ended. Cancel safe.
    pub(super) async fn done(&mut self) {
        if !self.0.is_finished()
            && let Err(error) = (&mut self.0).await
        {
            tracing::debug!(%error, "a helper task ended early");
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Copies this process's standard input to a command.
pub(super) fn copy_in(runtime: &Handle, stdin: ChildStdin) -> Task {
    Task::spawn(runtime, copy(tokio::io::stdin(), stdin))
}

/// Copies a stream of a command to this process's own.
pub(super) fn copy_out(runtime: &Handle, source: Source, stream: Stream) -> Task {
    match stream {
        Stream::Stdout => Task::spawn(runtime, copy(ChildStdout::new(source), tokio::io::stdout())),
        Stream::Stderr => Task::spawn(runtime, copy(ChildStderr::new(source), tokio::io::stderr())),
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // A stream that is cut off has its reason in the child's end.
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "an inherited stream was cut off");
    }
    if let Err(error) = to.flush().await {
        tracing::debug!(%error, "an inherited stream was cut off");
    }
}
