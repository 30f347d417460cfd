//! What can go wrong around a program that has us as its ssh.

use std::fmt;
use std::io;

use crate::reason;

/// Everything that can go wrong with a program whose `ssh` is the pool: with the program itself, or
/// between it and a host. `Display` names what failed, the reason and what to do on one line;
/// [`source`](std::error::Error::source) is the operating system's error, where there is one.
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
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The program could not be started.
    Start {
        /// The program.
        program: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The program was started, and its end or its output could not be had.
    Wait {
        /// The program.
        program: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The file of this program, which is to be the `ssh` of another, is not known.
    OwnFile {
        /// The operating system's error.
        source: io::Error,
    },

    /// No socket pair or folder for the shim.
    Prepare {
        /// The operating system's error.
        source: io::Error,
    },

    /// A shim's message could not be read, or its streams not be used. Nothing was run.
    Request {
        /// What is wrong with it.
        source: io::Error,
    },

    /// The program has asked for an `ssh` with arguments that mean more than a host and a command:
    /// an option that could run something here, or none of them. Nothing was run.
    Arguments {
        /// Which, escaped.
        reason: String,
    },

    /// The program has asked for a host that it was not allowed. Nothing was dialled.
    NotAllowed {
        /// As the program has named it, escaped.
        host: String,
    },

    /// docker's stream to its daemon was not opened, or was cut off. `docker::Error::find` finds more
    /// in `source`.
    Stream {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The remote command did not start, or its end is not known.
    Ssh(ssh_pool_core::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { program, source } => write!(
                f,
                "cannot run {program}: {}; check that it is installed and in PATH",
                reason::of_io(source)
            ),
            Self::Wait { program, source } => write!(
                f,
                "cannot follow {program} to its end: {}; look at what it has done before it is run \
                 again",
                reason::of_io(source)
            ),
            Self::OwnFile { source } => write!(
                f,
                "cannot tell which file this program is: {}; name its shim",
                reason::of_io(source)
            ),
            Self::Prepare { source } => write!(
                f,
                "cannot prepare the shim: {}; check the limit of open files and the folder for \
                 temporary ones",
                reason::of_io(source)
            ),
            Self::Request { source } => write!(
                f,
                "a shim asked for something that cannot be understood: {}; check that the shim and \
                 this program are built with one version of ssh-pool",
                reason::of_io(source)
            ),
            Self::Arguments { reason } => write!(
                f,
                "asked for ssh with arguments that are not allowed: {reason}; check the URL and the \
                 configuration that it comes from"
            ),
            Self::NotAllowed { host } => write!(
                f,
                "{host} is not allowed here; allow it first, if it should be"
            ),
            Self::Stream { source } => match source.downcast_ref::<io::Error>() {
                // One with a code holds no error that says what to do.
                Some(error) if error.raw_os_error().is_some() => write!(
                    f,
                    "the stream to the daemon failed: {}; check the daemon",
                    reason::of_io(error)
                ),
                _ => write!(f, "the stream to the daemon failed: {source}"),
            },
            Self::Ssh(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    /// The operating system's error, where there is one.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { source, .. }
            | Self::Wait { source, .. }
            | Self::OwnFile { source }
            | Self::Prepare { source }
            | Self::Request { source } => reason::code(source),
            Self::Stream { source } => match source.downcast_ref::<io::Error>() {
                Some(error) => reason::code(error).or_else(|| error.get_ref()?.source()),
                None => source.source(),
            },
            Self::Ssh(error) => error.source(),
            Self::Arguments { .. } | Self::NotAllowed { .. } => None,
        }
    }
}

impl From<ssh_pool_core::Error> for Error {
    fn from(error: ssh_pool_core::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Error {
    pub(super) fn arguments(reason: impl Into<String>) -> Self {
        Self::Arguments {
            reason: reason.into(),
        }
    }
}
