//! Running a command, and what comes of it.

use std::future::Future;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Command;
use super::line::CommandText;
use super::stdio::{Input, Stdio, StdioKind};
use crate::child::{self, Child, Spawn};
use crate::error::{Error, Stream};
use crate::output::{ExitStatus, Output};
use crate::process::ExecRequest;
use crate::receiver::Sink;
use crate::run::{self, BufferedExec};
use crate::transport::Request;

impl Command {
    /// Runs the command and collects what it writes.
    ///
    /// A stream that is [null](Stdio::null) is thrown away, and one that is
    /// [inherited](Stdio::inherit) is shown as it comes; in the [`Output`] both are empty. With an
    /// inherited stream, which may be slow, the command runs as one that is
    /// [spawned](Command::spawn).
    ///
    /// An exit status other than 0 is not an error: look at [`Output::status`]. Nor is a program
    /// that does not exist: the remote shell says so on standard error and exits with 127.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for input that no command line can carry, or that is longer than the
    /// server takes; everything of a dial while there is no connection; [`Error::Timeout`] when no channel is free in time, and
    /// [`Error::QueueFull`] when too many wait for one already;
    /// [`Error::OutputLimit`] past the cap of `Limits::output_bytes` a stream, which ends the
    /// command;
    /// [`Error::ConnectionLost`] and [`Error::ClosedWithoutStatus`] when the outcome is unknown;
    /// [`Error::Unproven`] when something else ran in its place.
    /// [`Error::ExecRefused`] when the server does not run it; [`Error::Closed`] after `Pool::close`.
    /// What fails before the command is sent is tried again on another connection within the
    /// deadline, until two live connections have ended under it; what fails after it is never run again, unless it is
    /// [`idempotent`](Command::idempotent).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it waits costs nothing; dropping it while the command runs
    /// [ends](Command#cancelling) the remote process in the background. Neither loses a session.
    pub fn output(&mut self) -> impl Future<Output = Result<Output, Error>> + Send + use<> {
        let pools = self.context.pools.clone();
        let mut run = if self.inherits() {
            let child = self.child(Unset::Piped);
            Run::Child(async { child.await?.wait_with_output().await }.boxed())
        } else {
            Run::Buffered(self.buffered_exec(Sink::Collect(self.context.output_limit)))
        };
        async move {
            match &mut run {
                Run::Buffered(exec) => run::run(&pools, pools.shared(), exec).await,
                Run::Child(output) => output.await,
            }
        }
    }

    /// Runs the command and keeps only how it ended. Its output is thrown away as it comes, so
    /// there is no cap on it, unless it is [inherited](Stdio::inherit). [`Stdio::piped`] is the same
    /// as [`Stdio::null`] here: there is no reader.
    ///
    /// # Errors and cancel safety
    ///
    /// As for [`output`](Command::output).
    pub fn status(&mut self) -> impl Future<Output = Result<ExitStatus, Error>> + Send + use<> {
        let pools = self.context.pools.clone();
        let mut run = if self.inherits() {
            let child = self.child(Unset::Null);
            Run::Child(async { child.await?.wait().await }.boxed())
        } else {
            Run::Buffered(self.buffered_exec(Sink::Discard))
        };
        async move {
            match &mut run {
                Run::Buffered(exec) => Ok(run::run(&pools, pools.shared(), exec).await?.status),
                Run::Child(status) => status.await,
            }
        }
    }

    /// Starts the command, and returns when the server has accepted it. Its streams are the
    /// caller's: see [`Child`], which has to be waited for.
    ///
    /// Streams that are not set are piped, also where `std::process` and the crate `openssh` inherit
    /// them.
    ///
    /// It gets an isolated connection, of `Limits::isolated_per_host`; without a free one it waits, up
    /// to `Timeouts::acquire`. See [`shared`](Command::shared), [`StreamGroup`](crate::StreamGroup).
    ///
    /// # Errors
    ///
    /// As for [`output`](Command::output), as far as they come before the command runs;
    /// [`Error::StreamLimit`] when other streams fill the limit for as long as it waits;
    /// [`Error::InvalidInput`] for an [`idempotent`](Command::idempotent) command.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it waits costs nothing; once the command has been sent, it is
    /// [ended](Command#cancelling).
    pub fn spawn(&mut self) -> impl Future<Output = Result<Child, Error>> + Send + use<> {
        self.child(Unset::Piped)
    }

    /// Whether a stream is that of this process, which may be slow to read or write.
    fn inherits(&self) -> bool {
        let set = [&self.stdin, &self.stdout, &self.stderr];
        let mut set = set.into_iter().flatten();
        set.any(|stdio| matches!(stdio.0, StdioKind::Inherit))
    }

