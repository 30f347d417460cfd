//! An SSH server inside the test process, on russh.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{self, Config};
use russh::{MethodKind, MethodSet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::background::Background;
use crate::client;
use crate::connection::{Connection, EndsAt, Shared};
use crate::exec::{End, over};
use crate::mark::Mark;
use crate::procs;
use crate::temp::{self, TempDir};
use crate::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(10);
/// sshd's MaxSessions.
const MAX_SESSIONS: usize = 10;
const THREADS_OF_ONE: usize = 1;
/// Many handshakes at once are work.
const THREADS_OF_MANY: usize = 2;

/// An SSH server on loopback that needs nothing installed: it takes one public key, for any user,
/// and runs commands with `/bin/sh -c` as whoever runs the tests.
///
/// It runs on a thread of its own, or [many](EmbeddedBuilder::start_many) on two. Commands end (SIGKILL) with their connection. It is an honest
/// sshd in what the wire shows of sessions: a refused open says `ConnectFailed`, a closed channel
/// keeps its slot until the command has ended, requests for an environment, a pty, a shell or a
/// subsystem are refused. Two things differ: stdin is taken in without bound, and russh keeps
/// about 4 kB for each finished command until the connection ends.
#[derive(Debug)]
pub struct Embedded {
    // Before the folder: no task may be left when that is removed.
    _background: Arc<Background>,
    closing: watch::Sender<bool>,
    shared: Arc<Shared>,
    dir: Arc<TempDir>,
    folder: PathBuf,
    addr: SocketAddr,
    host_key: String,
    client_key_pem: String,
}

/// What an [`Embedded`] server is started with.
#[derive(Clone, Debug)]
pub struct EmbeddedBuilder {
    max_sessions: usize,
    ends_at: Option<EndsAt>,
}

impl EmbeddedBuilder {
    /// How many sessions one connection may have at once; 10 by default, as on sshd. Zero is
    /// allowed.
    #[must_use]
    pub fn max_sessions(mut self, count: usize) -> Self {
        self.max_sessions = count;
        self
    }

    /// What makes it end a connection, every time; nothing by default.
    #[must_use]
    pub fn ends_at(mut self, moment: EndsAt) -> Self {
        self.ends_at = Some(moment);
        self
    }

    /// Starts the server; it listens when this returns.
    pub async fn start(self) -> Embedded {
        let mut servers = self.start_several(1, THREADS_OF_ONE).await;
        servers.pop().expect("one was started")
    }

    /// Starts this many, cheaply: they share two threads, a host key and the key that may log in,
    /// and their known_hosts file has a line for each of them. One that is dropped before the others
    /// may hold its port for a moment longer.
    pub async fn start_many(self, count: usize) -> Vec<Embedded> {
        self.start_several(count, THREADS_OF_MANY).await
    }

    // Async so that waiting can be added without breaking callers.
    #[allow(clippy::unused_async)]
    async fn start_several(self, count: usize, threads: usize) -> Vec<Embedded> {
        let dir = Arc::new(TempDir::new());
        let (host_key, client_key) = (random_key(), random_key());
        let client_key_pem = client_key
            .to_openssh(LineEnding::LF)
            .expect("write a private key")
            .to_string();
        temp::write(&dir.path().join("client"), &client_key_pem, 0o600);
        let host_public = host_key
            .public_key()
            .to_openssh()
            .expect("write a public key");
        let background = Arc::new(Background::new("embedded-sshd", threads));
        let config = config(host_key);
        let servers: Vec<Embedded> = (0..count)
            .map(|_| {
                let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                let listener = listener.expect("listen");
                listener
                    .set_nonblocking(true)
                    .expect("make a socket non-blocking");
                let addr = listener.local_addr().expect("the address of a listener");
                let listener =
                    background.enter(|| TcpListener::from_std(listener).expect("take a listener"));
                // One for each, as its mark: what others have started is not for it to end.
                let folder = match count {
                    1 => dir.path().to_owned(),
                    _ => temp::folder(&dir.path().join(addr.port().to_string())),
                };
                let shared = Arc::new(Shared::new(
                    client_key.public_key().clone(),
                    self.max_sessions,
                    self.ends_at,
                    Mark::new(&folder),
                ));
                let (closing, closed) = watch::channel(false);
                background.spawn(listen(
                    listener,
                    Arc::clone(&config),
                    Arc::clone(&shared),
                    closed,
                ));
                Embedded {
                    _background: Arc::clone(&background),
                    closing,
                    shared,
                    dir: Arc::clone(&dir),
                    folder,
                    addr,
                    host_key: host_public.clone(),
                    client_key_pem: client_key_pem.clone(),
                }
            })
            .collect();
        let known_hosts: String = servers
            .iter()
            .map(|server| client::known_hosts_line(server.addr, &host_public))
            .collect();
        temp::write(&dir.path().join("known_hosts"), &known_hosts, 0o644);
        servers
    }
}

impl Embedded {
    /// A server with sshd's limits; change them before [`start`](EmbeddedBuilder::start).
    #[must_use]
    pub fn builder() -> EmbeddedBuilder {
        EmbeddedBuilder {
            max_sessions: MAX_SESSIONS,
            ends_at: None,
        }
    }

    /// Starts one with nothing changed.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// A name to log in with. Any other does as well.
    #[must_use]
    pub fn user(&self) -> &'static str {
        "test"
    }

    /// `user@127.0.0.1:port`
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}@{}", self.user(), self.addr)
    }

    /// Its public host key: `ssh-ed25519 AAAA…`.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// A known_hosts file with its host key.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// The private key that may log in, in OpenSSH's format, without passphrase.
    #[must_use]
    pub fn client_key_pem(&self) -> &str {
        &self.client_key_pem
    }

    /// The same key as a file.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.folder
    }

    /// The stock client, about to log in here: add a command.
    #[must_use]
    pub fn ssh(&self) -> Command {
        client::ssh(
            self.addr,
            self.user(),
            &self.client_key(),
            &self.known_hosts(),
        )
    }

    /// How many TCP connections it has taken.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.open_connections.load(Ordering::SeqCst)
    }

    /// How many connections have logged in.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many keys it has turned down.
    #[must_use]
    pub fn auth_failures(&self) -> usize {
        self.shared.auth_failures.load(Ordering::SeqCst)
    }

    /// How many commands it has started.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.shared.commands.load(Ordering::SeqCst)
    }

    /// How many commands run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::SeqCst)
    }

    /// How many session channels it has refused to open.
    #[must_use]
    pub fn refused_opens(&self) -> usize {
        self.shared.refused_opens.load(Ordering::SeqCst)
    }

    /// Ends it, its connections and all they have started. The same as dropping it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _ = self.closing.send(true);
        // Commands are killed by their own tasks, which also wait for them: no zombies.
        let ended = eventually(PATIENCE, || self.running() == 0);
        let gone = eventually(PATIENCE, || {
            let left = self.shared.mark.processes();
            left.iter().copied().for_each(procs::kill);
            left.is_empty()
        });
        if (!ended || !gone) && !std::thread::panicking() {
            panic!("commands of the embedded server survive its end");
        }
    }
}

fn random_key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).expect("make a key")
}

fn config(host_key: PrivateKey) -> Arc<Config> {
    Arc::new(Config {
        keys: vec![host_key],
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        // Nobody measures the time that this server takes to refuse.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    })
}

async fn listen(listener: TcpListener, config: Arc<Config>, shared: Arc<Shared>, closed: End) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = over(closed.clone()) => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let connection = Connection::new(Arc::clone(&shared));
        tokio::spawn(serve(
            stream,
            Arc::clone(&config),
            connection,
            closed.clone(),
        ));
    }
}

async fn serve(stream: TcpStream, config: Arc<Config>, connection: Connection, closed: End) {
    // Off, it costs 40 ms and more a command.
    let _ = stream.set_nodelay(config.nodelay);
    let gone = connection.end();
    // A client that fails or goes away is what tests do; what matters to them shows on its side.
    let Ok(session) = server::run_stream(config, stream, connection).await else {
        return;
    };
    let handle = session.handle();
    tokio::select! {
        _ = session => {}
        () = over(closed) => {
            let _ = gone.send(true);
            let (text, language) = (String::new(), String::new());
            let _ = handle.disconnect(russh::Disconnect::ByApplication, text, language).await;
        }
    }
}
