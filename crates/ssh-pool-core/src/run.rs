//! The way of a command whose output is collected: a channel, the request, what comes of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::{CommandState, Error, PartialOutput, Phase};
use crate::event::EventKind;
use crate::group::{self, Admission, ConnectionGroup, Deadline};
use crate::host_pools::HostPools;
use crate::output::{ExitStatus, Output};
use crate::process::{self, ExecRequest, Process, ProcessEnd};
use crate::runtime::within;
use crate::stream_group::StreamGroup;
use crate::terminate::TerminationOutcome;
use crate::transport::Channel;
use crate::waited::Waited;

mod retry;

/// A command with its input and its deadlines.
#[derive(Debug, Clone)]
pub(crate) struct BufferedExec {
    pub(crate) exec_request: ExecRequest,
    pub(crate) stdin: Bytes,
    pub(crate) timeout: Option<Duration>,
    /// Whether it may run more than once.
    pub(crate) idempotent: bool,
    /// After the exit status, others may hold the output open for this long.
    pub(crate) exit_grace: Option<Duration>,
    /// The cap on output, for its error.
    pub(crate) limit: usize,
    pub(crate) stream_group: Option<StreamGroup>,
}

/// Runs a command to its end, and again if it was lost and may be. What could not be made into a
/// call is an error; by reference, for each future that takes a call has room for it once more.
pub(crate) fn run<'a>(
    pools: &'a Arc<HostPools>,
    group: &'a Arc<ConnectionGroup>,
    exec: &'a Result<BufferedExec, Error>,
) -> impl Future<Output = Result<Output, Error>> + Send + use<'a> {
    within(group.runtime(), traced(pools, group, exec))
}

async fn traced(
    pools: &Arc<HostPools>,
    group: &Arc<ConnectionGroup>,
    exec: &Result<BufferedExec, Error>,
) -> Result<Output, Error> {
    let exec = exec.as_ref().map_err(Error::clone)?;
    let span = tracing::debug_span!(
        "ssh_pool.command",
        host = %group.name(),
        connection = tracing::field::Empty,
        attempts = tracing::field::Empty,
        queue_ms = tracing::field::Empty,
        dial_ms = tracing::field::Empty,
        back_off_ms = tracing::field::Empty,
        channel_ms = tracing::field::Empty,
        exit = tracing::field::Empty,
        error = tracing::field::Empty,
    );
    #[cfg(feature = "metrics")]
    let mut counted = crate::metrics::CommandTimer::begin(pools, group);
    let mut waited = Waited::default();
    let attempts = attempts(pools, group, exec, &mut waited);
    let result = tracing::Instrument::instrument(attempts, span.clone()).await;
    waited.record(&span);
    #[cfg(feature = "metrics")]
    counted.end(&result, &waited);
    match result {
        Ok(output) => {
            span.record("exit", tracing::field::display(&output.status));
            span.record("attempts", output.attempts);
            Ok(Output { waited, ..output })
        }
        Err(error) => {
            span.record("error", tracing::field::display(&error));
            span.record("attempts", error.attempts());
            Err(error.having_waited(&waited))
        }
    }
}

async fn attempts(
    pools: &Arc<HostPools>,
    group: &Arc<ConnectionGroup>,
    exec: &BufferedExec,
    waited: &mut Waited,
) -> Result<Output, Error> {
    let overall = exec.timeout.map(Deadline::after);
    let mut admission = Admission::of(exec.stream_group.clone());
    let mut attempts = 1;
    loop {
        let error = match attempt(pools, group, exec, &mut admission, overall, waited).await {
            Ok(output) => return Ok(Output { attempts, ..output }),
            Err(error) => error,
        };
        let again = exec.idempotent && !group.closing().is_cancelled();
        let pause = again.then(|| retry::pause(&error, attempts, overall));
        let Some(pause) = pause.flatten() else {
            return Err(error.after(group.name(), attempts));
        };
        tracing::warn!(
            attempt = attempts,
            %error,
            ?pause,
            "a command was lost, and is run again"
        );
        let kind = EventKind::Rerun {
            attempts,
            error: error.clone(),
            pause,
        };
        group.report(kind);
        let begun = group::now();
        let sleep = tokio::time::sleep(pause);
        // A pool that is being closed takes no new attempt, so there is nothing to wait for.
        let over = group.closing().run_until_cancelled(sleep).await;
        waited.back_off += group::now().saturating_duration_since(begun);
        if over.is_none() {
            return Err(error.after(group.name(), attempts));
        }
        attempts += 1;
    }
}

