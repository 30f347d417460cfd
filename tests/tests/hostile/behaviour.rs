//! One thing that a hostile server does.

use ssh_pool_tests::raw::{
    Act, At, ChannelNumbers, KeyExchange, Payload, RawServer, Script, Trick,
};

#[derive(Clone)]
enum Does {
    Tricks(Box<KeyExchange>, Vec<Trick>),
    Script(Script),
}

/// A behaviour, by its name.
#[derive(Clone)]
pub(crate) struct Behaviour {
    pub(crate) name: &'static str,
    does: Does,
}

impl Behaviour {
    /// Keeps to the protocol, except for what takes the place of one message.
    pub(crate) fn at(name: &'static str, at: At, acts: Vec<Act>) -> Self {
        Self::tricks(name, vec![Trick::new(at, acts)])
    }

    /// The same, where the messages name the channel.
    pub(crate) fn on(
        name: &'static str,
        at: At,
        acts: impl Fn(ChannelNumbers) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::tricks(name, vec![Trick::on_channel(at, acts)])
    }

    pub(crate) fn tricks(name: &'static str, tricks: Vec<Trick>) -> Self {
        let does = Does::Tricks(Box::default(), tricks);
        Self { name, does }
    }

    /// Proposes and answers this in every key exchange.
    pub(crate) fn key_exchange(name: &'static str, change: impl FnOnce(&mut KeyExchange)) -> Self {
        let mut key_exchange = KeyExchange::default();
        change(&mut key_exchange);
        let does = Does::Tricks(Box::new(key_exchange), Vec::new());
        Self { name, does }
    }

    pub(crate) fn script(name: &'static str, script: Script) -> Self {
        let does = Does::Script(script);
        Self { name, does }
    }

    pub(crate) fn start(&self) -> RawServer {
        match &self.does {
            Does::Tricks(key_exchange, tricks) => {
                RawServer::with_tricks(KeyExchange::clone(key_exchange), tricks.clone())
            }
            Does::Script(script) => RawServer::start(script.clone()),
        }
    }
}

/// A message, for short.
pub(crate) fn message(number: u8) -> Payload {
    Payload::new(number)
}

/// A text with everything that must not reach a terminal: a colour, a title, a newline, a bell,
/// backspaces, text from right to left.
pub(crate) const UGLY: &str =
    "\u{1b}[31mred\u{1b}]0;title\u{7}\r\nsshd: ok\u{8}\u{8}\u{202e}txt\u{0}";

/// Longer than any text that may be shown.
pub(crate) fn long_text() -> String {
    UGLY.repeat(200_000 / UGLY.len())
}

/// Every behaviour, by the part of the protocol that it breaks.
pub(crate) fn all() -> Vec<Behaviour> {
    [
        crate::transport::behaviours(),
        crate::login::behaviours(),
        crate::connection::behaviours(),
        crate::channels::behaviours(),
        crate::requests::behaviours(),
    ]
    .concat()
}
