//! A server that exists only on tokio's clock: it takes as long as it is told for everything,
//! frees session slots as late as sshd does, and counts. For tests of the pool's own logic.

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
    AddressChoice, Channel, DialError, Endpoint, EnvNames, Gone, Kept, Lifeline, Link, ListenError,
    Listener, OpenError, Request, ServerProfile, Signals, Transport, Unsent, Wire, Writer,
};
use crate::address::Address;
use crate::error::{Cause, Error, Stream};
use crate::inbox::{End, Inbox};
use crate::login_shell::LoginShell;
use crate::output::ExitStatus;
use crate::pty::Pty;

mod endings;
mod faults;
mod line;
mod names;
mod script;

pub(crate) use endings::Ending;
pub(crate) use faults::connection_refused;
use line::Line;
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
struct State {
    seen: Seen,
    /// Sessions that the server holds, by connection.
    held: HashMap<u32, u32>,
    /// How the next dials end; success when there is nothing here.
    failures: VecDeque<DialError>,
    /// Users who are not let in.
    strangers: HashSet<String>,
    /// When they were not.
    rejected: Vec<Instant>,
    links: Vec<std::sync::Weak<ScriptedLink>>,
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
    ending: Ending,
    /// When each attempt to log in began and its connection ended: one more, one less.
    up: Vec<(Instant, i32)>,
}

#[derive(Clone)]
pub(crate) struct Server {
    script: Script,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
    pub(crate) fn fail_next_dial(&self, failure: DialError) {
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
            let links = server.state().links.clone();
            let links = links.iter().filter_map(std::sync::Weak::upgrade);
            (links.filter(|link| link.id == id)).for_each(|link| link.die("reset"));
        });
    }
}

impl Transport for Server {
    fn dial<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        choice: &'a dyn AddressChoice,
        kept: Kept,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>> {
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
                return Err(DialError {
                    error,
                    passing: false,
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
            let link = Arc::new(ScriptedLink {
                id,
                peer_addr,
                server: self.clone(),
                lifeline: Lifeline::default(),
                dead: CancellationToken::new(),
                kept: Mutex::new(Some((kept, up))),
                inboxes: Mutex::default(),
                line: Line::new(self.script.hop),
            });
            link.line.stalled.send_replace(state.stalls);
            state.links.push(Arc::downgrade(&link));
            state.ending.after_login(&link);
            Ok(link as Arc<dyn Link>)
        }
        .boxed()
    }
}

struct ScriptedLink {
    id: u32,
    peer_addr: Option<SocketAddr>,
    server: Server,
    lifeline: Lifeline,
    dead: CancellationToken,
    kept: Mutex<Option<(Kept, endings::Up)>>,
    inboxes: Mutex<Vec<Arc<Inbox>>>,
    line: Line,
}

impl ScriptedLink {
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
        let kept = (self.kept.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(kept);
        self.lifeline.end(Cause::new(why));
        let inboxes =
            std::mem::take(&mut *self.inboxes.lock().unwrap_or_else(PoisonError::into_inner));
        for inbox in inboxes {
            inbox.end(End::Lost(Cause::new(why)));
        }
    }
}

impl Drop for ScriptedLink {
    fn drop(&mut self) {
        self.die("dropped");
    }
}

impl Link for ScriptedLink {
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
            let at_open = self.ends_at(Ending::AtOpen);
            // The server decides here, and keeps the slot whoever still waits for the answer.
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
            self.ends_at(Ending::AfterOpen);
            if !granted {
                return Err(OpenError::Refused {
                    code: 2,
                    reason: "Connect failed, reason 2".into(),
                });
            }
            let inbox = Arc::<Inbox>::default();
            self.inboxes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(inbox.clone());
            let wire = Arc::new(ScriptedWire {
                link: self.id,
                peer_addr: self.peer_addr,
                server: self.server.clone(),
                dead: self.dead.clone(),
                inbox: inbox.clone(),
                stop: CancellationToken::new(),
                env_names: EnvNames::default(),
                login_shell: Arc::default(),
                line: self.line.clone(),
            });
            if self.server.script.fatal == Some(Fatal::Session) {
                self.server.kill_soon(self.id);
            }
            Ok(Channel { wire, inbox })
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

    fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    fn server(&self) -> ServerProfile {
        self.server.script.profile()
    }
}

struct ScriptedWire {
    link: u32,
    peer_addr: Option<SocketAddr>,
    server: Server,
    dead: CancellationToken,
    inbox: Arc<Inbox>,
    stop: CancellationToken,
    env_names: EnvNames,
    login_shell: Arc<LoginShell>,
    line: Line,
}

/// Counts as running.
struct Process(Server);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.state().seen.running -= 1;
    }
}

impl ScriptedWire {
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
        link: u32,
        line: Line,
        inbox: Arc<Inbox>,
        stop: CancellationToken,
        mark: Option<Vec<u8>>,
        held: bool,
    ) {
        let Script {
            mut runtime,
            errand,
            heeds_signals,
            signals,
            replies,
            ..
        } = server.script;
        if held {
            runtime = Duration::from_secs(100_000);
        } else if mark.is_none() && signals != Signals::Group {
            runtime = errand;
        }
        line.pass().await;
        {
            let mut state = server.state();
            state.seen.started += 1;
            state.seen.running += 1;
        }
        if server.ends_at_exec(link) {
            return;
        }
        let process = Process(server.clone());
        line.pass().await;
        if !replies {
            std::future::pending::<()>().await;
        }
        line.hear();
        assert_eq!(inbox.reply(true), crate::inbox::Flow::Continue, "accepted");
        if let Some(mark) = mark {
            inbox.data(Stream::Stderr, &mark);
        }
        let status = tokio::select! {
            () = sleep(runtime) => ExitStatus::from_code(0),
            () = stop.cancelled(), if heeds_signals => ExitStatus::from_signal("TERM"),
        };
        drop(process);
        line.pass().await;
        line.hear();
        inbox.data(Stream::Stdout, b"done");
        inbox.eof();
        inbox.exit(status);
        sleep(Duration::from_millis(1)).await;
        inbox.end(End::Closed);
        // Our CLOSE travels; the slot is free only after everything that arrived with it.
        line.pass().await;
        sleep(Duration::from_micros(1)).await;
        if let Some(held) = server.state().held.get_mut(&link) {
            *held -= 1;
        }
    }
}

impl Wire for ScriptedWire {
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
                self.link,
                self.line.clone(),
                self.inbox.clone(),
                self.stop.clone(),
                script::mark(&request),
                script::is_held(&request),
            );
            let (inbox, round) = (self.inbox.clone(), self.inbox.round());
            tokio::spawn(async move {
                // Then the request lies in it for another.
                sleep(Duration::from_millis(1)).await;
                inbox.exec_due(round);
                if inbox.has_ended() {
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
                self.server.kill_soon(self.link);
            } else if reply && self.server.script.answers_variables {
                let (line, inbox) = (self.line.clone(), self.inbox.clone());
                tokio::spawn(async move {
                    line.answer().await;
                    assert_eq!(inbox.reply(true), crate::inbox::Flow::Continue);
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
            self.inbox.end_here();
        }
        .boxed()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    fn server(&self) -> ServerProfile {
        self.server.script.profile()
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