    fn child(&self, unset: Unset) -> impl Future<Output = Result<Child, Error>> + Send + use<> {
        let pools = self.context.pools.clone();
        let (spawn, shared) = (self.spawned(unset), self.shared);
        async move { child::spawn(&pools, pools.of_stream(shared), spawn?).await }
    }

    /// A command without inherited streams. What is not set or piped is for `sink`.
    fn buffered_exec(&self, sink: Sink) -> Result<BufferedExec, Error> {
        let (line, stdin) = self.request()?;
        let stdin = match stdin.into() {
            Input::Bytes(bytes) => bytes,
            Input::Piped | Input::Inherit => {
                return Err(Error::InvalidInput {
                    what: "stdin",
                    reason: "a stream is fed while the command runs: use spawn".into(),
                });
            }
        };
        let sink = |stdio: &Option<Stdio>| match stdio.as_ref().map(|stdio| &stdio.0) {
            None | Some(StdioKind::Piped | StdioKind::Inherit) => Ok(sink),
            Some(StdioKind::Null) => Ok(Sink::Discard),
            Some(StdioKind::Bytes(_)) => Err(not_an_output()),
        };
        let (stdout, stderr) = (sink(&self.stdout)?, sink(&self.stderr)?);
        Ok(BufferedExec {
            exec_request: self.exec_request(line, stdout, stderr),
            stdin,
            timeout: self.timeout,
            idempotent: self.idempotent,
            exit_grace: self.exit_grace,
            limit: self.context.output_limit,
            stream_group: self.context.stream_group.clone(),
        })
    }

    fn spawned(&self, unset: Unset) -> Result<Spawn, Error> {
        if self.idempotent {
            return Err(Error::InvalidInput {
                what: "spawn",
                reason: "an idempotent command may be run again, and streams cannot begin anew: \
                         use output or status, and inherit no stream"
                    .into(),
            });
        }
        let (line, stdin) = self.request()?;
        let cap = self.shared.then_some(self.context.stream_limit);
        let (mut piped, mut inherited) = (Vec::new(), Vec::new());
        let mut sink = |stream, stdio: &Option<Stdio>| {
            match (stdio.as_ref().map(|stdio| &stdio.0), unset) {
                (Some(StdioKind::Null), _) | (None | Some(StdioKind::Piped), Unset::Null) => {
                    return Ok(Sink::Discard);
                }
                (None | Some(StdioKind::Piped), Unset::Piped) => piped.push(stream),
                (Some(StdioKind::Inherit), _) => inherited.push(stream),
                (Some(StdioKind::Bytes(_)), _) => return Err(not_an_output()),
            }
            Ok(Sink::Read(cap))
        };
        let stdout = sink(Stream::Stdout, &self.stdout)?;
        let stderr = sink(Stream::Stderr, &self.stderr)?;
        Ok(Spawn {
            exec_request: self.exec_request(line, stdout, stderr),
            stdin: stdin.into(),
            inherited,
            piped,
            timeout: self.timeout,
            exit_grace: self.exit_grace,
            stream_limit: self.context.stream_limit,
            output_limit: self.context.output_limit,
            shared: self.shared,
            stream_group: self.context.stream_group.clone(),
        })
    }

    fn exec_request(&self, line: CommandText, stdout: Sink, stderr: Sink) -> ExecRequest {
        let variables = self.env.iter();
        let variable = variables.map(|(name, value)| name.len() + 1 + value.len());
        ExecRequest {
            length: variable.fold(line.exports + line.text.len(), usize::max),
            request: Request::Exec(line.text),
            env: self.env.clone(),
            pty: self.pty.clone(),
            stdout,
            stderr,
            detached: self.detached,
            verbatim: self.verbatim,
            in_folder: self.current_dir.is_some(),
        }
    }
}

/// How a command is run whose end is waited for.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every command is the large one, and would pay for a box"
)]
enum Run<T> {
    /// On a shared connection: everything is taken off it as it comes.
    Buffered(Result<BufferedExec, Error>),
    /// As a child, because a stream of this process may be slow. In a box: seldom, and every command
    /// that waits would have room for it.
    Child(BoxFuture<'static, Result<T, Error>>),
}

/// What becomes of an output stream that is not set, or piped.
#[derive(Clone, Copy)]
enum Unset {
    Piped,
    Null,
}

fn not_an_output() -> Error {
    Error::InvalidInput {
        what: "output stream",
        reason: "bytes are input: use null, piped or inherit".into(),
    }
}
