//! A remote command, built like `std::process::Command`.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use crate::child::Child;
use crate::error::Error;
use crate::host_pools::HostPools;
#[cfg(doc)]
use crate::output::Output;
use crate::pty::Pty;
use crate::quote;
use crate::stream_group::StreamGroup;

mod execution;
mod line;
mod stdio;

use line::Body;
pub(crate) use stdio::Input;
pub use stdio::Stdio;

/// Where a command runs, and what holds there.
#[derive(Clone)]
pub(crate) struct CommandContext {
    pub(crate) pools: Arc<HostPools>,
    pub(crate) stream_group: Option<StreamGroup>,
    pub(crate) output_limit: usize,
    pub(crate) stream_limit: usize,
}

/// A command for one host: nothing happens before [`output`](Command::output),
/// [`status`](Command::status) or [`spawn`](Command::spawn).
///
/// The remote user's login shell runs it (sshd(8)), or `sh` where that is no POSIX shell (fish, csh).
/// Without a sign that it ran it is [`Error::Unproven`]: an account with a forced command, or without
/// a shell, needs [`verbatim`](Command::verbatim). The command gets a session channel of its own,
/// without a terminal. What `output` and `status` run shares a connection with others; what `spawn`
/// runs has one to itself, unless it is [`shared`](Command::shared).
///
/// A command is a description: it can be run several times, and each run is a new process.
///
/// # Cancelling
///
/// Dropping the future of a command, dropping or [killing](Child::kill) its child, and its
/// [`timeout`](Command::timeout) all end the remote process: `SIGTERM` to its process group,
/// `SIGKILL` after `Timeouts::kill_grace`, and if the server has not closed the channel three
/// seconds after that, it is closed from this end, which the process notices when it reads or writes. A
/// process that has left the group (`setsid`, a daemon) lives on.
///
/// The signals are requests of the protocol (RFC 4254, section 6.9), where the server passes them
/// on to the group: OpenSSH does for ordinary users, and since 10.0 for root. For **root on an
/// older OpenSSH, and on dropbear**, the command's processes inherit a variable, `SSH_POOL_MARK`.
/// Cancelling then runs a short script in a session of its own, on a connection for such scripts (one
/// more login the first time), that finds the process group by the mark in `/proc` and signals it.
/// Nothing is signalled by number alone. On dropbear a process that has cleared its environment may
/// live on; then the command does not count as killed. A forced command, which is not the line that
/// we send, cannot be signalled at all there: its channel is closed after the grace. Nor can a process
/// of another user (`sudo`, `su -c`) where the login user may not signal it. There, and where a limit
/// has to hold without this program, let the server count: `timeout 5 cmd`, `sudo timeout 5 cmd`.
///
/// [`detach`](Command::detach) leaves the process alone.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(host: ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let mut command = host.command("docker");
/// command
///     .args(["compose", "up", "--detach"])
///     .current_dir("/srv/app")
///     .env("COMPOSE_PROJECT_NAME", "app")
///     .timeout(Duration::from_secs(120));
/// command.output().await?.exit_ok()?;
///
/// let count = host.shell("ps -e | wc -l").output().await?; // as it is, for the shell
/// println!("{} processes", count.stdout_lossy().trim());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Command {
    context: CommandContext,
    body: Body,
    env: Vec<(String, Vec<u8>)>,
    current_dir: Option<Vec<u8>>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    pty: Option<Pty>,
    timeout: Option<Duration>,
    exit_grace: Option<Duration>,
    shared: bool,
    detached: bool,
    verbatim: bool,
    idempotent: bool,
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
            .field("host", self.context.pools.shared().name())
            .field("kind", &kind)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Command {
    pub(crate) fn program(context: CommandContext, program: &OsStr) -> Self {
        let mut command = Self::new(context, Body::Words(Vec::new()));
        command.arg(program);
        command
    }

    pub(crate) fn line(context: CommandContext, line: &OsStr) -> Self {
        Self::new(context, Body::Line(line.as_encoded_bytes().to_vec()))
    }

    pub(crate) fn script(context: CommandContext, text: Vec<u8>) -> Self {
        let body = Body::Script {
            interpreter: None,
            arguments: Vec::new(),
            text: text.into(),
        };
        Self::new(context, body)
    }

    fn new(context: CommandContext, body: Body) -> Self {
        Self {
            context,
            body,
            env: Vec::new(),
            current_dir: None,
            stdin: None,
            stdout: None,
            stderr: None,
            pty: None,
            timeout: None,
            exit_grace: None,
            shared: false,
            detached: false,
            verbatim: false,
            idempotent: false,
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

    /// Sets an environment variable of the command: by a request of the protocol (RFC 4254, section
    /// 6.4) where the server takes it (sshd's `AcceptEnv`), and through the shell otherwise
    /// (`export NAME=value`). Whether it takes a name is asked once a connection, for a round trip.
    /// In the command line other users of the server can read the value (process list): pass secrets
    /// through [`stdin`](Command::stdin).
    ///
    /// Names that a shell cannot assign to, or keeps for itself (`UID`), are [`Error::InvalidInput`].
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        // A name that is not UTF-8 is refused with the other impossible ones.
        let name = name.as_ref().to_string_lossy().into_owned();
        let value = value.as_ref().as_encoded_bytes().to_vec();
        // Two values of one name may go different ways, and then the first could win.
        self.env.retain(|(other, _)| *other != name);
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
    /// expanded. If it cannot be entered, the command does not run, and the exit status and standard
    /// error are those of the shell's `cd`.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.current_dir = Some(dir.as_ref().as_os_str().as_encoded_bytes().to_vec());
        self
    }

    /// What the command reads: [`Stdio::null`], the default; bytes; [`Stdio::inherit`]; and for
    /// [`spawn`](Command::spawn) also [`Stdio::piped`]. A command need not read all of it. A script is
    /// itself read from standard input, so for one this is [`Error::InvalidInput`].
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Where the standard output of the command goes. Default: for [`spawn`](Command::spawn)
    /// [`Stdio::piped`]; [`output`](Command::output) collects it, and [`status`](Command::status)
    /// throws it away.
    pub fn stdout(&mut self, stdout: Stdio) -> &mut Self {
        self.stdout = Some(stdout);
        self
    }

    /// Where the standard error of the command goes. Default: as for [`stdout`](Command::stdout).
    ///
    /// A command that writes more than about 1 MiB to a piped stream waits until it is read; a
    /// [`shared`](Command::shared) one is cut off. Of a [`spawn`](Command::spawn)ed one read both streams,
    /// or set the other one to [`Stdio::inherit`] or [`Stdio::null`].
    pub fn stderr(&mut self, stderr: Stdio) -> &mut Self {
        self.stderr = Some(stderr);
        self
    }

    /// Runs the command on a terminal. Its standard error arrives on standard output.
    pub fn pty(&mut self, pty: Pty) -> &mut Self {
        self.pty = Some(pty);
        self
    }

    /// Lets a spawned command share a connection with others. What it writes is always taken off
    /// the connection; if more than `Limits::stream_bytes` of a stream wait to be read, that stream
    /// ends with [`Error::OutputLimit`], and so does the command. Right for many light streams,
    /// such as log tails. Default: it has a connection of its own, and a reader that does not read
    /// holds up that command only.
    pub fn shared(&mut self) -> &mut Self {
        self.shared = true;
        self
    }

    /// Leaves the remote process alone when no caller waits for it any more: dropping the future or
    /// the child, and the time-out, signal nothing and close nothing. Its session counts as used
    /// until it ends, and its output is thrown away.
    pub fn detach(&mut self) -> &mut Self {
        self.detached = true;
        self
    }

    /// Sends the command line as it is, with nothing before it: for accounts that do not run it in a
    /// shell but look at it, such as those of git servers (`git-shell`, a forced command that reads
    /// `SSH_ORIGINAL_COMMAND`).
    ///
    /// Environment variables go by a request of the protocol alone, as ssh's `SendEnv`: a server
    /// that does not take one (sshd's `AcceptEnv`) leaves it out without an error. Where a command
    /// is [ended](Command#cancelling) by a mark on its line, this one has none: its channel is
    /// closed after the grace. A [`current_dir`](Command::current_dir) is [`Error::InvalidInput`],
    /// and so is a value that is not UTF-8.
    pub fn verbatim(&mut self) -> &mut Self {
        self.verbatim = true;
        self
    }

    /// How long after the exit status to wait for the end of the output. A background process may
    /// hold it open (`sleep 300 & echo started`), and the server closes the channel only when no
    /// process does. Default: for as long as it takes. Zero: not at all, which may lose the last
    /// bytes.
    ///
    /// When the time is over, the command has ended with what has arrived, its channel is closed,
    /// and the background process lives on.
    pub fn exit_grace(&mut self, grace: Duration) -> &mut Self {
        self.exit_grace = Some(grace);
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
    /// `command_state` says whether the command had been sent; one that had is
    /// [ended](Command#cancelling), and [`Error::is_killed`] says whether the server has confirmed that. Default: none for the command, `Timeouts::acquire` for the wait
    /// before it; a longer timeout here does not lengthen that wait.
    ///
    /// A command that has not been sent fails at the deadline, also if its connection takes nothing.
    /// One that has is ended first, and the call returns when that is done: usually within a
    /// round trip. Where the connection does not answer at all, it is given up after
    /// `Timeouts::check` and two seconds. In every other case it takes `Timeouts::kill_grace` and
    /// 14 s at most: 5 s for each of the two signals to be taken, 3 s for the server to close the
    /// channel after them, 1 s to close it from this end. Where a script delivers the signals, it
    /// has 5 s more to look for processes that are left.
    ///
    /// A limit that the server keeps, also when the connection is lost: `timeout 5 cmd`. A command that
    /// has ended and left a process that holds its output open is waited for as well; see
    /// [`exit_grace`](Command::exit_grace).
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = Some(timeout);
        self
    }

    /// Says that the command may run more than once, so that the pool may run it again when it was
    /// lost with its connection ([`Error::ConnectionLost`] whose `command_state` is `Unknown`). Up
    /// to three attempts in all, within the [`timeout`](Command::timeout) if there is one, with a
    /// pause of 50 to 100 ms before the second and of 100 to 200 ms before the third. Each gets the
    /// whole input, and up to `Timeouts::acquire` for a session; the output of lost ones is thrown
    /// away. [`Output::attempts`] and [`Error::attempts`] count them. Default: off, and what was
    /// sent is never run again.
    ///
    /// For a command that does the same when it runs twice, also if both runs overlap: sshd ends
    /// nothing when a connection is lost, so the first may still be at work.
    ///
    /// Nothing else makes another attempt: no time-out, no [`Error::OutputLimit`], no refusal, and
    /// not [`Error::ClosedWithoutStatus`], for there the server is well and has ended the command
    /// by a rule of its own. It is for `output` and `status`: [`spawn`](Command::spawn) hands
    /// streams out, which cannot begin anew, so there it is [`Error::InvalidInput`].
    ///
    /// # Errors
    ///
    /// If an attempt after the first fails, it is [`Error::Repeated`], with the last failure as its
    /// source.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future between two attempts costs nothing. During one it
    /// [ends](Command#cancelling) the process of that one, not what lost ones have left.
    pub fn idempotent(&mut self) -> &mut Self {
        self.idempotent = true;
        self
    }
}
