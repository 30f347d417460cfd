//! The way of one command: a channel, exec, what comes of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{CommandState, Error, Phase};
use crate::hub::{Deadline, Hub, Lease};
use crate::inbox::{End, Transcript};
use crate::output::{ExitStatus, Output};
use crate::transport::Channel;

/// Everything about a command that matters on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) line: Vec<u8>,
    pub(crate) stdin: Bytes,
    pub(crate) timeout: Option<Duration>,
    /// Bytes kept of each stream; `None` throws them away as they come.
    pub(crate) output_cap: Option<usize>,
}

/// Runs a command to its end.
pub(crate) async fn run(hub: Arc<Hub>, job: Job) -> Result<Output, Error> {
    let span = tracing::debug_span!(
        "ssh_pool.command",
        host = %hub.name(),
        connection = tracing::field::Empty,
        exit = tracing::field::Empty,
        error = tracing::field::Empty,
    );
    let result = tracing::Instrument::instrument(attempt(&hub, job), span.clone()).await;
    match &result {
        Ok(output) => span.record("exit", tracing::field::display(&output.status)),
        Err(error) => span.record("error", tracing::field::display(error)),
    };
    result
}

async fn attempt(hub: &Arc<Hub>, job: Job) -> Result<Output, Error> {
    let overall = job.timeout.map(Deadline::after);
    let acquire = Deadline::after(hub.acquire_timeout());
    let acquire = overall
        .filter(|overall| overall.at < acquire.at)
        .unwrap_or(acquire);
    loop {
        let running = start(hub, &job, acquire).await?;
        let finished = match overall {
            None => running.finish(&job.stdin).await,
            Some(Deadline { at, after }) => {
                match tokio::time::timeout_at(at.into(), running.finish(&job.stdin)).await {
                    Ok(finished) => finished,
                    // Dropping it has signalled the process.
                    Err(_) => {
                        return Err(Error::Timeout {
                            target: hub.name().clone(),
                            phase: Phase::Running,
                            after,
                            state: CommandState::Unknown,
                            source: None,
                        });
                    }
                }
            }
        };
        match judge(hub, finished, job.output_cap) {
            Judgement::Done(output) => return Ok(output),
            Judgement::Failed(error) => return Err(error),
            Judgement::NeverStarted => tracing::debug!("the channel closed before exec: again"),
        }
    }
}

/// Sends the command line on a channel that takes it. Until that has happened nothing has
/// started, so a channel that fails is replaced.
async fn start(hub: &Arc<Hub>, job: &Job, deadline: Deadline) -> Result<Running, Error> {
    loop {
        let queue = tracing::debug_span!("ssh_pool.queue", host = %hub.name());
        let lease: Lease = tracing::Instrument::instrument(hub.checkout(deadline), queue).await?;
        tracing::Span::current().record("connection", lease.connection());
        let Some(channel) = lease.begin(job.output_cap) else {
            continue;
        };
        let mut running = Running {
            hub: hub.clone(),
            channel,
            sent: Sent::Nothing,
        };
        if running.channel.wire.exec(job.line.clone()).await.is_ok() {
            running.sent = Sent::Exec;
            return Ok(running);
        }
        // Not taken by the connection, so not on the wire: it is dying.
    }
}

/// How far our side of the channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    Exec,
    Eof,
}

/// A command on its way. Dropped before its channel has ended, it lets go of the remote process:
/// the process is asked to terminate, its output is thrown away, and its slot counts as taken
/// until the server gives it back.
struct Running {
    hub: Arc<Hub>,
    channel: Channel,
    sent: Sent,
}

impl Running {
    /// Feeds stdin and waits for the end. Exec, data and EOF travel in one flight.
    async fn finish(mut self, stdin: &Bytes) -> Option<Transcript> {
        let Channel { wire, inbox } = self.channel.clone();
        let feed = async {
            if !stdin.is_empty() {
                wire.send(stdin.clone()).await.ok()?;
            }
            wire.eof().await.ok()
        };
        // A command need not read its stdin to the end, and nobody wakes a writer whose channel
        // has closed.
        tokio::select! {
            fed = feed => if fed.is_some() { self.sent = Sent::Eof },
            () = inbox.ended() => {}
        }
        inbox.ended().await;
        // The answer to an exec request proves that it was sent; without one, ask the transport.
        if inbox.is_unanswered() {
            inbox.exec_settled().await;
        }
        inbox.transcript()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Channel { wire, inbox } = self.channel.clone();
        if inbox.has_ended() {
            return;
        }
        if self.sent == Sent::Nothing {
            inbox.take_back();
            return;
        }
        inbox.abandon();
        let eof = self.sent != Sent::Eof;
        self.hub.runtime().spawn(async move {
            // A connection that does not take these any more has ended, and the channel with it.
            if wire.signal("TERM").await.is_ok() && eof {
                wire.eof().await.ok();
            }
        });
    }
}

enum Judgement {
    Done(Output),
    Failed(Error),
    /// The channel ended before the exec request went out.
    NeverStarted,
}

fn judge(hub: &Hub, finished: Option<Transcript>, output_cap: Option<usize>) -> Judgement {
    let target = hub.name().clone();
    let Some(Transcript {
        sent,
        accepted,
        stdout,
        stderr,
        eof,
        exit,
        overrun,
        end,
    }) = finished
    else {
        // `finish` waits for the end, and an ended inbox has a transcript.
        return Judgement::Failed(Error::ClosedWithoutStatus { target });
    };
    if let Some(stream) = overrun {
        let limit = output_cap.unwrap_or(usize::MAX);
        return Judgement::Failed(Error::OutputLimit {
            target,
            stream,
            limit,
        });
    }
    if accepted == Some(false) {
        return Judgement::Failed(Error::ExecRefused { target });
    }
    if !sent && accepted.is_none() {
        return Judgement::NeverStarted;
    }
    match (exit, end) {
        (Some(status), End::Closed) => Judgement::Done(output(status, stdout, stderr)),
        // The status and all output were there; only the goodbye was lost.
        (Some(status), End::Lost(_)) if eof => Judgement::Done(output(status, stdout, stderr)),
        (_, End::Lost(source)) => {
            let phase = if accepted.is_some() {
                Phase::Running
            } else {
                Phase::Exec
            };
            Judgement::Failed(Error::ConnectionLost {
                target,
                phase,
                source,
            })
        }
        _ => Judgement::Failed(Error::ClosedWithoutStatus { target }),
    }
}

fn output(status: ExitStatus, stdout: Vec<u8>, stderr: Vec<u8>) -> Output {
    Output {
        status,
        stdout,
        stderr,
    }
}
