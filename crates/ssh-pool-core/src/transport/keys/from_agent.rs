//! Credentials that depend on what an agent holds, found out when their turn in the login comes.

use std::path::PathBuf;

use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::{Certificate, HashAlg, PublicKey};

use super::chosen::Chosen;
use super::problem::Problem;
use super::ssh_files::{self, SshFile};
use super::{Credential, name};
use crate::transport::agent::{Agent, AgentError, Key};
use crate::transport::known_hosts::fingerprint;

/// What to take from an agent.
#[derive(Debug, Clone)]
pub(crate) struct FromAgent {
    /// `None`: ssh's files without an agent.
    pub(super) agent: Option<Agent>,
    pub(super) choice: Choice,
}

/// Which of its keys are meant, and what is offered beside them.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    All,
    Key(Chosen),
    /// Its key for this certificate, which was read from that file.
    Certificate(Box<Certificate>, String),
    LikeSsh {
        files: Vec<SshFile>,
        folder: PathBuf,
        /// Why there is no agent, as far as that is known.
        no_agent: Option<String>,
    },
}

/// What is there to offer.
#[derive(Debug)]
pub(in crate::transport) struct Found {
    pub(in crate::transport) credentials: Vec<Credential>,
    /// The identity of which something cannot be used, and why.
    pub(in crate::transport) problem: Option<(String, Problem)>,
}

impl FromAgent {
    pub(in crate::transport) fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// Asks the agent what it holds, for this session.
    pub(in crate::transport) async fn find(&self, session: Option<&AgentSessionBinding>) -> Found {
        let (agent, keys) = match &self.agent {
            None => (None, Ok(Vec::new())),
            Some(agent) => (Some(agent), agent.keys(session).await),
        };
        let named = |problem: Problem| {
            let agent = agent.map(|agent| format!("agent at {}", agent.path().display()));
            (agent.unwrap_or_else(|| "agent".into()), problem)
        };
        let (keys, mut problem) = match keys {
            Ok(keys) => (keys, None),
            Err(error) => (Vec::new(), Some(named(error.into()))),
        };
        let credentials: Vec<Credential> = match (&self.choice, agent) {
            (
                Choice::LikeSsh {
                    files,
                    folder,
                    no_agent,
                },
                agent,
            ) => {
                let credentials = ssh_files::in_order(files, agent, &keys);
                if credentials.is_empty() {
                    let nothing = || {
                        let empty = || match agent {
                            Some(agent) => {
                                format!(
                                    "the agent at {} is empty or locked",
                                    agent.path().display()
                                )
                            }
                            None => "$SSH_AUTH_SOCK is not set".to_owned(),
                        };
                        let problem = Problem::NothingLikeSsh {
                            agent: no_agent.clone().unwrap_or_else(empty),
                            folder: folder.clone(),
                        };
                        ("that ssh would use".to_owned(), problem)
                    };
                    let first = || ssh_files::first_problem(files).unwrap_or_else(nothing);
                    problem.get_or_insert_with(first);
                }
                return Found {
                    credentials,
                    problem,
                };
            }
            (_, None) => Vec::new(),
            (Choice::All, Some(agent)) => keys
                .iter()
                .map(|key| AgentKey::new(agent, key).into())
                .collect(),
            (Choice::Key(chosen), Some(agent)) => keys
                .iter()
                .filter(|key| chosen.is(key))
                .map(|key| AgentKey::new(agent, key).into())
                .collect(),
            (Choice::Certificate(certificate, path), Some(agent)) => keys
                .iter()
                .find(|key| {
                    matches!(&key.identity, AgentIdentity::PublicKey { key, .. }
                        if key.key_data() == certificate.public_key())
                })
                .map(|key| {
                    let public = key.identity.public_key();
                    let name = name(&public, &format_args!("certificate {path}"));
                    AgentKey::certified(agent, key, certificate, name).into()
                })
                .into_iter()
                .collect(),
        };
        if credentials.is_empty() && problem.is_none() {
            problem = Some(named(match &self.choice {
                Choice::Key(chosen) => Problem::NotInAgent(chosen.fingerprint()),
                Choice::Certificate(certificate, _) => {
                    let key = PublicKey::from(certificate.public_key().clone());
                    Problem::NotInAgent(fingerprint(&key))
                }
                Choice::All | Choice::LikeSsh { .. } => Problem::EmptyAgent,
            }));
        }
        Found {
            credentials,
            problem,
        }
    }
}

/// A key or certificate that an agent signs for.
#[derive(Debug, Clone)]
pub(crate) struct AgentKey {
    agent: Agent,
    offered: AgentIdentity,
    /// What the agent knows it by: for a certificate from a file, that is the plain key.
    held: AgentIdentity,
    name: String,
}

impl AgentKey {
    pub(super) fn new(agent: &Agent, key: &Key) -> Self {
        let public = key.identity.public_key();
        let comment = key.comment();
        let name = match &key.identity {
            AgentIdentity::PublicKey { .. } => name(&public, &format_args!("agent: {comment}")),
            AgentIdentity::Certificate { .. } => {
                name(&public, &format_args!("certificate in agent: {comment}"))
            }
        };
        Self {
            agent: agent.clone(),
            name,
            offered: key.identity.clone(),
            held: key.identity.clone(),
        }
    }

    /// The agent's key, offered with a certificate that the agent does not hold.
    pub(super) fn certified(
        agent: &Agent,
        key: &Key,
        certificate: &Certificate,
        name: String,
    ) -> Self {
        Self {
            agent: agent.clone(),
            offered: AgentIdentity::Certificate {
                certificate: certificate.clone(),
                comment: String::new(),
            },
            held: key.identity.clone(),
            name,
        }
    }

    pub(in crate::transport) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::transport) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(in crate::transport) fn offered(&self) -> &AgentIdentity {
        &self.offered
    }

    /// What is sent of it: a key and its certificate are two offers.
    pub(in crate::transport) fn blob(&self) -> Option<Vec<u8>> {
        match &self.offered {
            AgentIdentity::PublicKey { key, .. } => key.to_bytes(),
            AgentIdentity::Certificate { certificate, .. } => certificate.to_bytes(),
        }
        .ok()
    }

    /// Signs `data` for `session`. Gives `data`, followed by the signature.
    pub(in crate::transport) async fn sign(
        &self,
        session: Option<&AgentSessionBinding>,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, AgentError> {
        self.agent.sign(session, &self.held, hash, data).await
    }
}

impl From<AgentKey> for Credential {
    fn from(key: AgentKey) -> Self {
        Self::AgentKey(Box::new(key))
    }
}
