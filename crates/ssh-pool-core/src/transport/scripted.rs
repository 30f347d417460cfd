//! A server that exists only on tokio's clock: it takes a configured time for everything, frees session
//! slots as late as sshd does, and counts. For tests of the pool's own logic.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    AddressChoice, Channel, ChannelSender, CloseSignal, ConnectError, Connection, Endpoint,
    EnvNames, Gone, ListenError, Listener, OpenError, Request, ServerProfile, Signals, SocketGuard,
    Transport, Unsent, Writer,
};
use crate::address::Address;
use crate::error::{Cause, Error, Stream};
use crate::login_shell::LoginShell;
use crate::output::ExitStatus;
use crate::pty::Pty;
use crate::receiver::{ChannelEnd, ChannelReceiver, ReplyAction};

mod endings;
mod faults;
mod line;
mod names;
mod script;

pub(crate) use endings::ConnectionEnding;
pub(crate) use faults::connection_refused;
use line::ScriptedLine;
pub(crate) use script::{Fatal, Script};

/// Something that leaves this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Open,
    Ping,
    Start,
}

/// What the server has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) dials: u32,
    pub(crate) connections: u32,
    /// The most there were at once.
    pub(crate) most_connections: u32,
    pub(crate) refused: u32,
    /// Exec requests that went out.
    pub(crate) requested: u32,
    pub(crate) started: u32,
    pub(crate) running: u32,
}

#[derive(Default)]
struct ScriptedState {
    seen: Seen,
    /// Sessions that the server holds, by connection.
    held: HashMap<u32, u32>,
    /// How the next dials end; success when there is nothing here.
    failures: VecDeque<ConnectError>,
    /// Users who are not let in.
    strangers: HashSet<String>,
    /// When they were not.
    rejected: Vec<Instant>,
    connections: Vec<std::sync::Weak<ScriptedConnection>>,
    /// What was sent to commands.
    inputs: Vec<Bytes>,
    /// What it was asked for, in this order.
    asked: Vec<Asked>,
    /// What its name resolves to, and how long a TCP connection there takes; it fails where it takes
    /// for ever. Nothing: its connections have no address.
    addresses: Vec<(SocketAddr, Duration)>,
    /// Commands that were started, by address.
    started_at: Vec<SocketAddr>,
    /// Later connections take nothing.
    stalls: bool,
    ending: ConnectionEnding,
    /// When each attempt to log in began and its connection ended: one more, one less.
    up: Vec<(Instant, i32)>,
}

#[derive(Clone)]
pub(crate) struct Server {
    script: Script,
    state: Arc<Mutex<ScriptedState>>,
}

impl Server {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, ScriptedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state().seen
    }

    /// Sessions held over all connections.
    pub(crate) fn held(&self) -> u32 {
        self.state().held.values().sum()
    }

    /// All input that was sent, a piece for each send.
    pub(crate) fn inputs(&self) -> Vec<Bytes> {
        self.state().inputs.clone()
    }

    /// What it was asked for since the last look.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }

    /// The next dial fails like this.
    pub(crate) fn fail_next_connect(&self, failure: ConnectError) {
        self.state().failures.push_back(failure);
    }

    /// Logins of that user are refused.
    pub(crate) fn reject(&self, user: &str) {
        self.state().strangers.insert(user.to_owned());
    }

    /// When logins were refused.
    pub(crate) fn rejected(&self) -> Vec<Instant> {
        self.state().rejected.clone()
    }

    /// A way through the network from now, that connection dies.
    fn kill_soon(&self, id: u32) {
        let (server, hop) = (self.clone(), self.script.hop);
        tokio::spawn(async move {
            sleep(hop).await;
            let connections = server.state().connections.clone();
            let connections = connections.iter().filter_map(std::sync::Weak::upgrade);
            (connections.filter(|connection| connection.id == id))
                .for_each(|connection| connection.die("reset"));
        });
    }
}

