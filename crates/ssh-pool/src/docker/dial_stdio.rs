//! `docker system dial-stdio`: a remote process whose standard streams are a connection to dockerd.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ssh_pool_core::{
    Child, ChildStderr, ChildStdin, ChildStdout, CommandState, ConnectionHandle, Error as SshError,
    Stdio,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::error::Error;
use super::socket::SocketPath;
use super::transport::TransportMemory;

/// How much of its standard error is kept.
const WORDS: usize = 1 << 10;
/// After the end of its output it has this long to say how it ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The process, as a stream.
pub(super) struct DialStdio {
    socket: SocketPath,
    transports: Arc<TransportMemory>,
    /// Why there is no direct stream.
    refusal: SshError,
    connection: ConnectionHandle,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    said: Said,
    /// It has delivered a byte.
    answered: bool,
    state: DialState,
}

/// How it ended.
type End = Pin<Box<dyn Future<Output = Result<(), io::Error>> + Send>>;

enum DialState {
    Running(Box<Child>),
    /// Only reached through `&mut self`: the lock is never taken, and makes the whole `Sync`.
    Ending(Mutex<End>),
    Ended,
}

/// What it has written to standard error.
#[derive(Default)]
struct Said {
    stream: Option<ChildStderr>,
    words: Vec<u8>,
}

impl DialStdio {
    /// Starts it. That it has started says nothing about whether it reaches a daemon.
    pub(super) async fn start(
        socket: &SocketPath,
        transports: &Arc<TransportMemory>,
        refusal: SshError,
        shared: bool,
    ) -> Result<Self, Error> {
        let mut command = socket.host().command("docker");
        if let Some(host) = socket.docker_host() {
            // One word with its value, which begins with unix://: it can be nothing else.
            command.arg(format!("--host={host}"));
        }
        command.args(["system", "dial-stdio"]).stdin(Stdio::piped());
        if shared {
            command.shared();
        }
        let spawned = match command.spawn().await {
            Ok(mut child) => match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
                (Some(stdin), Some(stdout), Some(stderr)) => Ok((child, stdin, stdout, stderr)),
                _ => Err("it has no pipes".to_owned()),
            },
            // This account may not run it, now or later.
            Err(error @ (SshError::ExecRefused { .. } | SshError::SessionRefused { .. })) => {
                Err(format!("it was not started: {error}"))
            }
            Err(source) => {
                let (target, path) = socket.names();
                return Err(Error::Stream {
                    target,
                    path,
                    source: Box::new(source),
                });
            }
        };
        match spawned {
            Ok((child, stdin, stdout, stderr)) => Ok(Self {
                socket: socket.clone(),
                transports: transports.clone(),
                refusal,
                connection: child.connection(),
                stdin: Some(stdin),
                stdout,
                said: Said {
                    stream: Some(stderr),
                    words: Vec::new(),
                },
                answered: false,
                state: DialState::Running(Box::new(child)),
            }),
            Err(dial_stdio) => {
                transports.dial_stdio_fails();
                let (target, path) = socket.names();
                Err(Error::Unreachable {
                    target,
                    path,
                    dial_stdio,
                    state: CommandState::NotStarted,
                    source: Box::new(refusal),
                })
            }
        }
    }

    pub(super) fn connection(&self) -> ConnectionHandle {
        self.connection.clone()
    }

    /// Its output has ended: how did it end?
    fn end(
        &mut self,
        mut child: Box<Child>,
    ) -> impl Future<Output = Result<(), io::Error>> + use<> {
        // It would wait for the end of its input.
        drop(self.stdin.take());
        let mut said = std::mem::take(&mut self.said);
        let (socket, transports, refusal) = (
            self.socket.clone(),
            self.transports.clone(),
            self.refusal.clone(),
        );
        let answered = self.answered;
        let host = socket.host().clone();
        // Who polls this may have no runtime.
        host.within(async move {
            let ended = async { tokio::join!(child.wait(), said.listen()) };
            // Dropped when its time is over, the child is ended.
            let how = match tokio::time::timeout(LAST_WORDS, ended).await {
                Ok((Ok(status), ())) if status.success() && answered => return Ok(()),
                Ok((Ok(status), ())) => status.to_string(),
                // A forced command runs it for an account that may run nothing else.
                Ok((Err(SshError::Unproven { status, .. }), ()))
                    if status.success() && answered =>
                {
                    return Ok(());
                }
                Ok((Err(SshError::Unproven { status, .. }), ())) => status.to_string(),
                Ok((Err(error), ())) => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, error));
                }
                // It has given all that it had to give.
                Err(_) if answered => return Ok(()),
                Err(_) => "it closed its output and did not end".to_owned(),
            };
            let dial_stdio = said.after(&how);
            let (target, path) = socket.names();
            Err(io::Error::from(if answered {
                Error::BrokenOff {
                    target,
                    path,
                    dial_stdio,
                }
            } else {
                transports.dial_stdio_fails();
                Error::Unreachable {
                    target,
                    path,
                    dial_stdio,
                    // What went in may have come out at the other end.
                    state: CommandState::Unknown,
                    source: Box::new(refusal),
                }
            }))
        })
    }
}

impl AsyncRead for DialStdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                DialState::Running(_) => {
                    // Unread, it would hold up the process.
                    this.said.poll_listen(cx);
                    let before = buf.filled().len();
                    ready!(Pin::new(&mut this.stdout).poll_read(cx, buf))?;
                    if buf.filled().len() > before || buf.remaining() == 0 {
                        if !this.answered && buf.filled().len() > before {
                            this.answered = true;
                            this.transports.dial_stdio_works(&this.refusal);
                        }
                        return Poll::Ready(Ok(()));
                    }
                    if let DialState::Running(child) =
                        std::mem::replace(&mut this.state, DialState::Ended)
                    {
                        this.state = DialState::Ending(Mutex::new(Box::pin(this.end(child))));
                    }
                }
                DialState::Ending(end) => {
                    let end = end.get_mut().unwrap_or_else(PoisonError::into_inner);
                    let ended = ready!(end.as_mut().poll(cx));
                    this.state = DialState::Ended;
                    return Poll::Ready(ended);
                }
                DialState::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for DialStdio {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Said {
    /// Takes what has arrived, without waiting.
    fn poll_listen(&mut self, cx: &mut Context<'_>) {
        // What is left after some rounds is taken at the next reading.
        for _ in 0..8 {
            let Some(stream) = &mut self.stream else {
                return;
            };
            let mut bytes = [0; 512];
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(stream).poll_read(cx, &mut buf) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    keep(&mut self.words, buf.filled());
                }
                // Its end. Why it was cut off, the output will say too.
                Poll::Ready(_) => self.stream = None,
            }
        }
    }

    /// Listens to the end.
    async fn listen(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            keep(&mut self.words, bytes.get(..count).unwrap_or_default());
        }
    }

    /// The end, and the words before it.
    fn after(&self, how: &str) -> String {
        let words = String::from_utf8_lossy(&self.words);
        let words = words.trim();
        if words.is_empty() {
            return how.to_owned();
        }
        format!("{how}, \"{}\"", ssh_pool_core::printable(words))
    }
}

/// The first words say what went wrong; the rest is thrown away.
fn keep(words: &mut Vec<u8>, bytes: &[u8]) {
    let room = WORDS.saturating_sub(words.len());
    words.extend(bytes.iter().take(room));
}
