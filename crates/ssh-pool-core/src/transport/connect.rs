//! From nothing to an authenticated connection.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use russh::AlgorithmKind;
use russh::client::Handle;
use russh::keys::Algorithm;
use russh::keys::ssh_encoding::Decode;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::algorithms::Proposal;
use super::arithmetic::ExpensiveSessions;
use super::auth::{self, LoginRules};
use super::client::{ChannelTable, Client};
use super::connection::SshConnection;
use super::handshake_progress::HandshakeProgress;
use super::happy_eyeballs::{self, Attempts};
use super::keys::{Credential, Keyring, Loader};
use super::known_hosts::{TrustStore, Untrusted};
use super::messages::Messages;
use super::offer::{KexCost, kex_cost};
use super::read_timeout::ReadTimeout;
use super::stopwatch::Stopwatch;
use super::stream::Socket;
use super::{AddressChoice, ConnectError, Connection, Endpoint, SocketGuard, Transport, config};
use crate::error::{
    Cause, CommandState, Error, HostKeyProblem, Phase, Unfit, Unidentified, no_descriptors,
};
use crate::printable;

/// sshd's words when it turns a connection away: `MaxStartups` reached, or a penalty
/// (`PerSourcePenalties`, OpenSSH 9.8). They come in place of its identification line.
const THROTTLED: [&str; 2] = ["Exceeded MaxStartups", "Not allowed at this time"];

/// russh drops SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252, section 8), and waits on.
const PASSWORD_PENDING: &str = "it said neither yes nor no to the password, and may demand a new \
                                one, which has to be set by other means, such as ssh";

/// From a server's acceptance of the connection to its KEXINIT: its line, ours, the list.
const ROUND_TRIPS: u32 = 4;

/// Real connections, through russh.
#[derive(Debug, Default)]
pub(crate) struct Russh {
    expensive: Arc<ExpensiveSessions>,
    keyring: Keyring,
}

impl Transport for Russh {
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        choice: &'a dyn AddressChoice,
        socket_guard: SocketGuard,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        async move {
            let handshake = Handshake {
                endpoint,
                choice,
                attempts: Attempts::default(),
                expensive: &self.expensive,
                keyring: &self.keyring,
                stopwatch: Stopwatch::of_handshake(
                    endpoint.connect_timeout,
                    endpoint.phase_cell.clone(),
                ),
                progress: Arc::new(HandshakeProgress::new(endpoint.phase_cell.clone())),
                messages: Arc::new(Messages::new(endpoint)),
            };
            let _ended = HandshakeEnd(&handshake.progress);
            match handshake.stopwatch.limit(handshake.run(socket_guard)).await {
                Ok(Ok(connection)) => Ok(Arc::new(connection) as Arc<dyn Connection>),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(handshake.timed_out(endpoint.connect_timeout)),
            }
        }
        .boxed()
    }
}

/// Dropped, the dial has ended.
struct HandshakeEnd<'a>(&'a HandshakeProgress);

impl Drop for HandshakeEnd<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

struct Handshake<'a> {
    endpoint: &'a Endpoint,
    choice: &'a dyn AddressChoice,
    attempts: Attempts,
    expensive: &'a Arc<ExpensiveSessions>,
    keyring: &'a Keyring,
    stopwatch: Arc<Stopwatch>,
    progress: Arc<HandshakeProgress>,
    messages: Arc<Messages>,
}

