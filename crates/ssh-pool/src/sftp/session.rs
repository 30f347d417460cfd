//! One SFTP session. This file and `handle.rs` are those that name russh-sftp.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use russh_sftp::client::error::Error as Raw;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, Status, StatusCode};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Semaphore, oneshot};

use super::error::{Error, Reason};
use super::handle::Handle;
use super::line::{End, Fate, Line};
use super::metadata::{DirEntry, Metadata};
use crate::{Host, printable};

/// A server that has accepted the subsystem says its version at once, or never.
const HELLO: Duration = Duration::from_secs(30);
/// How long something that nobody waits for any more may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(30);
/// The draft makes every server take 32 KiB in one request; more only `limits@openssh.com` allows.
const PLAIN: u64 = 32 << 10;
/// What OpenSSH allows, and the most that is asked for at once.
const LARGEST: u64 = 255 << 10;
/// Files and folders that a session has open at once; more wait. To the crate below a handle is
/// text, which OpenSSH's, a number, is only up to 127.
const HANDLES: usize = 100;
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// What a request came to, without the path that it was for.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// `SSH_FX_EOF`.
    End,
    Refused(Reason, String),
    /// There is no session to be had.
    Session(Box<crate::Error>),
    /// The session has ended.
    Lost(Option<Box<crate::Error>>),
    Protocol(&'static str),
}

impl Fault {
    /// The error of an operation on a path.
    pub(super) fn at(self, target: &Arc<str>, operation: &'static str, path: &str) -> Error {
        let (target, path) = (target.clone(), path.to_owned());
        match self {
            Self::End => Error::Protocol {
                target,
                operation,
                path,
                what: "says that something ends which does not",
            },
            Self::Refused(reason, message) => Error::Refused {
                target,
                operation,
                path,
                reason,
                message,
            },
            Self::Session(source) => Error::Session {
                target,
                path,
                source,
            },
            Self::Lost(source) => Error::Lost {
                target,
                operation,
                path,
                source,
            },
            Self::Protocol(what) => Error::Protocol {
                target,
                operation,
                path,
                what,
            },
        }
    }

    pub(super) fn is(&self, wanted: Reason) -> bool {
        matches!(self, Self::Refused(reason, _) if *reason == wanted)
    }
}

/// What is to be set of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    pub(super) mode: Option<u32>,
    /// Of the last change, in seconds.
    pub(super) modified: Option<u32>,
}

impl From<Settings> for FileAttributes {
    fn from(settings: Settings) -> Self {
        Self {
            permissions: settings.mode,
            atime: settings.modified,
            mtime: settings.modified,
            ..Self::default()
        }
    }
}

/// No `From`: that would show a type of another crate.
pub(super) fn metadata(attributes: FileAttributes) -> Metadata {
    Metadata {
        size: attributes.size,
        mode: attributes.permissions,
        owner: attributes.uid.zip(attributes.gid),
        modified: attributes.mtime,
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Read,
    /// Made for this, readable by nobody else.
    Create,
    /// Made if it is not there, and kept if it is.
    Continue,
}

/// A session on a stream of its own. Dropped, it ends.
pub(super) struct Session {
    pub(super) raw: RawSftpSession,
    fate: Arc<Fate>,
    pub(super) runtime: Runtime,
    handles: Arc<Semaphore>,
    /// Bytes that one request may ask for, and bring.
    pub(super) read_len: u32,
    pub(super) write_len: usize,
    pub(super) fsync: bool,
    pub(super) posix_rename: bool,
    statvfs: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A clean end waits for a server that takes what was written; a cut does not.
        self.fate.cut();
    }
}

impl Session {
    pub(super) async fn open(host: &Host) -> Result<Self, Fault> {
        let stream = host.subsystem("sftp").await;
        let stream = stream.map_err(|error| Fault::Session(Box::new(error)))?;
        let (line, fate) = Line::new(stream);
        let config = Config {
            // A full pipeline on a slow line takes its time, and a dead connection is found by the
            // pool's keepalives: so no request has a deadline.
            request_timeout_secs: u64::MAX,
            ..Config::default()
        };
        let mut session = Self {
            raw: RawSftpSession::new_with_config(line, config),
            fate,
            runtime: Runtime::current(),
            handles: Arc::new(Semaphore::new(HANDLES)),
            read_len: PLAIN as u32,
            write_len: PLAIN as usize,
            fsync: false,
            posix_rename: false,
            statvfs: false,
        };
        let hello = session.hello();
        match tokio::time::timeout(HELLO, hello).await {
            Ok(Ok(Hello {
                read_len,
                write_len,
                extensions,
            })) => {
                session.read_len = read_len;
                session.write_len = write_len;
                [session.fsync, session.posix_rename, session.statvfs] = extensions;
                Ok(session)
            }
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(Fault::Protocol("does not begin to speak SFTP")),
        }
    }