/// Until the command was sent there may be several channels; after that there is one.
async fn attempt(
    pools: &Arc<HostPools>,
    group: &Arc<ConnectionGroup>,
    exec: &BufferedExec,
    admission: &mut Admission,
    overall: Option<Deadline>,
    waited: &mut Waited,
) -> Result<Output, Error> {
    let acquire = group.acquire_deadline(overall);
    loop {
        let process =
            process::start(pools, group, &exec.exec_request, admission, acquire, waited).await?;
        let finish = async {
            finish(&process, exec).await;
            process.classify(exec.limit).await
        };
        let end = match overall {
            None => {
                // In a box: every command that waits would have room for this.
                let reply_timeout = Box::pin(process.reply_timeout());
                tokio::select! {
                    biased;
                    end = finish => Ok(end),
                    after = reply_timeout => Err((Phase::Exec, after)),
                }
            }
            Some(Deadline { at, after }) => {
                let end = tokio::time::timeout_at(at.into(), finish).await;
                end.map_err(|_| (Phase::Running, after))
            }
        };
        let end = match end {
            Ok(end) => end,
            Err((phase, after)) => {
                let output = partial_output(&process);
                let outcome = Box::pin(process.terminate()).await;
                let output = output.await;
                return Err(timed_out(group, phase, after, outcome).with_output(output));
            }
        };
        let ended = match end {
            ProcessEnd::Done(status) => Ok(status),
            ProcessEnd::Failed(error) => Err(error),
            ProcessEnd::NeverStarted => {
                process.never_started(admission)?;
                continue;
            }
        };
        // In a box, as above.
        return Box::pin(conclude(process, group.clone(), ended)).await;
    }
}

/// Puts together what a command has written.
async fn conclude(
    mut process: Process,
    group: Arc<ConnectionGroup>,
    ended: Result<ExitStatus, Error>,
) -> Result<Output, Error> {
    let status = match ended {
        Ok(status) => status,
        Err(error) => return Err(error.with_output(partial_output(&process).await)),
    };
    process.set_over();
    let Channel { sender, receiver } = process.channel();
    let collected = receiver.collected().await;
    let (stdout, stderr) = collected.ok_or_else(|| Error::closed(group.name(), group.runtime()))?;
    Ok(Output {
        status,
        stdout,
        stderr,
        attempts: 1,
        waited: Waited::default(),
        peer_addr: sender.peer_addr(),
        target: Some(group.name().clone()),
    })
}

/// What has arrived of the output that is collected: taken now, and whole once that is awaited.
fn partial_output(process: &Process) -> BoxFuture<'static, PartialOutput> {
    let receiver = &process.channel().receiver;
    let (status, collected) = (receiver.outcome().exit, receiver.collected());
    let output = async move {
        let (stdout, stderr) = collected.await.unwrap_or_default();
        PartialOutput {
            status,
            stdout,
            stderr,
        }
    };
    Box::pin(output)
}

/// The deadline of a command that had been sent has passed.
pub(crate) fn timed_out(
    group: &ConnectionGroup,
    phase: Phase,
    after: Duration,
    outcome: TerminationOutcome,
) -> Error {
    Error::Timeout {
        target: group.name().into(),
        phase,
        after,
        state: CommandState::Unknown,
        killed: outcome == TerminationOutcome::Killed,
        source: None,
    }
}

/// Feeds stdin and waits for the end. Request, data and EOF travel in one flight.
async fn finish(process: &Process, exec: &BufferedExec) {
    let Channel { sender, receiver } = process.channel();
    let feed = async {
        if !exec.stdin.is_empty() {
            sender.send(exec.stdin.clone()).await.ok()?;
        }
        sender.eof().await.ok()
    };
    let ended = async {
        let Some(grace) = exec.exit_grace else {
            return receiver.finished().await;
        };
        tokio::select! {
            () = receiver.exited_and_tagged() => {}
            () = receiver.finished() => {}
        }
        // Output written after that is not read.
        if tokio::time::timeout(grace, receiver.finished())
            .await
            .is_err()
        {
            tracing::debug!("the command has ended, and its output is still held open");
        }
    };
    // A command need not read its stdin to the end, and a writer whose channel has closed is not
    // woken.
    tokio::pin!(ended);
    tokio::select! {
        _ = feed => {}
        () = &mut ended => return,
    }
    ended.await;
}
