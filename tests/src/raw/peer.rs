//! One connection: a server that keeps to the protocol, and tricks that take the place of its
//! messages.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::handshake::KeyExchange;
use super::number;
use super::packet::{Packet, Receiver, Sender};
use super::payload::{Fields, Payload};
use super::server::Counts;

const IDENTIFICATION: &[u8] = b"SSH-2.0-Raw_1.0";
/// The server's number of a channel is the client's and this.
const OURS: u32 = 1000;
const WINDOW: u32 = 2 << 20;
const MAX_PACKET: u32 = 32 << 10;
const DRIP: Duration = Duration::from_secs(1);

/// When a [`Trick`] is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In the place of the identification line.
    Identification,
    /// In the place of the first message with this number.
    First(u8),
    /// In the place of every message with this number.
    Every(u8),
}

/// One step of a [`Trick`].
#[derive(Clone, Debug)]
pub enum Act {
    /// What would have been sent.
    Original,
    /// A message.
    Send(Vec<u8>),
    /// A message, this many times.
    Repeat(Vec<u8>, usize),
    /// A message, until the connection ends. What the client says meanwhile is thrown away.
    Flood(Vec<u8>),
    /// A packet that may be wrong.
    Packet(Packet),
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// Bytes as they are, until the connection ends.
    FloodBytes(Vec<u8>),
    /// A message, one byte a second.
    Drip(Vec<u8>),
    /// A complete key exchange.
    Rekey,
    /// Everything is read, and nothing is said any more.
    Mute,
    /// Nothing is read or said any more.
    Deaf,
    /// The connection is closed.
    Close,
}

impl From<Payload> for Act {
    fn from(payload: Payload) -> Self {
        Self::Send(payload.into())
    }
}

/// The channel that a trick is played on: the last one that the client opened, in the client's
/// number and the server's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelNumbers {
    /// To be named in what the server sends.
    pub client: u32,
    /// Named in what the client sends.
    pub server: u32,
}

/// Something that takes the place of a message.
#[derive(Clone)]
pub struct Trick {
    /// When.
    pub at: At,
    /// What.
    pub acts: Arc<dyn Fn(ChannelNumbers) -> Vec<Act> + Send + Sync>,
}

impl Trick {
    /// A trick that needs to know the channel.
    pub fn on_channel(
        at: At,
        acts: impl Fn(ChannelNumbers) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let acts = Arc::new(acts);
        Self { at, acts }
    }

    /// A trick that is always the same.
    #[must_use]
    pub fn new(at: At, acts: Vec<Act>) -> Self {
        Self::on_channel(at, move |_| acts.clone())
    }
}

impl fmt::Debug for Trick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trick")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// Turns a message into others.
pub type Mutation = Box<dyn FnMut(Vec<u8>) -> Vec<Vec<u8>> + Send>;

/// The server's end of one connection.
///
/// Every send is a message of its own choice; [`handshake`](RawPeer::handshake),
/// [`log_in`](RawPeer::log_in) and [`serve`](RawPeer::serve) do what a server does.
pub struct RawPeer {
    sender: Sender,
    receiver: Receiver,
    /// What is proposed and answered in the next key exchange.
    pub key_exchange: KeyExchange,
    /// Turns each message into those that are sent in its place: for random faults.
    pub mutate: Option<Mutation>,
    tricks: Arc<Vec<Trick>>,
    played: Vec<At>,
    channel: ChannelNumbers,
    client_identification: Vec<u8>,
    session: Option<Vec<u8>>,
    counts: Arc<Counts>,
}