    async fn hello(&self) -> Result<Hello, Fault> {
        let version = self.call(self.raw.init()).await?;
        if version.version < 3 {
            return Err(Fault::Protocol("speaks an SFTP before version 3"));
        }
        let offered = |name: &str| version.extensions.contains_key(name);
        let clamp = |length: Option<u64>| length.unwrap_or(PLAIN).clamp(1024, LARGEST);
        let mut hello = Hello {
            read_len: PLAIN as u32,
            write_len: PLAIN as usize,
            extensions: [
                offered("fsync@openssh.com"),
                offered(POSIX_RENAME),
                offered("statvfs@openssh.com"),
            ],
        };
        if offered("limits@openssh.com") {
            let limits = self.call(self.raw.limits()).await?;
            // Zero: the server names none.
            let of = |length: u64| clamp((length > 0).then_some(length));
            hello.read_len = of(limits.max_read_len) as u32;
            hello.write_len = of(limits.max_write_len) as usize;
        }
        Ok(hello)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.fate.is_alive()
    }

    pub(super) async fn call<T>(
        &self,
        request: impl Future<Output = Result<T, Raw>>,
    ) -> Result<T, Fault> {
        let result = tokio::select! {
            biased;
            result = request => Some(result),
            () = self.fate.over() => None,
        };
        match result {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(Raw::Status(status))) => Err(refused(&status)),
            Some(Err(Raw::UnexpectedPacket)) => Err(Fault::Protocol("answers another question")),
            // Everything else means that the session has ended: only the stream knows how.
            Some(Err(_)) | None => Err(match self.fate.end() {
                End::Closed => Fault::Lost(None),
                End::Lost(error) => Fault::Lost(Some(Box::new(error))),
                End::Nonsense => Fault::Protocol("says what is not SFTP"),
            }),
        }
    }

    /// Opens a file. In a task of its own: a handle whose requester has gone must be closed.
    pub(super) async fn open_file(
        self: &Arc<Self>,
        path: &str,
        mode: Mode,
    ) -> Result<Handle, Fault> {
        let flags = match mode {
            Mode::Read => OpenFlags::READ,
            Mode::Create => OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE,
            Mode::Continue => OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE,
        };
        let mode = (!matches!(mode, Mode::Read)).then_some(0o600);
        let attributes = FileAttributes {
            permissions: mode,
            ..FileAttributes::default()
        };
        let (session, path) = (self.clone(), path.to_owned());
        self.handle(async move {
            let opened = session.raw.open(path, flags, attributes);
            Ok(session.call(opened).await?.handle)
        })
        .await
    }

    async fn open_dir(self: &Arc<Self>, path: &str) -> Result<Handle, Fault> {
        let (session, path) = (self.clone(), path.to_owned());
        self.handle(async move { Ok(session.call(session.raw.opendir(path)).await?.handle) })
            .await
    }

    async fn handle(
        self: &Arc<Self>,
        opening: impl Future<Output = Result<String, Fault>> + Send + 'static,
    ) -> Result<Handle, Fault> {
        // The semaphore is never closed.
        let permit = self.handles.clone().acquire_owned().await.ok();
        let (mut answer, opened) = oneshot::channel();
        let session = self.clone();
        self.runtime.spawn(async move {
            let left = async {
                answer.closed().await;
                tokio::time::sleep(FAREWELL).await;
            };
            let opened = tokio::select! {
                opened = opening => opened,
                () = left => return,
            };
            // A handle that nobody takes is dropped, which closes it.
            drop(answer.send(opened.map(|id| Handle::new(session, id, permit))));
        });
        opened.await.unwrap_or(Err(Fault::Lost(None)))
    }

    /// Every name in a folder, `.` and `..` excepted, as the server says them.
    pub(super) async fn list(
        self: &Arc<Self>,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<DirEntry>>, Fault> {
        let handle = self.open_dir(path).await?;
        let mut entries = Vec::new();
        loop {
            match self.call(self.raw.readdir(handle.id())).await {
                Ok(names) if names.files.is_empty() => {
                    return Err(Fault::Protocol("lists nothing, again and again"));
                }
                Ok(names) => entries.extend(
                    names
                        .files
                        .into_iter()
                        .filter(|file| file.filename != "." && file.filename != "..")
                        .map(|file| DirEntry {
                            name: file.filename,
                            metadata: metadata(file.attrs),
                        }),
                ),
                Err(Fault::End) => break,
                Err(fault) => return Err(fault),
            }
            if entries.len() > limit {
                return Ok(None);
            }
        }
        handle.close().await?;
        Ok(Some(entries))
    }

    pub(super) async fn stat(&self, path: &str) -> Result<Metadata, Fault> {
        Ok(metadata(self.call(self.raw.stat(path)).await?.attrs))
    }

    pub(super) async fn lstat(&self, path: &str) -> Result<Metadata, Fault> {
        Ok(metadata(self.call(self.raw.lstat(path)).await?.attrs))
    }

    pub(super) async fn set(&self, path: &str, settings: Settings) -> Result<(), Fault> {
        self.call(self.raw.setstat(path, settings.into())).await?;
        Ok(())
    }

    pub(super) async fn mkdir(&self, path: &str, mode: u32) -> Result<(), Fault> {
        let attributes = FileAttributes {
            permissions: Some(mode),
            ..FileAttributes::default()
        };
        self.call(self.raw.mkdir(path, attributes)).await?;
        Ok(())
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Fault> {
        self.call(self.raw.remove(path)).await?;
        Ok(())
    }

    pub(super) async fn rmdir(&self, path: &str) -> Result<(), Fault> {
        self.call(self.raw.rmdir(path)).await?;
        Ok(())
    }

    pub(super) async fn symlink(&self, target: &str, link: &str) -> Result<(), Fault> {
        // OpenSSH has the two in the other order than the draft (PROTOCOL, section 4.1), and
        // everybody has followed it.
        self.call(self.raw.symlink(target, link)).await?;
        Ok(())
    }

    pub(super) async fn read_link(&self, path: &str) -> Result<String, Fault> {
        one_name(self.call(self.raw.readlink(path)).await?.files)
    }

    pub(super) async fn real_path(&self, path: &str) -> Result<String, Fault> {
        one_name(self.call(self.raw.realpath(path)).await?.files)
    }

    /// Moves, and replaces what is there where the server can do that in one step.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        if !self.posix_rename {
            self.call(self.raw.rename(from, to)).await?;
            return Ok(());
        }
        let mut words = Vec::with_capacity(8 + from.len() + to.len());
        for word in [from, to] {
            // A path is far shorter than 4 GiB.
            words.extend_from_slice(&u32::try_from(word.len()).unwrap_or(u32::MAX).to_be_bytes());
            words.extend_from_slice(word.as_bytes());
        }
        match self.call(self.raw.extended(POSIX_RENAME, words)).await? {
            Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
            Packet::Status(status) => Err(refused(&status)),
            _ => Err(Fault::Protocol("answers another question")),
        }
    }

    /// Whether the file system has no room: asked after a write has failed without a reason.
    pub(super) async fn is_full(&self, path: &str) -> bool {
        self.statvfs
            && self
                .call(self.raw.statvfs(path))
                .await
                .is_ok_and(|fs| fs.blocks_avail == 0)
    }
}

/// What a server says at first.
struct Hello {
    read_len: u32,
    write_len: usize,
    /// fsync, posix-rename, statvfs.
    extensions: [bool; 3],
}

fn refused(status: &Status) -> Fault {
    let reason = match status.status_code {
        StatusCode::Eof => return Fault::End,
        StatusCode::Ok => return Fault::Protocol("says yes in the place of an answer"),
        StatusCode::NoSuchFile => Reason::NotFound,
        StatusCode::PermissionDenied => Reason::PermissionDenied,
        StatusCode::OpUnsupported => Reason::Unsupported,
        // A server must not claim to have no connection: that would be retried.
        StatusCode::Failure
        | StatusCode::BadMessage
        | StatusCode::NoConnection
        | StatusCode::ConnectionLost => Reason::Failure,
    };
    Fault::Refused(reason, printable(&status.error_message))
}

fn one_name(files: Vec<russh_sftp::protocol::File>) -> Result<String, Fault> {
    let mut names = files.into_iter();
    match (names.next(), names.next()) {
        (Some(file), None) if !file.filename.contains('\0') => Ok(file.filename),
        _ => Err(Fault::Protocol("does not answer with one name")),
    }
}
