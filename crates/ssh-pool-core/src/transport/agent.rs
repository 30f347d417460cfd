//! Agents: asked one after the other, each within a time limit of its own.
//!
//! An agent answers one request at a time, and may ask its owner for consent before it answers. So
//! the requests of all connections of a pool to one agent take turns, each on a connection of its
//! own that is closed afterwards: an agent that serves one connection at a time is asked like any
//! other. The time limit begins with the turn.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::HashAlg;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use tokio::time::Instant;

use self::client::Failure;
pub(super) use self::client::{Key, is_offered};
use super::stopwatch::Stopwatch;
use crate::error::{Phase, no_descriptors, words_of};

mod client;

/// The agents of a pool, by their sockets.
#[derive(Debug, Default)]
pub(super) struct Agents(Mutex<HashMap<PathBuf, Arc<AgentTurn>>>);

/// Held by the request that an agent is answering. Inside: when it was last found not to answer.
type AgentTurn = tokio::sync::Mutex<Option<Instant>>;

/// An agent, as one dial asks it.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    path: Arc<Path>,
    turn: Arc<AgentTurn>,
    limit: Duration,
    stopwatch: Arc<Stopwatch>,
}

impl Agents {
    pub(super) fn agent(&self, path: &Path, limit: Duration, stopwatch: &Arc<Stopwatch>) -> Agent {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Few programs have more than one agent; those that are not asked are forgotten.
        turns.retain(|known, turn| known == path || Arc::strong_count(turn) > 1);
        let turn = turns.entry(path.to_owned()).or_default().clone();
        Agent {
            path: path.into(),
            turn,
            limit,
            stopwatch: stopwatch.clone(),
        }
    }
}

/// Why an agent did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum AgentError {
    /// Nothing listens there, or the connection was lost.
    Gone(std::io::Error),
    /// It did not answer within this time.
    Silent(Duration),
    /// It refused.
    Refused,
    /// Its answer makes no sense.
    Malformed(russh::keys::Error),
    #[cfg_attr(unix, allow(dead_code, reason = "where there are no Unix sockets"))]
    Unsupported,
}

impl AgentError {
    /// Nothing is wrong with the agent.
    pub(super) fn is_want_of_descriptors(&self) -> bool {
        matches!(self, AgentError::Gone(error) if no_descriptors(error))
    }

    /// Whether the agent may yet sign with another key.
    pub(super) fn is_about_one_key(&self) -> bool {
        matches!(self, AgentError::Refused | AgentError::Malformed(_))
    }
}

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AgentError::Gone(error) => write!(
                f,
                "the agent does not answer: {}; check that it runs",
                words_of(error)
            ),
            AgentError::Silent(limit) => write!(
                f,
                "the agent did not answer within {limit:?}; unlock it or approve the request, or \
                 raise Timeouts::agent"
            ),
            AgentError::Refused => f.write_str("the agent refused"),
            AgentError::Malformed(_) => f.write_str("the agent's answer makes no sense"),
            AgentError::Unsupported => {
                f.write_str("agents are reached through Unix sockets, which this system lacks")
            }
        }
    }
}

impl std::error::Error for AgentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AgentError::Gone(error) => Some(error),
            AgentError::Malformed(error) => Some(error),
            _ => None,
        }
    }
}

impl Agent {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything listens there, which costs no server a connection.
    pub(super) async fn probe(&self) -> Result<(), AgentError> {
        self.ask(client::probe(&self.path)).await
    }

    /// The keys that it shows to this session, in its order, without those that no server takes.
    pub(super) async fn keys(
        &self,
        session: Option<&AgentSessionBinding>,
    ) -> Result<Vec<Key>, AgentError> {
        self.ask(client::keys(&self.path, session)).await
    }

    /// Signs `data` with `key`. Gives `data`, followed by the signature.
    pub(super) async fn sign(
        &self,
        session: Option<&AgentSessionBinding>,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, AgentError> {
        self.ask(client::sign(&self.path, session, key, hash, data))
            .await
    }

    /// Waits for its turn, and then for the answer. None of that counts as time of the dial.
    ///
    /// What waits behind a request that was not answered is not made to wait once more for the same.
    async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, AgentError> {
        let _pause = self.stopwatch.pause(Phase::Agent);
        let asked = Instant::now();
        let mut silent = self.turn.lock().await;
        if silent.is_some_and(|since| since >= asked) {
            return Err(AgentError::Silent(self.limit));
        }
        match tokio::time::timeout(self.limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => {
                *silent = Some(Instant::now());
                Err(AgentError::Silent(self.limit))
            }
        }
    }
}

impl From<Failure> for AgentError {
    fn from(failure: Failure) -> Self {
        use russh::keys::Error as KeyError;
        match failure {
            Failure::Io(error) | Failure::Agent(KeyError::IO(error)) => Self::Gone(error),
            Failure::Agent(KeyError::AgentFailure) => Self::Refused,
            Failure::Agent(error) => Self::Malformed(error),
            Failure::Unsupported => Self::Unsupported,
        }
    }
}
