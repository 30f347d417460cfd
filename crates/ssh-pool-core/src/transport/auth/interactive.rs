//! Keyboard-interactive (RFC 4256): the server asks, and something answers.

use std::sync::Arc;

use russh::client::{
    AuthResult, Handler, KeyboardInteractiveAuthResponse as Reply, Prompt as Question,
};
use zeroize::Zeroizing;

use super::login::{Login, OfferOutcome};
use crate::error::MessageKind;
use crate::identity::{Challenge, Prompt, Responder};
use crate::printable;
use crate::secret::Secret;

/// How often one password answers in one attempt: a password, a second factor, a change of password.
const PASSWORD_ROUNDS: usize = 3;

/// How often the server may ask in one attempt, with or without questions.
const ROUNDS: usize = 16;

/// What answers the server's questions.
#[derive(Debug, Clone)]
pub(super) enum Answers {
    /// This answers what does not echo, and nothing everything else.
    Password(Secret),
    Callback(Responder),
    /// Nothing: only a server that asks nothing lets this in.
    Nothing,
}

impl<H> Login<'_, H>
where
    H: Handler,
    H::Error: std::error::Error + Send + Sync + 'static,
{
    /// One attempt. If there is no answer, the connection has to be given up: an empty one would
    /// count as a wrong one at the server, and the library sends nothing else before it.
    pub(super) async fn converse(&mut self, answers: &Answers) -> OfferOutcome {
        self.attempt(answers.name().into());
        if matches!(answers, Answers::Nothing) {
            // No credential has been offered.
            self.attempts = self.attempts.saturating_sub(1);
        }
        let user = self.rules.user;
        let mut reply = (self.handle)
            .authenticate_keyboard_interactive_start(user, None::<String>)
            .await;
        let (mut rounds, mut asked) = (0, 0);
        loop {
            let prompts = match reply {
                Ok(Reply::Success) => return OfferOutcome::Success,
                Ok(Reply::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    return self.result(AuthResult::Failure {
                        remaining_methods,
                        partial_success,
                    });
                }
                Ok(Reply::InfoRequest {
                    name,
                    instructions,
                    prompts,
                }) => {
                    self.rules.messages.add(MessageKind::Instruction, &name);
                    self.rules
                        .messages
                        .add(MessageKind::Instruction, &instructions);
                    self.challenge(&name, &instructions, prompts)
                }
                Err(_) => return OfferOutcome::Lost,
            };
            rounds += 1;
            // A round without prompts only shows a text.
            asked += usize::from(!prompts.prompts.is_empty());
            let most = match answers {
                Answers::Password(_) => PASSWORD_ROUNDS,
                Answers::Callback(_) | Answers::Nothing => ROUNDS,
            };
            let answered = match rounds > ROUNDS || asked > most {
                true => None,
                false => answers.to(&prompts).await,
            };
            let Some(answers) = answered else {
                self.unanswered(&prompts);
                return OfferOutcome::Stuck;
            };
            // The library takes them as they are; what is copied here is wiped.
            let answers = answers.iter().map(|answer| answer.to_string()).collect();
            reply = (self.handle)
                .authenticate_keyboard_interactive_respond(answers)
                .await;
        }
    }

    /// What is asked, in a form that may be shown. sshd puts what PAM says before a prompt into its
    /// text, on lines of their own: that is an instruction.
    fn challenge(&self, name: &str, instructions: &str, questions: Vec<Question>) -> Challenge {
        let prompts = questions.into_iter().map(|question| {
            let text = match question.prompt.rsplit_once('\n') {
                Some((said, prompt)) if !prompt.trim().is_empty() => {
                    self.rules.messages.add(MessageKind::Instruction, said);
                    prompt
                }
                _ => &question.prompt,
            };
            Prompt {
                text: printable(text),
                echo: question.echo,
            }
        });
        Challenge {
            prompts: prompts.collect(),
            target: self.rules.target.clone(),
            name: printable(name),
            instructions: printable(instructions),
        }
    }

    fn unanswered(&mut self, challenge: &Challenge) {
        let question = challenge.prompts.first();
        let question = question.map_or("", |prompt| prompt.text.trim_end());
        self.annotate(&format!("(not answered: \"{question}\")"));
    }
}

impl Answers {
    /// How errors name an attempt.
    fn name(&self) -> &'static str {
        match self {
            Self::Password(_) => "password (keyboard-interactive)",
            Self::Callback(_) => "prompt (keyboard-interactive)",
            Self::Nothing => "keyboard-interactive",
        }
    }

    async fn to(&self, challenge: &Challenge) -> Option<Vec<Zeroizing<String>>> {
        if challenge.prompts.is_empty() {
            return Some(Vec::new());
        }
        match self {
            Self::Nothing => None,
            Self::Password(password) => {
                let answer = |prompt: &Prompt| if prompt.echo { "" } else { password.expose() };
                let answers = challenge.prompts.iter().map(answer);
                Some(
                    answers
                        .map(|answer| Zeroizing::new(answer.to_owned()))
                        .collect(),
                )
            }
            Self::Callback(responder) => {
                let (responder, challenge) = (responder.clone(), Arc::new(challenge.clone()));
                // It may block, and ends with the process at the latest.
                let answered = tokio::task::spawn_blocking(move || responder.answer(&challenge));
                // `Err`: it has panicked, and the panic has been reported.
                answered.await.ok().flatten()
            }
        }
    }
}
