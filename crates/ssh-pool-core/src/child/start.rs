//! Starting a command, and what helps it while it runs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::task::{self, Task};
use super::{Child, ChildStderr, ChildStdin, ChildStdout, Missed, Running, Source, StartInfo};
use crate::command::Input;
use crate::error::{Error, Origin, Phase, Stream};
use crate::group::{Admission, ConnectionGroup, Deadline};
use crate::host_pools::HostPools;
use crate::process::{self, ExecRequest, Process, ProcessEnd};
use crate::run;
use crate::runtime::within;
use crate::stream_group::StreamGroup;
use crate::transport::Channel;
use crate::waited::Waited;

/// What a child is started with.
pub(crate) struct Spawn {
    pub(crate) exec_request: ExecRequest,
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
    pub(crate) stream_group: Option<StreamGroup>,
}

/// Starts a command, and waits until the server has accepted it.
pub(crate) fn spawn<'a>(
    pools: &'a Arc<HostPools>,
    group: &'a Arc<ConnectionGroup>,
    spawn: Spawn,
) -> impl Future<Output = Result<Child, Error>> + Send + use<'a> {
    within(group.runtime(), started(pools, group, spawn))
}

async fn started(
    pools: &Arc<HostPools>,
    group: &Arc<ConnectionGroup>,
    spawn: Spawn,
) -> Result<Child, Error> {
    let deadline = spawn.timeout.map(Deadline::after);
    #[cfg(feature = "metrics")]
    let mut counted = crate::metrics::CommandTimer::begin(pools, group);
    let mut waited = Waited::default();
    let started = start(pools, group, &spawn, deadline, &mut waited).await;
    #[cfg(feature = "metrics")]
    if started.is_err() {
        counted.end(&started, &waited);
    }
    let process = started.map_err(|error| error.having_waited(&waited))?;
    let begun = StartInfo {
        waited,
        #[cfg(feature = "metrics")]
        counted,
    };
    Ok(child(process, spawn, deadline, begun))
}

/// Until the server has accepted it there may be several channels.
async fn start(
    pools: &Arc<HostPools>,
    group: &Arc<ConnectionGroup>,
    spawn: &Spawn,
    overall: Option<Deadline>,
    waited: &mut Waited,
) -> Result<Process, Error> {
    let acquire = group.acquire_deadline(overall);
    let mut admission = Admission::stream(spawn.stream_group.clone());
    loop {
        let process = process::start(
            pools,
            group,
            &spawn.exec_request,
            &mut admission,
            acquire,
            waited,
        )
        .await?;
        let receiver = &process.channel().receiver;
        let answer = async {
            receiver.answered().await;
            match receiver.outcome().accepted {
                Some(true) => None,
                _ => Some(process.classify(spawn.stream_limit).await),
            }
        };
        let Ok(answer) = tokio::time::timeout_at(acquire.at.into(), answer).await else {
            let outcome = process.terminate().await;
            let (phase, after) = (Phase::Exec, acquire.after);
            return Err(run::timed_out(group, phase, after, outcome));
        };
        let Some(end) = answer else {
            return Ok(process);
        };
        match end {
            ProcessEnd::NeverStarted => process.never_started(&mut admission)?,
            ProcessEnd::Failed(error) => return Err(error),
            // It has ended before it was accepted, with a status: no server does that.
            ProcessEnd::Done(_) => {
                return Err(Error::ClosedWithoutStatus {
                    target: group.name().into(),
                });
            }
        }
    }
}

fn child(process: Process, spawn: Spawn, deadline: Option<Deadline>, begun: StartInfo) -> Child {
    let group = process.group().clone();
    let channel = process.channel().clone();
    let source = Source {
        receiver: channel.receiver.clone(),
        target: Origin::from(group.name()).after(&begun.waited),
        limit: spawn.stream_limit,
    };
    let writer = || ChildStdin::new(channel.clone(), source.clone(), group.runtime().clone());
    let mut helpers = Vec::new();
    let mut stdin = None;
    match spawn.stdin {
        Input::Piped => stdin = Some(writer()),
        Input::Bytes(bytes) => helpers.push(feed(&group, channel.clone(), bytes)),
        Input::Inherit => helpers.push(task::copy_in(group.runtime(), writer())),
    }
    let piped = |stream| spawn.piped.contains(&stream).then(|| source.clone());
    let copies = (spawn.inherited.iter())
        .map(|stream| {
            let copy = task::copy_out(group.runtime(), source.clone(), *stream);
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
fn feed(group: &ConnectionGroup, channel: Channel, bytes: Bytes) -> Task {
    Task::spawn(group.runtime(), async move {
        let Channel { sender, receiver } = channel;
        let feed = async {
            if bytes.is_empty() || sender.send(bytes).await.is_ok() {
                // A connection that does not take it has ended, and the channel with it.
                sender.eof().await.ok();
            }
        };
        tokio::select! {
            () = feed => {}
            () = receiver.ended() => {}
        }
    })
}

/// Ends the process when its time is up, or when more came than a shared connection may keep.
fn watch(process: &Process, deadline: Option<Deadline>, missed: Missed) -> Task {
    let terminator = process.terminator();
    let receiver = process.channel().receiver.clone();
    let runtime = process.group().runtime().clone();
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
            () = receiver.finished() => None,
        };
        if !receiver.has_ended() {
            let (tell, outcome) = oneshot::channel();
            // Before the end that follows from it, so that a reader of that end sees this too.
            if let Some(deadline) = passed {
                missed.set((deadline, outcome.shared())).ok();
            }
            // The child, and with it the receiver, may be dropped while this is under way.
            runtime.spawn(async move { tell.send(terminator.terminate().await).ok() });
        }
    })
}