impl fmt::Debug for RawPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawPeer")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl RawPeer {
    pub(super) fn new(stream: TcpStream, counts: Arc<Counts>) -> Self {
        let (read, write) = stream.into_split();
        Self {
            sender: Sender {
                stream: write,
                key: None,
            },
            receiver: Receiver {
                stream: read,
                key: None,
            },
            key_exchange: KeyExchange::default(),
            mutate: None,
            tricks: Arc::default(),
            played: Vec::new(),
            channel: ChannelNumbers::default(),
            client_identification: Vec::new(),
            session: None,
            counts,
        }
    }

    /// From now on these tricks take the place of messages.
    pub fn play(&mut self, tricks: Arc<Vec<Trick>>) {
        self.tricks = tricks;
    }

    /// Sends a message, or what a trick has in its place.
    ///
    /// # Errors
    ///
    /// When the client has gone, or a trick has closed the connection.
    pub async fn send(&mut self, message: impl Into<Vec<u8>>) -> io::Result<()> {
        let message = message.into();
        let number = message.first().copied().unwrap_or_default();
        let at = |trick: &&Trick| match trick.at {
            At::Every(every) => every == number,
            At::First(first) => first == number && !self.played.contains(&trick.at),
            At::Identification => false,
        };
        let Some(trick) = self.tricks.iter().find(at).cloned() else {
            return self.send_packet(message).await;
        };
        self.played.push(trick.at);
        for act in (trick.acts)(self.channel) {
            self.act(act, &message).await?;
        }
        Ok(())
    }

    async fn act(&mut self, act: Act, original: &[u8]) -> io::Result<()> {
        match act {
            Act::Original => self.send_packet(original.to_vec()).await,
            Act::Send(message) => self.send_packet(message).await,
            Act::Repeat(message, times) => {
                for _ in 0..times {
                    self.send_packet(message.clone()).await?;
                }
                Ok(())
            }
            Act::Flood(payload) => {
                let packet = Packet {
                    payload,
                    ..Packet::default()
                };
                let Self {
                    sender, receiver, ..
                } = self;
                let flood = async {
                    loop {
                        sender.send(&packet).await?;
                    }
                };
                let listen = async {
                    loop {
                        receiver.receive().await?;
                    }
                };
                tokio::select! { ended = flood => ended, ended = listen => ended }
            }
            Act::Packet(packet) => self.sender.send(&packet).await,
            Act::Bytes(bytes) => self.send_bytes(&bytes).await,
            Act::FloodBytes(bytes) => loop {
                self.send_bytes(&bytes).await?;
            },
            Act::Drip(payload) => {
                let packet = Packet {
                    payload,
                    ..Packet::default()
                };
                for byte in self.sender.wire(&packet) {
                    self.send_bytes(&[byte]).await?;
                    tokio::time::sleep(DRIP).await;
                }
                Ok(())
            }
            Act::Rekey => Box::pin(self.exchange_keys(None)).await,
            Act::Mute => loop {
                self.receive().await?;
            },
            Act::Deaf => std::future::pending().await,
            Act::Close => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Sends a message as it is.
    ///
    /// # Errors
    ///
    /// When the client has gone.
    pub async fn send_packet(&mut self, payload: Vec<u8>) -> io::Result<()> {
        let payloads = match &mut self.mutate {
            None => vec![payload],
            Some(mutate) => mutate(payload),
        };
        for payload in payloads {
            let packet = Packet {
                payload,
                ..Packet::default()
            };
            self.sender.send(&packet).await?;
        }
        Ok(())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// When the client has gone.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sender.stream.write_all(bytes).await
    }

    /// The client's next message.
    ///
    /// # Errors
    ///
    /// When the client has gone.
    pub async fn receive(&mut self) -> io::Result<Vec<u8>> {
        self.receiver.receive().await
    }

    /// Identification and key exchange.
    ///
    /// # Errors
    ///
    /// When the client has gone, or a trick has closed the connection.
    pub async fn handshake(&mut self) -> io::Result<()> {
        let trick = self
            .tricks
            .iter()
            .find(|trick| trick.at == At::Identification);
        let acts = trick.map(|trick| (trick.acts)(self.channel));
        for act in acts.unwrap_or_else(|| vec![Act::Original]) {
            match act {
                Act::Original => {
                    self.send_bytes(IDENTIFICATION).await?;
                    self.send_bytes(b"\r\n").await?;
                }
                act => self.act(act, &[]).await?,
            }
        }
        self.read_identification().await?;
        self.exchange_keys(None).await
    }

    async fn read_identification(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(self.receiver.stream.read_u8().await?);
        }
        let end = line.len() - if line.ends_with(b"\r\n") { 2 } else { 1 };
        line.truncate(end);
        self.client_identification = line;
        Ok(())
    }

    /// A key exchange: the first, or another. `client_init` is the client's KEXINIT, if it has
    /// arrived.
    ///
    /// # Errors
    ///
    /// When the client has gone, or a trick has closed the connection.
    pub async fn exchange_keys(&mut self, client_init: Option<Vec<u8>>) -> io::Result<()> {
        let init = self.key_exchange.init();
        self.send(init.clone()).await?;
        let client_init = match client_init {
            Some(message) => message,
            None => self.wait_for(number::KEXINIT).await?,
        };
        let ecdh_init = self.wait_for(number::KEX_ECDH_INIT).await?;
        let (reply, keys) = self.key_exchange.reply(
            &ecdh_init,
            [&self.client_identification, IDENTIFICATION],
            [&client_init, &init],
        );
        self.send(reply).await?;
        self.send(Payload::new(number::NEWKEYS)).await?;
        let session = self.session.get_or_insert(keys.exchange_hash.clone());
        self.sender.key = Some(keys.server_key(session));
        let client_key = keys.client_key(session);
        self.wait_for(number::NEWKEYS).await?;
        self.receiver.key = Some(client_key);
        Ok(())
    }

    /// The client's next message with this number; others are thrown away.
    ///
    /// # Errors
    ///
    /// When the client has gone.
    pub async fn wait_for(&mut self, number: u8) -> io::Result<Vec<u8>> {
        loop {
            let message = self.receive().await?;
            if message.first() == Some(&number) {
                return Ok(message);
            }
        }
    }

    /// Answers until the client is logged in.
    ///
    /// # Errors
    ///
    /// When the client has gone, or a trick has closed the connection.
    pub async fn log_in(&mut self) -> io::Result<()> {
        loop {
            let message = self.receive().await?;
            let success = self.answer_login(&message).await?;
            if success {
                return Ok(());
            }
        }
    }

    /// Answers whatever the client asks, until it goes.
    ///
    /// # Errors
    ///
    /// When the client has gone, or a trick has closed the connection.
    pub async fn serve(&mut self) -> io::Result<()> {
        loop {
            let message = self.receive().await?;
            match message.first().copied().unwrap_or_default() {
                number::KEXINIT => self.exchange_keys(Some(message)).await?,
                number::SERVICE_REQUEST
                | number::USERAUTH_REQUEST
                | number::USERAUTH_INFO_RESPONSE => {
                    self.answer_login(&message).await?;
                }
                number::DISCONNECT => return Ok(()),
                _ => self.answer(&message).await?,
            }
        }
    }

    async fn answer_login(&mut self, message: &[u8]) -> io::Result<bool> {
        let mut fields = Fields::of(message);
        match message.first().copied().unwrap_or_default() {
            number::SERVICE_REQUEST => {
                let accept = Payload::new(number::SERVICE_ACCEPT).string(fields.string());
                self.send(accept).await?;
            }
            number::USERAUTH_REQUEST => {
                let (_user, _service) = (fields.string(), fields.string());
                match fields.string() {
                    b"none" => {
                        let methods = "publickey,password,keyboard-interactive";
                        let failure = Payload::new(number::USERAUTH_FAILURE);
                        self.send(failure.string(methods).byte(0)).await?;
                    }
                    b"publickey" if fields.byte() == 0 => {
                        let ok = Payload::new(number::USERAUTH_PK_OK);
                        let ok = ok.string(fields.string()).string(fields.string());
                        self.send(ok).await?;
                    }
                    b"keyboard-interactive" => {
                        let ask = Payload::new(number::USERAUTH_INFO_REQUEST);
                        let ask = ask.string("").string("").string("").number(1);
                        self.send(ask.string("Password: ").byte(0)).await?;
                    }
                    _ => return self.let_in().await,
                }
            }
            number::USERAUTH_INFO_RESPONSE => return self.let_in().await,
            _ => {}
        }
        Ok(false)
    }

    async fn let_in(&mut self) -> io::Result<bool> {
        self.counts.logins.fetch_add(1, Ordering::Relaxed);
        self.send(Payload::new(number::USERAUTH_SUCCESS)).await?;
        Ok(true)
    }

    async fn answer(&mut self, message: &[u8]) -> io::Result<()> {
        let mut fields = Fields::of(message);
        match message.first().copied().unwrap_or_default() {
            number::GLOBAL_REQUEST => {
                let name = fields.string();
                let granted = name.ends_with(b"forward") || name.ends_with(b"forward@openssh.com");
                if fields.byte() != 0 {
                    self.send(Payload::new(match granted {
                        true => number::REQUEST_SUCCESS,
                        false => number::REQUEST_FAILURE,
                    }))
                    .await?;
                }
                Ok(())
            }
            number::CHANNEL_OPEN => {
                let _kind = fields.string();
                let client = fields.number();
                let server = client.wrapping_add(OURS);
                self.channel = ChannelNumbers { client, server };
                let confirmation = Payload::new(number::CHANNEL_OPEN_CONFIRMATION);
                let confirmation = confirmation.number(client).number(server);
                self.send(confirmation.number(WINDOW).number(MAX_PACKET))
                    .await
            }
            number::CHANNEL_DATA => {
                let client = fields.number().wrapping_sub(OURS);
                let length = u32::try_from(fields.string().len()).unwrap_or_default();
                let adjust = Payload::new(number::CHANNEL_WINDOW_ADJUST);
                self.send(adjust.number(client).number(length)).await
            }
            number::CHANNEL_CLOSE => {
                let client = fields.number().wrapping_sub(OURS);
                // Answered twice where the server began: a trick in itself, and harmless.
                self.send(Payload::new(number::CHANNEL_CLOSE).number(client))
                    .await
            }
            number::CHANNEL_REQUEST => self.answer_request(fields).await,
            _ => Ok(()),
        }
    }

    /// Runs a command: it says a line and exits with 0. One with "linger" in its line runs until
    /// it is signalled.
    async fn answer_request(&mut self, mut fields: Fields<'_>) -> io::Result<()> {
        let client = fields.number().wrapping_sub(OURS);
        let kind = fields.string();
        let reply = fields.byte() != 0;
        let success = Payload::new(number::CHANNEL_SUCCESS).number(client);
        let request = Payload::new(number::CHANNEL_REQUEST).number(client);
        if reply {
            self.send(success).await?;
        }
        let ended = match kind {
            b"exec" => {
                self.counts.executed.fetch_add(1, Ordering::Relaxed);
                let line = fields.string();
                if line.windows(6).any(|word| word == b"linger") {
                    return Ok(());
                }
                let data = Payload::new(number::CHANNEL_DATA).number(client);
                self.send(data.string("raw\n")).await?;
                request.string("exit-status").byte(0).number(0)
            }
            b"signal" => {
                let name = fields.string();
                let request = request.string("exit-signal").byte(0).string(name);
                request.byte(0).string("").string("")
            }
            _ => return Ok(()),
        };
        self.send(ended).await?;
        self.send(Payload::new(number::CHANNEL_EOF).number(client))
            .await?;
        self.send(Payload::new(number::CHANNEL_CLOSE).number(client))
            .await
    }
}
