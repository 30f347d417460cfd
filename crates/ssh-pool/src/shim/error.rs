//! What can go wrong around a program that has us as its ssh.

use std::io;

/// Everything that can go wrong with a program whose `ssh` is the pool: with the program itself, or
/// between it and a host.
///
/// ```no_run
/// # #[cfg(all(unix, feature = "git"))]
/// # fn example(output: ssh_pool::git::Output) {
/// use ssh_pool::git::Error;
///
/// for trouble in output.troubles {
///     match trouble {
///         Error::Ssh(error) if error.is_transient() => eprintln!("try again: {error}"),
///         Error::NotAllowed { host, .. } => eprintln!("it wanted to reach {host}"),
///         trouble => eprintln!("{trouble}"),
///     }
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program could not be started.
    #[error("cannot run {program}; check that it is installed and in PATH")]
    Start {
        /// The program.
        program: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The program was started, and its end or its output could not be had.
    #[error("cannot follow {program} to its end")]
    Wait {
        /// The program.
        program: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The file of this program, which is to be the `ssh` of another, is not known.
    #[error("cannot tell which file this program is; name its shim")]
    OwnFile {
        /// The operating system's error.
        source: io::Error,
    },

    /// No socket pair or folder for the shim.
    #[error("cannot prepare the shim")]
    Prepare {
        /// The operating system's error.
        source: io::Error,
    },

    /// A shim's message could not be read, or its streams not be used. Nothing was run.
    #[error("a shim asked for something that cannot be understood")]
    Request {
        /// What is wrong with it.
        source: io::Error,
    },

    /// The program has asked for an `ssh` with arguments that mean more than a host and a command:
    /// an option that could run something here, or none of them. Nothing was run.
    #[error("asked for ssh with arguments that are not allowed: {reason}")]
    Arguments {
        /// Which, escaped.
        reason: String,
    },

    /// The program has asked for a host that it was not allowed. Nothing was dialled.
    #[error("{host} is not allowed here; allow it first, if it should be")]
    NotAllowed {
        /// As the program has named it, escaped.
        host: String,
    },

    /// docker's stream to its daemon was not opened, or was cut off. The source is a
    /// `docker::Error`, or an I/O error with one inside.
    #[error("the stream to the daemon failed")]
    Stream {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The remote command did not start, or its end is not known.
    #[error(transparent)]
    Ssh(#[from] ssh_pool_core::Error),
}

impl Error {
    pub(super) fn arguments(reason: impl Into<String>) -> Self {
        Self::Arguments {
            reason: reason.into(),
        }
    }
}
