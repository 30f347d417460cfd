//! What can go wrong with files.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::metadata::FileType;
use super::summary::{Attribute, UnsetReason};
use crate::reason;

mod text;

/// Why a server refused something: the codes of SFTP version 3
/// (draft-ietf-secsh-filexfer-02, section 7).
///
/// ```no_run
/// # async fn example(sftp: ssh_pool::sftp::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// use ssh_pool::sftp::Reason;
///
/// match sftp.download("/etc/app.conf", "app.conf").await {
///     Ok(_) => println!("it has settings"),
///     Err(error) if error.reason() == Some(Reason::NotFound) => println!("it has none"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// `SSH_FX_NO_SUCH_FILE`: the file, or a folder on the way to it, is not there.
    NotFound,
    /// `SSH_FX_PERMISSION_DENIED`.
    PermissionDenied,
    /// The disk is full. The protocol has no code for that: it is a failure to write on a file
    /// system that has no blocks left (`statvfs@openssh.com`).
    NoSpace,
    /// A name in the path is longer than 255 bytes, or all of it than 4,095. The protocol has no code
    /// for that: it is a failure without a reason on such a path. Or this machine says so of a local one.
    NameTooLong,
    /// `SSH_FX_OP_UNSUPPORTED`.
    Unsupported,
    /// `SSH_FX_FAILURE`, which is everything else: there already, not empty, over quota.
    Failure,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "it is not there; check the path",
            Self::PermissionDenied => "permission denied; check the owner and the mode",
            Self::NoSpace => "the disk is full; make room there",
            Self::NameTooLong => {
                "most file systems take names of 255 bytes and paths of 4095; use a shorter one"
            }
            Self::Unsupported => "this server cannot do that; look for another way to do it",
            Self::Failure => "the server gives no reason; is it there already, or over a quota?",
        })
    }
}

