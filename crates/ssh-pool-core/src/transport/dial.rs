//! From nothing to an authenticated connection.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::client::{Channels, Client};
use super::known_hosts::TrustStore;
use super::link::SshLink;
use super::progress::Progress;
use super::stream::Socket;
use super::{DialError, Endpoint, Link, Transport, auth, config, keys};
use crate::error::{Cause, CommandState, Error, HostKeyProblem, Phase};

/// sshd's words when it turns a connection away: `MaxStartups` reached, or a penalty
/// (`PerSourcePenalties`, OpenSSH 9.8). They come in place of its identification line.
const THROTTLED: [&str; 2] = ["Exceeded MaxStartups", "Not allowed at this time"];

/// Longer than any process lives, and no clock overflows.
const FOREVER: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Real connections, through russh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Russh;

impl Transport for Russh {
    fn dial<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>> {
        async move {
            let dial = Dial {
                endpoint,
                progress: Arc::default(),
            };
            match tokio::time::timeout(endpoint.connect_timeout, dial.run()).await {
                Ok(Ok(link)) => Ok(Arc::new(link) as Arc<dyn Link>),
                Ok(Err(failure)) => Err(failure),
                Err(_) => Err(dial.overdue()),
            }
        }
        .boxed()
    }
}

struct Dial<'a> {
    endpoint: &'a Endpoint,
    progress: Arc<Progress>,
}

impl Dial<'_> {
    async fn run(&self) -> Result<SshLink, DialError> {
        let Endpoint {
            name, host, port, ..
        } = self.endpoint;
        // Files first: no server is kept waiting in the middle of a handshake while keys are read
        // and decrypted.
        let credentials = keys::load(name, &self.endpoint.identity)
            .await
            .map_err(lasting)?;
        let trust = TrustStore::load(&self.endpoint.policy, host, *port)
            .await
            .map_err(|problem| self.untrusted(problem))?;
        let trust = Arc::new(trust);

        let tcp = self.connect().await?;
        let kill = CancellationToken::new();
        // A dial that fails, or is dropped at any await, leaves no socket behind.
        let guard = kill.clone().drop_guard();
        let valve = self.endpoint.isolated.then(Arc::default);
        let channels = Arc::new(Channels::new(valve.clone()));
        let accepted = Arc::new(Mutex::new(None));
        let handler = Client::new(
            channels.clone(),
            self.progress.clone(),
            trust.clone(),
            accepted.clone(),
        );
        let config = Arc::new(config::client_config(
            self.endpoint,
            &trust.known_algorithms(),
        ));
        self.progress.enter(Phase::Banner);
        let socket = Socket::new(
            tcp,
            kill.clone(),
            self.progress.clone(),
            channels.prompt.clone(),
            self.longest_silence(),
            valve,
        );
        let mut handle = russh::client::connect_stream(config, socket, handler)
            .await
            .map_err(|error| self.handshake_failed(error))?;

        let new_key = accepted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(key) = new_key {
            trust
                .remember(&key)
                .await
                .map_err(|problem| self.untrusted(problem))?;
        }

        auth::authenticate(
            &mut handle,
            name,
            &self.endpoint.user,
            credentials,
            self.endpoint.auth_attempts,
            self.endpoint.auth_cooldown,
        )
        .await
        .map_err(|error| DialError {
            passing: matches!(error, Error::AuthLost { .. }),
            error,
        })?;
        guard.disarm();
        self.progress.enter(Phase::Channel);
        Ok(SshLink::new(handle, channels, kill, &self.endpoint.user))
    }

    fn overdue(&self) -> DialError {
        lasting(Error::Timeout {
            target: self.endpoint.name.clone(),
            phase: self.progress.phase(),
            after: self.endpoint.connect_timeout,
            state: CommandState::NotStarted,
            killed: false,
            source: None,
        })
    }

    /// The last keepalive that may be missed is sent after `misses` quiet intervals, and has one
    /// more to be answered.
    fn longest_silence(&self) -> Duration {
        let intervals = u32::try_from(self.endpoint.keepalive_misses).unwrap_or(u32::MAX);
        self.endpoint
            .keepalive_interval
            .saturating_mul(intervals.saturating_add(1))
            .min(FOREVER)
    }

    /// Looks the name up and connects to the first address that answers, each within its share
    /// of the deadline.
    async fn connect(&self) -> Result<TcpStream, DialError> {
        let Endpoint {
            name,
            host,
            port,
            connect_timeout,
            ..
        } = self.endpoint;
        let unresolved = |source: Cause| {
            lasting(Error::Resolve {
                target: name.clone(),
                source,
            })
        };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map_err(|error| unresolved(Cause::new(error)))?
            .collect();
        let share = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let share = *connect_timeout / share;

        self.progress.enter(Phase::Connect);
        let (mut last, mut silent) = (None, false);
        for address in addresses {
            silent = false;
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    // Off, every small packet waits for the peer's delayed ACK: 48 ms instead of
                    // 2 ms a command on loopback.
                    if let Err(error) = tcp.set_nodelay(true) {
                        tracing::warn!(host = %name, %error, "cannot set TCP_NODELAY");
                    }
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = Some(error),
                Err(_) => silent = true,
            }
        }
        // The last share ends with the whole, which would say the same.
        if silent {
            return Err(self.overdue());
        }
        Err(match last {
            Some(error) => DialError {
                // A reset, other than a refusal, comes from a server that had accepted.
                passing: error.kind() == ErrorKind::ConnectionReset,
                error: Error::Connect {
                    target: name.clone(),
                    source: Cause::new(error),
                },
            },
            None => unresolved(Cause::new("the name has no address")),
        })
    }

    fn untrusted(&self, problem: HostKeyProblem) -> DialError {
        lasting(Error::HostKey {
            target: self.endpoint.name.clone(),
            reason: problem,
        })
    }

    fn handshake_failed(&self, error: russh::Error) -> DialError {
        if let Some(problem) = self.progress.refusal() {
            return self.untrusted(problem);
        }
        let target = self.endpoint.name.clone();
        let lost = matches!(
            error,
            russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP
        );
        if self.progress.phase() > Phase::Banner {
            let source = Cause::new(error);
            return DialError {
                error: Error::KeyExchange {
                    target,
                    lost,
                    source,
                },
                passing: lost,
            };
        }
        let greeting = self.progress.greeting();
        let words = String::from_utf8_lossy(&greeting);
        let shown: String = words.trim_end().escape_debug().take(200).collect();
        let source = Cause::new(error);
        let cut_off = lost && is_cut_off(&greeting);
        if THROTTLED.iter().any(|text| words.contains(text)) {
            let error = Error::Throttled {
                target,
                message: shown,
                source,
            };
            DialError {
                error,
                passing: true,
            }
        } else if !cut_off && !words.trim().is_empty() {
            lasting(Error::NotSsh {
                target,
                received: shown,
                source,
            })
        } else {
            // Lost in the middle of its identification. Or accepted, then closed without a word: how dropbear turns away too many
            // unauthenticated connections of one address.
            DialError {
                error: Error::Connect { target, source },
                passing: true,
            }
        }
    }
}

/// The identification line (RFC 4253, section 4.2) has begun, and does not end.
fn is_cut_off(greeting: &[u8]) -> bool {
    let line = greeting.rsplit(|byte| *byte == b'\n').next();
    let begins = |line: &[u8]| line.starts_with(b"SSH-") || b"SSH-".starts_with(line);
    line.is_some_and(|line| !line.is_empty() && begins(line))
}

fn lasting(error: Error) -> DialError {
    DialError {
        error,
        passing: false,
    }
}
