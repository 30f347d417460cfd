//! What lies under the public interface, for the benches: a pool over a server that answers at
//! once, its session channels, its books, and quoting.
//!
//! Behind the feature `internals`, which only the crate `benches` asks for. It is no interface: it
//! changes whenever the inside does.

use std::sync::Arc;

use crate::error::Error;
use crate::host::Host;
use crate::host_key::HostKeyPolicy;
use crate::hub::Lease;
use crate::identity::Identity;
use crate::inbox::Sink;
use crate::limits::Limits;
use crate::pool::Pool;
use crate::quote;
use crate::waited::Waited;

mod books;
mod instant;

pub use books::Books;

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
        .build_on(Arc::new(instant::Server))
}

/// A session channel that one command may use. Dropped unused, it is a spare again.
pub struct Session(Lease);

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
    let hub = host.lanes().shared();
    let deadline = hub.acquire_deadline(None);
    let lease = hub.checkout(deadline, &mut Waited::default()).await?;
    Ok(Session(lease))
}

impl Session {
    /// A command begins on the channel, says nothing, and ends: the slot cools, and another channel
    /// is opened when the pool wants one.
    pub fn use_up(self) {
        if let Some(channel) = self.0.begin(Sink::Discard, Sink::Discard) {
            instant::run(&channel.inbox, b"");
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

#[cfg(test)]
mod tests;
