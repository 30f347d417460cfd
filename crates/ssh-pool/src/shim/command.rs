//! A program on this machine whose `ssh` is the pool.

use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::broker::{self, Broker, ErrorLog};
use super::error::Error;
use super::hosts::Hosts;
use super::message::{DESCRIPTOR, VARIABLE, address};

/// Makes a program take the shim for its ssh.
pub(crate) type SetUpShim =
    Arc<dyn Fn(&mut std::process::Command) -> Result<ShimSetup, Error> + Send + Sync>;

/// How the program will know the shim.
pub(crate) struct ShimSetup {
    /// Under this name it will run it.
    pub(crate) name: OsString,
    /// What has to stay as long as the program.
    pub(crate) keep: Option<Box<dyn Any + Send + Sync>>,
}

/// The program that is to be the shim: this one, unless another is named.
pub(crate) fn file(named: Option<&PathBuf>) -> Result<PathBuf, Error> {
    match named {
        Some(named) => Ok(named.clone()),
        None => std::env::current_exe().map_err(|source| Error::OwnFile { source }),
    }
}

/// A program on this machine, built like `tokio::process::Command`, that reaches its hosts through
/// the pool. From `Git::command` and `docker::Cli::command`.
///
/// It can be run several times; a [`Stdio`] that was set is used up by the first.
///
/// ```no_run
/// # #[cfg(all(unix, feature = "git"))]
/// # async fn example(git: ssh_pool::git::Git) -> Result<(), Box<dyn std::error::Error>> {
/// let mut fetch = git.command();
/// fetch.args(["fetch", "--quiet"]).current_dir("/srv/app");
/// assert!(fetch.status().await?.success());
/// # Ok(())
/// # }
/// ```
pub struct Command {
    program: &'static str,
    arguments: Vec<OsString>,
    /// `None` takes a variable away.
    env: Vec<(OsString, Option<OsString>)>,
    current_dir: Option<PathBuf>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    hosts: Arc<Hosts>,
    set_up_shim: SetUpShim,
}

/// Shows the program and how many arguments there are: they may hold secrets.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

impl Command {
    pub(crate) fn new(program: &'static str, hosts: Arc<Hosts>, set_up_shim: SetUpShim) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            env: Vec::new(),
            current_dir: None,
            stdin: None,
            stdout: None,
            stderr: None,
            hosts,
            set_up_shim,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<A: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = A>) -> &mut Self {
        for argument in arguments {
            self.arg(argument);
        }
        self
    }

    /// Sets an environment variable. The others are inherited. What makes the pool its ssh is set
    /// after these.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let value = Some(value.as_ref().to_owned());
        self.env.push((name.as_ref().to_owned(), value));
        self
    }

    /// Takes a variable out of the environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Runs the program in this folder.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.current_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Its standard input. Default: inherited; nothing for [`output`](Command::output).
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Its standard output. Default: inherited; collected by [`output`](Command::output).
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Its standard error. Default: inherited; collected by [`output`](Command::output).
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] when there is no such program, [`Error::Prepare`] when there are no
    /// descriptors left, or the pool has ended with its runtime.
    pub fn spawn(&mut self) -> Result<Child, Error> {
        // The caller's runtime may end before the program does, and there may be none.
        let hosts = self.hosts.clone();
        let _entered = hosts.enter();
        let troubles = ErrorLog::default();
        let (broker, socket) = broker::start(self.hosts.clone(), troubles.clone())
            .map_err(|source| Error::Prepare { source })?;
        let mut command = std::process::Command::new(self.program);
        command.args(&self.arguments);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        let set = [
            (
                self.stdin.take(),
                std::process::Command::stdin as fn(&mut _, Stdio) -> &mut _,
            ),
            (self.stdout.take(), std::process::Command::stdout),
            (self.stderr.take(), std::process::Command::stderr),
        ];
        for (stdio, setter) in set {
            if let Some(stdio) = stdio {
                setter(&mut command, stdio);
            }
        }
        let ShimSetup { name, keep } = (self.set_up_shim)(&mut command)?;
        command.env(VARIABLE, address(&name));
        // Done in the child, so that no other child of this process gets it too.
        let mapping = FdMapping {
            parent_fd: socket,
            child_fd: DESCRIPTOR,
        };
        command
            .fd_mappings(vec![mapping])
            .map_err(|error| Error::Prepare {
                source: std::io::Error::other(error),
            })?;
        // Dropped with the command, our copy of the socket leaves it to the program alone: when
        // that and its children have gone, the broker ends.
        let spawned = tokio::process::Command::from(command).spawn();
        let mut process = spawned.map_err(|source| Error::Start {
            program: self.program.to_owned(),
            source,
        })?;
        Ok(Child {
            stdin: process.stdin.take(),
            stdout: process.stdout.take(),
            stderr: process.stderr.take(),
            process: Process {
                child: process,
                broker,
                _keep: keep,
            },
            program: self.program,
            troubles,
        })
    }

    /// Runs the program to its end and collects its output.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Command::spawn) and [`Error::Wait`]. A program that fails is none: look
    /// at [`Output::status`], and at [`Output::troubles`] for what went wrong with its hosts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the program, as dropping the [`Child`] does.
    pub fn output(&mut self) -> impl Future<Output = Result<Output, Error>> + Send + use<> {
        self.stdin.get_or_insert_with(Stdio::null);
        self.stdout.get_or_insert_with(Stdio::piped);
        self.stderr.get_or_insert_with(Stdio::piped);
        let child = self.spawn();
        async move { child?.wait_with_output().await }
    }

    /// Runs the program to its end, with the streams of this process unless others were set.
    ///
    /// # Errors and cancel safety
    ///
    /// As for [`output`](Command::output).
    pub fn status(&mut self) -> impl Future<Output = Result<ExitStatus, Error>> + Send + use<> {
        let child = self.spawn();
        async move { child?.wait().await }
    }
}

