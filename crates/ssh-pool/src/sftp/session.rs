//! One SFTP session: which requests there are, and what an answer means.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::sync::{OnceCell, Semaphore, oneshot};

use super::error::{Error, Reason};
use super::metadata::{DirEntry, Metadata};
use super::path;
use crate::{ConnectionHandle, Host, printable};

mod handle;
mod line;
mod packet;

use line::{Line, LineEnd, Pace};
use packet::{Answer, Name, Request, kind, open};

pub(super) use handle::Handle;
pub(super) use line::RequestTimeout;
pub(super) use packet::Attributes;

/// A server that has accepted the subsystem says its version at once, or never.
const HELLO: Duration = Duration::from_secs(30);
/// How long a cleanup in the background may take.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);
/// The draft makes every server take 32 KiB in one request; more only `limits@openssh.com` allows.
const PLAIN: u64 = 32 << 10;
/// What OpenSSH allows, and the most that is asked for at once.
const LARGEST: u64 = 255 << 10;
/// Files and folders that a session has open at once; more wait. OpenSSH has as many handles as
/// descriptors, ProFTPD and others have a hundred or two.
const HANDLES: usize = 100;
const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";
const LIMITS: &str = "limits@openssh.com";

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
    /// The server left a request unanswered for so long.
    TimedOut(Duration),
    /// The host has moved from one address to another in the middle of a transfer.
    Moved(SocketAddr, SocketAddr),
    Protocol(&'static str),
    /// What answers in the place of an SFTP server is none.
    NotSftp(&'static str),
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
                reason: reason.of(&path),
                path,
                message,
            },
            Self::Session(source) => Error::Session {
                target,
                path,
                source,
            },
            Self::NotSftp(what) => Error::NotSftp { target, path, what },
            Self::Lost(source) => Error::Lost {
                target,
                operation,
                path,
                source,
            },
            Self::TimedOut(after) => Error::Timeout {
                target,
                operation,
                path,
                after,
            },
            Self::Moved(from, to) => Error::Moved {
                target,
                path,
                from,
                to,
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

    /// The line ended before it had begun.
    fn at_hello(end: LineEnd) -> Self {
        match end {
            LineEnd::Closed => Self::NotSftp("ended without a word of SFTP"),
            LineEnd::Nonsense => Self::NotSftp("says what is not SFTP"),
            end => end.into(),
        }
    }

    /// The pool opens no more sessions.
    pub(super) fn is_closed_pool(&self) -> bool {
        matches!(self, Self::Session(error) if matches!(**error, crate::Error::Closed { .. }))
    }

    fn unasked() -> Self {
        Self::Protocol("answers another question")
    }
}

impl From<LineEnd> for Fault {
    fn from(end: LineEnd) -> Self {
        match end {
            LineEnd::Closed => Self::Lost(None),
            LineEnd::Lost(error) => Self::Lost(Some(Box::new(error))),
            LineEnd::Nonsense => Self::Protocol("says what is not SFTP"),
            LineEnd::Silent(after) => Self::TimedOut(after),
        }
    }
}

impl Reason {
    /// The same for a path, which may be the reason.
    pub(super) fn of(self, path: &str) -> Self {
        match self {
            Self::Failure if path::is_too_long(path) => Self::NameTooLong,
            reason => reason,
        }
    }
}

/// No `From`: that would show what a packet holds.
pub(super) fn metadata(attributes: Attributes) -> Metadata {
    Metadata {
        size: attributes.size,
        mode: attributes.mode,
        owner: attributes.owner,
        modified: attributes.times.map(|(_, modified)| modified),
    }
}

/// How a file is opened; what is made gets this mode, as far as the server's mask allows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    Read,
    /// Made for this.
    Create(u32),
    /// Made if it is not there, and kept if it is.
    Continue(u32),
    /// Made if it is not there, and emptied if it is.
    Truncate(u32),
}

