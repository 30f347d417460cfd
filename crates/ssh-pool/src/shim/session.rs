//! One request of a shim: a remote command between a program's pipes.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::fs::FileType;
use ssh_pool_core::{Child, ChildStdout, Stdio, StreamGroup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};

use super::broker::ErrorLog;
use super::error::Error;
use super::hosts::{Duplex, Hosts};
use super::invocation::Invocation;
use super::message::{Frame, LONGEST_TEXT, Request};
use super::rights::COUNT;

/// What is moved at once. A pipe takes 64 KiB.
const CHUNK: usize = 64 << 10;

/// As ssh, for whatever is not the remote command's own failure.
const OWN_FAILURE: u8 = 255;

type Inlet = Box<dyn AsyncRead + Send + Unpin>;
type Outlet = Box<dyn AsyncWrite + Send + Unpin>;

/// Serves one shim from its request to its exit code. Whatever fails is told to it, and kept for
/// the program's caller, whose stream group it is.
pub(super) async fn serve(
    descriptors: [OwnedFd; COUNT],
    hosts: &Hosts,
    group: &StreamGroup,
    errors: &ErrorLog,
) {
    let [control, stdin, stdout] = descriptors;
    let control = match socket(control) {
        Ok(control) => control,
        Err(source) => return errors.add(Error::Request { source }),
    };
    let (mut control_reader, mut control_writer) = control.into_split();
    let mut cut_off = None;
    let served = async {
        let bad = |source| Error::Request { source };
        let request = read_request(&mut control_reader).await.map_err(bad)?;
        let mut streams = Streams {
            stdin: Some(inlet(stdin).map_err(bad)?),
            stdout: Some(outlet(stdout).map_err(bad)?),
        };
        tokio::select! {
            code = run(&request, hosts, group, &mut streams, &mut control_writer) => {
                // The program may end as soon as this is closed, and then it is asked why.
                cut_off = streams.stdout.take();
                code
            }
            // The shim has gone, and nothing waits. The command ends when its future is dropped.
            () = ended(&mut control_reader) => Ok(OWN_FAILURE),
        }
    };
    let code = match served.await {
        Ok(code) => code,
        Err(error) => {
            let text = format!("ssh-pool: {}\n", with_causes(&error));
            errors.add(error);
            tell(&mut control_writer, &Frame::Text(text.into_bytes())).await;
            OWN_FAILURE
        }
    };
    drop(cut_off);
    tell(&mut control_writer, &Frame::Exit(code)).await;
}

/// The program's pipes.
struct Streams {
    stdin: Option<Inlet>,
    stdout: Option<Outlet>,
}

/// Starts the command, moves its streams, and says how it ended.
async fn run(
    request: &Request,
    hosts: &Hosts,
    group: &StreamGroup,
    streams: &mut Streams,
    control_writer: &mut OwnedWriteHalf,
) -> Result<u8, Error> {
    let invocation = Invocation::parse(&request.arguments)?;
    let host = hosts.find(&invocation)?.in_group(group);
    if let Some(stream) = hosts.redirect(&invocation.line, group) {
        return pass(stream.await?, streams).await;
    }
    // A connection of its own: git reads a pack at its own pace, and holds up no other stream.
    let mut command = host.shell(&invocation.line);
    command.verbatim().stdin(Stdio::piped());
    if let Some(protocol) = &request.protocol {
        command.env("GIT_PROTOCOL", protocol);
    }
    let mut child = command.spawn().await?;
    let (to, from) = (child.stdin.take(), child.stdout.take());
    let output = async {
        tokio::try_join!(
            copy_stdout(from, &mut streams.stdout),
            copy_stderr(&mut child, control_writer)
        )
    };
    let output = tokio::select! {
        // It never ends before the output does: a command may go on without its input.
        never = copy_in(streams.stdin.take(), to) => match never {},
        output = output => output,
    };
    if let Err(Unread) = output {
        // As ssh, which a broken pipe ends: the command has no reader.
        return Ok(OWN_FAILURE);
    }
    let status = child.wait().await?;
    Ok(exit_code(&status))
}