/// How a program ended, what it wrote, and what went wrong with its hosts meanwhile.
///
/// ```no_run
/// # #[cfg(all(unix, feature = "git"))]
/// # async fn example(git: ssh_pool::git::Git) -> Result<(), Box<dyn std::error::Error>> {
/// let output = git.command().args(["push", "origin", "main"]).output().await?;
/// if !output.status.success() {
///     eprintln!("{}", String::from_utf8_lossy(&output.stderr)); // git's own words
/// }
/// for trouble in &output.troubles {
///     eprintln!("{trouble}"); // why it had no connection, by type
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// What went wrong between the program and its hosts, in order. The program has been told too,
    /// in words; this is the same by type.
    pub troubles: Vec<Error>,
}

/// A program that runs.
///
/// Dropped before it has ended, it gets `SIGTERM`, on which git removes its lock files and what
/// there is of a clone; it is not waited for. What it has begun on servers is ended too.
///
/// ```no_run
/// # #[cfg(all(unix, feature = "git"))]
/// # async fn example(git: ssh_pool::git::Git) -> Result<(), Box<dyn std::error::Error>> {
/// let mut clone = git.command().args(["clone", "ssh://git@web-1/srv/app.git"]).spawn()?;
/// let status = clone.wait().await?;
/// println!("{status}, {} troubles", clone.troubles().len());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a child ends its program: wait for it"]
#[derive(Debug)]
#[non_exhaustive]
pub struct Child {
    /// Its standard input, if that is piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that is piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if that is piped.
    pub stderr: Option<ChildStderr>,
    process: Process,
    program: &'static str,
    troubles: ErrorLog,
}

/// A process that does not outlive this.
struct Process {
    child: tokio::process::Child,
    broker: Broker,
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.child.id()).finish()
    }
}

impl Process {
    fn terminate(&self) {
        // Without a number it has been waited for: the number may be another's by now.
        let Some(id) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
        else {
            return;
        };
        if let Err(error) = kill_process(id, Signal::TERM) {
            tracing::debug!(%error, "a program could not be told to end");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.terminate();
            // What it has begun on a server does not always notice.
            self.broker.cut();
        }
    }
}

impl Child {
    /// Its process id, until it has been waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// Closes its standard input and waits until it has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Wait`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, but standard input is closed.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        drop(self.stdin.take());
        let status = self.process.child.wait().await;
        status.map_err(|source| self.lost(source))
    }

    /// Closes its standard input, reads what is piped, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Wait`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the child, which ends it.
    pub async fn wait_with_output(mut self) -> Result<Output, Error> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (self.stdout.take(), self.stderr.take());
        let read =
            async { tokio::try_join!(read_all(out, &mut stdout), read_all(err, &mut stderr)) };
        let (read, status) = tokio::join!(read, self.wait());
        let status = status?;
        if let Err(source) = read {
            return Err(self.lost(source));
        }
        Ok(Output {
            status,
            stdout,
            stderr,
            troubles: self.troubles.take(),
        })
    }

    /// What has gone wrong between the program and its hosts since this was asked last.
    pub fn troubles(&mut self) -> Vec<Error> {
        self.troubles.take()
    }

    /// Asks the program to end (`SIGTERM`). Wait for it then.
    pub fn terminate(&mut self) {
        self.process.terminate();
    }

    fn lost(&self, source: std::io::Error) -> Error {
        Error::Wait {
            program: self.program.to_owned(),
            source,
        }
    }
}

async fn read_all(
    stream: Option<impl tokio::io::AsyncRead + Unpin>,
    into: &mut Vec<u8>,
) -> std::io::Result<()> {
    if let Some(mut stream) = stream {
        tokio::io::AsyncReadExt::read_to_end(&mut stream, into).await?;
    }
    Ok(())
}
