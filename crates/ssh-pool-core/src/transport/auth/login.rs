//! One login: which credential is offered when, and what a refusal means.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle, Handler, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg};
use russh::{MethodKind, MethodSet};

use super::signer::{AgentSigner, KeySigner, SignError};
use crate::error::{Cause, Error};
use crate::secret::Secret;
use crate::transport::keys::{AgentKey, Credential, FromAgent};

/// How often the server may ask in one keyboard-interactive attempt: a password, a second factor,
/// a notice.
const INTERACTIVE_ROUNDS: usize = 3;

/// How long a session that is known to have ended may take to say how.
const EPITAPH: Duration = Duration::from_secs(1);

/// How a login ended.
pub(super) enum End {
    Success,
    Exhausted,
    Lost,
}

/// What came of one offer.
enum Outcome {
    /// Logged in.
    Success,
    /// The server has answered: more is needed.
    Continue { partial: bool },
    /// Nothing was sent, or the attempt was abandoned in a way that the protocol allows.
    Skipped,
    /// The attempt cannot be abandoned without confusing the session, or what is left to offer may
    /// not be all there is.
    Stuck,
    /// The connection is gone.
    Lost,
}

fn is_password(offer: &Credential) -> bool {
    matches!(offer, Credential::Password(_))
}

/// The hash that RSA keys sign with, which the server's `server-sig-algs` tells (RFC 8308).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RsaHash {
    Sha2(HashAlg),
    /// The server takes SHA-1 only. Like ssh since 8.8, we do not sign with it.
    OnlySha1,
}

/// A login in progress.
pub(super) struct Login<'a, H: Handler> {
    handle: &'a mut Handle<H>,
    user: &'a str,
    /// What the server said could continue; unknown before its first answer.
    allowed: Option<MethodSet>,
    rsa: Option<RsaHash>,
    offers: VecDeque<Credential>,
    /// Sockets of agents that answer no more.
    silent_agents: HashSet<PathBuf>,
    /// Public key and certificate blobs.
    offered: HashSet<Vec<u8>>,
    tried: Vec<String>,
    attempts: usize,
    /// The first identity that an agent failed with, and why.
    agent_problem: Option<(String, Cause)>,
    /// There was no descriptor for an agent, which may have had the right key.
    descriptors: Option<Cause>,
}

