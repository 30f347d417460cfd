//! Logging in (RFC 4252).

use std::sync::Arc;
use std::time::Duration;

use russh::client::{Handle, Handler};

use self::login::{Login, LoginEnd};
use super::keys::Credential;
use super::messages::Messages;
use crate::error::Error;

mod interactive;
mod login;
mod signer;
mod signing;

/// What a login keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoginRules<'a> {
    /// For errors: `user@host:port`.
    pub(crate) target: &'a Arc<str>,
    pub(crate) user: &'a str,
    /// How many offers are made at most, an agent's keys included: sshd counts each towards its
    /// `MaxAuthTries` and, since 9.8, remembers failures against the address. A step of a multi-factor
    /// login that succeeds is not counted.
    pub(crate) max_attempts: usize,
    /// How long a refusal is remembered.
    pub(crate) cooldown: Duration,
    /// Names of the algorithms that keys may sign with.
    pub(crate) public_keys: &'a [String],
    /// Identities that cannot be offered, for errors.
    pub(crate) unused: &'a [String],
    /// What the session's handler hears: it ends up in the error.
    pub(super) messages: &'a Messages,
}

/// Logs in: asks with `none`, then offers `credentials` in order, none of them twice.
///
/// After an error the handle is spent: it must not be awaited.
///
/// # Errors
///
/// [`Error::AuthRejected`] when the server took none of them, or ended the connection by saying
/// so; [`Error::AuthLost`] when the connection was lost without a word, or the server sent text that cannot
/// be read; [`Error::Identity`] when
/// the only credential is an agent that does not answer; [`Error::Descriptors`] when there is none
/// left to reach one with.
pub(crate) async fn authenticate<H>(
    handle: &mut Handle<H>,
    credentials: Vec<Credential>,
    rules: LoginRules<'_>,
) -> Result<(), Error>
where
    H: Handler,
    H::Error: std::error::Error + Send + Sync + 'static,
{
    let mut login = Login::new(handle, credentials, rules);
    match login.run().await {
        LoginEnd::Success => Ok(()),
        LoginEnd::Exhausted => {
            let allowed = login.allowance();
            Err(login.rejected(allowed))
        }
        LoginEnd::Lost => Err(login.lost().await),
    }
}

#[cfg(test)]
mod tests;
