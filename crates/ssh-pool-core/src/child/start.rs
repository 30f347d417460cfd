//! Starting a command, and what helps it while it runs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::task::{self, Task};
use super::{Begun, Child, ChildStderr, ChildStdin, ChildStdout, Missed, Running, Source};
use crate::command::Input;
use crate::error::{Error, Origin, Phase, Stream};
use crate::hub::{Deadline, Entry, Hub};
use crate::lanes::Lanes;
use crate::process::{self, Job, Judgement, Process};
use crate::run;
use crate::runtime::within;
use crate::stream_group::StreamGroup;
use crate::transport::Channel;
use crate::waited::Waited;

/// What a child is started with.
pub(crate) struct Spawn {
    pub(crate) job: Job,
    pub(crate) stdin: Input,
    /// Whose output goes to this process's own.
    pub(crate) inherited: Vec<Stream>,
    pub(crate) piped: Vec<Stream>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) exit_grace: Option<Duration>,
    /// Unread bytes of a shared stream.
    pub(crate) stream_limit: usize,
    /// Bytes that `wait_with_output` keeps.
    pub(crate) output_limit: usize,
    pub(crate) shared: bool,
    pub(crate) group: Option<StreamGroup>,
}

/// Starts a command, and waits until the server has accepted it.
pub(crate) fn spawn<'a>(
    lanes: &'a Arc<Lanes>,
    hub: &'a Arc<Hub>,
    spawn: Spawn,
) -> impl Future<Output = Result<Child, Error>> + Send + use<'a> {
    within(hub.runtime(), started(lanes, hub, spawn))
}

async fn started(lanes: &Arc<Lanes>, hub: &Arc<Hub>, spawn: Spawn) -> Result<Child, Error> {
    let deadline = spawn.timeout.map(Deadline::after);
    #[cfg(feature = "metrics")]
    let mut counted = crate::metrics::Counted::begin(lanes, hub);
    let mut waited = Waited::default();
    let started = start(lanes, hub, &spawn, deadline, &mut waited).await;
    #[cfg(feature = "metrics")]
    if started.is_err() {
        counted.end(&started, &waited);
    }
    let process = started.map_err(|error| error.having_waited(&waited))?;
    let begun = Begun {
        waited,
        #[cfg(feature = "metrics")]
        counted,
    };
    Ok(child(process, spawn, deadline, begun))
}

/// Until the server has accepted it there may be several channels.
async fn start(
    lanes: &Arc<Lanes>,
    hub: &Arc<Hub>,
    spawn: &Spawn,
    overall: Option<Deadline>,
    waited: &mut Waited,
) -> Result<Process, Error> {
    let acquire = hub.acquire_deadline(overall);
    let mut entry = Entry::stream(spawn.group.clone());
    loop {
        let process = process::start(lanes, hub, &spawn.job, &mut entry, acquire, waited).await?;
        let inbox = &process.channel().inbox;
        let answer = async {
            inbox.answered().await;
            match inbox.transcript().accepted {
                Some(true) => None,
                _ => Some(process.judge(spawn.stream_limit).await),
            }
        };
        let Ok(answer) = tokio::time::timeout_at(acquire.at.into(), answer).await else {
            let outcome = process.terminate().await;
            let (phase, after) = (Phase::Exec, acquire.after);
            return Err(run::timed_out(hub, phase, after, outcome));
        };
        let Some(judgement) = answer else {
            return Ok(process);
        };
        match judgement {
            Judgement::NeverStarted => process.never_started(&mut entry)?,
            Judgement::Failed(error) => return Err(error),
            // It has ended before it was accepted, with a status: no server does that.
            Judgement::Done(_) => {
                return Err(Error::ClosedWithoutStatus {
                    target: hub.name().into(),
                });
            }
        }
    }
}

fn child(process: Process, spawn: Spawn, deadline: Option<Deadline>, begun: Begun) -> Child {
    let hub = process.hub().clone();
    let channel = process.channel().clone();
    let source = Source {
        inbox: channel.inbox.clone(),
        target: Origin::from(hub.name()).after(&begun.waited),
        limit: spawn.stream_limit,
    };
    let writer = || ChildStdin::new(channel.clone(), source.clone(), hub.runtime().clone());
    let mut helpers = Vec::new();
    let mut stdin = None;
    match spawn.stdin {
        Input::Piped => stdin = Some(writer()),
        Input::Bytes(bytes) => helpers.push(feed(&hub, channel.clone(), bytes)),
        Input::Inherit => helpers.push(task::copy_in(hub.runtime(), writer())),
    }
    let piped = |stream| spawn.piped.contains(&stream).then(|| source.clone());
    let copies = (spawn.inherited.iter())
        .map(|stream| {
            let copy = task::copy_out(hub.runtime(), source.clone(), *stream);
            (*stream, copy)
        })
        .collect();
    let missed = Missed::default();
    let (leave_at, deadline) = match process.is_detached() {
        true => (deadline, None),
        false => (None, deadline),
    };
    if deadline.is_some() || spawn.shared {
        helpers.push(watch(&process, deadline, missed.clone()));
    }
    Child {
        stdin,
        stdout: piped(Stream::Stdout).map(ChildStdout::new),
        stderr: piped(Stream::Stderr).map(ChildStderr::new),
        state: Running {
            process,
            begun,
            exit_grace: spawn.exit_grace,
            stream_limit: spawn.stream_limit,
            output_limit: spawn.output_limit,
            missed,
            leave_at,
            _helpers: helpers,
            copies,
            ended: None,
        },
    }
}

/// Sends all of stdin, then EOF. Cut off with its child it sends no EOF.
fn feed(hub: &Hub, channel: Channel, bytes: Bytes) -> Task {
    Task::spawn(hub.runtime(), async move {
        let Channel { wire, inbox } = channel;
        let feed = async {
            if bytes.is_empty() || wire.send(bytes).await.is_ok() {
                // A connection that does not take it has ended, and the channel with it.
                wire.eof().await.ok();
            }
        };
        tokio::select! {
            () = feed => {}
            () = inbox.ended() => {}
        }
    })
}

/// Ends the process when its time is up, or when more came than a shared connection may keep.
fn watch(process: &Process, deadline: Option<Deadline>, missed: Missed) -> Task {
    let doomed = process.doomed();
    let inbox = process.channel().inbox.clone();
    let runtime = process.hub().runtime().clone();
    Task::spawn(&runtime.clone(), async move {
        let due = async {
            match deadline {
                Some(deadline) => {
                    tokio::time::sleep_until(deadline.at.into()).await;
                    deadline
                }
                None => std::future::pending().await,
            }
        };
        let passed = tokio::select! {
            passed = due => Some(passed),
            () = inbox.finished() => None,
        };
        if !inbox.has_ended() {
            let (tell, outcome) = oneshot::channel();
            // Before the end that follows from it, so that a reader of that end sees this too.
            if let Some(deadline) = passed {
                missed.set((deadline, outcome.shared())).ok();
            }
            // The child may go while this is under way, and with it who is told.
            runtime.spawn(async move { tell.send(doomed.terminate().await).ok() });
        }
    })
}
