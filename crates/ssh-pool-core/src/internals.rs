//! What lies under the public interface, for the benches: a pool over a server that answers at
//! once, its session channels, the state of a host, and quoting. And for fuzzing: the same server, with
//! a recorder of command lines; scenarios of the host state; decisions on host keys; the greeting of a
//! server.
//!
//! Behind the feature `internals`, which only the crates `benches` and `fuzz` ask for. It is no
//! interface: it changes whenever the inside does.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::group::{Admission, ChannelGuard};
use crate::host::Host;
use crate::host_key::HostKeyPolicy;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::pool::Pool;
use crate::quote;
use crate::receiver::Sink;
use crate::transport;
use crate::waited::Waited;

mod host_keys;
mod instant;
mod scenario;
mod state_driver;

pub use host_keys::{KnownHostsDecision, host_key_decision, remember};
pub use scenario::{STEPS, ScenarioConfig, run_scenario};
pub use state_driver::StateDriver;

/// A pool whose servers exist in this process only and answer at once, so that what is measured is
/// the pool's own.
///
/// # Errors
///
/// As for [`PoolBuilder::build`](crate::PoolBuilder::build).
pub fn pool(limits: Limits) -> Result<Pool, Error> {
    Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::password("not a secret"))
        .limits(limits)
        .build_on(Arc::new(instant::InstantServer::default()))
}

/// The command line that the last command has sent.
#[derive(Debug, Clone, Default)]
pub struct LineRecorder(Arc<Mutex<Vec<u8>>>);

impl LineRecorder {
    /// Takes it.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hear(&self, line: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

/// The same, with a recorder: its servers take no environment variables, so that all of a command
/// goes into its line.
///
/// # Errors
///
/// As for [`pool`].
pub fn recording_pool(limits: Limits) -> Result<(Pool, LineRecorder), Error> {
    let recorder = LineRecorder::default();
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::password("not a secret"))
        .limits(limits)
        .build_on(Arc::new(instant::InstantServer::with(recorder.clone())))?;
    Ok((pool, recorder))
}

/// A session channel that one command may use. Dropped unused, it is idle again.
pub struct Session(ChannelGuard);

/// Takes a session channel as a command of [`Command::output`](crate::Command::output) does.
///
/// # Errors
///
/// Those of a command that has not started.
///
/// # Cancel safety
///
/// Dropping the future costs the place in the queue.
pub async fn checkout(host: &Host) -> Result<Session, Error> {
    let group = host.pools().shared();
    let deadline = group.acquire_deadline(None);
    let (mut admission, mut waited) = (Admission::default(), Waited::default());
    let guard = group
        .checkout(&mut admission, deadline, &mut waited)
        .await?;
    Ok(Session(guard))
}

impl Session {
    /// A command begins on the channel, says nothing, and ends: the slot is being released, and
    /// another channel is opened when the pool wants one.
    pub fn use_up(self) {
        if let Some(channel) = self.0.begin(Sink::Discard, Sink::Discard) {
            instant::run(&channel.receiver, b"");
        }
    }
}

/// Appends `word` to a command line, quoted for a POSIX shell.
///
/// # Errors
///
/// [`Error::InvalidInput`] for a NUL byte.
pub fn push_word(line: &mut Vec<u8>, word: &[u8]) -> Result<(), Error> {
    quote::push_word(line, word, "argument")
}

/// Whether a server that says this, in these pieces, has identified itself (RFC 4253, section 4.2).
///
/// # Errors
///
/// What of it is kept, to be shown, if it has not.
pub fn identified<'a>(said: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Vec<u8>> {
    transport::identified(said)
}

#[cfg(test)]
mod tests;