impl<'a, H> Login<'a, H>
where
    H: Handler,
    H::Error: std::error::Error + Send + Sync + 'static,
{
    pub(super) fn new(
        handle: &'a mut Handle<H>,
        user: &'a str,
        credentials: Vec<Credential>,
    ) -> Self {
        Self {
            handle,
            user,
            allowed: None,
            rsa: None,
            offers: credentials.into(),
            silent_agents: HashSet::new(),
            offered: HashSet::new(),
            tried: Vec::new(),
            attempts: 0,
            agent_problem: None,
            descriptors: None,
        }
    }

    pub(super) async fn run(&mut self, max_attempts: usize) -> End {
        while let Some(offer) = self.next() {
            // A password is sent only to a server that wants one, and the failed attempt that finds
            // this out would be counted. Asking with "none" is free (RFC 4252, section 5.2). Keys find
            // it out by themselves, which saves the round trip.
            if self.allowed.is_none() && is_password(&offer) {
                self.offers.push_front(offer);
                match self.ask_for_methods().await {
                    Some(end) => return end,
                    None => continue,
                }
            }
            if self.attempts >= max_attempts {
                let left = self.offers.len() + 1;
                self.tried.push(format!(
                    "({left} more not offered: the limit is {max_attempts})"
                ));
                return End::Exhausted;
            }
            let blind = self.allowed.is_none().then(|| offer.clone());
            match self.offer(offer).await {
                Outcome::Success => return End::Success,
                Outcome::Continue { partial: true } => {
                    self.attempts = self.attempts.saturating_sub(1);
                }
                Outcome::Continue { partial: false } => {
                    // Offered before the server had said what it wants, and it wants another
                    // method first: not looked at, so it may be offered again.
                    if let Some(offer) = blind
                        && !self.takes(&offer)
                    {
                        self.offered.clear();
                        self.offers.push_front(offer);
                    }
                }
                Outcome::Skipped => {}
                Outcome::Stuck => return End::Exhausted,
                Outcome::Lost => return End::Lost,
            }
        }
        // Nothing could be offered: at least learn, and tell, what the server would have taken.
        if self.allowed.is_none()
            && self.agent_problem.is_none()
            && let Some(end) = self.ask_for_methods().await
        {
            return end;
        }
        End::Exhausted
    }

    /// Asks with method "none" what the server allows. An account without authentication is
    /// logged in by it.
    async fn ask_for_methods(&mut self) -> Option<End> {
        let result = self.handle.authenticate_none(self.user).await;
        match self.answered(result) {
            Outcome::Success => Some(End::Success),
            Outcome::Lost => Some(End::Lost),
            _ => None,
        }
    }

    /// The first offer whose method the server still allows. Those passed over stay: a partial
    /// success can bring their method back.
    fn next(&mut self) -> Option<Credential> {
        let position = self.offers.iter().position(|offer| self.takes(offer))?;
        self.offers.remove(position)
    }

    fn takes(&self, offer: &Credential) -> bool {
        if is_password(offer) {
            self.allows(MethodKind::Password) || self.allows(MethodKind::KeyboardInteractive)
        } else {
            self.allows(MethodKind::PublicKey)
        }
    }

    fn allows(&self, method: MethodKind) -> bool {
        self.allowed
            .as_ref()
            .is_none_or(|allowed| allowed.contains(&method))
    }

    async fn offer(&mut self, offer: Credential) -> Outcome {
        match offer {
            Credential::Key { key, name } => {
                let blob = key.public_key().to_bytes().ok();
                let Some(hash) = self.prepare(blob, &key.algorithm(), &name).await else {
                    return Outcome::Skipped;
                };
                let key = PrivateKeyWithHashAlg::new(key, hash.0);
                let result = self.handle.authenticate_publickey(self.user, key).await;
                self.answered(result)
            }
            Credential::Certificate {
                key,
                certificate,
                name,
            } => {
                let blob = certificate.to_bytes().ok();
                let Some(hash) = self.prepare(blob, &key.algorithm(), &name).await else {
                    return Outcome::Skipped;
                };
                let mut signer = KeySigner(key);
                let result = self
                    .handle
                    .authenticate_certificate_with(self.user, *certificate, hash.0, &mut signer)
                    .await;
                match result {
                    Err(SignError::Key(error)) => {
                        tracing::warn!(%error, "a key cannot sign");
                        Outcome::Continue { partial: false }
                    }
                    // There is no agent in this.
                    Err(SignError::Gone | SignError::Agent(_)) => Outcome::Lost,
                    Ok(result) => self.result(result),
                }
            }
            Credential::FromAgent(source) => self.ask_agent(&source).await,
            Credential::AgentKey(key) => self.offer_agent_key(&key).await,
            Credential::Password(password) => {
                if self.allows(MethodKind::Password) {
                    self.attempt("password".into());
                    let password = password.expose();
                    let result = self.handle.authenticate_password(self.user, password).await;
                    self.answered(result)
                } else {
                    self.attempt("password (keyboard-interactive)".into());
                    self.answer_prompts(&password).await
                }
            }
        }
    }

    /// Puts what an agent holds in its place, in its order.
    async fn ask_agent(&mut self, source: &FromAgent) -> Outcome {
        let found = source.find(self.handle.agent_session_binding()).await;
        for credential in found.credentials.into_iter().rev() {
            self.offers.push_front(credential);
        }
        let Some((identity, problem)) = found.problem else {
            return Outcome::Skipped;
        };
        tracing::warn!(%identity, %problem, "an identity is not used");
        if problem.is_want_of_descriptors() {
            self.descriptors = Some(Cause::new(problem));
            return Outcome::Stuck;
        }
        self.tried.push(format!("{identity} (not used: {problem})"));
        self.agent_problem
            .get_or_insert((identity, Cause::new(problem)));
        Outcome::Skipped
    }

    async fn offer_agent_key(&mut self, key: &AgentKey) -> Outcome {
        if self.silent_agents.contains(key.agent().path()) {
            return Outcome::Skipped;
        }
        let public = key.offered().public_key().into_owned();
        let blob = key.blob();
        let Some(hash) = (self.prepare(blob.clone(), &public.algorithm(), key.name())).await else {
            return Outcome::Skipped;
        };
        let session = self.handle.agent_session_binding().cloned();
        let mut signer = AgentSigner {
            key,
            session: session.as_ref(),
        };
        let signed = match key.offered() {
            AgentIdentity::PublicKey { .. } => {
                self.handle
                    .authenticate_publickey_with(self.user, public, hash.0, &mut signer)
                    .await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                let certificate = certificate.clone();
                self.handle
                    .authenticate_certificate_with(self.user, certificate, hash.0, &mut signer)
                    .await
            }
        };
        let error = match signed {
            Ok(result) => return self.result(result),
            Err(SignError::Agent(error)) => error,
            Err(SignError::Key(_) | SignError::Gone) => return Outcome::Lost,
        };
        // The server would have taken the key: it does not count it, and another credential may
        // still sign with it.
        self.attempts = self.attempts.saturating_sub(1);
        if let Some(blob) = blob {
            self.offered.remove(&blob);
        }
        let path = key.agent().path();
        // It may decline one key, such as one that asks its owner for confirmation.
        if !error.is_about_one_key() {
            self.silent_agents.insert(path.to_owned());
        }
        tracing::warn!(key = key.name(), %error, "the agent did not sign");
        if let Some(last) = self.tried.last_mut() {
            last.push_str(&format!(", which the server would take, but {error}"));
        }
        let identity = format!("{} of the agent at {}", key.name(), path.display());
        self.agent_problem
            .get_or_insert((identity, Cause::new(error)));
        Outcome::Skipped
    }

    /// Answers what does not echo with the password, and everything else with nothing (RFC 4256).
    async fn answer_prompts(&mut self, password: &Secret) -> Outcome {
        use KeyboardInteractiveAuthResponse as Reply;
        let mut reply = self
            .handle
            .authenticate_keyboard_interactive_start(self.user, None::<String>)
            .await;
        let mut rounds = 0;
        loop {
            let prompts = match reply {
                Ok(Reply::Success) => return Outcome::Success,
                Ok(Reply::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    return self.result(AuthResult::Failure {
                        remaining_methods,
                        partial_success,
                    });
                }
                Ok(Reply::InfoRequest { prompts, .. }) => prompts,
                Err(_) => return Outcome::Lost,
            };
            // A round without prompts only shows a text.
            rounds += usize::from(!prompts.is_empty());
            if rounds > INTERACTIVE_ROUNDS {
                return Outcome::Stuck;
            }
            let answers = prompts
                .iter()
                .map(|prompt| if prompt.echo { "" } else { password.expose() }.to_owned())
                .collect();
            reply = self
                .handle
                .authenticate_keyboard_interactive_respond(answers)
                .await;
        }
    }

    /// The hash to sign with: nothing for keys that have one of their own. `None` when the server
    /// takes this key with SHA-1 only.
    async fn hash_for(&mut self, algorithm: &Algorithm, name: &str) -> Option<Hash> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Some(Hash(None));
        }
        let known = match self.rsa {
            Some(known) => known,
            None => {
                // This can wait a second for a server that never tells: only for RSA keys, once.
                let known = match self.handle.best_supported_rsa_hash().await {
                    Ok(Some(Some(hash))) => RsaHash::Sha2(hash),
                    Ok(Some(None)) => RsaHash::OnlySha1,
                    // Not told, or lost, which the offer will find out.
                    Ok(None) | Err(_) => RsaHash::Sha2(HashAlg::Sha512),
                };
                *self.rsa.insert(known)
            }
        };
        match known {
            RsaHash::Sha2(hash) => Some(Hash(Some(hash))),
            RsaHash::OnlySha1 => {
                tracing::warn!(
                    key = name,
                    "not offered: the server takes RSA with SHA-1 only"
                );
                self.tried
                    .push(format!("{name}, not offered as the server wants SHA-1"));
                None
            }
        }
    }

    /// Notes a key that is about to be offered, and chooses its hash. `None` if it has been
    /// offered before, or cannot be.
    async fn prepare(
        &mut self,
        blob: Option<Vec<u8>>,
        algorithm: &Algorithm,
        name: &str,
    ) -> Option<Hash> {
        let blob = blob.filter(|blob| !self.offered.contains(blob))?;
        let hash = self.hash_for(algorithm, name).await?;
        self.offered.insert(blob);
        self.attempt(name.to_owned());
        Some(hash)
    }

    fn attempt(&mut self, name: String) {
        self.tried.push(name);
        self.attempts += 1;
    }

    fn answered(&mut self, result: Result<AuthResult, russh::Error>) -> Outcome {
        match result {
            Ok(result) => self.result(result),
            Err(_) => Outcome::Lost,
        }
    }

    fn result(&mut self, result: AuthResult) -> Outcome {
        match result {
            AuthResult::Success => Outcome::Success,
            // This is how the library reports a lost connection here. A server that allows nothing
            // more says the same, and the library then ends the session.
            AuthResult::Failure {
                remaining_methods, ..
            } if remaining_methods.is_empty() => Outcome::Lost,
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                self.allowed = Some(remaining_methods);
                Outcome::Continue {
                    partial: partial_success,
                }
            }
        }
    }

    /// What the server allows, for the error.
    pub(super) fn allowance(&self) -> String {
        match &self.allowed {
            Some(methods) => methods
                .iter()
                .map(<&str>::from)
                .collect::<Vec<_>>()
                .join(", "),
            None => "an unknown set of methods".into(),
        }
    }

    pub(super) fn rejected(
        &mut self,
        target: &Arc<str>,
        allowed: String,
        cooldown: Duration,
    ) -> Error {
        if let Some(source) = self.descriptors.take() {
            let target = target.into();
            return Error::Descriptors { target, source };
        }
        if self.attempts == 0
            && let Some((identity, source)) = self.agent_problem.take()
        {
            return Error::Identity {
                target: target.into(),
                identity,
                source,
            };
        }
        let tried = std::mem::take(&mut self.tried);
        Error::AuthRejected {
            target: target.into(),
            tried,
            allowed,
            cooldown,
        }
    }

    /// The session has ended. A server that said goodbye after an offer, as sshd does when it has
    /// seen too many, has given its answer: dialling again would only add to what it counts.
    pub(super) async fn lost(&mut self, target: &Arc<str>, cooldown: Duration) -> Error {
        let source = match tokio::time::timeout(EPITAPH, &mut *self.handle).await {
            Ok(Ok(())) if self.attempts > 0 => {
                return self.rejected(
                    target,
                    "no further attempt: it disconnected".into(),
                    cooldown,
                );
            }
            Ok(Ok(())) => Cause::new("the server disconnected"),
            Ok(Err(error)) => {
                let error: Box<dyn std::error::Error + Send + Sync> = error.into();
                // An answer that allows no method at all, in so many words.
                if let Some(russh::Error::NoAuthMethod) = error.downcast_ref() {
                    return self.rejected(target, "no method at all".into(), cooldown);
                }
                Cause::of_peer(error)
            }
            Err(_) => Cause::new("the session does not answer"),
        };
        Error::AuthLost {
            target: target.into(),
            source,
        }
    }
}

/// What a key signs with, where that is a choice.
struct Hash(Option<HashAlg>);
