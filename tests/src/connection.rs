//! What the embedded server does for one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use tokio::sync::watch;

use crate::exec::{self, Place, Sessions};
use crate::mark::Mark;

/// What makes an [`Embedded`](crate::Embedded) server end a connection, every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndsAt {
    /// The first request for a session, which is not answered.
    Open,
    /// The first command, which is not started, after its session was granted.
    Exec,
}

/// What the connections of one server share: who may log in, and what has happened.
#[derive(Debug)]
pub(crate) struct Shared {
    authorized: PublicKey,
    max_sessions: usize,
    ends_at: Option<EndsAt>,
    pub(crate) mark: Mark,
    pub(crate) connections: AtomicUsize,
    pub(crate) open_connections: AtomicUsize,
    pub(crate) accepted: AtomicUsize,
    pub(crate) auth_failures: AtomicUsize,
    pub(crate) commands: AtomicUsize,
    pub(crate) refused_opens: AtomicUsize,
    pub(crate) running: Arc<AtomicUsize>,
}

impl Shared {
    pub(crate) fn new(
        authorized: PublicKey,
        max_sessions: usize,
        ends_at: Option<EndsAt>,
        mark: Mark,
    ) -> Self {
        Self {
            authorized,
            max_sessions,
            ends_at,
            mark,
            connections: AtomicUsize::new(0),
            open_connections: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            auth_failures: AtomicUsize::new(0),
            commands: AtomicUsize::new(0),
            refused_opens: AtomicUsize::new(0),
            running: Arc::default(),
        }
    }
}

/// One client.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    sessions: Sessions,
    /// Dropped with the connection, which ends its commands.
    gone: Arc<watch::Sender<bool>>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.open_connections.fetch_add(1, Ordering::SeqCst);
        Self {
            shared,
            sessions: Sessions::default(),
            gone: Arc::new(watch::channel(false).0),
        }
    }

    /// An error in a callback ends the connection without a word.
    fn survives(&self, moment: EndsAt) -> Result<(), russh::Error> {
        if self.shared.ends_at == Some(moment) {
            return Err(russh::Error::Disconnect);
        }
        Ok(())
    }

    /// Tells its commands that it is at its end.
    pub(crate) fn end(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.gone)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.open_connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        if key.public_key.key_data() == self.shared.authorized.key_data() {
            self.shared.accepted.fetch_add(1, Ordering::SeqCst);
            return Ok(Auth::Accept);
        }
        self.shared.auth_failures.fetch_add(1, Ordering::SeqCst);
        Ok(Auth::reject())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.survives(EndsAt::Open)?;
        if self.sessions.taken() >= self.shared.max_sessions {
            self.shared.refused_opens.fetch_add(1, Ordering::SeqCst);
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        } else {
            // The read half would hold up the connection if nobody emptied it: the callbacks
            // below get everything as well.
            self.sessions.open(channel.split().1);
            reply.accept().await;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.survives(EndsAt::Exec)?;
        let place = Place {
            sessions: self.sessions.clone(),
            handle: session.handle(),
            mark: self.shared.mark.clone(),
            gone: self.gone.subscribe(),
            running: Arc::clone(&self.shared.running),
        };
        match exec::start(place, channel, data) {
            Ok(()) => {
                self.shared.commands.fetch_add(1, Ordering::SeqCst);
                session.channel_success(channel)
            }
            Err(_) => session.channel_failure(channel),
        }
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sessions.data(channel, data);
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sessions.eof(channel);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sessions.close(channel);
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sessions.signal(channel, &signal);
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}
