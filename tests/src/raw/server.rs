//! The listener of a raw server.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;

use super::handshake::KeyExchange;
use super::peer::{RawPeer, Trick};
use crate::background::Background;
use crate::client;
use crate::temp::{self, TempDir};

/// What a server does with each connection. An error ends the connection, as the end of it does.
pub type Script =
    Arc<dyn Fn(RawPeer) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> + Send + Sync>;

/// What is counted of all connections.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: AtomicUsize,
    pub(super) logins: AtomicUsize,
    pub(super) executed: AtomicUsize,
}

/// An SSH server on loopback that does to each client what its script says. It lets every user in,
/// and runs nothing.
#[derive(Debug)]
pub struct RawServer {
    // Before the rest: no task may be left when that goes.
    _background: Background,
    addr: SocketAddr,
    counts: Arc<Counts>,
    dir: TempDir,
}

impl RawServer {
    /// Starts a server with a script.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use ssh_pool_tests::raw::RawServer;
    ///
    /// // Ends each connection after the login.
    /// let server = RawServer::start(Arc::new(|mut peer| {
    ///     Box::pin(async move {
    ///         peer.handshake().await?;
    ///         peer.log_in().await
    ///     })
    /// }));
    /// # drop(server);
    /// ```
    #[must_use]
    pub fn start(script: Script) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        listener
            .set_nonblocking(true)
            .expect("make a socket non-blocking");
        let addr = listener.local_addr().expect("the address of a listener");
        let background = Background::new("raw-sshd", 1);
        let listener = background.enter(|| TcpListener::from_std(listener));
        let listener = listener.expect("take a listener");
        let counts = Arc::new(Counts::default());
        let dir = TempDir::new();
        let key = russh::keys::PublicKey::from_bytes(&super::handshake::host_key_blob());
        let key = key.expect("an Ed25519 key").to_openssh();
        let line = client::known_hosts_line(addr, &key.expect("write a public key"));
        temp::write(&dir.path().join("known_hosts"), &line, 0o644);
        background.spawn(listen(listener, script, Arc::clone(&counts)));
        Self {
            _background: background,
            addr,
            counts,
            dir,
        }
    }

    /// Starts a server that keeps to the protocol, except for these tricks.
    #[must_use]
    pub fn with_tricks(key_exchange: KeyExchange, tricks: Vec<Trick>) -> Self {
        let tricks = Arc::new(tricks);
        Self::start(Arc::new(move |mut peer| {
            let tricks = Arc::clone(&tricks);
            let key_exchange = key_exchange.clone();
            Box::pin(async move {
                peer.key_exchange = key_exchange;
                peer.play(tricks);
                peer.handshake().await?;
                peer.serve().await
            })
        }))
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `tester@127.0.0.1:port`
    #[must_use]
    pub fn target(&self) -> String {
        format!("tester@{}", self.addr)
    }

    /// A known_hosts file with its host key.
    #[must_use]
    pub fn known_hosts(&self) -> std::path::PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many logins it has accepted.
    #[must_use]
    pub fn logins(&self) -> usize {
        self.counts.logins.load(Ordering::Relaxed)
    }

    /// How many requests to execute a command it has received.
    #[must_use]
    pub fn executed(&self) -> usize {
        self.counts.executed.load(Ordering::Relaxed)
    }
}

async fn listen(listener: TcpListener, script: Script, counts: Arc<Counts>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for a moment.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        let peer = RawPeer::new(stream, Arc::clone(&counts));
        let script = Arc::clone(&script);
        // What goes wrong with a connection is the client's doing, and its test looks there.
        tokio::spawn(async move { drop(script(peer).await) });
    }
}
