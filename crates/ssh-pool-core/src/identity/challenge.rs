//! Questions of a server that the program answers.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use zeroize::Zeroizing;

/// What a server asks in one round of a keyboard-interactive login (RFC 4256, section 3.2).
///
/// All texts are the server's. They are escaped and cut off: see [`printable`](crate::printable).
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Challenge;
///
/// /// Answers a single question for a code, and no other.
/// fn answer(challenge: &Challenge, code: &str) -> Option<Vec<String>> {
///     match &challenge.prompts[..] {
///         [prompt] if prompt.text.contains("code") => Some(vec![code.to_owned()]),
///         _ => None,
///     }
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Challenge {
    /// Who logs in where: `user@host:port`.
    pub target: Arc<str>,
    /// The heading. Mostly empty.
    pub name: String,
    /// What is to be shown above the prompts. Mostly empty.
    pub instructions: String,
    /// The questions, at least one. Each wants an answer.
    pub prompts: Vec<Prompt>,
}

/// One question of a [`Challenge`].
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::Prompt;
///
/// fn is_password(prompt: &Prompt) -> bool {
///     !prompt.echo && prompt.text.to_lowercase().contains("password")
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prompt {
    /// The question, such as `Verification code: `.
    pub text: String,
    /// Whether the answer may be shown while it is typed.
    pub echo: bool,
}

type Answer = dyn Fn(&Challenge) -> Option<Vec<String>> + Send + Sync;

/// The program's callback. Two are equal if they are one.
#[derive(Clone)]
pub(crate) struct Responder(Arc<Answer>);

impl Responder {
    pub(super) fn new(
        answer: impl Fn(&Challenge) -> Option<Vec<String>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(answer))
    }

    /// The answers, one for each prompt; `None` if there are none. May block.
    pub(crate) fn answer(&self, challenge: &Challenge) -> Option<Vec<Zeroizing<String>>> {
        let answers = (self.0)(challenge)?;
        let answers: Vec<_> = answers.into_iter().map(Zeroizing::new).collect();
        if answers.len() == challenge.prompts.len() {
            return Some(answers);
        }
        tracing::warn!(
            host = %challenge.target,
            prompts = challenge.prompts.len(),
            answers = answers.len(),
            "the callback of Identity::prompt must answer each prompt"
        );
        None
    }

    fn address(&self) -> *const () {
        Arc::as_ptr(&self.0).cast()
    }
}

impl PartialEq for Responder {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Responder {}

impl Hash for Responder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("prompt")
    }
}
