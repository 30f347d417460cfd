//! A server that answers everything before the call returns, and never refuses anything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::LineRecorder;
use crate::address::Address;
use crate::error::{Cause, Stream};
use crate::login_shell::LoginShell;
use crate::output::ExitStatus;
use crate::pty::Pty;
use crate::receiver::{ChannelEnd, ChannelReceiver, ReplyAction};
use crate::transport::{
    AddressChoice, Channel, ChannelSender, CloseSignal, ConnectError, Connection, Endpoint,
    EnvNames, Gone, ListenError, Listener, OpenError, Request, ServerProfile, Signals, Sizes,
    SocketGuard, Transport, Unsent, Writer,
};

/// What every command says.
const OUTPUT: &[u8] = b"done\n";

/// Everything that comes from the server between a request and the end of its channel.
pub(super) fn run(receiver: &ChannelReceiver, output: &[u8]) {
    receiver.exec_dequeued(receiver.round());
    accept(receiver);
    receiver.data(Stream::Stdout, output);
    receiver.eof();
    receiver.exit(ExitStatus::from_code(0));
    receiver.end(ChannelEnd::Closed);
}

/// A request is granted.
fn accept(receiver: &ChannelReceiver) {
    answer(receiver, true);
}

fn answer(receiver: &ChannelReceiver, granted: bool) {
    // Only a refused command has the channel closed from here.
    let flow = receiver.reply(granted);
    debug_assert_eq!(flow, ReplyAction::Continue, "it goes on");
}

#[derive(Default)]
pub(super) struct InstantServer(Option<LineRecorder>);

impl InstantServer {
    /// Tells this one what it is asked to run, and takes no environment variables.
    pub(super) fn with(recorder: LineRecorder) -> Self {
        Self(Some(recorder))
    }
}

impl Transport for InstantServer {
    fn connect<'a>(
        &'a self,
        _: &'a Endpoint,
        _: &'a dyn AddressChoice,
        socket_guard: SocketGuard,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        let connection = InstantConnection {
            close_signal: CloseSignal::default(),
            recorder: self.0.clone(),
            _socket_guard: socket_guard,
        };
        ready(Ok(Arc::new(connection) as Arc<dyn Connection>)).boxed()
    }
}

const SERVER: ServerProfile = ServerProfile {
    sessions_at_most: None,
    signals: Signals::Group,
    sizes: Sizes::OPENSSH,
};

struct InstantConnection {
    close_signal: CloseSignal,
    recorder: Option<LineRecorder>,
    _socket_guard: SocketGuard,
}

impl Connection for InstantConnection {
    fn open(&self) -> BoxFuture<'_, Result<Channel, OpenError>> {
        let receiver = Arc::<ChannelReceiver>::default();
        let sender = Arc::new(InstantSession {
            receiver: receiver.clone(),
            env_names: EnvNames::default(),
            login_shell: posix(),
            recorder: self.recorder.clone(),
        });
        ready(Ok(Channel { sender, receiver })).boxed()
    }

    fn connect<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, Result<Channel, OpenError>> {
        self.open()
    }

    fn listen<'a>(
        &'a self,
        _: &'a Address,
        _: Listener,
    ) -> BoxFuture<'a, Result<Address, ListenError>> {
        ready(Err(ListenError::Denied)).boxed()
    }

    fn unlisten<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, ()> {
        ready(()).boxed()
    }

    fn ping(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        async { self.close_signal.end(Cause::new("goodbye")) }.boxed()
    }

    fn close_signal(&self) -> &CloseSignal {
        &self.close_signal
    }

    fn server(&self) -> ServerProfile {
        SERVER
    }

    fn quiet_for(&self) -> Duration {
        Duration::ZERO
    }
}

struct InstantSession {
    receiver: Arc<ChannelReceiver>,
    env_names: EnvNames,
    login_shell: Arc<LoginShell>,
    recorder: Option<LineRecorder>,
}

/// The login shell is known, so command lines arrive in the direct form.
fn posix() -> Arc<LoginShell> {
    let shell = LoginShell::default();
    shell.learn(true);
    Arc::new(shell)
}

fn sent<E: Send + 'static>() -> BoxFuture<'static, Result<(), E>> {
    ready(Ok(())).boxed()
}

impl ChannelSender for InstantSession {
    fn start(&self, request: Request) -> BoxFuture<'_, Result<(), Unsent>> {
        if let (Some(recorder), Request::Exec(line)) = (&self.recorder, request) {
            recorder.hear(line);
        }
        run(&self.receiver, OUTPUT);
        sent()
    }

    fn env(&self, _: String, _: String, reply: bool) -> BoxFuture<'_, Result<(), Unsent>> {
        if reply {
            answer(&self.receiver, self.recorder.is_none());
        }
        sent()
    }

    fn pty<'a>(&'a self, _: &'a Pty) -> BoxFuture<'a, Result<(), Unsent>> {
        accept(&self.receiver);
        sent()
    }

    fn resize(&self, _: u32, _: u32) -> BoxFuture<'_, Result<(), Gone>> {
        sent()
    }

    fn send(&self, _: Bytes) -> BoxFuture<'_, Result<(), Gone>> {
        sent()
    }

    fn writer(&self) -> Writer {
        Box::pin(tokio::io::sink())
    }

    fn eof(&self) -> BoxFuture<'_, Result<(), Gone>> {
        sent()
    }

    fn signal(&self, _: String) -> BoxFuture<'_, Result<(), Unsent>> {
        sent()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.receiver.end_here();
        ready(()).boxed()
    }

    fn server(&self) -> ServerProfile {
        SERVER
    }

    fn may_signal_leaderless(&self) -> bool {
        false
    }

    fn env_names(&self) -> &EnvNames {
        &self.env_names
    }

    fn login_shell(&self) -> &Arc<LoginShell> {
        &self.login_shell
    }
}
