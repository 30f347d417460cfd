//! The shim itself: a process that git or docker has started in the belief that it is `ssh`.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

use filedescriptor::FileDescriptor;
use rustix::fs::FileType;

use super::invocation::Invocation;
use super::message::{Frame, Request, VARIABLE, parse_address};
use super::rights;

/// What ssh exits with when it is not the remote command that has failed.
const OWN_FAILURE: u8 = 255;

/// Makes this process the `ssh` of a git or a docker that a [`Pool`](crate::Pool) in another
/// process has started, if that is what it was started for; then it ends here and never returns.
/// Otherwise it does nothing.
///
/// It belongs at the top of `main`, before anything is read from standard input or written, and
/// before a runtime is started, which would only take time. The module `git` has an example.
///
/// A program that cannot do that names another one: see `shim` of the builders. That one needs
/// nothing but this call. The exit code is that of the remote command, or 255, with a reason on
/// standard error, as with ssh.
pub fn run_shim_if_asked() {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let address = env::var_os(VARIABLE).unwrap_or_default();
    let Some(descriptor) = parse_address(&address, &name) else {
        return;
    };
    let code = match run(descriptor, arguments.collect()) {
        Ok(code) => code,
        Err(problem) => {
            complain(&problem);
            OWN_FAILURE
        }
    };
    std::process::exit(code.into());
}

fn complain(problem: &Problem) {
    let because = problem.because.as_ref().map(|error| format!(": {error}"));
    let text = format!(
        "ssh-pool: {}{}\n",
        problem.what,
        because.unwrap_or_default()
    );
    // There is no other place to report it.
    io::stderr().write_all(text.as_bytes()).ok();
}

/// What goes to standard error.
struct Problem {
    what: String,
    because: Option<io::Error>,
}

fn problem(what: impl Into<String>) -> impl FnOnce(io::Error) -> Problem {
    let what = what.into();
    move |error| Problem {
        what,
        because: Some(error),
    }
}

/// Asks, and waits until the remote command has ended.
fn run(descriptor: Option<RawFd>, arguments: Vec<OsString>) -> Result<u8, Problem> {
    let descriptor = descriptor.ok_or_else(|| Problem {
        what: format!("{VARIABLE} is set to what this version does not know"),
        because: None,
    })?;
    let lost = || {
        format!(
            "descriptor {descriptor} did not come through: a program in between closes \
             descriptors, as Python's subprocess does without close_fds=False"
        )
    };
    let socket = inherited(descriptor).map_err(problem(lost()))?;
    if Invocation::parse(&arguments).is_ok_and(|asked| asked.no_input) {
        let nothing = File::open("/dev/null").map_err(problem("/dev/null"))?;
        rustix::stdio::dup2_stdin(&nothing)
            .map_err(|error| problem("standard input")(error.into()))?;
    }
    let (mut control, theirs) = UnixStream::pair().map_err(problem("no socket pair"))?;
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let input = Passed::new(stdin.as_fd()).map_err(problem("standard input"))?;
    let output = Passed::new(stdout.as_fd()).map_err(problem("standard output"))?;
    let gone = "the process with the connections does not take requests any more";
    let descriptors = [
        theirs.as_fd(),
        input.descriptor(stdin.as_fd()),
        output.descriptor(stdout.as_fd()),
    ];
    rights::send(&socket, descriptors).map_err(problem(gone))?;
    // From now on they are the other process's: their ends are for it to say.
    drop((socket, theirs));
    let copier = let_go(input, output).map_err(problem("the standard streams"))?;

    let request = Request {
        protocol: env::var_os("GIT_PROTOCOL"),
        arguments,
    };
    let request = request.encode().map_err(problem("cannot ask"))?;
    control.write_all(&request).map_err(problem(gone))?;
    let code = loop {
        match Frame::read(&mut control) {
            // It has no reader: that is no reason to stop.
            Ok(Frame::Text(text)) => drop(io::stderr().write_all(&text)),
            Ok(Frame::Exit(code)) => break code,
            Err(_) => {
                return Err(Problem {
                    what: "the process with the connections has gone, or does not want this".into(),
                    because: None,
                });
            }
        }
    };
    if let Some(copier) = copier {
        // It has nothing to panic about; the rest of the output is worth waiting for.
        copier.join().ok();
    }
    Ok(code)
}

/// The inherited socket. Only a copy of it can be had without unsafe code; that will do.
fn inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    let copy = FileDescriptor::dup(&descriptor).and_then(|copy| copy.as_file());
    let copy = OwnedFd::from(copy.map_err(io::Error::other)?);
    // Something else may have got that number.
    match file_type(copy.as_fd())? {
        FileType::Socket => Ok(copy),
        _ => Err(io::Error::other("it is not a socket")),
    }
}

fn file_type(descriptor: BorrowedFd<'_>) -> io::Result<FileType> {
    let status = rustix::fs::fstat(descriptor)?;
    Ok(FileType::from_raw_mode(status.st_mode))
}

/// A stream of this process, as it is handed on.
enum Passed {
    /// As it is: a pipe or a socket, which can be waited for.
    Itself,
    /// Files and terminals cannot, and a terminal must not be made non-blocking: its other users
    /// would notice. They are copied here.
    Copied {
        ours: UnixStream,
        theirs: UnixStream,
    },
}

impl Passed {
    fn new(stream: BorrowedFd<'_>) -> io::Result<Self> {
        if matches!(file_type(stream)?, FileType::Fifo | FileType::Socket) {
            return Ok(Self::Itself);
        }
        let (ours, theirs) = UnixStream::pair()?;
        Ok(Self::Copied { ours, theirs })
    }

    fn descriptor<'a>(&'a self, itself: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self {
            Self::Itself => itself,
            Self::Copied { theirs, .. } => theirs.as_fd(),
        }
    }
}

/// Closes what was handed on, and begins to copy what was not. The thread to wait for at the end
/// is the one that writes.
fn let_go(input: Passed, output: Passed) -> io::Result<Option<thread::JoinHandle<()>>> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    match input {
        Passed::Itself => rustix::stdio::dup2_stdin(&nothing)?,
        Passed::Copied { mut ours, .. } => {
            thread::spawn(move || {
                // A reader that has stopped closes it.
                io::copy(&mut io::stdin().lock(), &mut ours).ok();
                ours.shutdown(std::net::Shutdown::Write).ok();
            });
        }
    }
    match output {
        Passed::Itself => {
            rustix::stdio::dup2_stdout(&nothing)?;
            Ok(None)
        }
        Passed::Copied { mut ours, .. } => Ok(Some(thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            let mut stdout = io::stdout();
            while let Ok(count @ 1..) = ours.read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                if stdout
                    .write_all(bytes)
                    .and_then(|()| stdout.flush())
                    .is_err()
                {
                    return;
                }
            }
        }))),
    }
}