impl Handshake<'_> {
    async fn run(&self, socket_guard: SocketGuard) -> Result<SshConnection, ConnectError> {
        let Endpoint {
            name, host, port, ..
        } = self.endpoint;
        let proposal = Proposal::of(&self.endpoint.algorithms).map_err(permanent)?;
        // Files first: no server is kept waiting in the middle of a handshake while keys are read
        // and decrypted.
        let loader = Loader {
            keyring: self.keyring,
            stopwatch: &self.stopwatch,
            agent_limit: self.endpoint.agent_timeout,
        };
        let credentials = loader.load(name, &self.endpoint.identity);
        let (credentials, unused) = credentials.await.map_err(local_failure)?;
        let trust = TrustStore::load(&self.endpoint.policy, host, *port)
            .await
            .map_err(|problem| self.untrusted(problem))?;
        let trust = Arc::new(trust);
        // A login that is broken off counts at the server: what it will open is held from before.
        let agent = |credential: &Credential| match credential {
            Credential::FromAgent(source) => source.has_agent(),
            _ => false,
        };
        let opens = trust.may_store() || credentials.iter().any(agent);
        let reserved = opens.then(|| self.reserve()).transpose()?;

        let asked = Instant::now();
        let (address, tcp) = self.connect_tcp().await?;
        // On a long way the server needs longer.
        let hello = (self.endpoint.hello_timeout).max(asked.elapsed() * ROUND_TRIPS);
        let kill = CancellationToken::new();
        // A dial that fails, or is dropped at any await, leaves no socket behind.
        let guard = kill.clone().drop_guard();
        let read_gate = self.endpoint.isolated.then(Arc::default);
        let buffered = self.endpoint.buffered.clone();
        let channels = Arc::new(ChannelTable::new(address, read_gate.clone(), buffered));
        let accepted = Arc::new(Mutex::new(None));
        let handler = Client::new(
            channels.clone(),
            self.progress.clone(),
            self.messages.clone(),
            trust.clone(),
            accepted.clone(),
        );
        self.progress.enter(Phase::Banner);
        let mut socket = Socket::new(
            tcp,
            kill.clone(),
            self.progress.clone(),
            channels.prompt.clone(),
            channels.last_heard.clone(),
            channels.traffic.clone(),
            ReadTimeout::new(
                self.endpoint.keepalive_interval,
                self.endpoint.keepalive_misses,
            ),
            read_gate,
            socket_guard,
        );
        let id = config::identification();
        let cost = self.within(hello, kex_cost(&mut socket, &id, &proposal.kex));
        let cost = cost
            .await?
            .map_err(|error| self.handshake_failed(address, error.into()))?;
        let known = trust.known_algorithms();
        let config = config::client_config(self.endpoint, &proposal, &known, cost);
        let session = russh::client::connect_stream(Arc::new(config), socket, handler);
        let (session, threads) = match cost {
            KexCost::Cheap => (session.await, None),
            KexCost::Expensive => {
                let session = self.expensive.spawning(session).await;
                let session = session.map_err(|error| self.no_thread(error))?;
                (session, Some(self.expensive.clone()))
            }
        };
        let mut handle = session.map_err(|error| match (error, trust.uncheckable()) {
            (russh::Error::WrongServerSig, Some(problem)) => self.untrusted(problem.into()),
            (error, _) => self.handshake_failed(address, error),
        })?;
        if let Some(other) = signed_otherwise(&handle, &proposal) {
            let reason = format!("it signed the key exchange with {other}, which is not allowed");
            return Err(self.not_proven(reason));
        }

        let new_key = accepted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(reserved);
        if let Some(key) = new_key {
            trust.remember(&key).await.map_err(|problem| ConnectError {
                transient: false,
                ..self.untrusted(problem)
            })?;
        }

        let charges = channels.server().charges_failed_logins();
        self.choice.charges_failed_logins(charges);
        let rules = LoginRules {
            target: name,
            user: &self.endpoint.user,
            max_attempts: self.endpoint.auth_attempts,
            cooldown: self.endpoint.auth_cooldown,
            public_keys: &proposal.public_keys,
            unused: &unused,
            messages: &self.messages,
        };
        let login = auth::authenticate(&mut handle, credentials, rules);
        login.await.map_err(|error| ConnectError {
            // Not for want of a descriptor either: the server has been bothered, and may count.
            transient: matches!(error, Error::AuthLost { lost: true, .. }),
            error,
        })?;
        guard.disarm();
        self.progress.enter(Phase::Channel);
        Ok(SshConnection::new(
            handle,
            channels,
            kill,
            self.endpoint,
            threads,
        ))
    }

    /// Gives up after `limit`, which may be less than the dial has.
    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, ConnectError> {
        if limit >= self.endpoint.connect_timeout {
            return Ok(work.await);
        }
        let result = tokio::time::timeout(limit, work).await;
        result.map_err(|_| self.timed_out(limit))
    }

    fn timed_out(&self, after: Duration) -> ConnectError {
        let phase = self.progress.phase();
        let source = if phase == Phase::Connect {
            for address in self.attempts.unanswered() {
                self.choice.unreachable(address);
            }
            self.attempts.take().map(Cause::new)
        } else {
            let list = self.messages.list();
            let said = list.last();
            let said = said.map(|last| format!("the server had said \"{}\"", last.text));
            let said = said.or_else(|| self.endpoint.phase_cell.said());
            let pending = self.messages.is_password_pending();
            let words: Vec<_> = said
                .into_iter()
                .chain(pending.then(|| PASSWORD_PENDING.to_owned()))
                .collect();
            (!words.is_empty()).then(|| Cause::new(words.join("; ")))
        };
        permanent(Error::Timeout {
            target: (&self.endpoint.name).into(),
            phase,
            after,
            state: CommandState::NotStarted,
            killed: false,
            source,
        })
    }

    /// Looks the name up and connects to one of its addresses.
    async fn connect_tcp(&self) -> Result<(SocketAddr, TcpStream), ConnectError> {
        let Endpoint {
            name, host, port, ..
        } = self.endpoint;
        let unresolved = |source: Cause| {
            // Resolvers open files and sockets of their own, and do not say what they lacked.
            if source.no_descriptors() || !can_open() {
                return self.no_descriptors(source);
            }
            permanent(Error::Resolve {
                target: name.into(),
                source,
            })
        };
        self.progress.enter(Phase::Resolve);
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map_err(|error| unresolved(Cause::new(error)))?
            .collect();

        self.progress.enter(Phase::Connect);
        let open = TcpStream::connect::<SocketAddr>;
        let connected = happy_eyeballs::connect(&addresses, self.choice, &self.attempts, open);
        let connected = self.within(self.endpoint.hello_timeout, connected).await?;
        let Some((address, tcp)) = connected else {
            return Err(match self.attempts.take() {
                None => unresolved(Cause::new("the name has no address")),
                Some(failed) if failed.any(|error| no_descriptors(error)) => {
                    self.no_descriptors(Cause::new(failed))
                }
                Some(failed) => ConnectError {
                    // A reset, other than a refusal, comes from a server that had accepted.
                    transient: failed.any(|error| error.kind() == ErrorKind::ConnectionReset),
                    error: Error::Connect {
                        target: name.into(),
                        source: Cause::new(failed),
                    },
                },
            });
        };
        // Off, every small packet waits for the peer's delayed ACK: 48 ms instead of 2 ms a command
        // on loopback.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::warn!(host = %name, %error, "cannot set TCP_NODELAY");
        }
        Ok((address, tcp))
    }

    fn untrusted(&self, problem: Untrusted) -> ConnectError {
        match problem {
            Untrusted::Key(reason) => permanent(Error::HostKey {
                target: (&self.endpoint.name).into(),
                reason,
            }),
            Untrusted::Descriptors(error) => self.no_descriptors(Cause::new(error)),
        }
    }

    /// A descriptor, to be closed when another one is needed.
    fn reserve(&self) -> Result<Option<UdpSocket>, ConnectError> {
        match a_descriptor() {
            Ok(reserved) => Ok(Some(reserved)),
            Err(error) if no_descriptors(&error) => Err(self.no_descriptors(Cause::new(error))),
            // It was not the descriptor that it lacked.
            Err(_) => Ok(None),
        }
    }

    /// There is none to compute the key exchange. The server has been reached.
    fn no_thread(&self, error: std::io::Error) -> ConnectError {
        let none = no_descriptors(&error);
        let source = Cause::new(error);
        if none {
            return ConnectError {
                transient: false,
                ..self.no_descriptors(source)
            };
        }
        ConnectError {
            error: Error::Connect {
                target: (&self.endpoint.name).into(),
                source,
            },
            transient: true,
        }
    }

    fn no_descriptors(&self, source: Cause) -> ConnectError {
        local_failure(Error::Descriptors {
            target: (&self.endpoint.name).into(),
            source,
        })
    }

    /// The server has shown a host key and not signed with it.
    fn not_proven(&self, reason: String) -> ConnectError {
        self.untrusted(HostKeyProblem::NotProven { reason }.into())
    }

    fn handshake_failed(&self, address: SocketAddr, error: russh::Error) -> ConnectError {
        if let Some(problem) = self.progress.refusal() {
            return self.untrusted(problem.into());
        }
        match error {
            russh::Error::WrongServerSig => {
                let reason = "its signature of the key exchange is wrong, or by an RSA key of more \
                              than 8192 bits, which cannot be checked";
                return self.not_proven(reason.into());
            }
            // In a key exchange only the signature is read like this.
            russh::Error::SshKey(_) => {
                let reason = "its signature of the key exchange cannot be read";
                return self.not_proven(reason.into());
            }
            _ => {}
        }
        let target = (&self.endpoint.name).into();
        let lost = matches!(
            error,
            russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP
        );
        if self.progress.phase() > Phase::Banner {
            let source = match (self.messages.list().last(), error) {
                (Some(said), _) => {
                    Cause::new(format!("the server disconnected: \"{}\"", said.text))
                }
                (None, russh::Error::NoCommonAlgo { kind, ours, theirs }) => {
                    nothing_in_common(&kind, &ours, &theirs)
                }
                (None, error) => Cause::of_peer(error),
            };
            return ConnectError {
                error: Error::KeyExchange {
                    target,
                    lost,
                    source,
                },
                transient: lost,
            };
        }
        let greeting = self.progress.greeting();
        let words = String::from_utf8_lossy(&greeting);
        let shown = printable(words.trim_end());
        if let Some(unfit) = self.progress.unfit() {
            return permanent(Error::NotSsh {
                target,
                received: shown,
                source: Cause::new(Unfit(unfit)),
            });
        }
        let source = Cause::of_peer(error);
        let cut_off = lost && is_cut_off(&greeting);
        if THROTTLED.iter().any(|text| words.contains(text)) {
            let error = Error::Throttled {
                target,
                message: shown,
                source,
            };
            ConnectError {
                error,
                transient: true,
            }
        } else if !cut_off && !words.trim().is_empty() {
            permanent(Error::NotSsh {
                target,
                received: shown,
                source,
            })
        } else {
            // Lost in the middle of its identification. Or accepted, then closed without a word:
            // how dropbear turns away too many unauthenticated connections of one address.
            let source = match lost {
                true => Cause::new(Unidentified {
                    address,
                    cause: source,
                }),
                false => source,
            };
            ConnectError {
                error: Error::Connect { target, source },
                transient: true,
            }
        }
    }
}

