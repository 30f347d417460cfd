//! From an identity to credentials: files are read and keys decrypted before a server is asked for
//! anything; agents are listed when their turn in the login comes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Certificate, PrivateKey, PublicKey};

use self::chosen::Chosen;
use self::decrypted::DecryptedKeys;
use self::file::{read_certificate, read_private};
use self::format::Protection;
use self::from_agent::Choice;
pub(super) use self::from_agent::{AgentKey, FromAgent};
use self::problem::Problem;
use super::agent::{Agent, Agents};
use super::known_hosts::fingerprint;
use super::stopwatch::Stopwatch;
use crate::error::{Cause, Error, NoneUsable, Phase, not_used};
use crate::identity::{Identity, Part, Responder};
use crate::printable;
use crate::secret::Secret;

mod chosen;
mod decrypted;
mod file;
mod format;
mod from_agent;
mod openssh;
mod problem;
mod ssh_files;
#[cfg(test)]
mod tests;

/// Identities that cannot be used, which an error names.
const MOST_NAMED: usize = 8;

/// What a pool keeps of its identities from one connection to the next.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    decrypted: DecryptedKeys,
    agents: Agents,
}

/// One thing to offer to a server, or where such things are found.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Key {
        key: Arc<PrivateKey>,
        name: String,
    },
    Certificate {
        key: Arc<PrivateKey>,
        certificate: Box<Certificate>,
        name: String,
    },
    AgentKey(Box<AgentKey>),
    FromAgent(FromAgent),
    Password(Secret),
    Prompt(Responder),
    /// Nothing but the method `none`, which every login begins with.
    None,
}

#[cfg(test)]
impl Credential {
    /// All keys of the agent with this socket.
    pub(super) fn all_of(socket: &str) -> Self {
        let second = Duration::from_secs(1);
        let agent = Agents::default().agent(socket.as_ref(), second, &Stopwatch::new(second));
        Self::FromAgent(FromAgent {
            agent: Some(agent),
            choice: Choice::All,
        })
    }
}

/// Loads identities for one dial.
pub(super) struct Loader<'a> {
    pub(super) keyring: &'a Keyring,
    pub(super) stopwatch: &'a Arc<Stopwatch>,
    /// How long an agent has for an answer.
    pub(super) agent_limit: Duration,
}

