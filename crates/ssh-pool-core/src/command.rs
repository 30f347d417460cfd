//! A remote command, built like `std::process::Command`.

use std::ffi::OsStr;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::hub::Hub;
use crate::output::{ExitStatus, Output};
use crate::quote;
use crate::run::{self, Job};

/// What a command reads from its standard input.
///
/// `Debug` shows how much it is, not what it is: it may be a secret.
#[derive(Clone, Default)]
pub struct Stdio(Bytes);

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stdio({} bytes)", self.0.len())
    }
}

impl Stdio {
    /// Nothing: the command sees the end of its input at once. The default.
    #[must_use]
    pub fn null() -> Self {
        Self::default()
    }
}

impl From<Vec<u8>> for Stdio {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Stdio {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&[u8]> for Stdio {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Stdio {
    fn from(bytes: &[u8; N]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<&Vec<u8>> for Stdio {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&String> for Stdio {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&str> for Stdio {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

#[derive(Clone)]
enum Body {
    /// Quoted words.
    Words(Vec<u8>),
    /// A line as it is.
    Line(Vec<u8>),
    /// An interpreter that reads `text` from its standard input, and its quoted arguments.
    Script {
        interpreter: Option<Vec<u8>>,
        arguments: Vec<u8>,
        text: Bytes,
    },
}

/// A command for one host: nothing happens before [`output`](Command::output) or
/// [`status`](Command::status).
///
/// The remote user's login shell runs it (sshd(8)); quoting is for a POSIX shell. The command gets
/// a session channel of its own, without a terminal, on a connection that others use too.
///
/// A command is a description: it can be run several times, and each run is a new process.
///
/// Dropping the future of a running command asks the remote process to terminate (`SIGTERM`
/// through RFC 4254, section 6.9). sshd passes signals on for ordinary users; for root only since
/// OpenSSH 10.0, and never for forced commands: there the process runs on until it ends, and its
/// session counts as used until then.
#[derive(Clone)]
pub struct Command {
    hub: Arc<Hub>,
    output_cap: usize,
    body: Body,
    env: Vec<(String, Vec<u8>)>,
    current_dir: Option<Vec<u8>>,
    stdin: Option<Stdio>,
    timeout: Option<Duration>,
    /// The first thing that was wrong with the input.
    problem: Option<Error>,
}

/// Shows the host and what kind of command it is: arguments, environment and input may be secrets.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.body {
            Body::Words(_) => "command",
            Body::Line(_) => "shell",
            Body::Script { .. } => "script",
        };
        f.debug_struct("Command")
            .field("host", self.hub.name())
            .field("kind", &kind)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Command {
    pub(crate) fn program(hub: Arc<Hub>, output_cap: usize, program: &OsStr) -> Self {
        let mut command = Self::new(hub, output_cap, Body::Words(Vec::new()));
        command.arg(program);
        command
    }

    pub(crate) fn line(hub: Arc<Hub>, output_cap: usize, line: &OsStr) -> Self {
        Self::new(
            hub,
            output_cap,
            Body::Line(line.as_encoded_bytes().to_vec()),
        )
    }

    pub(crate) fn script(hub: Arc<Hub>, output_cap: usize, text: Vec<u8>) -> Self {
        let body = Body::Script {
            interpreter: None,
            arguments: Vec::new(),
            text: text.into(),
        };
        Self::new(hub, output_cap, body)
    }

    fn new(hub: Arc<Hub>, output_cap: usize, body: Body) -> Self {
        Self {
            hub,
            output_cap,
            body,
            env: Vec::new(),
            current_dir: None,
            stdin: None,
            timeout: None,
            problem: None,
        }
    }

    /// Adds an argument, quoted: the program gets these bytes, whatever they are. A NUL byte is
    /// reported as [`Error::InvalidInput`] when the command is run.
    ///
    /// After [`Host::script`](crate::Host::script) it is a positional parameter of the script.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.push(arg.as_ref(), true);
        self
    }

    /// Adds several arguments, each quoted.
    pub fn args<A: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = A>) -> &mut Self {
        for arg in args {
            self.arg(arg);
        }
        self
    }

    /// Adds text to the command line as it is: the remote shell expands and splits it. After
    /// [`Host::script`](crate::Host::script) it goes to the script's arguments.
    pub fn raw_arg(&mut self, text: impl AsRef<OsStr>) -> &mut Self {
        self.push(text.as_ref(), false);
        self
    }

    fn push(&mut self, arg: &OsStr, quoted: bool) {
        let bytes = arg.as_encoded_bytes();
        let line = match &mut self.body {
            Body::Words(line) | Body::Line(line) => line,
            Body::Script { arguments, .. } => arguments,
        };
        if !line.is_empty() {
            line.push(b' ');
        }
        if !quoted {
            line.extend_from_slice(bytes);
        } else if let Err(problem) = quote::push_word(line, bytes, "argument") {
            self.problem.get_or_insert(problem);
        }
    }

    /// Sets an environment variable of the command, through its shell (`export NAME=value`), so
    /// that no `AcceptEnv` is needed. The value is part of the command line: other users of the
    /// server can read it in the process list; pass secrets through [`stdin`](Command::stdin).
    ///
    /// A name that a shell cannot assign to is reported as [`Error::InvalidInput`].
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        // A name that is not UTF-8 is refused with the other impossible ones.
        let name = name.as_ref().to_string_lossy().into_owned();
        let value = value.as_ref().as_encoded_bytes().to_vec();
        self.env.push((name, value));
        self
    }

    /// Sets several environment variables, each as [`env`](Command::env) does.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Runs the command in this folder; a relative one is below the login folder, and `~` is not
    /// expanded. If it cannot be
    /// entered, the command does not run, and the exit status and standard error are those of the
    /// shell's `cd`.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.current_dir = Some(dir.as_ref().as_os_str().as_encoded_bytes().to_vec());
        self
    }

