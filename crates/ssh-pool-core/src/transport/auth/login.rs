//! One login: which credential is offered when, and what a refusal means.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use russh::client::{AuthResult, Handle, Handler};
use russh::keys::Algorithm;
use russh::keys::agent::AgentIdentity;
use russh::{MethodKind, MethodSet};

use super::LoginRules;
use super::interactive::Answers;
use super::signer::{AgentSigner, KeySigner, SignError};
use super::signing::{self, Form, Hash, NotOffered, ServerRsa};
use crate::error::{Cause, Error, NoneUsable, not_used};
use crate::secret::Secret;
use crate::transport::keys::{AgentKey, Credential, FromAgent};
use crate::transport::translate::{NOT_UTF8, is_fin, is_not_utf8};

/// How long a session that is known to have ended may take to say how.
const DISCONNECT_REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// How a login ended.
pub(super) enum LoginEnd {
    Success,
    Exhausted,
    Lost,
}

/// What came of one offer.
pub(super) enum OfferOutcome {
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

#[derive(Clone)]
enum Offer {
    Credential(Credential),
    /// The method `password` (RFC 4252, section 8).
    Password(Secret),
    Interactive(Answers),
}

impl Offer {
    /// In the order in which they are tried. A password serves two methods.
    fn of(credential: Credential) -> Vec<Self> {
        match credential {
            Credential::Password(password) => vec![
                Self::Password(password.clone()),
                Self::Interactive(Answers::Password(password)),
            ],
            Credential::Prompt(responder) => {
                vec![Self::Interactive(Answers::Callback(responder))]
            }
            Credential::None => Vec::new(),
            credential => vec![Self::Credential(credential)],
        }
    }

    fn method(&self) -> MethodKind {
        match self {
            Self::Credential(_) => MethodKind::PublicKey,
            Self::Password(_) => MethodKind::Password,
            Self::Interactive(_) => MethodKind::KeyboardInteractive,
        }
    }