impl Transport for Server {
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        choice: &'a dyn AddressChoice,
        socket_guard: SocketGuard,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        async move {
            let id = {
                let mut state = self.state();
                state.seen.dials += 1;
                state.seen.dials
            };
            let peer_addr = self.connect(choice).await?;
            let up = self.begin_login();
            sleep(self.script.handshake).await;
            let failure = self.next_failure(&endpoint.name);
            if let Some(failure) = failure {
                return Err(failure);
            }
            let mut state = self.state();
            if state.strangers.contains(&endpoint.user) {
                state.rejected.push(Instant::now());
                let error = Error::AuthRejected {
                    target: (&endpoint.name).into(),
                    tried: Vec::new(),
                    allowed: "publickey".into(),
                    accepted: Box::default(),
                    messages: Box::default(),
                    cooldown: endpoint.auth_cooldown,
                };
                return Err(ConnectError {
                    error,
                    transient: false,
                });
            }
            state.seen.connections += 1;
            let Seen {
                connections,
                most_connections,
                ..
            } = &mut state.seen;
            *most_connections = (*most_connections).max(*connections);
            state.held.insert(id, 0);
            let connection = Arc::new(ScriptedConnection {
                id,
                peer_addr,
                server: self.clone(),
                close_signal: CloseSignal::default(),
                dead: CancellationToken::new(),
                socket_guard: Mutex::new(Some((socket_guard, up))),
                receivers: Mutex::default(),
                line: ScriptedLine::new(self.script.hop),
            });
            connection.line.stalled.send_replace(state.stalls);
            state.connections.push(Arc::downgrade(&connection));
            state.ending.after_login(&connection);
            Ok(connection as Arc<dyn Connection>)
        }
        .boxed()
    }
}

struct ScriptedConnection {
    id: u32,
    peer_addr: Option<SocketAddr>,
    server: Server,
    close_signal: CloseSignal,
    dead: CancellationToken,
    socket_guard: Mutex<Option<(SocketGuard, endings::Up)>>,
    receivers: Mutex<Vec<Arc<ChannelReceiver>>>,
    line: ScriptedLine,
}

