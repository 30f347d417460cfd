//! What a command had written when it failed.

use std::fmt;

use super::{CommandState, Error};
use crate::output::ExitStatus;

/// What a command that failed had written until then: see [`Error::partial_output`].
///
/// `Debug` shows the streams as text, as far as they are.
///
/// ```
/// # use ssh_pool_core as ssh_pool;
/// fn show(error: &ssh_pool::Error) {
///     if let Some(partial) = error.partial_output() {
///         eprintln!("{error}\n{}", String::from_utf8_lossy(&partial.stderr));
///     }
/// }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartialOutput {
    /// How the command ended, if the server had said so. Its output may still be incomplete.
    pub status: Option<ExitStatus>,
    /// What had arrived of its standard output.
    pub stdout: Vec<u8>,
    /// What had arrived of its standard error.
    pub stderr: Vec<u8>,
}

impl fmt::Debug for PartialOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialOutput")
            .field("status", &self.status)
            .field("stdout", &String::from_utf8_lossy(&self.stdout))
            .field("stderr", &String::from_utf8_lossy(&self.stderr))
            .finish()
    }
}

impl Error {
    /// The output that had arrived when a command failed whose output was being collected:
    /// [`Command::output`](crate::Command::output) and
    /// [`Child::wait_with_output`](crate::Child::wait_with_output). After a lost connection, a
    /// channel that was closed without an exit status, a deadline, or a status that is not the
    /// command's. Of several attempts, that of the last one.
    ///
    /// `None` if the command did not start, and after [`Error::OutputLimit`], which is there to free
    /// that memory.
    ///
    /// ```no_run
    /// # use ssh_pool_core as ssh_pool;
    /// # async fn deploy(host: ssh_pool::Host) {
    /// match host.command("deploy").output().await {
    ///     Ok(output) => println!("{}", output.status),
    ///     Err(error) => {
    ///         eprintln!("{error}");
    ///         if let Some(partial) = error.partial_output() {
    ///             eprintln!("it had written {}", String::from_utf8_lossy(&partial.stdout));
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn partial_output(&self) -> Option<&PartialOutput> {
        if let Error::Repeated { source, .. } = self {
            return source.partial_output();
        }
        self.origin()?.output()
    }

    /// The command had written this when it failed so.
    pub(crate) fn with_output(mut self, output: PartialOutput) -> Self {
        let freed = matches!(self, Error::OutputLimit { .. });
        if self.command_state() == CommandState::Unknown
            && !freed
            && let Some(origin) = self.origin_mut()
        {
            origin.set_output(output);
        }
        self
    }
}