/// The algorithm that the server has signed the key exchange with, if it was not proposed: the
/// library takes what the key can verify. Of an RSA key that may be SHA-1.
fn signed_otherwise(handle: &Handle<Client>, proposal: &Proposal) -> Option<String> {
    let mut signature = handle.agent_session_binding()?.signature();
    let name = String::decode(&mut signature).ok()?;
    let proposed = |algorithm: &Algorithm| algorithm.to_string() == name;
    (!proposal.host_keys.iter().any(proposed)).then(|| printable(name))
}

/// Why two sides have no algorithm in common.
fn nothing_in_common(kind: &AlgorithmKind, ours: &[String], theirs: &[String]) -> Cause {
    let (what, method) = match kind {
        AlgorithmKind::Kex => ("key exchange", "kex"),
        AlgorithmKind::Key => ("host key", "host_key"),
        AlgorithmKind::Cipher => ("cipher", "ciphers"),
        AlgorithmKind::Compression => ("compression", "compression"),
        AlgorithmKind::Mac => ("MAC", "macs"),
    };
    Cause::new(format!(
        "no {what} algorithm in common: the server has {}, this side proposes {}; Algorithms::{method} \
         may allow one",
        printable(theirs.join(",")),
        printable(ours.join(","))
    ))
}

/// Whether a socket can be made just now.
fn can_open() -> bool {
    a_descriptor()
        .err()
        .is_none_or(|error| !no_descriptors(&error))
}

fn a_descriptor() -> std::io::Result<UdpSocket> {
    UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))
}

/// What was wrong on this side: it passes if it was only descriptors.
fn local_failure(error: Error) -> ConnectError {
    let transient = matches!(error, Error::Descriptors { .. });
    ConnectError { error, transient }
}

/// The identification line (RFC 4253, section 4.2) has begun, and does not end.
fn is_cut_off(greeting: &[u8]) -> bool {
    let line = greeting.rsplit(|byte| *byte == b'\n').next();
    let begins = |line: &[u8]| line.starts_with(b"SSH-") || b"SSH-".starts_with(line);
    line.is_some_and(|line| !line.is_empty() && begins(line))
}

fn permanent(error: Error) -> ConnectError {
    ConnectError {
        error,
        transient: false,
    }
}
