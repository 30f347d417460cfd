//! Commands that the embedded server runs for its channels.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use russh::server::{Handle, Msg};
use russh::{ChannelId, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};

use crate::mark::Mark;

/// As large as a packet may be.
const CHUNK: usize = 32 * 1024;
const STDERR: u32 = 1;

/// The session channels of one connection that still hold a slot.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<HashMap<ChannelId, Session>>>);

/// One session channel, from its opening until its slot is free again.
struct Session {
    /// Until the command runs.
    idle: Option<Idle>,
    /// While the client may send: the end of this is the end of stdin.
    input: Option<UnboundedSender<Vec<u8>>>,
    /// While the client has not closed the channel.
    open: Option<oneshot::Sender<()>>,
    group: Option<Pid>,
}

struct Idle {
    write: ChannelWriteHalf<Msg>,
    input: UnboundedReceiver<Vec<u8>>,
    closed: oneshot::Receiver<()>,
}

impl Sessions {
    /// How many slots are taken.
    pub(crate) fn taken(&self) -> usize {
        self.with(|sessions| sessions.len())
    }

    /// A channel was opened.
    pub(crate) fn open(&self, write: ChannelWriteHalf<Msg>) {
        // Without a bound, unlike sshd: russh gives window back as data arrives, and a bounded
        // queue would hold up all channels for one command that does not read.
        let (sender, input) = mpsc::unbounded_channel();
        let (open, closed) = oneshot::channel();
        let id = write.id();
        let session = Session {
            idle: Some(Idle {
                write,
                input,
                closed,
            }),
            input: Some(sender),
            open: Some(open),
            group: None,
        };
        self.with(|sessions| sessions.insert(id, session));
    }

    /// Data for stdin.
    pub(crate) fn data(&self, id: ChannelId, data: &[u8]) {
        self.with(|sessions| {
            let input = sessions.get(&id).and_then(|session| session.input.as_ref());
            // Nobody reads once the command has closed its stdin; sshd throws it away too.
            input.map(|input| input.send(data.to_vec()))
        });
    }

    /// The end of stdin.
    pub(crate) fn eof(&self, id: ChannelId) {
        self.with(|sessions| sessions.get_mut(&id).map(|session| session.input = None));
    }

    /// The client has closed the channel. As on sshd a command keeps its slot until it ends.
    pub(crate) fn close(&self, id: ChannelId) {
        self.with(|sessions| {
            if let Some(session) = sessions.get_mut(&id) {
                session.input = None;
                session.open = None;
                if session.idle.is_some() {
                    sessions.remove(&id);
                }
            }
        });
    }

    /// A signal for the command's process group, as sshd sends it.
    pub(crate) fn signal(&self, id: ChannelId, signal: &Sig) {
        let group = self.with(|sessions| sessions.get(&id).and_then(|session| session.group));
        if let (Some(group), Some(signal)) = (group, number(signal)) {
            let _ = killpg(group, signal);
        }
    }

    /// Takes what a command needs; `None` for a channel that has or had one.
    fn start(&self, id: ChannelId) -> Option<Idle> {
        self.with(|sessions| sessions.get_mut(&id)?.idle.take())
    }

    fn started(&self, id: ChannelId, group: Pid) {
        self.with(|sessions| {
            sessions
                .get_mut(&id)
                .map(|session| session.group = Some(group))
        });
    }

    fn free(&self, id: ChannelId) {
        self.with(|sessions| sessions.remove(&id));
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<ChannelId, Session>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `true`, or no sender any more: what it stands for is at its end.
pub(crate) type End = watch::Receiver<bool>;

/// Waits for the end.
pub(crate) async fn over(mut end: End) {
    let _ = end.wait_for(|ended| *ended).await;
}

/// Where a command runs.
pub(crate) struct Place {
    pub(crate) sessions: Sessions,
    pub(crate) handle: Handle,
    pub(crate) mark: Mark,
    pub(crate) gone: End,
    /// How many commands run on the whole server.
    pub(crate) running: Arc<AtomicUsize>,
}

/// Starts `/bin/sh -c line` for a channel. An error is a request to be refused.
pub(crate) fn start(place: Place, id: ChannelId, line: &[u8]) -> io::Result<()> {
    let idle = place
        .sessions
        .start(id)
        .ok_or(io::ErrorKind::AlreadyExists)?;
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(OsString::from_vec(line.to_vec()))
        .env(Mark::NAME, place.mark.value())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    let group = Pid::from_raw(group.expect("a child just started has an id"));
    place.sessions.started(id, group);
    place.running.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        place.run(idle, child, group).await;
        place.running.fetch_sub(1, Ordering::SeqCst);
    });
    Ok(())
}