impl ScriptedConnection {
    fn die(&self, why: &'static str) {
        if self.dead.is_cancelled() {
            return;
        }
        self.dead.cancel();
        {
            let mut state = self.server.state();
            state.held.remove(&self.id);
            state.seen.connections -= 1;
        }
        let socket_guard = (self.socket_guard.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(socket_guard);
        self.close_signal.end(Cause::new(why));
        let receivers = std::mem::take(
            &mut *self
                .receivers
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for receiver in receivers {
            receiver.end(ChannelEnd::Lost(Cause::new(why)));
        }
    }
}

impl Drop for ScriptedConnection {
    fn drop(&mut self) {
        self.die("dropped");
    }
}

impl Connection for ScriptedConnection {
    fn open(&self) -> BoxFuture<'_, Result<Channel, OpenError>> {
        async {
            self.server.state().asked.push(Asked::Open);
            let there = async {
                self.line.taken().await;
                self.line.pass().await;
                self.line.opens().await;
            };
            let there = self.dead.run_until_cancelled(there);
            if there.await.is_none() {
                return Err(OpenError::Lost);
            }
            let at_open = self.ends_at(ConnectionEnding::AtOpen);
            // The server decides here, and keeps the slot even if the answer is not waited for.
            let granted = {
                let mut state = self.server.state();
                let most = self.server.script.max_sessions;
                let Some(held) = state.held.get_mut(&self.id) else {
                    return Err(OpenError::Lost);
                };
                let granted = *held < most && !at_open;
                *held += u32::from(granted);
                state.seen.refused += u32::from(!granted);
                granted
            };
            let back = self.dead.run_until_cancelled(self.line.pass());
            if back.await.is_none() {
                return Err(OpenError::Lost);
            }
            self.line.hear();
            self.ends_at(ConnectionEnding::AfterOpen);
            if !granted {
                return Err(OpenError::Refused {
                    code: 2,
                    reason: "Connect failed, reason 2".into(),
                });
            }
            let receiver = Arc::<ChannelReceiver>::default();
            self.receivers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(receiver.clone());
            let sender = Arc::new(ScriptedSender {
                connection: self.id,
                peer_addr: self.peer_addr,
                server: self.server.clone(),
                dead: self.dead.clone(),
                receiver: receiver.clone(),
                stop: CancellationToken::new(),
                env_names: EnvNames::default(),
                login_shell: Arc::default(),
                line: self.line.clone(),
            });
            if self.server.script.fatal == Some(Fatal::Session) {
                self.server.kill_soon(self.id);
            }
            Ok(Channel { sender, receiver })
        }
        .boxed()
    }

    fn connect<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, Result<Channel, OpenError>> {
        if self.server.script.fatal == Some(Fatal::Stream) {
            self.die("reset");
        }
        self.open()
    }

    fn listen<'a>(
        &'a self,
        _: &'a Address,
        _: Listener,
    ) -> BoxFuture<'a, Result<Address, ListenError>> {
        async {
            self.line.taken().await;
            Err(ListenError::Denied)
        }
        .boxed()
    }

    fn unlisten<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, ()> {
        self.line.taken().boxed()
    }

    fn ping(&self) -> BoxFuture<'_, ()> {
        async {
            self.server.state().asked.push(Asked::Ping);
            if self.line.is_reset() {
                self.server.kill_soon(self.id);
            }
            let answer = async {
                self.line.taken().await;
                self.line.answer().await;
            };
            self.dead.run_until_cancelled(answer).await;
        }
        .boxed()
    }

    fn quiet_for(&self) -> Duration {
        self.line.quiet_for()
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        async {
            sleep(self.server.script.hop).await;
            self.die("goodbye");
        }
        .boxed()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    fn close_signal(&self) -> &CloseSignal {
        &self.close_signal
    }

    fn server(&self) -> ServerProfile {
        self.server.script.profile()
    }
}

struct ScriptedSender {
    connection: u32,
    peer_addr: Option<SocketAddr>,
    server: Server,
    dead: CancellationToken,
    receiver: Arc<ChannelReceiver>,
    stop: CancellationToken,
    env_names: EnvNames,
    login_shell: Arc<LoginShell>,
    line: ScriptedLine,
}

/// Counts as running.
struct ScriptedProcess(Server);

impl Drop for ScriptedProcess {
    fn drop(&mut self) {
        self.0.state().seen.running -= 1;
    }
}

impl ScriptedSender {
    /// The connection takes it after a while, unless it has ended.
    async fn taken_after(&self, time: Duration) -> Result<(), Gone> {
        self.dead
            .run_until_cancelled(self.line.taken())
            .await
            .ok_or(Gone)?;
        sleep(time).await;
        Ok(())
    }

    /// What happens on the server between exec and CLOSE.
    async fn serve(
        server: Server,
        connection: u32,
        line: ScriptedLine,
        receiver: Arc<ChannelReceiver>,
        stop: CancellationToken,
        mark: Option<Vec<u8>>,
        held: bool,
    ) {
        let Script {
            mut runtime,
            control_runtime,
            heeds_signals,
            signals,
            replies,
            ..
        } = server.script;
        if held {
            runtime = Duration::from_secs(100_000);
        } else if mark.is_none() && signals != Signals::Group {
            runtime = control_runtime;
        }
        line.pass().await;
        {
            let mut state = server.state();
            state.seen.started += 1;
            state.seen.running += 1;
        }
        if server.ends_at_exec(connection) {
            return;
        }
        let process = ScriptedProcess(server.clone());
        line.pass().await;
        if !replies {
            std::future::pending::<()>().await;
        }
        line.hear();
        assert_eq!(receiver.reply(true), ReplyAction::Continue, "accepted");
        if let Some(mark) = mark {
            receiver.data(Stream::Stderr, &mark);
        }
        let status = tokio::select! {
            () = sleep(runtime) => ExitStatus::from_code(0),
            () = stop.cancelled(), if heeds_signals => ExitStatus::from_signal("TERM"),
        };
        drop(process);
        line.pass().await;
        line.hear();
        receiver.data(Stream::Stdout, b"done");
        receiver.eof();
        receiver.exit(status);
        sleep(Duration::from_millis(1)).await;
        receiver.end(ChannelEnd::Closed);
        // Our CLOSE travels; the slot is free only after everything that arrived with it.
        line.pass().await;
        sleep(Duration::from_micros(1)).await;
        if let Some(held) = server.state().held.get_mut(&connection) {
            *held -= 1;
        }
    }
}

