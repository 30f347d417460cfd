//! A server that answers everything before the call returns, and never refuses anything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::Ear;
use crate::address::Address;
use crate::error::{Cause, Stream};
use crate::inbox::{End, Flow, Inbox};
use crate::login_shell::LoginShell;
use crate::output::ExitStatus;
use crate::pty::Pty;
use crate::transport::{
    AddressChoice, Channel, DialError, Endpoint, EnvNames, Gone, Kept, Lifeline, Link, ListenError,
    Listener, OpenError, Request, ServerProfile, Signals, Sizes, Transport, Unsent, Wire, Writer,
};

/// What every command says.
const OUTPUT: &[u8] = b"done\n";

/// Everything that comes from the server between a request and the end of its channel.
pub(super) fn run(inbox: &Inbox, output: &[u8]) {
    inbox.exec_due(inbox.round());
    accept(inbox);
    inbox.data(Stream::Stdout, output);
    inbox.eof();
    inbox.exit(ExitStatus::from_code(0));
    inbox.end(End::Closed);
}

/// A request is granted.
fn accept(inbox: &Inbox) {
    answer(inbox, true);
}

fn answer(inbox: &Inbox, granted: bool) {
    // Only a refused command has the channel closed from here.
    let flow = inbox.reply(granted);
    debug_assert_eq!(flow, Flow::Continue, "it goes on");
}

#[derive(Default)]
pub(super) struct Server(Option<Ear>);

impl Server {
    /// Tells this one what it is asked to run, and takes no environment variables.
    pub(super) fn with(ear: Ear) -> Self {
        Self(Some(ear))
    }
}

impl Transport for Server {
    fn dial<'a>(
        &'a self,
        _: &'a Endpoint,
        _: &'a dyn AddressChoice,
        kept: Kept,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>> {
        let connection = Connection {
            lifeline: Lifeline::default(),
            ear: self.0.clone(),
            _kept: kept,
        };
        ready(Ok(Arc::new(connection) as Arc<dyn Link>)).boxed()
    }
}

const SERVER: ServerProfile = ServerProfile {
    sessions_at_most: None,
    signals: Signals::Group,
    sizes: Sizes::OPENSSH,
};

struct Connection {
    lifeline: Lifeline,
    ear: Option<Ear>,
    _kept: Kept,
}

impl Link for Connection {
    fn open(&self) -> BoxFuture<'_, Result<Channel, OpenError>> {
        let inbox = Arc::<Inbox>::default();
        let wire = Arc::new(Session {
            inbox: inbox.clone(),
            env_names: EnvNames::default(),
            login_shell: posix(),
            ear: self.ear.clone(),
        });
        ready(Ok(Channel { wire, inbox })).boxed()
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
        async { self.lifeline.end(Cause::new("goodbye")) }.boxed()
    }

    fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    fn server(&self) -> ServerProfile {
        SERVER
    }

    fn quiet_for(&self) -> Duration {
        Duration::ZERO
    }
}

struct Session {
    inbox: Arc<Inbox>,
    env_names: EnvNames,
    login_shell: Arc<LoginShell>,
    ear: Option<Ear>,
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

impl Wire for Session {
    fn start(&self, request: Request) -> BoxFuture<'_, Result<(), Unsent>> {
        if let (Some(ear), Request::Exec(line)) = (&self.ear, request) {
            ear.hear(line);
        }
        run(&self.inbox, OUTPUT);
        sent()
    }

    fn env(&self, _: String, _: String, reply: bool) -> BoxFuture<'_, Result<(), Unsent>> {
        if reply {
            answer(&self.inbox, self.ear.is_none());
        }
        sent()
    }

    fn pty<'a>(&'a self, _: &'a Pty) -> BoxFuture<'a, Result<(), Unsent>> {
        accept(&self.inbox);
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
        self.inbox.end_here();
        ready(()).boxed()
    }

    fn server(&self) -> ServerProfile {
        SERVER
    }

    fn may_sweep(&self) -> bool {
        false
    }

    fn env_names(&self) -> &EnvNames {
        &self.env_names
    }

    fn login_shell(&self) -> &Arc<LoginShell> {
        &self.login_shell
    }
}