impl Place {
    /// Sees a command through, or kills it when nobody is there any more.
    async fn run(&self, idle: Idle, mut child: Child, group: Pid) {
        tokio::select! {
            () = self.converse(idle, &mut child) => {}
            () = over(self.gone.clone()) => {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait().await;
            }
        }
    }

    async fn converse(&self, idle: Idle, child: &mut Child) {
        let Idle {
            write,
            input,
            mut closed,
        } = idle;
        let id = write.id();
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        // What it printed goes out in full, unless the client closes: then the pipes break.
        let output = async {
            tokio::select! {
                _ = async { tokio::join!(send(stdout, &write, None), send(stderr, &write, Some(STDERR))) } => {
                    let _ = write.eof().await;
                    true
                }
                _ = &mut closed => false,
            }
        };
        // Told as soon as it is known, before the last data if it so happens: sshd does the same.
        let ended = async {
            let status = child.wait().await.expect("wait for a child");
            self.report(&write, status).await;
        };
        let conversation = async { tokio::join!(output, ended).0 };
        let feeding = async {
            feed(stdin, input).await;
            std::future::pending().await
        };
        let still_open = tokio::select! {
            still_open = conversation => still_open,
            () = feeding => unreachable!("it waits for ever"),
        };
        // Before the client can know, so that its next open never meets the old count.
        self.sessions.free(id);
        if still_open {
            let _ = write.close().await;
        }
    }

    async fn report(&self, write: &ChannelWriteHalf<Msg>, status: ExitStatus) {
        if let Some(signal) = status.signal() {
            let name = Signal::try_from(signal).map_or("UNKNOWN", Signal::as_str);
            let name = Sig::Custom(name.trim_start_matches("SIG").to_owned());
            let (text, language) = (String::new(), String::new());
            let _ = self
                .handle
                .exit_signal_request(write.id(), name, status.core_dumped(), text, language)
                .await;
        } else {
            let code = status.code().and_then(|code| u32::try_from(code).ok());
            let _ = write.exit_status(code.unwrap_or(255)).await;
        }
    }
}

/// Copies a pipe to the channel, within its window.
async fn send(mut pipe: impl AsyncRead + Unpin, write: &ChannelWriteHalf<Msg>, ext: Option<u32>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let data = buffer[..count].to_vec();
        let sent = match ext {
            None => write.data_bytes(data).await,
            Some(ext) => write.extended_data_bytes(ext, data).await,
        };
        if sent.is_err() {
            break;
        }
    }
}

/// Copies what the client sends to stdin, and closes it at the end.
async fn feed(mut stdin: ChildStdin, mut input: UnboundedReceiver<Vec<u8>>) {
    while let Some(data) = input.recv().await {
        if stdin.write_all(&data).await.is_err() {
            break;
        }
    }
}

fn number(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::SIGABRT,
        Sig::ALRM => Signal::SIGALRM,
        Sig::FPE => Signal::SIGFPE,
        Sig::HUP => Signal::SIGHUP,
        Sig::ILL => Signal::SIGILL,
        Sig::INT => Signal::SIGINT,
        Sig::KILL => Signal::SIGKILL,
        Sig::PIPE => Signal::SIGPIPE,
        Sig::QUIT => Signal::SIGQUIT,
        Sig::SEGV => Signal::SIGSEGV,
        Sig::TERM => Signal::SIGTERM,
        Sig::USR1 => Signal::SIGUSR1,
        Sig::Custom(name) => format!("SIG{name}").parse().ok()?,
    })
}