    /// A key that was refused may do after a partial success, when the server asks for another one.
    fn is_key(&self) -> bool {
        self.method() == MethodKind::PublicKey
    }
}

/// A login in progress.
pub(super) struct Login<'a, H: Handler> {
    pub(super) handle: &'a mut Handle<H>,
    pub(super) rules: LoginRules<'a>,
    /// What the server said could continue; unknown before its first answer.
    allowed: Option<MethodSet>,
    rsa: Option<ServerRsa>,
    offers: VecDeque<Offer>,
    /// Sockets of agents that answer no more.
    silent_agents: HashSet<PathBuf>,
    /// Keys that were refused.
    refused: Vec<Offer>,
    /// Public key and certificate blobs.
    offered: HashSet<Vec<u8>>,
    tried: Vec<String>,
    /// Of those, what the server has accepted as a part of the login.
    accepted: Vec<String>,
    /// Keyboard-interactive has been tried without an answer, since the last partial success.
    asked_for_nothing: bool,
    pub(super) attempts: usize,
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
        credentials: Vec<Credential>,
        rules: LoginRules<'a>,
    ) -> Self {
        Self {
            handle,
            rules,
            allowed: None,
            rsa: None,
            offers: credentials.into_iter().flat_map(Offer::of).collect(),
            silent_agents: HashSet::new(),
            refused: Vec::new(),
            offered: HashSet::new(),
            tried: rules.unused.to_vec(),
            accepted: Vec::new(),
            asked_for_nothing: false,
            attempts: 0,
            agent_problem: None,
            descriptors: None,
        }
    }

    /// Logs in as ssh does: `none` first, then what is there for the methods that the server allows
    /// at each step, and after each partial success from there on.
    pub(super) async fn run(&mut self) -> LoginEnd {
        let max_attempts = self.rules.max_attempts;
        if let Some(end) = self.ask_for_methods().await {
            return end;
        }
        while let Some(offer) = self.next() {
            if self.attempts >= max_attempts {
                let left = 1 + self.offers.iter().filter(|offer| self.takes(offer)).count();
                self.tried.push(format!(
                    "({left} more not offered: the limit is {max_attempts})"
                ));
                return LoginEnd::Exhausted;
            }
            let offered = offer.clone();
            match self.offer(offer).await {
                OfferOutcome::Success => return LoginEnd::Success,
                OfferOutcome::Continue { partial: true } => {
                    self.attempts = self.attempts.saturating_sub(1);
                    self.accepted.extend(self.tried.last().cloned());
                    self.next_step();
                }
                OfferOutcome::Continue { partial: false } if offered.is_key() => {
                    self.refused.push(offered);
                }
                OfferOutcome::Continue { partial: false } | OfferOutcome::Skipped => {}
                OfferOutcome::Stuck => return LoginEnd::Exhausted,
                OfferOutcome::Lost => return LoginEnd::Lost,
            }
        }
        LoginEnd::Exhausted
    }

    /// The server wants something else from now on, which a key may be that was refused before.
    fn next_step(&mut self) {
        self.offered.clear();
        self.offers.extend(self.refused.drain(..));
        self.asked_for_nothing = false;
    }

    /// Asks with method "none" what the server allows. An account without authentication is
    /// logged in by it.
    async fn ask_for_methods(&mut self) -> Option<LoginEnd> {
        let result = self.handle.authenticate_none(self.rules.user).await;
        match self.answered(result) {
            OfferOutcome::Success => Some(LoginEnd::Success),
            OfferOutcome::Lost => Some(LoginEnd::Lost),
            _ => None,
        }
    }

    /// The first offer whose method the server allows. Those passed over stay: a partial success
    /// can bring their method back.
    fn next(&mut self) -> Option<Offer> {
        match self.offers.iter().position(|offer| self.takes(offer)) {
            Some(position) => self.offers.remove(position),
            None => self.without_answer(),
        }
    }

    /// Keyboard-interactive without an answer, once for each step: the server may have its own way to
    /// know the user, and ask nothing. Not where there are other ways to log in, and none of them was
    /// good for anything so far: it would be one more failure.
    fn without_answer(&mut self) -> Option<Offer> {
        let nothing = Offer::Interactive(Answers::Nothing);
        let allowed = self.allowed.as_ref().map_or(0, |allowed| allowed.len());
        let sensible = !self.accepted.is_empty() || allowed == 1;
        let may = sensible
            && self.takes(&nothing)
            && !std::mem::replace(&mut self.asked_for_nothing, true);
        may.then_some(nothing)
    }

    fn takes(&self, offer: &Offer) -> bool {
        self.allows(offer.method())
    }

    fn allows(&self, method: MethodKind) -> bool {
        self.allowed
            .as_ref()
            .is_none_or(|allowed| allowed.contains(&method))
    }

    async fn offer(&mut self, offer: Offer) -> OfferOutcome {
        match offer {
            Offer::Credential(Credential::Key { key, name }) => {
                let blob = key.public_key().to_bytes().ok();
                let algorithm = key.algorithm();
                let Some(hash) = self.prepare(blob, &algorithm, Form::Key, &name).await else {
                    return OfferOutcome::Skipped;
                };
                let public = key.public_key().clone();
                let mut signer = KeySigner(key);
                let result = self
                    .handle
                    .authenticate_publickey_with(self.rules.user, public, hash.0, &mut signer)
                    .await;
                self.signed(result)
            }
            Offer::Credential(Credential::Certificate {
                key,
                certificate,
                name,
            }) => {
                let blob = certificate.to_bytes().ok();
                let (algorithm, form) = (key.algorithm(), Form::Certificate);
                let Some(hash) = self.prepare(blob, &algorithm, form, &name).await else {
                    return OfferOutcome::Skipped;
                };
                let mut signer = KeySigner(key);
                let result = self
                    .handle
                    .authenticate_certificate_with(
                        self.rules.user,
                        *certificate,
                        hash.0,
                        &mut signer,
                    )
                    .await;
                self.signed(result)
            }
            Offer::Credential(Credential::FromAgent(source)) => self.ask_agent(&source).await,
            Offer::Credential(Credential::AgentKey(key)) => self.offer_agent_key(&key).await,
            Offer::Password(password) => {
                self.attempt("password".into());
                let password = password.expose();
                self.rules.messages.set_password_pending(true);
                let result = self
                    .handle
                    .authenticate_password(self.rules.user, password)
                    .await;
                self.rules.messages.set_password_pending(false);
                self.answered(result)
            }
            Offer::Interactive(answers) => self.converse(&answers).await,
            // Turned into other offers.
            Offer::Credential(
                Credential::Password(_) | Credential::Prompt(_) | Credential::None,
            ) => OfferOutcome::Skipped,
        }
    }

    /// Puts what an agent holds in its place, in its order.
    async fn ask_agent(&mut self, source: &FromAgent) -> OfferOutcome {
        let found = source.find(self.handle.agent_session_binding()).await;
        for credential in found.credentials.into_iter().rev() {
            self.offers.push_front(Offer::Credential(credential));
        }
        let Some((identity, problem)) = found.problem else {
            return OfferOutcome::Skipped;
        };
        tracing::warn!(%identity, %problem, "an identity is not used");
        if problem.is_want_of_descriptors() {
            self.descriptors = Some(Cause::new(problem));
            return OfferOutcome::Stuck;
        }
        self.tried.push(not_used(&identity, &problem));
        self.agent_problem
            .get_or_insert((identity, Cause::new(problem)));
        OfferOutcome::Skipped
    }

    async fn offer_agent_key(&mut self, key: &AgentKey) -> OfferOutcome {
        if self.silent_agents.contains(key.agent().path()) {
            return OfferOutcome::Skipped;
        }
        let public = key.offered().public_key().into_owned();
        let (blob, algorithm) = (key.blob(), public.algorithm());
        let form = match key.offered() {
            AgentIdentity::PublicKey { .. } => Form::Key,
            AgentIdentity::Certificate { .. } => Form::Certificate,
        };
        let prepared = self.prepare(blob.clone(), &algorithm, form, key.name());
        let Some(hash) = prepared.await else {
            return OfferOutcome::Skipped;
        };
        let session = self.handle.agent_session_binding().cloned();
        let mut signer = AgentSigner {
            key,
            session: session.as_ref(),
        };
        let signed = match key.offered() {
            AgentIdentity::PublicKey { .. } => {
                self.handle
                    .authenticate_publickey_with(self.rules.user, public, hash.0, &mut signer)
                    .await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                let certificate = certificate.clone();
                self.handle
                    .authenticate_certificate_with(
                        self.rules.user,
                        certificate,
                        hash.0,
                        &mut signer,
                    )
                    .await
            }
        };
        let error = match signed {
            Ok(result) => return self.result(result),
            Err(SignError::Agent(error)) => error,
            Err(SignError::Key(_) | SignError::Gone) => return OfferOutcome::Lost,
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
        self.annotate(&format!("(which the server would take, but {error})"));
        let identity = format!("{} of the agent at {}", key.name(), path.display());
        self.agent_problem
            .get_or_insert((identity, Cause::new(error)));
        OfferOutcome::Skipped
    }

    /// The hash to sign with.
    async fn hash_for(&mut self, algorithm: &Algorithm, form: Form) -> Result<Hash, NotOffered> {
        let allowed = self.rules.public_keys;
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return signing::fixed(algorithm, form, allowed);
        }
        let server = match self.rsa {
            Some(known) => known,
            None => {
                // This can wait a second for a server that never tells: only for RSA keys, once.
                let told = match self.handle.best_supported_rsa_hash().await {
                    Ok(Some(Some(hash))) => ServerRsa::Sha2(hash),
                    Ok(Some(None)) => ServerRsa::OnlySha1,
                    // Not told, or lost, which the offer will find out.
                    Ok(None) | Err(_) => ServerRsa::NotTold,
                };
                *self.rsa.insert(told)
            }
        };
        signing::rsa(server, form, allowed)
    }

    /// Notes a key that is about to be offered, and chooses its hash. `None` if it has been
    /// offered before, or cannot be.
    async fn prepare(
        &mut self,
        blob: Option<Vec<u8>>,
        algorithm: &Algorithm,
        form: Form,
        name: &str,
    ) -> Option<Hash> {
        let blob = blob.filter(|blob| !self.offered.contains(blob))?;
        match self.hash_for(algorithm, form).await {
            Ok(hash) => {
                self.offered.insert(blob);
                self.attempt(name.to_owned());
                Some(hash)
            }
            Err(NotOffered(why)) => {
                tracing::warn!(key = name, why, "a key is not offered");
                self.tried.push(format!("{name}, not offered: {why}"));
                None
            }
        }
    }

    pub(super) fn attempt(&mut self, name: String) {
        self.tried.push(name);
        self.attempts += 1;
    }

    /// Adds to what errors say about the last attempt.
    pub(super) fn annotate(&mut self, note: &str) {
        if let Some(last) = self.tried.last_mut() {
            last.push(' ');
            last.push_str(note);
        }
    }

    fn answered(&mut self, result: Result<AuthResult, russh::Error>) -> OfferOutcome {
        match result {
            Ok(result) => self.result(result),
            Err(_) => OfferOutcome::Lost,
        }
    }

    /// What came of a key in memory.
    fn signed(&mut self, result: Result<AuthResult, SignError>) -> OfferOutcome {
        match result {
            Err(SignError::Key(error)) => {
                tracing::warn!(%error, "a key cannot sign");
                OfferOutcome::Continue { partial: false }
            }
            // There is no agent in this.
            Err(SignError::Gone | SignError::Agent(_)) => OfferOutcome::Lost,
            Ok(result) => self.result(result),
        }
    }

    pub(super) fn result(&mut self, result: AuthResult) -> OfferOutcome {
        match result {
            AuthResult::Success => OfferOutcome::Success,
            // This is how the library reports a lost connection here. A server that allows nothing
            // more says the same, and the library then ends the session.
            AuthResult::Failure {
                remaining_methods, ..
            } if remaining_methods.is_empty() => OfferOutcome::Lost,
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                self.allowed = Some(remaining_methods);
                OfferOutcome::Continue {
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

    pub(super) fn rejected(&mut self, allowed: String) -> Error {
        let target = self.rules.target.into();
        if let Some(source) = self.descriptors.take() {
            return Error::Descriptors { target, source };
        }
        if self.attempts == 0
            && self.accepted.is_empty()
            && let Some((identity, mut source)) = self.agent_problem.take()
        {
            if !self.rules.unused.is_empty() {
                let (each, first) = (std::mem::take(&mut self.tried), source);
                source = Cause::new(NoneUsable { each, first });
            }
            return Error::Identity {
                target,
                identity,
                source,
            };
        }
        Error::AuthRejected {
            target,
            tried: std::mem::take(&mut self.tried),
            accepted: std::mem::take(&mut self.accepted).into(),
            allowed: allowed.into(),
            messages: self.rules.messages.list().into(),
            cooldown: self.rules.cooldown,
        }
    }

    /// The session has ended. A server that said goodbye after an offer, as sshd does when it has
    /// seen too many, has given its answer: dialling again would only add to what it counts.
    pub(super) async fn lost(&mut self) -> Error {
        let mut lost = true;
        let source = match tokio::time::timeout(DISCONNECT_REASON_TIMEOUT, &mut *self.handle).await
        {
            Ok(Ok(())) if self.attempts > 0 => {
                return self.rejected("no further attempt: it disconnected".into());
            }
            Ok(Ok(())) => Cause::new("the server disconnected"),
            Ok(Err(error)) => {
                let error: Box<dyn std::error::Error + Send + Sync> = error.into();
                // An answer that allows no method at all, in so many words.
                if let Some(russh::Error::NoAuthMethod) = error.downcast_ref() {
                    return self.rejected("no method at all".into());
                }
                match error.downcast_ref() {
                    Some(error) if is_not_utf8(error) => {
                        lost = false;
                        Cause::new(NOT_UTF8)
                    }
                    Some(error) if is_fin(error) => {
                        Cause::new("the server closed the connection without an answer")
                    }
                    _ => Cause::of_peer(error),
                }
            }
            Err(_) => Cause::new("the session does not answer"),
        };
        Error::AuthLost {
            target: self.rules.target.into(),
            lost,
            messages: self.rules.messages.list().into(),
            source,
        }
    }
}