impl Loader<'_> {
    /// Loads what `identity` names, in order. With the names of those that cannot be used.
    ///
    /// Of several, these are skipped with a warning. Doing this first keeps a
    /// server from counting a connection that never had anything to offer.
    ///
    /// # Errors
    ///
    /// [`Error::Identity`] when nothing is left, [`Error::Descriptors`] when nothing can be opened.
    pub(super) async fn load(
        &self,
        target: &Arc<str>,
        identity: &Identity,
    ) -> Result<(Vec<Credential>, Vec<String>), Error> {
        let (mut credentials, mut unused) = (Vec::new(), Vec::new());
        let mut first_problem = None;
        let mut others = 0_usize;
        for part in identity.parts() {
            match self.load_part(part).await {
                Ok(credential) => credentials.push(credential),
                // Another one would do, and may not be the one that this server takes.
                Err(problem) if problem.is_want_of_descriptors() => {
                    return Err(Error::Descriptors {
                        target: target.clone().into(),
                        source: Cause::new(problem),
                    });
                }
                Err(problem) => {
                    let several = identity.parts().len() > 1;
                    if several {
                        tracing::warn!(host = %target, identity = %part, %problem, "identity skipped");
                    }
                    let identity = part.to_string();
                    match unused.len() < MOST_NAMED {
                        true => unused.push(not_used(&identity, problem.brief(&identity))),
                        false => others += 1,
                    }
                    first_problem.get_or_insert((identity, problem));
                }
            }
        }
        if others > 0 {
            unused.push(not_used(&format!("{others} more"), "see the trace"));
        }
        match first_problem {
            Some((identity, problem)) if credentials.is_empty() => {
                let first = Cause::new(problem);
                Err(Error::Identity {
                    target: target.into(),
                    identity,
                    source: match unused.len() {
                        1 => first,
                        _ => Cause::new(NoneUsable {
                            each: unused,
                            first,
                        }),
                    },
                })
            }
            None if credentials.is_empty() => Err(Error::Identity {
                target: target.into(),
                identity: "that was chosen".into(),
                source: Cause::new(Problem::Nothing),
            }),
            _ => Ok((credentials, unused)),
        }
    }

    async fn load_part(&self, part: &Part) -> Result<Credential, Problem> {
        match part {
            Part::Password(password) => Ok(Credential::Password(password.clone())),
            Part::Prompt(responder) => Ok(Credential::Prompt(responder.clone())),
            Part::None => Ok(Credential::None),
            Part::Agent(socket) => self.agent_credential(socket.as_deref(), Choice::All).await,
            Part::AgentKey { socket, public } => {
                let chosen = Chosen::parse(public)?;
                self.agent_credential(socket.as_deref(), Choice::Key(chosen))
                    .await
            }
            Part::LikeSsh { socket, folder } => {
                let looked_in = folder.clone();
                let files = blocking(move || Ok(ssh_files::read(&looked_in))).await?;
                // As for ssh, an agent that is not there is no reason to give up.
                let (agent, no_agent) = match socket {
                    Some(socket) => match self.agent(socket).await {
                        Ok(agent) => (Some(agent), None),
                        Err(problem) => (None, Some(ignored(socket, problem)?)),
                    },
                    None => (None, None),
                };
                Ok(Credential::FromAgent(FromAgent {
                    agent,
                    choice: Choice::LikeSsh {
                        files,
                        folder: folder.clone(),
                        no_agent,
                    },
                }))
            }
            Part::KeyFile { path, passphrase } => {
                let text = blocking({
                    let path = path.clone();
                    move || read_private(&path)
                });
                self.key(text.await?, passphrase, &path.display()).await
            }
            Part::KeyText { text, passphrase } => {
                self.key(text.clone(), passphrase, &"given as text").await
            }
            Part::Certified { key, certificate } => {
                let path = certificate.clone();
                let loaded = blocking(move || read_certificate(&path)).await?;
                self.certified(key, certificate, loaded).await
            }
        }
    }

    async fn certified(
        &self,
        key: &Part,
        path: &Path,
        certificate: Certificate,
    ) -> Result<Credential, Problem> {
        let path = path.display();
        let mut credential = Box::pin(self.load_part(key)).await?;
        match &mut credential {
            Credential::Key { key, .. } => {
                if certificate.public_key() != key.public_key().key_data() {
                    return Err(Problem::OtherKeyCertified);
                }
                return Ok(Credential::Certificate {
                    name: name(key.public_key(), &format_args!("certificate {path}")),
                    key: key.clone(),
                    certificate: Box::new(certificate),
                });
            }
            Credential::FromAgent(source) => {
                if let Choice::Key(chosen) = &source.choice
                    && !chosen.is_key(certificate.public_key())
                {
                    return Err(Problem::OtherKeyCertified);
                }
                source.choice = Choice::Certificate(Box::new(certificate), path.to_string());
            }
            _ => return Err(Problem::NothingToCertify),
        }
        Ok(credential)
    }

    async fn agent_credential(
        &self,
        socket: Option<&Path>,
        choice: Choice,
    ) -> Result<Credential, Problem> {
        let agent = self.agent(socket.ok_or(Problem::NoAgentVariable)?).await?;
        Ok(Credential::FromAgent(FromAgent {
            agent: Some(agent),
            choice,
        }))
    }

    /// A dead agent is found out before the server is bothered.
    async fn agent(&self, socket: &Path) -> Result<Agent, Problem> {
        let agent = self
            .keyring
            .agents
            .agent(socket, self.agent_limit, self.stopwatch);
        agent.probe().await?;
        Ok(agent)
    }

    async fn key(
        &self,
        text: Secret,
        passphrase: &Option<Secret>,
        origin: &(dyn fmt::Display + Sync),
    ) -> Result<Credential, Problem> {
        let key = match passphrase {
            Some(words) if Protection::of(text.expose()) == Protection::Encrypted => {
                let _pause = self.stopwatch.pause(Phase::Decryption);
                self.keyring.decrypted.key(text, words.clone()).await?
            }
            // ssh does not mind a passphrase for a key that has none.
            _ => blocking(move || format::decode(text.expose(), None))
                .await?
                .into(),
        };
        Ok(Credential::Key {
            name: name(key.public_key(), origin),
            key,
        })
    }
}

/// What to say of an agent that cannot be reached, unless for want of a descriptor.
fn ignored(socket: &Path, problem: Problem) -> Result<String, Problem> {
    if problem.is_want_of_descriptors() {
        return Err(problem);
    }
    tracing::warn!(%problem, "an agent is not used");
    let name = format!("agent at {}", socket.display());
    Ok(format!("{} ({name})", problem.brief(&name)))
}

/// For what reads files, and for arithmetic that takes milliseconds.
async fn blocking<T, F>(work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Problem> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Problem::Stopped))
}

/// Checks what can be checked without files, agents or a passphrase's slow key derivation: that
/// key texts are keys. An identity with nothing in it is an error only when it is used: each
/// target may bring one of its own.
///
/// # Errors
///
/// [`Error::InvalidInput`].
pub(crate) fn check(identity: &Identity) -> Result<(), Error> {
    let invalid = |problem: Problem| Error::InvalidInput {
        what: "identity",
        reason: problem.to_string(),
    };
    for part in identity.parts() {
        check_part(part).map_err(invalid)?;
    }
    Ok(())
}

fn check_part(part: &Part) -> Result<(), Problem> {
    match part {
        Part::KeyText {
            text,
            passphrase: None,
        } => format::decode(text.expose(), None).map(drop),
        Part::AgentKey { public, .. } => Chosen::parse(public).map(drop),
        Part::Certified { key, .. } => check_part(key),
        _ => Ok(()),
    }
}

/// How errors name a key that was offered: `ssh-ed25519 SHA256:… (where from)`.
pub(super) fn name(key: &PublicKey, origin: &dyn fmt::Display) -> String {
    let algorithm = printable(key.algorithm().to_string());
    format!("{algorithm} {} ({origin})", fingerprint(key))
}
