//! A running remote command and its streams, as `std::process::Child`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::Shared;
use tokio::sync::oneshot;

use crate::connection_handle::ConnectionHandle;
use crate::error::{Cause, CommandState, Error, Origin, PartialOutput, Phase, Stream};
use crate::event::EventKind;
use crate::group::Deadline;
use crate::output::{ExitStatus, Output};
use crate::process::{Process, ProcessEnd};
use crate::run;
use crate::runtime::within;
use crate::terminate::{SignalResult, TerminationOutcome};
use crate::waited::Waited;

mod start;
mod streams;
mod task;

pub(crate) use start::{Spawn, spawn};
pub(crate) use streams::Source;
pub use streams::{ChildStderr, ChildStdin, ChildStdout};
use streams::{Full, collect, keep, kept};
use task::Task;

/// A remote command that runs, and whose streams are the caller's. From
/// [`Command::spawn`](crate::Command::spawn).
///
/// Dropped before the command has ended, it ends the remote process as [`kill`](Child::kill) does,
/// in the background; unless [`Command::detach`](crate::Command::detach) says otherwise. A stream
/// that was taken out of it does not keep the command alive.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use ssh_pool::Stdio;
/// use tokio::io::AsyncWriteExt;
///
/// let mut child = host.command("psql").stdin(Stdio::piped()).spawn().await?;
/// if let Some(mut stdin) = child.stdin.take() {
///     stdin.write_all(b"select 1;").await?; // waits while psql is busy
/// } // its end is the end of the input
/// let output = child.wait_with_output().await?;
/// println!("{}: {}", output.status, output.stdout_lossy());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a child ends its command: wait for it, or use Command::detach"]
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

/// The deadline that the command was ended for, and what becomes of that. Not every one that has
/// passed since: the command may have ended before it, and be asked about after it.
type Missed = Arc<OnceLock<(Deadline, Shared<oneshot::Receiver<TerminationOutcome>>)>>;

/// What was settled before the command ran.
struct StartInfo {
    waited: Waited,
    #[cfg(feature = "metrics")]
    counted: crate::metrics::CommandTimer,
}

struct Running {
    process: Process,
    begun: StartInfo,
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
            .field("host", self.process.group().name())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Child {
    /// Closes stdin and waits until the command has ended.
    ///
    /// It ends when the server closes its channel, which is when no process holds its output open
    /// any more; see [`Command::exit_grace`](crate::Command::exit_grace).
    ///
    /// A piped stream that is still in the child cannot hold the command up, as it would with
    /// `std::process`: while this waits, what comes on it is kept in memory, up to
    /// `Limits::output_bytes` a stream. It can be read afterwards; if more came, the reader gets what
    /// was kept and then [`Error::OutputLimit`]. The command and its status are not affected. A stream
    /// that was taken out of the child has to be read or dropped: a command that fills it does not end
    /// before its [`timeout`](crate::Command::timeout).
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
        let runtime = self.state.process.group().runtime().clone();
        let limit = self.state.output_limit;
        let stdout = self.stdout.as_mut().map(ChildStdout::reader);
        let stderr = self.stderr.as_mut().map(ChildStderr::reader);
        let unread = async {
            tokio::join!(keep(stdout, limit), keep(stderr, limit));
            std::future::pending().await
        };
        let ended = async {
            tokio::select! {
                biased;
                ended = self.state.wait() => ended,
                never = unread => never,
            }
        };
        let ended = within(&runtime, ended).await;
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
        let runtime = self.state.process.group().runtime().clone();
        let output = within(&runtime, self.whole_output()).await;
        #[cfg(feature = "metrics")]
        self.state.count(&output);
        output
    }

    async fn whole_output(&mut self) -> Result<Output, Error> {
        let limit = self.state.output_limit;
        let receiver = self.state.process.channel().receiver.clone();
        let mut streams = (self.stdout.take(), self.stderr.take());
        // What `wait` has kept is all of it so far.
        let mut stdout = kept(streams.0.as_mut().map(ChildStdout::reader), &receiver);
        let mut stderr = kept(streams.1.as_mut().map(ChildStderr::reader), &receiver);
        let status = {
            let readers = (
                streams.0.as_mut().map(ChildStdout::reader),
                streams.1.as_mut().map(ChildStderr::reader),
            );
            let read = async {
                tokio::try_join!(
                    collect(Stream::Stdout, readers.0, &mut stdout, limit),
                    collect(Stream::Stderr, readers.1, &mut stderr, limit),
                )
            };
            tokio::select! {
                // The streams first, also of a child that has been waited for before.
                biased;
                // Both have ended, or one is full.
                read = read => match read {
                    Ok(_) | Err(Full::Stream) => None,
                    Err(Full::Limit(stream, limit)) => return Err(self.too_much(stream, limit)),
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
                let rest = bytes.gather(receiver.rest(stream).unread());
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
        let joined = stdout.into_vecs(stderr).await;
        let (stdout, stderr) = joined.ok_or_else(|| self.runtime_ended())?;
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                return Err(error.with_output(PartialOutput {
                    status: receiver.outcome().exit,
                    stdout,
                    stderr,
                }));
            }
        };
        Ok(Output {
            status,
            stdout,
            stderr,
            attempts: 1,
            waited: self.state.begun.waited,
            peer_addr: self.peer_addr(),
            target: Some(self.state.process.group().name().clone()),
        })
    }

    fn runtime_ended(&self) -> Error {
        let group = self.state.process.group();
        Error::closed(group.name(), group.runtime())
    }

    fn too_much(&self, stream: Stream, limit: usize) -> Error {
        let receiver = &self.state.process.channel().receiver;
        receiver.report(EventKind::Overrun { stream, limit });
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
        self.state.process.channel().sender.peer_addr()
    }

    /// The SSH connection that it runs on.
    #[must_use]
    pub fn connection(&self) -> ConnectionHandle {
        let process = &self.state.process;
        ConnectionHandle::new(process.group(), process.on())
    }

    /// Sends a signal to the process group of the command, by its name in RFC 4254, section 6.10,
    /// with or without `SIG`: `"HUP"`, `"SIGUSR1"`.
    ///
    /// SSH has no reply to a signal, so `Ok` says that the server has been asked. OpenSSH ignores it for
    /// forced commands; where it ignores it for the user (see [`Command`](crate::Command#cancelling)), a
    /// helper command of the pool delivers it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for what is no name of a signal, [`Error::Timeout`] when the
    /// connection has not taken it after `Timeouts::acquire`. A command that has ended is none.
    ///
    /// A signal that arrives before sshd's child process has created the command's process group is
    /// lost, and sshd does not report that. Read some output of the command first.
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
        let deadline = process.group().acquire_deadline(None);
        let signaller = process.signaller();
        let sent = async {
            tokio::time::timeout_at(deadline.at.into(), signaller.signal_running(short)).await
        };
        let Ok(sent) = within(process.group().runtime(), sent).await else {
            return Err(self.state.not_taken(deadline.after));
        };
        if sent == SignalResult::Impossible {
            tracing::warn!(host = %self.state.process.group().name(), "no way to signal a command");
        }
        Ok(())
    }