/// A session on a stream of its own. Dropped, it ends.
pub(super) struct Session {
    line: Line,
    /// The address of its server.
    pub(super) peer: Option<SocketAddr>,
    connection: ConnectionHandle,
    pub(super) runtime: Runtime,
    handles: Arc<Semaphore>,
    /// Bytes that one request may ask for, and bring.
    pub(super) read_len: u32,
    pub(super) write_len: usize,
    pub(super) fsync: bool,
    pub(super) posix_rename: bool,
    statvfs: bool,
    /// Whether a rename is one of the link itself; found out when it matters.
    pub(super) moves_links: OnceCell<bool>,
    /// Whether a new link is named before what it says.
    pub(super) link_first: OnceCell<bool>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) async fn open(host: &Host, timeout: Arc<RequestTimeout>) -> Result<Self, Fault> {
        let stream = host.subsystem("sftp").await;
        let stream = stream.map_err(|error| Fault::Session(Box::new(error)))?;
        let (peer, connection) = (stream.peer_addr(), stream.connection());
        let hello = async {
            let (line, version, extensions) =
                Line::open(stream, timeout).await.map_err(Fault::at_hello)?;
            if version < 3 {
                return Err(Fault::Protocol("speaks an SFTP before version 3"));
            }
            let offers = |name: &str| extensions.iter().any(|offered| offered == name.as_bytes());
            let mut session = Self {
                line,
                peer,
                connection,
                runtime: Runtime::current(),
                handles: Arc::new(Semaphore::new(HANDLES)),
                read_len: PLAIN as u32,
                write_len: PLAIN as usize,
                fsync: offers(FSYNC),
                posix_rename: offers(POSIX_RENAME),
                statvfs: offers(STATVFS),
                moves_links: OnceCell::new(),
                link_first: OnceCell::new(),
            };
            if offers(LIMITS) {
                session.learn_limits().await?;
            }
            Ok(session)
        };
        let hello = tokio::time::timeout(HELLO, hello).await;
        hello.unwrap_or(Err(Fault::NotSftp("does not begin to speak SFTP")))
    }

    async fn learn_limits(&mut self) -> Result<(), Fault> {
        let answer = self.ask(Request::extended(LIMITS)).await?;
        let Answer::Extended(data) = answer else {
            return Err(unexpected(answer));
        };
        // Of a packet, of a read, of a write. Zero: the server names none.
        let limits = packet::numbers(&data);
        let limit = |at: usize| {
            let named = limits.get(at).copied().filter(|limit| *limit > 0);
            named.unwrap_or(PLAIN).clamp(1024, LARGEST)
        };
        self.read_len = limit(1) as u32;
        self.write_len = limit(2) as usize;
        Ok(())
    }

    pub(super) fn is_alive(&self) -> bool {
        self.line.is_alive()
    }

    /// Whether what begins now is to get another session: that one's connection is retired.
    pub(super) fn is_retiring(&self) -> bool {
        self.connection.is_retiring()
    }

    /// How the host has moved, if its server has another address than that.
    pub(super) fn moved_from(&self, peer: Option<SocketAddr>) -> Option<Fault> {
        let (from, to) = (peer?, self.peer?);
        (from != to).then_some(Fault::Moved(from, to))
    }

    async fn ask(&self, request: Request) -> Result<Answer, Fault> {
        Ok(self.line.ask(request, Pace::Prompt).await?)
    }

    /// A request whose answer is yes or no.
    async fn tell(&self, request: Request, pace: Pace) -> Result<(), Fault> {
        match self.line.ask(request, pace).await? {
            Answer::Status { code: 0, .. } => Ok(()),
            answer => Err(unexpected(answer)),
        }
    }

    async fn attributes(&self, request: Request) -> Result<Metadata, Fault> {
        match self.ask(request).await? {
            Answer::Attributes(attributes) => Ok(metadata(attributes)),
            answer => Err(unexpected(answer)),
        }
    }

    /// Bytes of an open file.
    async fn data(&self, request: Request) -> Result<Vec<u8>, Fault> {
        match self.ask(request).await? {
            Answer::Data(data) => Ok(data),
            answer => Err(unexpected(answer)),
        }
    }

    async fn names(&self, request: Request) -> Result<Vec<Name>, Fault> {
        match self.ask(request).await? {
            Answer::Names(names) => Ok(names),
            answer => Err(unexpected(answer)),
        }
    }

    /// Opens a file. In a task of its own: a handle whose requester has gone must be closed.
    pub(super) async fn open_file(
        self: &Arc<Self>,
        path: &str,
        mode: Mode,
    ) -> Result<Handle, Fault> {
        let (flags, mode) = match mode {
            Mode::Read => (open::READ, None),
            Mode::Create(mode) => (open::WRITE | open::CREATE | open::EXCLUSIVE, Some(mode)),
            Mode::Continue(mode) => (open::WRITE | open::CREATE, Some(mode)),
            Mode::Truncate(mode) => (open::WRITE | open::CREATE | open::TRUNCATE, Some(mode)),
        };
        let attributes = Attributes {
            mode,
            ..Attributes::default()
        };
        let request = Request::new(kind::OPEN).word(path).u32(flags);
        self.handle(request.attributes(&attributes)).await
    }

    async fn handle(self: &Arc<Self>, request: Request) -> Result<Handle, Fault> {
        // The semaphore is never closed.
        let permit = self.handles.clone().acquire_owned().await.ok();
        let (answer, opened) = oneshot::channel();
        let session = self.clone();
        self.runtime.spawn(async move {
            let opened = match session.ask(request).await {
                Ok(Answer::Handle(id)) => Ok(Handle::new(session, id, permit)),
                Ok(answer) => Err(unexpected(answer)),
                Err(fault) => Err(fault),
            };
            // A handle that is not taken is dropped, which closes it.
            drop(answer.send(opened));
        });
        opened.await.unwrap_or(Err(Fault::Lost(None)))
    }

    /// Every name in a folder, `.` and `..` excepted, as the server says them.
    pub(super) async fn list(
        self: &Arc<Self>,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<DirEntry>>, Fault> {
        let handle = self.handle(Request::new(kind::OPENDIR).word(path)).await?;
        let mut entries = Vec::new();
        loop {
            match self.names(handle.request(kind::READDIR)).await {
                Ok(names) if names.is_empty() => {
                    return Err(Fault::Protocol("lists nothing, again and again"));
                }
                Ok(names) => entries.extend(
                    names
                        .into_iter()
                        .filter(|entry| entry.name != b"." && entry.name != b"..")
                        .map(|entry| DirEntry {
                            name: text(entry.name),
                            metadata: metadata(entry.attributes),
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
        self.attributes(Request::new(kind::STAT).word(path)).await
    }

    /// Without following a link. ProFTPD follows it all the same, and only READLINK tells.
    pub(super) async fn lstat(&self, path: &str) -> Result<Metadata, Fault> {
        let found = self.attributes(Request::new(kind::LSTAT).word(path));
        match tokio::join!(found, self.read_link(path)) {
            (Ok(found), Ok(_)) => Ok(found.into_symlink()),
            (found, Ok(_) | Err(Fault::Refused(..))) => found,
            (found, Err(fault)) => found.and(Err(fault)),
        }
    }

    pub(super) async fn set(&self, path: &str, attributes: &Attributes) -> Result<(), Fault> {
        let request = Request::new(kind::SETSTAT).word(path);
        let request = request.attributes(attributes);
        self.tell(request, Pace::Prompt).await
    }

    pub(super) async fn mkdir(&self, path: &str, mode: u32) -> Result<(), Fault> {
        let attributes = Attributes {
            mode: Some(mode),
            ..Attributes::default()
        };
        let request = Request::new(kind::MKDIR).word(path);
        let request = request.attributes(&attributes);
        self.tell(request, Pace::Prompt).await
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Fault> {
        let request = Request::new(kind::REMOVE).word(path);
        self.tell(request, Pace::Prompt).await
    }

    pub(super) async fn rmdir(&self, path: &str) -> Result<(), Fault> {
        let request = Request::new(kind::RMDIR).word(path);
        self.tell(request, Pace::Prompt).await
    }

    /// Makes a link. Which of the two comes first has to be known, see `links.rs`.
    pub(super) async fn symlink(&self, target: &str, link: &str) -> Result<(), Fault> {
        let request = Request::new(kind::SYMLINK);
        let request = match self.link_first.get() {
            Some(true) => request.word(link).word(target),
            _ => request.word(target).word(link),
        };
        self.tell(request, Pace::Prompt).await
    }

    pub(super) async fn read_link(&self, path: &str) -> Result<String, Fault> {
        one_name(self.names(Request::new(kind::READLINK).word(path)).await?)
    }

    pub(super) async fn real_path(&self, path: &str) -> Result<String, Fault> {
        one_name(self.names(Request::new(kind::REALPATH).word(path)).await?)
    }

    /// Moves, and replaces what is there where the server can do that in one step.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        if self.posix_rename {
            let request = Request::extended(POSIX_RENAME).word(from).word(to);
            match self.tell(request, Pace::Prompt).await {
                Err(fault) if fault.is(Reason::Unsupported) => {}
                renamed => return renamed,
            }
        }
        let request = Request::new(kind::RENAME).word(from).word(to);
        self.tell(request, Pace::Prompt).await
    }

    /// Puts an open file on the disk, where the server offers that.
    async fn fsync(&self, handle: &[u8]) -> Result<(), Fault> {
        if !self.fsync {
            return Ok(());
        }
        let request = Request::extended(FSYNC).word(handle);
        self.tell(request, Pace::Slow).await
    }

    /// Whether the file system has no room: asked after a write has failed without a reason.
    pub(super) async fn is_full(&self, path: &str) -> bool {
        if !self.statvfs {
            return false;
        }
        let answer = self.ask(Request::extended(STATVFS).word(path)).await;
        // PROTOCOL, section 4.4: the fifth number is that of free blocks for all users.
        matches!(answer, Ok(Answer::Extended(data)) if packet::numbers(&data).get(4) == Some(&0))
    }
}

/// What an answer means that is not the one that was asked for.
fn unexpected(answer: Answer) -> Fault {
    let Answer::Status { code, message } = answer else {
        return Fault::unasked();
    };
    // Section 7 of the draft.
    let reason = match code {
        0 => return Fault::Protocol("says yes in the place of an answer"),
        1 => return Fault::End,
        2 => Reason::NotFound,
        3 => Reason::PermissionDenied,
        8 => Reason::Unsupported,
        // Also 6 and 7: a server must not claim to have no connection, for that would be retried.
        _ => Reason::Failure,
    };
    Fault::Refused(reason, printable(message))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn one_name(names: Vec<Name>) -> Result<String, Fault> {
    let mut names = names.into_iter();
    match (names.next(), names.next()) {
        (Some(only), None) if !only.name.contains(&0) => Ok(text(only.name)),
        _ => Err(Fault::Protocol("does not answer with one name")),
    }
}
