//! The way of a command whose output is collected: a channel, the request, what comes of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{CommandState, Error, Phase};
use crate::event::EventKind;
use crate::hub::{self, Deadline, Entry, Hub};
use crate::lanes::Lanes;
use crate::output::Output;
use crate::process::{self, Job, Judgement, Process};
use crate::runtime::within;
use crate::stream_group::StreamGroup;
use crate::terminate::Outcome;
use crate::transport::Channel;
use crate::waited::Waited;

mod retry;

/// A command with its input and its deadlines.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) job: Job,
    pub(crate) stdin: Bytes,
    pub(crate) timeout: Option<Duration>,
    /// Whether it may run more than once.
    pub(crate) idempotent: bool,
    /// After the exit status, others may hold the output open for this long.
    pub(crate) exit_grace: Option<Duration>,
    /// The cap on output, for its error.
    pub(crate) limit: usize,
    pub(crate) group: Option<StreamGroup>,
}

/// Runs a command to its end, and again if it was lost and may be. What could not be made into a
/// call is an error; by reference, for each future that takes a call has room for it once more.
pub(crate) fn run<'a>(
    lanes: &'a Arc<Lanes>,
    hub: &'a Arc<Hub>,
    call: &'a Result<Call, Error>,
) -> impl Future<Output = Result<Output, Error>> + Send + use<'a> {
    within(hub.runtime(), traced(lanes, hub, call))
}

async fn traced(
    lanes: &Arc<Lanes>,
    hub: &Arc<Hub>,
    call: &Result<Call, Error>,
) -> Result<Output, Error> {
    let call = call.as_ref().map_err(Error::clone)?;
    let span = tracing::debug_span!(
        "ssh_pool.command",
        host = %hub.name(),
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
    let mut counted = crate::metrics::Counted::begin(lanes, hub);
    let mut waited = Waited::default();
    let attempts = attempts(lanes, hub, call, &mut waited);
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
    lanes: &Arc<Lanes>,
    hub: &Arc<Hub>,
    call: &Call,
    waited: &mut Waited,
) -> Result<Output, Error> {
    let overall = call.timeout.map(Deadline::after);
    let mut entry = Entry::of(call.group.clone());
    let mut attempts = 1;
    loop {
        let error = match attempt(lanes, hub, call, &mut entry, overall, waited).await {
            Ok(output) => return Ok(Output { attempts, ..output }),
            Err(error) => error,
        };
        let again = call.idempotent && !hub.closing().is_cancelled();
        let pause = again.then(|| retry::pause(&error, attempts, overall));
        let Some(pause) = pause.flatten() else {
            return Err(error.after(hub.name(), attempts));
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
        hub.report(kind);
        let begun = hub::now();
        let sleep = tokio::time::sleep(pause);
        // A pool that is being closed takes no new attempt, so there is nothing to wait for.
        let over = hub.closing().run_until_cancelled(sleep).await;
        waited.back_off += hub::now().saturating_duration_since(begun);
        if over.is_none() {
            return Err(error.after(hub.name(), attempts));
        }
        attempts += 1;
    }
}

/// Until the command was sent there may be several channels; after that there is one.
async fn attempt(
    lanes: &Arc<Lanes>,
    hub: &Arc<Hub>,
    call: &Call,
    entry: &mut Entry,
    overall: Option<Deadline>,
    waited: &mut Waited,
) -> Result<Output, Error> {
    let acquire = hub.acquire_deadline(overall);
    loop {
        let mut process = process::start(lanes, hub, &call.job, entry, acquire, waited).await?;
        let finish = async {
            finish(&process, call).await;
            process.judge(call.limit).await
        };
        let judgement = match overall {
            None => {
                // In a box: every command that waits would have room for this.
                let overdue = Box::pin(process.overdue());
                tokio::select! {
                    biased;
                    judgement = finish => Ok(judgement),
                    after = overdue => Err((Phase::Exec, after)),
                }
            }
            Some(Deadline { at, after }) => {
                let judgement = tokio::time::timeout_at(at.into(), finish).await;
                judgement.map_err(|_| (Phase::Running, after))
            }
        };
        let judgement = match judgement {
            Ok(judgement) => judgement,
            Err((phase, after)) => {
                let output = process.partial_output();
                let outcome = Box::pin(process.terminate()).await;
                return Err(timed_out(hub, phase, after, outcome).with_output(output.await));
            }
        };
        match judgement {
            Judgement::Done(status) => {
                process.set_over();
                let Channel { wire, inbox } = process.channel();
                let collected = inbox.collected().await;
                let (stdout, stderr) =
                    collected.ok_or_else(|| Error::closed(hub.name(), hub.runtime()))?;
                return Ok(Output {
                    status,
                    stdout,
                    stderr,
                    attempts: 1,
                    waited: Waited::default(),
                    peer_addr: wire.peer_addr(),
                    target: Some(hub.name().clone()),
                });
            }
            Judgement::Failed(error) => {
                return Err(error.with_output(process.partial_output().await));
            }
            Judgement::NeverStarted => process.never_started(entry)?,
        }
    }
}

/// The deadline of a command that had been sent has passed.
pub(crate) fn timed_out(hub: &Hub, phase: Phase, after: Duration, outcome: Outcome) -> Error {
    Error::Timeout {
        target: hub.name().into(),
        phase,
        after,
        state: CommandState::Unknown,
        killed: outcome == Outcome::Killed,
        source: None,
    }
}

/// Feeds stdin and waits for the end. Request, data and EOF travel in one flight.
async fn finish(process: &Process, call: &Call) {
    let Channel { wire, inbox } = process.channel();
    let feed = async {
        if !call.stdin.is_empty() {
            wire.send(call.stdin.clone()).await.ok()?;
        }
        wire.eof().await.ok()
    };
    let end = async {
        let Some(grace) = call.exit_grace else {
            return inbox.finished().await;
        };
        tokio::select! {
            () = inbox.exited_and_proven() => {}
            () = inbox.finished() => {}
        }
        // Whoever still holds the output after that writes for nobody.
        if tokio::time::timeout(grace, inbox.finished()).await.is_err() {
            tracing::debug!("the command has ended, and its output is still held open");
        }
    };
    // A command need not read its stdin to the end, and nobody wakes a writer whose channel has
    // closed.
    tokio::pin!(end);
    tokio::select! {
        _ = feed => {}
        () = &mut end => return,
    }
    end.await;
}
