use super::*;
use crate::error::{Phase, words_of};
use crate::secret::Secret;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey, PublicKeyOrCertificate};
use russh::server::{self, Auth, PublicKeyOffer, Response, VerifiedPublicKey};
use russh::{MethodKind, MethodSet, client};
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

const PASSWORD: MethodKind = MethodKind::Password;
const PUBLICKEY: MethodKind = MethodKind::PublicKey;
const INTERACTIVE: MethodKind = MethodKind::KeyboardInteractive;

/// What the server answers to an offer, such as `none`, `key 1`, `password x` or `answers x`.
enum Answer {
    Accept,
    Reject(&'static [MethodKind]),
    Partial(&'static [MethodKind]),
    /// Prompts, each with whether it echoes.
    Ask(&'static [(&'static str, bool)]),
    HangUp,
}

type Rule = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

#[derive(Clone)]
struct Server {
    rule: Rule,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(rule: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            rule: Arc::new(rule),
            seen: Arc::default(),
        }
    }

    /// Wants these methods one after the other, with password `x`.
    fn stepwise(steps: [&'static [MethodKind]; 2]) -> Self {
        let step = Mutex::new(0);
        Self::new(move |offer| {
            let mut step = step.lock().unwrap();
            let right = match offer {
                "password x" => steps[*step] == [PASSWORD],
                "answers x" => steps[*step] == [INTERACTIVE],
                "interactive" => return Answer::Ask(&[("Password: ", false)]),
                _ => false,
            };
            if !right {
                return Answer::Reject(steps[*step]);
            }
            *step += 1;
            match steps.get(*step) {
                Some(next) => Answer::Partial(next),
                None => Answer::Accept,
            }
        })
    }

    fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn answer(&self, offer: String) -> Result<Auth, russh::Error> {
        let reject = |methods: &[MethodKind], partial_success| Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(methods)),
            partial_success,
        };
        let answer = (self.rule)(&offer);
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(offer);
        Ok(match answer {
            Answer::Accept => Auth::Accept,
            Answer::Reject(methods) => reject(methods, false),
            Answer::Partial(methods) => reject(methods, true),
            Answer::Ask(prompts) => Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: prompts
                    .iter()
                    .map(|(text, echo)| (Cow::from(*text), *echo))
                    .collect(),
            },
            Answer::HangUp => return Err(russh::Error::Disconnect),
        })
    }

    /// A client's handle of a fresh connection to this server, over a pipe.
    async fn connect(&self) -> Handle<Client> {
        let config = server::Config {
            keys: vec![key(99)],
            auth_rejection_time: Duration::ZERO,
            max_auth_attempts: 6,
            ..server::Config::default()
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = self.clone();
        tokio::spawn(async move {
            if let Ok(session) = server::run_stream(Arc::new(config), far, server).await {
                let _ = session.await;
            }
        });
        client::connect_stream(Arc::default(), near, Client)
            .await
            .unwrap()
    }

    /// Logs in, at most five offers.
    async fn login(&self, credentials: Vec<Credential>) -> Result<(), Error> {
        self.login_within(5, credentials).await
    }

    async fn login_within(
        &self,
        max_attempts: usize,
        credentials: Vec<Credential>,
    ) -> Result<(), Error> {
        let mut handle = self.connect().await;
        let rules = LoginRules {
            target: &"me@test:22".into(),
            user: "me",
            max_attempts,
            cooldown: Duration::from_secs(30),
            public_keys: &["ssh-ed25519".into()],
            unused: &[],
            messages: &Messages::default(),
        };
        authenticate(&mut handle, credentials, rules).await
    }
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        self.answer("none".into())
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        self.answer(format!("password {password}"))
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        let offer = format!("key {}", number(offer.public_key));
        // Whether a key does for now is answered after the signature.
        match (self.rule)(&offer) {
            Answer::Partial(_) => Ok(Auth::Accept),
            _ => self.answer(offer),
        }
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        self.answer(format!("key {}", number(key.public_key)))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        self.answer(match response {
            None => "interactive".into(),
            Some(answers) => {
                let texts = answers.map(|a| String::from_utf8_lossy(&a).into_owned());
                format!("answers {}", texts.collect::<Vec<_>>().join("/"))
            }
        })
    }
}

struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

fn key(number: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32]))
}

fn number(public: &PublicKey) -> u8 {
    let known = (0..=u8::MAX).find(|n| key(*n).public_key().key_data() == public.key_data());
    known.unwrap()
}

fn keys(numbers: impl IntoIterator<Item = u8>) -> Vec<Credential> {
    let credential = |n| Credential::Key {
        key: Arc::new(key(n)),
        name: format!("key {n}"),
    };
    numbers.into_iter().map(credential).collect()
}

fn prompt(
    answer: impl Fn(&crate::Challenge) -> Option<Vec<String>> + Send + Sync + 'static,
) -> Vec<Credential> {
    let identity = crate::Identity::prompt(answer);
    let [crate::identity::Part::Prompt(responder)] = identity.parts() else {
        panic!("{identity:?}")
    };
    vec![Credential::Prompt(responder.clone())]
}

fn password(text: &str) -> Credential {
    Credential::Password(Secret::new(text))
}

fn tried(result: Result<(), Error>) -> Vec<String> {
    match result {
        Err(Error::AuthRejected {
            tried, cooldown, ..
        }) => {
            assert_eq!(cooldown, Duration::from_secs(30));
            tried
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_first_key_that_is_taken_ends_the_login() {
    let server = Server::new(|offer| match offer {
        "key 2" => Answer::Accept,
        _ => Answer::Reject(&[PUBLICKEY]),
    });
    server.login(keys([1, 2, 3])).await.unwrap();
    // Offered, then signed for.
    assert_eq!(server.seen(), ["none", "key 1", "key 2", "key 2"]);
}

#[tokio::test]
async fn no_key_is_offered_twice_and_no_more_than_the_limit() {
    let server = Server::new(|_| Answer::Reject(&[PUBLICKEY]));
    let tried = tried(server.login(keys([1, 1, 2, 1, 3, 4, 5, 6, 7])).await);
    assert_eq!(
        server.seen(),
        ["none", "key 1", "key 2", "key 3", "key 4", "key 5"]
    );
    let more = "(2 more not offered: the limit is 5)";
    assert_eq!(tried, ["key 1", "key 2", "key 3", "key 4", "key 5", more]);
}

#[tokio::test]
async fn a_password_is_not_sent_where_only_keys_are_taken() {
    let server = Server::new(|_| Answer::Reject(&[PUBLICKEY]));
    assert!(tried(server.login(vec![password("hunter2")]).await).is_empty());
    assert_eq!(server.seen(), ["none"]);
}

#[tokio::test]
async fn a_refused_password_is_named_and_not_shown() {
    let server = Server::new(|_| Answer::Reject(&[PUBLICKEY, PASSWORD]));
    let error = server.login(vec![password("hunter2")]).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("after offering password; the server allows publickey, password"));
    assert_eq!(error.phase(), Phase::Auth);
    assert_eq!(server.seen(), ["none", "password hunter2"]);
}

#[tokio::test]
async fn a_password_answers_prompts_that_do_not_echo() {
    let server = Server::new(|offer| match offer {
        "interactive" => Answer::Ask(&[("Name: ", true), ("Password: ", false)]),
        "answers /hunter2" => Answer::Ask(&[]),
        "answers " => Answer::Accept,
        _ => Answer::Reject(&[INTERACTIVE]),
    });
    server.login(vec![password("hunter2")]).await.unwrap();
    assert_eq!(
        server.seen(),
        ["none", "interactive", "answers /hunter2", "answers "]
    );
}

#[tokio::test]
async fn a_server_that_never_stops_asking_is_left() {
    let server = Server::new(|offer| match offer {
        "none" => Answer::Reject(&[INTERACTIVE]),
        _ => Answer::Ask(&[("Code: ", false)]),
    });
    let tried = tried(server.login(vec![password("x"), password("y")]).await);
    assert_eq!(
        tried,
        ["password (keyboard-interactive) (not answered: \"Code:\")"]
    );
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_partial_success_goes_on_with_what_is_asked_for_next() {
    let both = |offer: &str| match offer {
        "key 1" => Answer::Partial(&[PASSWORD]),
        "password x" => Answer::Accept,
        _ => Answer::Reject(&[PUBLICKEY]),
    };
    for reversed in [false, true] {
        let mut credentials = keys([1]);
        credentials.push(password("x"));
        if reversed {
            credentials.reverse();
        }
        Server::new(both).login(credentials).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_lets_in_by_none_is_offered_nothing() {
    for credentials in [keys([1]), vec![password("x")], vec![Credential::None]] {
        let server = Server::new(|offer| match offer {
            "none" => Answer::Accept,
            _ => Answer::HangUp,
        });
        server.login(credentials).await.unwrap();
        assert_eq!(server.seen(), ["none"]);
    }
}

#[tokio::test]
async fn one_password_answers_two_methods_one_after_the_other() {
    // AuthenticationMethods password,keyboard-interactive, and the other way round.
    let (typed, asked): (&[MethodKind], &[MethodKind]) = (&[PASSWORD], &[INTERACTIVE]);
    for steps in [[typed, asked], [asked, typed]] {
        let server = Server::stepwise(steps);
        server.login(vec![password("x")]).await.unwrap();
    }
}

#[tokio::test]
async fn a_password_that_was_refused_answers_prompts_if_that_is_allowed() {
    let server = Server::new(|offer| match offer {
        "interactive" => Answer::Ask(&[("Password: ", false)]),
        "answers x" => Answer::Accept,
        _ => Answer::Reject(&[PASSWORD, INTERACTIVE]),
    });
    server.login(vec![password("x")]).await.unwrap();
    assert_eq!(
        server.seen(),
        ["none", "password x", "interactive", "answers x"]
    );
}

#[tokio::test]
async fn a_key_is_enough_where_keyboard_interactive_asks_nothing() {
    let server = Server::new(|offer| match offer {
        "none" => Answer::Reject(&[PUBLICKEY]),
        "key 1" => Answer::Partial(&[INTERACTIVE]),
        "interactive" => Answer::Ask(&[]),
        "answers " => Answer::Accept,
        _ => Answer::HangUp,
    });
    server.login(keys([1])).await.unwrap();
}

#[tokio::test]
async fn a_question_without_an_answer_is_not_answered_with_nothing() {
    let server = Server::new(|offer| match offer {
        "interactive" => Answer::Ask(&[("\u{1b}Token: ", false)]),
        "key 1" => Answer::Partial(&[PUBLICKEY, INTERACTIVE]),
        _ => Answer::Reject(&[PUBLICKEY]),
    });
    let tried = tried(server.login(keys([1])).await);
    let asked = "keyboard-interactive (not answered: \"\\u{1b}Token:\")";
    assert_eq!(tried, ["key 1", asked]);
    assert_eq!(server.seen(), ["none", "key 1", "interactive"]);
}

#[tokio::test]
async fn keyboard_interactive_is_not_tried_without_an_answer_where_keys_were_wanted_and_refused() {
    let server = Server::new(|_| Answer::Reject(&[PUBLICKEY, INTERACTIVE]));
    assert_eq!(tried(server.login(keys([1])).await), ["key 1"]);
    assert_eq!(server.seen(), ["none", "key 1"]);
}

#[tokio::test]
async fn after_a_partial_success_the_error_says_what_was_accepted_and_what_is_wanted() {
    let server = Server::new(|offer| match offer {
        "key 2" => Answer::Partial(&[PASSWORD]),
        _ => Answer::Reject(&[PUBLICKEY]),
    });
    let error = server.login(keys([1, 2])).await.unwrap_err();
    let text = error.to_string();
    let expected = "login incomplete: the server accepted key 2 and still wants password; offered in \
                    all: key 1, key 2; add an identity for what is wanted";
    assert!(text.contains(expected), "{text}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_key_that_was_refused_is_offered_again_after_a_partial_success() {
    static PASSED: Mutex<bool> = Mutex::new(false);
    let server = Server::new(|offer| match offer {
        "password x" => {
            *PASSED.lock().unwrap() = true;
            Answer::Partial(&[PUBLICKEY])
        }
        "key 1" if *PASSED.lock().unwrap() => Answer::Accept,
        _ => Answer::Reject(&[PASSWORD, PUBLICKEY]),
    });
    let mut credentials = keys([1]);
    credentials.push(password("x"));
    server.login(credentials).await.unwrap();
    assert_eq!(
        server.seen(),
        ["none", "key 1", "password x", "key 1", "key 1"]
    );
}

#[tokio::test]
async fn a_callback_answers_each_round_of_questions() {
    let server = Server::new(|offer| match offer {
        "interactive" => Answer::Ask(&[("Last login failed.\nUser: ", true), ("PIN: ", false)]),
        "answers User: true/PIN: false" => Answer::Ask(&[("Code: ", false)]),
        "answers Code: false" => Answer::Accept,
        _ => Answer::Reject(&[INTERACTIVE]),
    });
    let echo = prompt(|challenge| {
        assert_eq!(&*challenge.target, "me@test:22");
        let answer = |prompt: &crate::Prompt| format!("{}{}", prompt.text, prompt.echo);
        Some(challenge.prompts.iter().map(answer).collect())
    });
    server.login(echo).await.unwrap();
}

#[tokio::test]
async fn a_callback_that_gives_no_good_answers_ends_the_login() {
    for credentials in [
        prompt(|_| None),
        prompt(|_| Some(Vec::new())),
        prompt(|_| panic!("on purpose")),
    ] {
        let server = Server::new(|offer| match offer {
            "interactive" => Answer::Ask(&[("Code: ", false)]),
            _ => Answer::Reject(&[INTERACTIVE]),
        });
        let expected = "prompt (keyboard-interactive) (not answered: \"Code:\")";
        assert_eq!(tried(server.login(credentials).await), [expected]);
        assert_eq!(server.seen(), ["none", "interactive"]);
    }
}

#[tokio::test]
async fn what_is_said_above_a_prompt_is_in_the_error() {
    let server = Server::new(|offer| match offer {
        "interactive" => Answer::Ask(&[("Your password has expired.\nNew password: ", false)]),
        _ => Answer::Reject(&[INTERACTIVE]),
    });
    let error = server.login(keys([1])).await.unwrap_err();
    let said = error.server_messages();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].kind, crate::MessageKind::Instruction);
    let text = error.to_string();
    assert!(
        text.contains("the server said \"Your password has expired.\""),
        "{text}"
    );
    assert!(text.contains("(not answered: \"New password:\")"), "{text}");
}

#[tokio::test]
async fn a_lost_connection_is_not_a_refusal() {
    let server = Server::new(|offer| match offer {
        "key 2" => Answer::HangUp,
        _ => Answer::Reject(&[PUBLICKEY]),
    });
    let error = server.login(keys([1, 2, 3])).await.unwrap_err();
    assert!(matches!(error, Error::AuthLost { .. }), "{error:?}");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_server_that_says_goodbye_after_an_offer_has_refused() {
    let server = Server::new(|_| Answer::Reject(&[PUBLICKEY]));
    // It counts `none`, and disconnects at the seventh request, as sshd does at MaxAuthTries.
    let result = server.login_within(50, keys(1..20)).await;
    assert_eq!(tried(result).len(), 6);
}

#[tokio::test]
async fn a_server_that_allows_nothing_has_refused() {
    let server = Server::new(|_| Answer::Reject(&[]));
    assert!(tried(server.login(keys([1])).await).is_empty());
    assert!(tried(server.login(vec![password("x")]).await).is_empty());
}

#[tokio::test]
async fn without_credentials_the_error_says_what_would_be_taken() {
    let server = Server::new(|_| Answer::Reject(&[PUBLICKEY, PASSWORD]));
    let error = server.login(Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("publickey, password"), "{error}");
    Server::new(|_| Answer::Accept)
        .login(Vec::new())
        .await
        .unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn an_agent_that_does_not_answer_is_an_identity_error_unless_others_were_tried() {
    let server = Server::new(|_| Answer::Reject(&[PUBLICKEY]));
    let agent = || Credential::all_of("/nonexistent/agent");
    let error = server.login(vec![agent()]).await.unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error:?}");
    let mut credentials = keys([1]);
    credentials.insert(0, agent());
    let tried = tried(server.login(credentials).await);
    let missing = words_of(&std::fs::read("/nonexistent/agent").unwrap_err());
    let unused = format!(
        "agent at /nonexistent/agent (not used: the agent does not answer: {missing}; check that it runs)"
    );
    assert_eq!(tried, [&*unused, "key 1"]);
}
