//! The words of errors, on one line: what failed, the reason, what to do.

use std::fmt;
use std::path::Path;

use super::{Error, Reason};
use crate::reason;
use crate::sftp::path;

/// The operation of `mkdir`.
const MAKE_FOLDER: &str = "make the folder";

/// The longest path that Linux takes is shown whole.
const MOST_SHOWN: usize = 4096;
/// Characters shown of a longer one.
const SHOWN: usize = 64;

impl fmt::Display for Error {
    #[allow(clippy::too_many_lines, reason = "one arm for each error")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session {
                target,
                path,
                source,
            } => {
                let reason = reason::of_ssh(source);
                write!(
                    f,
                    "{target}: no SFTP session for {path}: {reason}",
                    path = shown(path)
                )
            }
            Self::NotSftp { target, path, what } => write!(
                f,
                "{target}: no SFTP session for {path}: what runs in the place of an SFTP server \
                 {what}; check ForceCommand and Subsystem in sshd_config, command= in \
                 authorized_keys, that no start-up file of the shell prints, and that PAM opens \
                 the session",
                path = shown(path)
            ),
            Self::Lost {
                target,
                operation,
                path,
                source,
            } => {
                write!(
                    f,
                    "{target}: the SFTP session ended ({operation} {path}): ",
                    path = shown(path)
                )?;
                match source {
                    Some(source) => f.write_str(&reason::of_ssh(source)),
                    None => f.write_str("the server's SFTP process ended; try again"),
                }
            }
            Self::Timeout {
                target,
                operation,
                path,
                after,
            } => write!(
                f,
                "{target}: no answer from the SFTP server within {} s ({operation} {path}); its \
                 disk may hang: look there, or raise the request timeout",
                after.as_secs_f64(),
                path = shown(path)
            ),
            Self::Moved {
                target,
                path,
                from,
                to,
            } => write!(
                f,
                "{target}: the host is another machine now: the copy of {path} began at {from}, \
                 and the host is at {to}; copy it again",
                path = shown(path)
            ),
            Self::Folder {
                target,
                folder,
                path,
                reason,
                message,
            } => write!(
                f,
                "{target}: cannot write {path} by way of a new file in the folder {folder}: \
                 {reason} (\"{message}\"){}",
                way_out(*reason),
                path = shown(path),
                folder = shown(folder)
            ),
            Self::Unset {
                place,
                path,
                attribute,
                reason,
            } => write!(
                f,
                "{path} ({place}): cannot set the {attribute}: {reason}; a copy that is not \
                 strict lists it",
                path = shown(path)
            ),
            // A folder cannot be made where the one above it is not there (mkdir(2)).
            Self::Refused {
                target,
                operation,
                path,
                reason: Reason::NotFound,
                message,
            } if *operation == MAKE_FOLDER => write!(
                f,
                "{target}: cannot {operation} {path}: its parent {folder} is not there \
                 (\"{message}\"); make that first",
                path = shown(path),
                folder = shown(path::folder(path.trim_end_matches('/')))
            ),
            Self::Refused {
                target,
                operation,
                path,
                reason,
                message,
            } => write!(
                f,
                "{target}: cannot {operation} {path}: {reason} (\"{message}\")",
                path = shown(path)
            ),
            Self::Protocol {
                target,
                operation,
                path,
                what,
            } => write!(
                f,
                "{target}: the server {what} ({operation} {path}); this is no SFTP server to trust",
                path = shown(path)
            ),
            Self::BadName {
                target,
                folder,
                name,
                what,
            } => write!(
                f,
                "{target}: the server lists \"{name}\" in {folder}: {what}; this is no SFTP \
                 server to trust",
                folder = shown(folder)
            ),
            Self::Local {
                operation,
                path,
                source,
            } => {
                write!(
                    f,
                    "cannot {operation} {path} on this machine: {}; ",
                    reason::of_io(source),
                    path = shown(path)
                )?;
                match (self.reason(), *operation) {
                    (Some(reason), _) => write!(f, "{reason}"),
                    (None, "open" | "read" | "list" | "stat" | "read the link") => {
                        f.write_str("check the path and its mode")
                    }
                    _ => f.write_str("check the path, its mode and the room on the disk"),
                }
            }
            Self::InvalidPath { path, what } => {
                write!(f, "invalid path {path}: {what}", path = shown(path))
            }
            Self::WrongType {
                place,
                path,
                found,
                wanted,
            } => write!(
                f,
                "{path} ({place}) is a {found}, and a {wanted} is needed; name another path",
                path = shown(path)
            ),
            Self::Changed { place, path } => write!(
                f,
                "{path} ({place}) changed while it was copied; copy it when no program writes to it",
                path = shown(path)
            ),
            Self::Mismatch { target, path } => write!(
                f,
                "{target}: the copy of {path} is not like the original; copy it again",
                path = shown(path)
            ),
            Self::NotAtomic { target, path } => write!(
                f,
                "{target}: this server cannot replace {path} in one step; remove it first, or \
                 choose Replace::Aside",
                path = shown(path)
            ),
            Self::TooMuch {
                target,
                path,
                what,
                limit,
            } => write!(
                f,
                "{target}: {path} has more than {limit} {what}; copy it in parts",
                path = shown(path)
            ),
        }
    }
}

/// A path, escaped. A long one is cut, and its length shown: it would bury the reason.
fn shown(path: &(impl AsRef<Path> + ?Sized)) -> String {
    let path = path.as_ref();
    let text = path.to_string_lossy();
    if text.len() <= MOST_SHOWN {
        return format!("{path:?}");
    }
    let beginning: String = text.chars().take(SHOWN).collect();
    let length = path.as_os_str().len();
    format!("{beginning:?}... ({length} bytes)")
}

fn way_out(reason: Reason) -> &'static str {
    match reason {
        Reason::PermissionDenied => {
            " of the folder; where the file itself may be written, Replace::InPlace does without it"
        }
        _ => "",
    }
}
