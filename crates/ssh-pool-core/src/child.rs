//! A running remote command and its streams, as `std::process::Child`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::command::Input;
use crate::error::{Cause, CommandState, Error, Origin, PartialOutput, Phase, Stream};
use crate::event::EventKind;
use crate::hub::{Deadline, Entry, Hub};
use crate::lanes::Lanes;
use crate::output::{ExitStatus, Output};
use crate::process::{self, Job, Judgement, Process};
use crate::run;
use crate::runtime::within;
use crate::stream_group::StreamGroup;
use crate::terminate::{Outcome, Sent};
use crate::transport::Channel;
use crate::waited::Waited;

mod streams;
mod task;

pub(crate) use streams::Source;
pub use streams::{ChildStderr, ChildStdin, ChildStdout};
use streams::{Full, collect};
use task::Task;

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

/// A remote command that runs, and whose streams are the caller's. From
/// [`Command::spawn`](crate::Command::spawn).
///
/// Dropped before the command has ended, it ends the remote process as [`kill`](Child::kill) does,
/// in the background; unless [`Command::detach`](crate::Command::detach) says otherwise. A stream
/// that was taken out of it does not keep the command alive.
#[derive(Debug)]
#[non_exhaustive]
pub struct Child {
    /// Its standard input, if that is piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that is piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if that is piped.
    pub stderr: Option<ChildStderr>,
    state: Running,
}

/// The deadline that the command was ended for. Not every one that has passed since: the command may
/// have ended before it, and be asked about after it.
type Missed = Arc<OnceLock<Deadline>>;

/// What was settled before the command ran.
struct Begun {
    waited: Waited,
    #[cfg(feature = "metrics")]
    counted: crate::metrics::Counted,
}

struct Running {
    process: Process,
    begun: Begun,
    exit_grace: Option<Duration>,
    stream_limit: usize,
    output_limit: usize,
    missed: Missed,
    /// Of a detached one: it is left alone then.
    leave_at: Option<Deadline>,
    /// Feeds stdin, and watches deadline and overruns.
    _helpers: Vec<Task>,
    /// Copies output to this process's own.
    copies: Vec<(Stream, Task)>,
    ended: Option<Result<ExitStatus, Error>>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("host", self.process.hub().name())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
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
            // Before the end that follows from it, so that whoever sees that end sees this too.
            if let Some(deadline) = passed {
                missed.set(deadline).ok();
            }
            // The child may go while this is under way.
            runtime.spawn(async move { doomed.terminate().await });
        }
    })
}

