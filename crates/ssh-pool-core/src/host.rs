//! One host, as one caller may use it.

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use crate::command::Command;
use crate::error::Error;
use crate::hub::{Deadline, Hub};
use crate::pool::Inner;
use crate::status::HostStatus;

/// A handle to one host of a [`Pool`](crate::Pool). Cheap to clone; making one dials nothing.
///
/// Connections are shared by all handles of a pool that agree on user, host, port, identity and
/// host-key policy, and with nobody else.
#[derive(Clone)]
pub struct Host {
    hub: Arc<Hub>,
    pool: Arc<Inner>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.hub.name()).finish()
    }
}

impl Host {
    pub(crate) fn new(hub: Arc<Hub>, pool: Arc<Inner>) -> Self {
        Self { hub, pool }
    }

    fn output_cap(&self) -> usize {
        self.pool.limits().output_bytes
    }

    /// A command of a program and arguments, each of which reaches it byte for byte.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::program(self.hub.clone(), self.output_cap(), program.as_ref())
    }

    /// A line for the remote shell, as it is: pipes, redirections and variables work.
    #[must_use]
    pub fn shell(&self, line: impl AsRef<OsStr>) -> Command {
        Command::line(self.hub.clone(), self.output_cap(), line.as_ref())
    }

    /// A script of any size, run by `sh -se` from its standard input: no limit of a command
    /// line's length applies, and it stops at the first command that fails. See
    /// [`Command::interpreter`] for another interpreter.
    #[must_use]
    pub fn script(&self, text: impl Into<Vec<u8>>) -> Command {
        Command::script(self.hub.clone(), self.output_cap(), text.into())
    }

    /// Makes sure that there is a connection with a channel ready, so that the next command costs
    /// one round trip.
    ///
    /// # Errors
    ///
    /// Those of a dial, [`Error::Closed`], and [`Error::Timeout`] after `Timeouts::acquire`: where
    /// every session is busy it queues like a command.
    ///
    /// # Cancel safety
    ///
    /// A dial that was started goes on.
    pub async fn warm(&self) -> Result<(), Error> {
        let deadline = Deadline::after(self.hub.acquire_timeout());
        // Dropped unused, the channel is a spare.
        drop(self.hub.checkout(deadline).await?);
        Ok(())
    }

    /// Replaces this host's connections: those there are finish their commands and take no new
    /// ones; the next command dials. A remembered login failure and the learned session limit
    /// are forgotten.
    pub fn evict(&self) {
        self.hub.evict();
    }

    /// What is going on with this host, without asking it.
    #[must_use]
    pub fn status(&self) -> HostStatus {
        self.hub.snapshot().into()
    }
}
