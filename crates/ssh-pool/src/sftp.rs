//! Files over the pool: SFTP on a pooled channel.
//!
//! ```no_run
//! use ssh_pool::sftp::SftpExt;
//!
//! # async fn deploy(host: ssh_pool::Host) -> Result<(), ssh_pool::sftp::Error> {
//! let sftp = host.sftp().await?;
//! sftp.upload("app.tar", "/srv/app.tar").verify(true).await?;
//! let summary = sftp.upload_dir("site", "/srv/www").await?;
//! println!("{} files, {} bytes", summary.files, summary.bytes);
//! sftp.download("/var/log/app.log", "app.log").await?;
//! # Ok(())
//! # }
//! ```
//!
//! Unless asked for otherwise ([`Replace`]), a file is never seen half written: it is written under another name in the same folder
//! (`.ssh-pool.…`), put on the disk (`fsync@openssh.com`), and moved over the final name in one step
//! (`posix-rename@openssh.com`). Many requests are under way at once, each as large as the server
//! allows (`limits@openssh.com`). A lost connection is replaced, and the transfer goes on where it
//! was.
//!
//! It speaks version 3 of the protocol (draft-ietf-secsh-filexfer-02), as OpenSSH does. Remote paths
//! are UTF-8; a relative one is below the folder that the server starts in, which is the login
//! folder, and `~` is not expanded.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;

use crate::Host;

mod attributes;
mod download;
mod error;
mod links;
mod local;
mod metadata;
mod ops;
mod options;
mod path;
mod place;
mod reads;
mod session;
mod summary;
mod temp;
mod tree_down;
mod tree_up;
mod upload;
mod verify;

pub use download::Download;
pub use error::{Error, Reason};
pub use metadata::{DirEntry, FileType, Metadata};
pub use options::Replace;
pub use summary::{Attribute, Failed, Progress, SkipReason, Skipped, Summary, Unset, UnsetReason};
pub use upload::Upload;

use session::{Fault, RequestTimeout, Session};

/// Opens SFTP sessions on a [`Host`].
///
/// ```no_run
/// # async fn example(host: ssh_pool::Host) -> Result<(), Box<dyn std::error::Error>> {
/// use ssh_pool::sftp::SftpExt;
///
/// let sftp = host.sftp().await?;
/// sftp.upload("app.tar", "/srv/app.tar").await?;
/// # Ok(())
/// # }
/// ```
pub trait SftpExt {
    /// Opens an SFTP session, on a connection of its own (see
    /// [`Host::subsystem`](crate::Host::subsystem)), so that a slow transfer slows no other stream.
    ///
    /// # Errors
    ///
    /// [`Error::Session`], with [`SubsystemRefused`](crate::Error::SubsystemRefused) below it where
    /// the server has no SFTP, and [`Error::NotSftp`] where something else answers, as for an account
    /// with a forced command. The server has 30 s to say its version.
    ///
    /// # Cancel safety
    ///
    /// Dropped, nothing stays open.
    fn sftp(&self) -> impl Future<Output = Result<Sftp, Error>> + Send;
}

impl SftpExt for Host {
    async fn sftp(&self) -> Result<Sftp, Error> {
        // A transfer runs `sha256sum` beside its session, and a new session may begin before the old
        // one has ended: none of them waits for room that another one of them fills.
        let group = self.group().cloned().unwrap_or_default();
        let sftp = Sftp::new(self.in_group(&group));
        self.within(sftp.session(".")).await?;
        Ok(sftp)
    }
}

/// An SFTP session of a host. Cheap to clone: the clones share one channel, and with it one
/// connection, which is kept as long as one of them lives. They are a
/// [`StreamGroup`](crate::StreamGroup): that of the [`Host`], or one of their own. For transfers that
/// are not to share bandwidth call [`SftpExt::sftp`] once for each.
///
/// Remote paths are relative to the home folder of the user on most servers; `~` is an ordinary character.
///
/// A session that has ended is replaced by the next call, and so is one whose connection is retired:
/// evicted, older than `Timeouts::lifetime`, or to an address that the host has no more. A transfer
/// that is under way ends on the old one. A session that is open counts as something that runs:
/// `Pool::close` waits for it, up to `Timeouts::drain`. A server that leaves a request unanswered is
/// given up, see [`set_request_timeout`](Self::set_request_timeout). Put `tokio::time::timeout` around
/// a call to limit all of it; everything here can be dropped at any time.
///
/// ```no_run
/// # async fn example(sftp: ssh_pool::sftp::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// let summary = sftp.upload_dir("site", "/srv/www").await?;
/// println!("{} files, {} bytes", summary.files, summary.bytes);
/// sftp.download("/var/log/app.log", "app.log").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sftp {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    target: Arc<str>,
    slot: Mutex<Slot>,
    timeout: Arc<RequestTimeout>,
}

