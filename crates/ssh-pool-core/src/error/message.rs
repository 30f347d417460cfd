//! What a server says to people while they log in.

use std::fmt;

use super::Error;
use super::text::display_list;
use crate::printable;

/// A text that a server sent during a login. It is escaped and cut off: see
/// [`printable`](crate::printable).
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// fn show(error: &ssh_pool::Error) {
///     for message in error.server_messages() {
///         eprintln!("the server said: {}", message.text);
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ServerMessage {
    /// Which message of the protocol it came in.
    pub kind: MessageKind,
    /// The text, on one line of at most 4 KiB.
    pub text: String,
}

/// Which message of the protocol a [`ServerMessage`] came in.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{Error, MessageKind};
///
/// /// Why the server ended the connection, in its words.
/// fn farewell(error: &Error) -> Option<&str> {
///     let mut messages = error.server_messages().iter();
///     let last = messages.find(|message| message.kind == MessageKind::Disconnect)?;
///     Some(&last.text)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum MessageKind {
    /// A banner (RFC 4252, section 5.4): sshd's `Banner`, and what its PAM modules say about an
    /// account that may not log in.
    Banner,
    /// What is shown above the prompts of keyboard-interactive (RFC 4256, section 3.2), such as
    /// that a password has expired.
    Instruction,
    /// Why the server ended the connection (RFC 4253, section 11.1).
    Disconnect,
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Banner => "banner",
            Self::Instruction => "instruction",
            Self::Disconnect => "disconnect",
        })
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: \"{}\"", self.kind, self.text)
    }
}

/// The end of an error's text: what the server said, if it said anything. The last words are the
/// ones about the failure.
pub(super) fn last_words(messages: &[ServerMessage]) -> String {
    match messages.last() {
        None => String::new(),
        Some(last) => format!("; the server said \"{}\"", last.text),
    }
}

/// Begins the reason in the name of an identity that was not offered.
const NOT_USED: &str = " (not used: ";

/// How a refused login names an identity that could not be used, on one line of at most 4 KiB.
pub(crate) fn not_used(identity: &str, reason: impl fmt::Display) -> String {
    printable(format!("{identity}{NOT_USED}{reason}")) + ")"
}

/// The identity and the reason in what [`not_used`] has made.
pub(super) fn as_not_used(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(')')?.split_once(NOT_USED)
}

/// What to look at, by what was offered: each begins with the name of its method, or is a key.
fn advice(offered: &[&str]) -> &'static str {
    let (mut keys, mut answers) = (false, false);
    for offer in offered {
        match offer.split(' ').next() {
            Some("password" | "prompt") => answers = true,
            Some("keyboard-interactive") => {}
            _ => keys = true,
        }
    }
    match (keys, answers) {
        (true, true) => "check the user name, the password and the account's authorized keys",
        (true, false) => "check the user name and the account's authorized keys",
        (false, true) => "check the user name and the password",
        (false, false) => "add an identity that answers: Identity::password or Identity::prompt",
    }
}

/// What to add where the server allows these methods.
fn taken_by(allowed: &str) -> String {
    let identities = [
        ("publickey", "Identity::key_file"),
        ("publickey", "Identity::agent"),
        ("password", "Identity::password"),
        ("keyboard-interactive", "Identity::prompt"),
    ];
    let allows = |method: &str| allowed.split(", ").any(|allowed| allowed == method);
    let taken = identities.iter().filter(|(method, _)| allows(method));
    match taken.map(|(_, identity)| *identity).collect::<Vec<_>>() {
        taken if taken.is_empty() => "let the server take a key or a password".to_owned(),
        taken => format!("add what it takes ({})", taken.join(", ")),
    }
}

/// Why a login was refused, and what to do.
pub(super) fn refused(tried: &[String], accepted: &[String], allowed: &str) -> String {
    let offered = tried.iter().filter(|name| as_not_used(name).is_none());
    let offered: Vec<_> = offered.map(String::as_str).collect();
    let unused = tried.iter().filter_map(|name| as_not_used(name));
    let unused = unused.map(|(identity, reason)| format!("{identity} ({reason})"));
    let unused = match unused.collect::<Vec<_>>() {
        unused if unused.is_empty() => String::new(),
        unused => format!("; not used: {}", unused.join(", ")),
    };
    let tried = offered.join(", ");
    if accepted.is_empty() && offered.is_empty() {
        let answers = taken_by(allowed);
        return format!(
            "login refused: the server allows only {allowed}, and the identity has nothing for that; \
             {answers}{unused}"
        );
    }
    if accepted.is_empty() {
        let advice = advice(&offered);
        return format!(
            "login refused after offering {tried}{unused}; the server allows {allowed}; {advice}"
        );
    }
    format!(
        "login incomplete: the server accepted {} and still wants {allowed}; offered in all: \
         {tried}{unused}; add an identity for what is wanted (Identity::several)",
        display_list(accepted)
    )
}

impl Error {
    /// What the server said to people while it refused a login: a banner, instructions of
    /// keyboard-interactive, the text of a disconnect. At most eight, in order.
    #[must_use]
    pub fn server_messages(&self) -> &[ServerMessage] {
        match self {
            Error::AuthRejected { messages, .. } | Error::AuthLost { messages, .. } => messages,
            Error::Repeated { source, .. } => source.server_messages(),
            _ => &[],
        }
    }
}