    /// Ends the command: `SIGTERM` to its process group, `SIGKILL` after `Timeouts::kill_grace`,
    /// and if the server has not closed the channel three seconds later, it is closed from this end.
    /// Output that has not arrived yet is lost.
    ///
    /// # Errors
    ///
    /// [`Error::NotKilled`] when the server has not said that the command has ended: a process of
    /// another user (`sudo`, `su -c`) may not be killable by the login user. On dropbear, also when its
    /// processes were not seen to be gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what has begun goes on by itself.
    pub async fn kill(&mut self) -> Result<(), Error> {
        let process = &self.state.process;
        match process.end().await {
            TerminationOutcome::Killed => Ok(()),
            TerminationOutcome::Unknown => Err(Error::NotKilled {
                target: self.state.origin(),
                after: process.group().kill_grace(),
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
        let deadline = process.group().acquire_deadline(None);
        let resized = process.channel().sender.resize(columns, rows);
        let resized = async { tokio::time::timeout_at(deadline.at.into(), resized).await };
        match within(process.group().runtime(), resized).await {
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
            stdin.abort();
        }
    }
}

impl Running {
    /// For errors.
    fn origin(&self) -> Origin {
        Origin::from(self.process.group().name()).after(&self.begun.waited)
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

    /// The result that the caller gets.
    #[cfg(feature = "metrics")]
    fn count<T>(&mut self, told: &Result<T, Error>) {
        self.begun.counted.end(told, &self.begun.waited);
    }

    /// Waits until it has ended, or is left alone: when its deadline has passed.
    async fn end(&self) -> Option<Deadline> {
        let receiver = &self.process.channel().receiver;
        let end = async {
            match self.exit_grace {
                None => receiver.ended().await,
                Some(grace) => {
                    receiver.exited_and_tagged().await;
                    if tokio::time::timeout(grace, receiver.ended()).await.is_err() {
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
            let (group, after) = (self.process.group(), deadline.after);
            let left = run::timed_out(group, Phase::Running, after, TerminationOutcome::Unknown);
            let left = Err(left.having_waited(&self.begun.waited));
            self.ended = Some(left.clone());
            return left;
        }
        let receiver = &self.process.channel().receiver;
        for (stream, copy) in &mut self.copies {
            if !receiver.has_ended() {
                // The grace is over for copies as well.
                receiver.leave(*stream);
            }
            copy.done().await;
        }
        let group = self.process.group();
        let timed_out = |deadline: &Deadline, outcome| {
            Err(run::timed_out(
                group,
                Phase::Running,
                deadline.after,
                outcome,
            ))
        };
        let late = self.missed.get();
        let ended = match (self.process.classify(self.stream_limit).await, late) {
            (ProcessEnd::Done(status), None) => Ok(status),
            (
                ProcessEnd::Done(_) | ProcessEnd::Failed(Error::Unproven { .. }),
                Some((deadline, outcome)),
            ) => {
                // What has to be looked for is known a moment after the end of the channel.
                let outcome = outcome.clone().await;
                timed_out(deadline, outcome.unwrap_or(TerminationOutcome::Unknown))
            }
            (ProcessEnd::Failed(Error::ClosedWithoutStatus { .. }), Some((deadline, _))) => {
                timed_out(deadline, TerminationOutcome::Unknown)
            }
            (ProcessEnd::Failed(error), _) => Err(error),
            (ProcessEnd::NeverStarted, _) => Err(Error::ClosedWithoutStatus {
                target: group.name().into(),
            }),
        };
        let ended = ended.map_err(|error| error.having_waited(&self.begun.waited));
        self.process.set_over();
        self.ended = Some(ended.clone());
        ended
    }
}