/// Everything that can go wrong with files.
///
/// `Display` names what failed, the reason and what to do on one line;
/// [`source`](std::error::Error::source) is the operating system's error, where there is one. Paths
/// are shown escaped. Contents of files are in no error.
///
/// ```no_run
/// # async fn example(sftp: ssh_pool::sftp::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// match sftp.upload("app.tar", "/srv/app.tar").await {
///     Ok(summary) => println!("{} bytes", summary.bytes),
///     Err(error) if error.is_transient() => println!("try again later: {error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no SFTP session: the connection, the login or the subsystem is refused, the last with
    /// [`SubsystemRefused`](crate::Error::SubsystemRefused).
    Session {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What it was wanted for.
        path: String,
        /// Why there is none.
        source: Box<crate::Error>,
    },

    /// There is no SFTP session: the server has accepted the subsystem, and what it runs for that is no
    /// SFTP server. An account with a forced command (sshd's `ForceCommand`, `command=` in
    /// `authorized_keys`) has that run in its place; a start-up file of the login shell may print
    /// something before it; and where PAM opens no session, nothing runs.
    NotSftp {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What it was wanted for.
        path: String,
        /// What it did.
        what: &'static str,
    },

    /// The session ended on the way: the connection was lost, or the server's SFTP process ended,
    /// in which case `source` is empty. Whether the operation was carried out is not known.
    /// Transfers go on by themselves, within their attempts; see
    /// [`Upload::attempts`](super::Upload::attempts).
    Lost {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What was under way.
        operation: &'static str,
        /// The remote path.
        path: String,
        /// How the connection was lost, if it was.
        source: Option<Box<crate::Error>>,
    },

    /// The server has left a request unanswered for that long (see
    /// [`Sftp::set_request_timeout`](super::Sftp::set_request_timeout)), and the session was given
    /// up. Whether the operation was carried out is not known.
    Timeout {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What was under way.
        operation: &'static str,
        /// The remote path.
        path: String,
        /// How long it was waited for.
        after: Duration,
    },

    /// The host is another machine now: its name has moved to another address, and the connection on
    /// which the copy began is lost. A folder is never put together from two machines, so its copy
    /// ends, and what was copied stays; a single file has been begun again on the new machine first,
    /// within its [`attempts`](super::Upload::attempts).
    Moved {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The remote path.
        path: String,
        /// Where the copy began.
        from: SocketAddr,
        /// Where the host is now.
        to: SocketAddr,
    },

    /// The folder takes no new file, which is to replace the old one in one step: found out before
    /// anything is sent. Where the file itself may be written, [`Replace::InPlace`] is a way.
    ///
    /// [`Replace::InPlace`]: super::Replace::InPlace
    Folder {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The remote folder.
        folder: String,
        /// The remote path.
        path: String,
        /// Why not.
        reason: Reason,
        /// The server's words, escaped.
        message: String,
    },

    /// The mode, the owner or the time of a file cannot be set, and the copy is
    /// [`strict`](super::Upload::strict).
    Unset {
        /// The target as `user@host:port`, or `this machine`.
        place: Arc<str>,
        /// The path.
        path: PathBuf,
        /// What cannot be set.
        attribute: Attribute,
        /// Why not.
        reason: UnsetReason,
    },

    /// The server said no.
    Refused {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What was asked for.
        operation: &'static str,
        /// The remote path.
        path: String,
        /// Why not.
        reason: Reason,
        /// The server's words, escaped.
        message: String,
    },

    /// The server does not keep to the protocol, or does not speak it.
    Protocol {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// What was under way.
        operation: &'static str,
        /// The remote path.
        path: String,
        /// What it did.
        what: &'static str,
    },

    /// The server lists a name that no file can have, or the same one twice.
    BadName {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The remote folder.
        folder: String,
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },

    /// Something on this machine.
    Local {
        /// What was tried.
        operation: &'static str,
        /// The local path.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// A path or a name that cannot be used.
    InvalidPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        what: &'static str,
    },

    /// There is something else than was expected. A symbolic link in the place of a folder is not
    /// followed, on either side: it may lead out of the tree.
    WrongType {
        /// The target as `user@host:port`, or `this machine`.
        place: Arc<str>,
        /// The path.
        path: PathBuf,
        /// What is there.
        found: FileType,
        /// What should be.
        wanted: FileType,
    },

    /// The file became shorter while it was copied, or is another one than at the first attempt.
    Changed {
        /// The target as `user@host:port`, or `this machine`.
        place: Arc<str>,
        /// The path.
        path: PathBuf,
    },

    /// The two sides have different SHA-256 sums. The copy was removed, unless it was written in
    /// place.
    Mismatch {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The remote path.
        path: String,
    },

    /// The file is there, and this server cannot replace a file in one step: it has no
    /// `posix-rename@openssh.com`. Found out before anything is sent.
    NotAtomic {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The remote path.
        path: String,
    },

    /// Larger than may be. Real trees do not have this depth or that many files; a hostile server
    /// does.
    TooMuch {
        /// The target as `user@host:port`.
        target: Arc<str>,
        /// The remote path.
        path: String,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
}

impl Error {
    /// Whether the same call may succeed later although nothing is changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Session { source, .. } => source.is_transient(),
            // Not after the pool was closed.
            Self::Lost { source, .. } => source.as_ref().is_none_or(|source| source.is_transient()),
            Self::Timeout { .. } | Self::Moved { .. } => true,
            _ => false,
        }
    }

    /// Whether a deadline passed: that of a request, or one of the pool's.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Session { source, .. } => source.is_timeout(),
            _ => false,
        }
    }

    /// Whether it ends a copy of a folder that is to [keep going](super::Upload::keep_going): the
    /// next file would fare no better, or the server is not to be trusted.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Session { .. }
                | Self::NotSftp { .. }
                | Self::Lost { .. }
                | Self::Timeout { .. }
                | Self::Moved { .. }
                | Self::Protocol { .. }
                | Self::BadName { .. }
                | Self::TooMuch { .. }
        )
    }

    /// What the server said, if it refused something; and [`Reason::NameTooLong`] where that is so on
    /// this machine.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused { reason, .. } | Self::Folder { reason, .. } => Some(*reason),
            Self::Local { source, .. } if source.kind() == io::ErrorKind::InvalidFilename => {
                Some(Reason::NameTooLong)
            }
            _ => None,
        }
    }
}

impl std::error::Error for Error {
    /// The operating system's error, where there is one: all other words are in this one's own.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session { source, .. } => source.source(),
            Self::Lost { source, .. } => source.as_ref()?.source(),
            Self::Local { source, .. } => reason::code(source),
            _ => None,
        }
    }
}