impl ChannelSender for ScriptedSender {
    fn start(&self, request: Request) -> BoxFuture<'_, Result<(), Unsent>> {
        async move {
            {
                let mut state = self.server.state();
                state.asked.push(Asked::Start);
                state.started_at.extend(self.peer_addr);
            }
            // The queue to the session loop is full for a moment.
            self.taken_after(Duration::from_millis(1)).await?;
            if self.dead.is_cancelled() {
                return Err(Unsent::Gone);
            }
            let dead = self.dead.clone();
            let server = self.server.clone();
            let work = Self::serve(
                server.clone(),
                self.connection,
                self.line.clone(),
                self.receiver.clone(),
                self.stop.clone(),
                script::mark(&request),
                script::is_held(&request),
            );
            let (receiver, round) = (self.receiver.clone(), self.receiver.round());
            tokio::spawn(async move {
                // Then the request lies in it for another.
                sleep(Duration::from_millis(1)).await;
                receiver.exec_dequeued(round);
                if receiver.has_ended() {
                    return; // not sent
                }
                server.state().seen.requested += 1;
                // A process does not outlive its connection here.
                dead.run_until_cancelled(work).await;
            });
            Ok(())
        }
        .boxed()
    }

    fn send(&self, data: Bytes) -> BoxFuture<'_, Result<(), Gone>> {
        self.server.state().inputs.push(data);
        self.taken_after(Duration::from_millis(3)).boxed()
    }

    fn eof(&self) -> BoxFuture<'_, Result<(), Gone>> {
        self.taken_after(Duration::from_millis(1)).boxed()
    }

    fn env(&self, _: String, _: String, reply: bool) -> BoxFuture<'_, Result<(), Unsent>> {
        async move {
            let fatal = self.server.script.fatal == Some(Fatal::Variable);
            if fatal || self.line.is_reset() {
                self.server.kill_soon(self.connection);
            } else if reply && self.server.script.answers_variables {
                let (line, receiver) = (self.line.clone(), self.receiver.clone());
                tokio::spawn(async move {
                    line.answer().await;
                    assert_eq!(receiver.reply(true), ReplyAction::Continue);
                });
            }
            Ok(self.taken_after(Duration::ZERO).await?)
        }
        .boxed()
    }

    fn pty<'a>(&'a self, _: &'a Pty) -> BoxFuture<'a, Result<(), Unsent>> {
        async { Ok(self.taken_after(Duration::ZERO).await?) }.boxed()
    }

    fn resize(&self, _: u32, _: u32) -> BoxFuture<'_, Result<(), Gone>> {
        self.taken_after(Duration::ZERO).boxed()
    }

    fn writer(&self) -> Writer {
        Box::pin(tokio::io::sink())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            // As on a connection whose queue is full, while nothing passes.
            self.line.pass().await;
            self.line.taken().await;
            self.receiver.end_here();
        }
        .boxed()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    fn server(&self) -> ServerProfile {
        self.server.script.profile()
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

    fn signal(&self, _name: String) -> BoxFuture<'_, Result<(), Unsent>> {
        async {
            self.taken_after(Duration::ZERO).await?;
            self.line.pass().await;
            self.stop.cancel();
            Ok(())
        }
        .boxed()
    }
}