impl Child {
    /// Closes stdin and waits until the command has ended.
    ///
    /// It ends when the server closes its channel, which is when nobody holds its output open any
    /// more; see [`Command::exit_grace`](crate::Command::exit_grace). As with `std::process`, a
    /// command that fills a piped stream which nobody reads does not end: read it, drop it, or
    /// use [`wait_with_output`](Child::wait_with_output). While such a stream holds an isolated
    /// connection up, a network that has gone dead is not noticed either; a
    /// [`timeout`](crate::Command::timeout) is.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] and [`Error::ClosedWithoutStatus`] when the outcome is unknown,
    /// [`Error::Unproven`] when something else ran in the place of the command,
    /// [`Error::Timeout`] when the command's time was up, [`Error::OutputLimit`] when a shared
    /// stream was read too slowly.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, but stdin is closed. It may be called again, and gives the same answer.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        let runtime = self.state.process.hub().runtime().clone();
        let ended = within(&runtime, self.state.wait()).await;
        #[cfg(feature = "metrics")]
        self.state.count(&ended);
        ended
    }

    /// Closes stdin, reads both streams to their end, and waits until the command has ended.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Child::wait), and [`Error::OutputLimit`] past `Limits::output_bytes` a
    /// stream, which ends the command.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the child, which ends the command.
    pub async fn wait_with_output(mut self) -> Result<Output, Error> {
        drop(self.stdin.take());
        let runtime = self.state.process.hub().runtime().clone();
        let output = within(&runtime, self.whole_output()).await;
        #[cfg(feature = "metrics")]
        self.state.count(&output);
        output
    }

    async fn whole_output(&mut self) -> Result<Output, Error> {
        let limit = self.state.output_limit;
        let inbox = self.state.process.channel().inbox.clone();
        let (mut stdout, mut stderr) = (inbox.counted_bytes(), inbox.counted_bytes());
        let mut streams = (self.stdout.take(), self.stderr.take());
        let status = {
            let read = async {
                tokio::try_join!(
                    collect(Stream::Stdout, &mut streams.0, &mut stdout, limit),
                    collect(Stream::Stderr, &mut streams.1, &mut stderr, limit),
                )
            };
            tokio::select! {
                // Both have ended, or one is full.
                read = read => match read {
                    Ok(_) | Err(Full::Stream) => None,
                    Err(Full::Pool(stream, limit)) => return Err(self.too_much(stream, limit)),
                },
                // With a grace a command may end before its streams do.
                status = self.state.wait() => Some(status),
            }
        };
        for (stream, bytes, wanted) in [
            (Stream::Stdout, &mut stdout, streams.0.is_some()),
            (Stream::Stderr, &mut stderr, streams.1.is_some()),
        ] {
            if wanted {
                let rest = bytes.extend(&inbox.collected(stream));
                rest.map_err(|limit| self.too_much(stream, limit))?;
            }
            if bytes.len() > limit {
                return Err(self.too_much(stream, limit));
            }
        }
        let ended = match status {
            Some(ended) => ended,
            None => self.state.wait().await,
        };
        let status = ended.map_err(|error| {
            error.with_output(PartialOutput {
                status: inbox.transcript().exit,
                stdout: stdout.take(),
                stderr: stderr.take(),
            })
        })?;
        Ok(Output {
            status,
            stdout: stdout.take(),
            stderr: stderr.take(),
            attempts: 1,
            waited: self.state.begun.waited,
            peer_addr: self.peer_addr(),
        })
    }

    fn too_much(&self, stream: Stream, limit: usize) -> Error {
        let inbox = &self.state.process.channel().inbox;
        inbox.report(EventKind::Overrun { stream, limit });
        Error::OutputLimit {
            target: self.state.origin(),
            stream,
            limit,
        }
    }

    /// What the command waited for before it was sent.
    #[must_use]
    pub fn waited(&self) -> Waited {
        self.state.begun.waited
    }

    /// The address of the machine that it runs on: see
    /// [`Output::peer_addr`](crate::Output::peer_addr).
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.state.process.channel().wire.peer_addr()
    }

    /// Sends a signal to the process group of the command, by its name in RFC 4254, section 6.10,
    /// with or without `SIG`: `"HUP"`, `"SIGUSR1"`.
    ///
    /// SSH has no reply to a signal, so `Ok` says that the server has been asked. One that is sent
    /// before the command has begun to do anything may get lost: sshd accepts a command a moment
    /// before its process group is there. OpenSSH ignores
    /// it for forced commands; where it ignores it for the user (see
    /// [`Command`](crate::Command#cancelling)), an errand of the pool's own delivers it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for what is no name of a signal, [`Error::Timeout`] when the
    /// connection has not taken it after `Timeouts::acquire`. A command that has ended is none.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the signal may or may not have been sent.
    pub async fn signal(&self, name: &str) -> Result<(), Error> {
        let short = name.strip_prefix("SIG").unwrap_or(name);
        if short.is_empty()
            || !short
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        {
            return Err(Error::InvalidInput {
                what: "signal",
                reason: format!("\"{}\" is not a name like TERM", name.escape_debug()),
            });
        }
        let process = &self.state.process;
        let deadline = process.hub().acquire_deadline(None);
        let remote = process.remote();
        let sent =
            async { tokio::time::timeout_at(deadline.at.into(), remote.signal(short)).await };
        let Ok(sent) = within(process.hub().runtime(), sent).await else {
            return Err(self.state.not_taken(deadline.after));
        };
        if sent == Sent::Impossible {
            tracing::warn!(host = %self.state.process.hub().name(), "no way to signal a command");
        }
        Ok(())
    }

    /// Ends the command: `SIGTERM` to its process group, `SIGKILL` after `Timeouts::kill_grace`,
    /// and if the server has not closed the channel three seconds later, it is closed from this end.
    /// Output that has not arrived yet is lost.
    ///
    /// # Errors
    ///
    /// [`Error::NotKilled`] when the server has not said that the command has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what has begun goes on by itself.
    pub async fn kill(&mut self) -> Result<(), Error> {
        let process = &self.state.process;
        match process.end().await {
            Outcome::Killed => Ok(()),
            Outcome::Unknown => Err(Error::NotKilled {
                target: self.state.origin(),
                after: process.hub().kill_grace(),
            }),
        }
    }

    /// The terminal of the command has another size now (RFC 4254, section 6.7). Without a
    /// terminal the server ignores it. Given up after `Timeouts::acquire` on a connection that does
    /// not take it.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, it may or may not have been sent.
    pub async fn resize(&self, columns: u32, rows: u32) {
        let process = &self.state.process;
        let deadline = process.hub().acquire_deadline(None);
        let resized = process.channel().wire.resize(columns, rows);
        let resized = async { tokio::time::timeout_at(deadline.at.into(), resized).await };
        match within(process.hub().runtime(), resized).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::debug!("resized a terminal whose connection has gone"),
            Err(_) => tracing::debug!("resized a terminal whose connection takes nothing"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // No EOF on the way: what reads its program from stdin would run what it has so far.
        if let Some(stdin) = &mut self.stdin
            && !self.state.process.is_detached()
        {
            stdin.give_up();
        }
    }
}