#[derive(Default)]
struct Slot {
    session: Option<Arc<Session>>,
    /// The last one that could not be had, for all who asked before that was known.
    failed: Option<(Instant, Fault)>,
}

impl fmt::Debug for Sftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sftp").field(&self.inner.target).finish()
    }
}

impl Sftp {
    fn new(host: Host) -> Self {
        let target = host.status().target.into();
        let slot = Mutex::default();
        Self {
            inner: Arc::new(Inner {
                host,
                target,
                slot,
                timeout: Arc::default(),
            }),
        }
    }

    fn target(&self) -> &Arc<str> {
        &self.inner.target
    }

    fn host(&self) -> &Host {
        &self.inner.host
    }

    /// How long the server may leave a request unanswered, for this session and all its clones, from
    /// the next request on. Default: 60 s; ten times as long to put a file on the disk and to close
    /// it.
    ///
    /// The time of a request begins when all earlier ones are answered, so a full pipeline on a slow
    /// line may take as long as it needs: a line that moves one request (32 KiB, or up to 255 KiB
    /// where the server allows it) in that time is quick enough. Then the session is given up, with
    /// [`Error::Timeout`] for all that is under way, and the next call opens another one. A transfer
    /// is not tried again.
    ///
    /// ```no_run
    /// # async fn f(host: ssh_pool::Host) -> Result<(), ssh_pool::sftp::Error> {
    /// use ssh_pool::sftp::SftpExt;
    ///
    /// let sftp = host.sftp().await?;
    /// sftp.set_request_timeout(std::time::Duration::from_secs(10));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_request_timeout(&self, timeout: std::time::Duration) {
        self.inner.timeout.set(timeout);
    }

    fn request_timeout(&self) -> std::time::Duration {
        self.inner.timeout.get()
    }

    /// The session there is, or a new one.
    async fn session(&self, path: &str) -> Result<Arc<Session>, Error> {
        self.live()
            .await
            .map_err(|fault| self.at(fault, "open", path))
    }

    async fn live(&self) -> Result<Arc<Session>, Fault> {
        let asked = Instant::now();
        let mut slot = self.inner.slot.lock().await;
        let retired = match slot.session.clone().filter(|session| session.is_alive()) {
            Some(session) if !session.is_retiring() => return Ok(session),
            retired => retired,
        };
        slot.session = None;
        if let Some((at, fault)) = &slot.failed
            && *at > asked
        {
            return Err(fault.clone());
        }
        let opening = Session::open(&self.inner.host, self.inner.timeout.clone());
        let opened = match opening.await {
            // The pool is being closed, and waits for the session that there is.
            Err(fault) if fault.is_closed_pool() => retired.ok_or(fault),
            opened => opened.map(Arc::new),
        };
        match opened {
            Ok(session) => {
                slot.session = Some(session.clone());
                Ok(session)
            }
            Err(fault) => {
                slot.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    fn at(&self, fault: Fault, operation: &'static str, path: &str) -> Error {
        fault.at(self.target(), operation, path)
    }

    /// Copies a file from this machine to the server. `.await` it, or see [`Upload`].
    ///
    /// `remote` is the full name of the new file, not the folder it goes to. A symbolic link there
    /// is replaced, not followed.
    pub fn upload(&self, local: impl AsRef<Path>, remote: impl AsRef<Path>) -> Upload {
        Upload::new(self.clone(), local.as_ref(), remote.as_ref(), false)
    }

    /// Copies a folder, with everything in it, to the server. `.await` it, or see [`Upload`].
    ///
    /// `remote` is what the folder is called there; it is made if it is not there, in a folder that
    /// is, and else completed: what is there under other names stays, and folders keep their modes.
    pub fn upload_dir(&self, local: impl AsRef<Path>, remote: impl AsRef<Path>) -> Upload {
        Upload::new(self.clone(), local.as_ref(), remote.as_ref(), true)
    }

    /// Copies a file from the server to this machine. `.await` it, or see [`Download`].
    ///
    /// `local` is the full name of the new file. A symbolic link there is replaced, not followed.
    pub fn download(&self, remote: impl AsRef<Path>, local: impl AsRef<Path>) -> Download {
        Download::new(self.clone(), remote.as_ref(), local.as_ref(), false)
    }

    /// Copies a folder, with everything in it, from the server. `.await` it, or see [`Download`].
    ///
    /// `local` is what the folder is called here; it is made if it is not there, in a folder that is,
    /// and else completed. Nothing is written outside it, whatever the server says.
    pub fn download_dir(&self, remote: impl AsRef<Path>, local: impl AsRef<Path>) -> Download {
        Download::new(self.clone(), remote.as_ref(), local.as_ref(), true)
    }
}