/// A stream in the place of a command, until its other side has ended it.
async fn pass(stream: Box<dyn Duplex>, streams: &mut Streams) -> Result<u8, Error> {
    let (mut from, to) = tokio::io::split(stream);
    let copied = tokio::select! {
        never = copy_in(streams.stdin.take(), Some(to)) => match never {},
        copied = copy_out(&mut from, &mut streams.stdout) => copied,
    };
    match copied {
        Ok(()) => Ok(0),
        Err(Stopped::Writing) => Ok(OWN_FAILURE),
        Err(Stopped::Reading(error)) => Err(Error::Stream {
            source: Box::new(error),
        }),
    }
}

/// As ssh: a command that was ended by a signal has no code of its own.
fn exit_code(status: &ssh_pool_core::ExitStatus) -> u8 {
    let code = status
        .code()
        .and_then(|code| u8::try_from(code & 0xff).ok());
    code.unwrap_or(OWN_FAILURE)
}

/// The program's pipe to the command, then the end of it.
async fn copy_in(
    from: Option<Inlet>,
    to: Option<impl AsyncWrite + Unpin>,
) -> std::convert::Infallible {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        // A command that has ended or reads no more: the program is told by its pipe.
        copy(&mut from, &mut to).await.ok();
    }
    std::future::pending().await
}

/// The other side's output to the program's pipe, which is closed when that has come to its end.
async fn copy_out(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut Option<Outlet>,
) -> Result<(), Stopped> {
    if let Some(pipe) = to {
        copy(from, pipe).await?;
        *to = None;
    }
    Ok(())
}

/// The command's output. A connection that is lost in the middle is for `wait` to tell.
async fn copy_stdout(child: Option<ChildStdout>, to: &mut Option<Outlet>) -> Result<(), Unread> {
    let Some(mut stdout) = child else {
        return Ok(());
    };
    match copy_out(&mut stdout, to).await {
        Ok(()) | Err(Stopped::Reading(_)) => Ok(()),
        Err(Stopped::Writing) => Err(Unread),
    }
}

/// The program reads no more.
struct Unread;

/// Which side of a copy came to an end before it should.
enum Stopped {
    Reading(io::Error),
    Writing,
}

/// Copies to the end, and passes that on.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Stopped> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await;
        let count = read.map_err(Stopped::Reading)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        let written = match bytes {
            [] => to.shutdown().await,
            bytes => to.write_all(bytes).await,
        };
        written.map_err(|_| Stopped::Writing)?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// What the command complains about goes to the shim, whose standard error may be a terminal: the
/// flags of that are not for us to change.
async fn copy_stderr(child: &mut Child, control_writer: &mut OwnedWriteHalf) -> Result<(), Unread> {
    let Some(mut stderr) = child.stderr.take() else {
        return Ok(());
    };
    let mut buffer = vec![0; LONGEST_TEXT];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let text = buffer.get(..count).unwrap_or_default().to_vec();
        tell(control_writer, &Frame::Text(text)).await;
    }
    Ok(())
}

async fn tell(control_writer: &mut OwnedWriteHalf, frame: &Frame) {
    if let Err(error) = control_writer.write_all(&frame.encode()).await {
        tracing::debug!(%error, "a shim has gone");
    }
}

/// Waits until the shim has closed its side. It says nothing after its request.
async fn ended(control_reader: &mut OwnedReadHalf) {
    let mut byte = [0];
    while let Ok(1..) = control_reader.read(&mut byte).await {}
}

async fn read_request(control_reader: &mut OwnedReadHalf) -> io::Result<Request> {
    let mut head = [0; 4];
    control_reader.read_exact(&mut head).await?;
    let mut body = vec![0; Request::length(head)?];
    control_reader.read_exact(&mut body).await?;
    Request::decode(&body)
}

fn socket(descriptor: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(descriptor);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// A pipe or a socket: a shim hands on nothing else.
fn inlet(descriptor: OwnedFd) -> io::Result<Inlet> {
    Ok(match file_type(&descriptor)? {
        FileType::Fifo => Box::new(pipe::Receiver::from_owned_fd(descriptor)?),
        _ => Box::new(socket(descriptor)?),
    })
}

fn outlet(descriptor: OwnedFd) -> io::Result<Outlet> {
    Ok(match file_type(&descriptor)? {
        FileType::Fifo => Box::new(pipe::Sender::from_owned_fd(descriptor)?),
        _ => Box::new(socket(descriptor)?),
    })
}

fn file_type(descriptor: &OwnedFd) -> io::Result<FileType> {
    let status = rustix::fs::fstat(descriptor)?;
    Ok(FileType::from_raw_mode(status.st_mode))
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