    /// What the command reads: [`Stdio::null`], or bytes. A command need not read all of it. A
    /// script is itself read from standard input, so for one this is [`Error::InvalidInput`].
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// The interpreter of a [`script`](crate::Host::script), as a shell line: `bash -s`,
    /// `python3 -`. It must read its program from standard input. Default: `sh -se`.
    pub fn interpreter(&mut self, line: impl AsRef<OsStr>) -> &mut Self {
        match &mut self.body {
            Body::Script { interpreter, .. } => {
                *interpreter = Some(line.as_ref().as_encoded_bytes().to_vec());
            }
            Body::Words(_) | Body::Line(_) => {
                self.problem.get_or_insert(Error::InvalidInput {
                    what: "interpreter",
                    reason: "only a script has one: use Host::script".into(),
                });
            }
        }
        self
    }

    /// A deadline for the whole call, queue and dial included. When it passes, the error's
    /// `command_state` says whether the command had been sent; one that had is treated as if its
    /// future had been dropped. Default: none for the command, `Timeouts::acquire` for the wait
    /// before it; a longer timeout here does not lengthen that wait.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = Some(timeout);
        self
    }

    /// Runs the command and collects what it writes.
    ///
    /// An exit status other than 0 is not an error: look at [`Output::status`]. Nor is a program
    /// that does not exist: the remote shell says so on standard error and exits with 127.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for input that no command line can carry; everything of a dial
    /// while there is no connection; [`Error::Timeout`] when no channel is free in time;
    /// [`Error::OutputLimit`] past the cap of `Limits::output_bytes` a stream, which also replaces
    /// the connection and so costs a login;
    /// [`Error::ConnectionLost`] and [`Error::ClosedWithoutStatus`] when the outcome is unknown.
    /// [`Error::ExecRefused`] when the server does not run it; [`Error::Closed`] after `Pool::close`.
    /// What fails before the command is sent is tried again on another connection within the
    /// deadline; what fails after it is never run again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it waits costs nothing; dropping it while the command runs asks
    /// the remote process to terminate. Neither loses a session.
    pub fn output(&mut self) -> impl Future<Output = Result<Output, Error>> + Send + use<> {
        let hub = self.hub.clone();
        let job = self.job();
        async move { run::run(hub, job?).await }
    }

    /// Runs the command and keeps only how it ended. Its output is thrown away as it comes, so
    /// there is no cap on it.
    ///
    /// # Errors and cancel safety
    ///
    /// As for [`output`](Command::output).
    pub fn status(&mut self) -> impl Future<Output = Result<ExitStatus, Error>> + Send + use<> {
        let hub = self.hub.clone();
        let job = self.job().map(|job| Job {
            output_cap: None,
            ..job
        });
        async move { Ok(run::run(hub, job?).await?.status) }
    }

    fn job(&self) -> Result<Job, Error> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        let mut line = Vec::new();
        for (name, value) in &self.env {
            quote::push_env(&mut line, name, value)?;
        }
        if let Some(dir) = &self.current_dir {
            quote::push_current_dir(&mut line, dir)?;
        }
        let mut stdin = self.stdin.clone();
        match &self.body {
            Body::Words(words) | Body::Line(words) => line.extend_from_slice(words),
            Body::Script {
                interpreter,
                arguments,
                text,
            } => {
                if stdin.replace(Stdio(text.clone())).is_some() {
                    return Err(Error::InvalidInput {
                        what: "stdin",
                        reason: "a script is read from it: pass data as arguments".into(),
                    });
                }
                // -s reads the script from stdin, -e stops at the first failure.
                line.extend_from_slice(interpreter.as_deref().unwrap_or(b"sh -se"));
                if !arguments.is_empty() {
                    let separator: &[u8] = if interpreter.is_none() { b" -- " } else { b" " };
                    line.extend_from_slice(separator);
                    line.extend_from_slice(arguments);
                }
            }
        }
        check_line(&line)?;
        Ok(Job {
            line,
            stdin: stdin.unwrap_or_default().0,
            timeout: self.timeout,
            output_cap: Some(self.output_cap),
        })
    }
}

fn check_line(line: &[u8]) -> Result<(), Error> {
    let reason = if line.is_empty() {
        "it is empty: a server would start an interactive shell".to_owned()
    } else if line.contains(&0) {
        "it contains a NUL byte, which no command line can carry".to_owned()
    } else if line.len() > quote::LONGEST_LINE {
        format!(
            "it is {} bytes long, and a shell takes {} at most: use Host::script, or stdin",
            line.len(),
            quote::LONGEST_LINE
        )
    } else {
        return Ok(());
    };
    Err(Error::InvalidInput {
        what: "command line",
        reason,
    })
}