impl Running {
    /// For errors.
    fn origin(&self) -> Origin {
        Origin::from(self.process.hub().name()).after(&self.begun.waited)
    }

    /// The connection has not taken what a caller wanted to send to the command.
    fn not_taken(&self, after: Duration) -> Error {
        Error::Timeout {
            target: self.origin(),
            phase: Phase::Channel,
            after,
            state: CommandState::Unknown,
            killed: false,
            source: Some(Cause::new("the connection did not take it")),
        }
    }

    /// This is what the caller is told of its end.
    #[cfg(feature = "metrics")]
    fn count<T>(&mut self, told: &Result<T, Error>) {
        self.begun.counted.end(told, &self.begun.waited);
    }

    /// Waits until it has ended, or is left alone: when its deadline has passed.
    async fn end(&self) -> Option<Deadline> {
        let inbox = &self.process.channel().inbox;
        let end = async {
            match self.exit_grace {
                None => inbox.ended().await,
                Some(grace) => {
                    inbox.exited_and_proven().await;
                    if tokio::time::timeout(grace, inbox.ended()).await.is_err() {
                        tracing::debug!("the command has ended, and its output is still held open");
                    }
                }
            }
        };
        match self.leave_at {
            None => {
                end.await;
                None
            }
            Some(deadline) => {
                let ended = tokio::time::timeout_at(deadline.at.into(), end).await;
                ended.is_err().then_some(deadline)
            }
        }
    }

    async fn wait(&mut self) -> Result<ExitStatus, Error> {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        if let Some(deadline) = self.end().await {
            let (hub, after) = (self.process.hub(), deadline.after);
            let left = run::timed_out(hub, Phase::Running, after, Outcome::Unknown);
            let left = Err(left.having_waited(&self.begun.waited));
            self.ended = Some(left.clone());
            return left;
        }
        let inbox = &self.process.channel().inbox;
        for (stream, copy) in &mut self.copies {
            if !inbox.has_ended() {
                // The grace is over, for whoever copies as well.
                inbox.leave(*stream);
            }
            copy.done().await;
        }
        let hub = self.process.hub();
        let timed_out = |deadline: &Deadline, outcome| {
            Err(run::timed_out(hub, Phase::Running, deadline.after, outcome))
        };
        let late = self.missed.get();
        let ended = match (self.process.judge(self.stream_limit).await, late) {
            (Judgement::Done(status), None) => Ok(status),
            (Judgement::Done(_) | Judgement::Failed(Error::Unproven { .. }), Some(deadline)) => {
                timed_out(deadline, Outcome::Killed)
            }
            (Judgement::Failed(Error::ClosedWithoutStatus { .. }), Some(deadline)) => {
                timed_out(deadline, Outcome::Unknown)
            }
            (Judgement::Failed(error), _) => Err(error),
            (Judgement::NeverStarted, _) => Err(Error::ClosedWithoutStatus {
                target: hub.name().into(),
            }),
        };
        let ended = ended.map_err(|error| error.having_waited(&self.begun.waited));
        self.process.set_over();
        self.ended = Some(ended.clone());
        ended
    }
}
