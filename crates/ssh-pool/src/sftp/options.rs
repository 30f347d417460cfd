//! How a transfer is made.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Sftp;
use super::error::Error;
use super::session::{Fault, Session};
use super::summary::{Callback, Failed, Meter};

/// Bytes of one call that are under way at once, over all its files: requests and what answers
/// them.
pub(super) const WINDOW: usize = 8 << 20;
/// Requests of one file that are under way at once, as OpenSSH's `sftp` has it.
pub(super) const REQUESTS: usize = 64;
/// A session has a hundred handles, also for what else is done with it.
const MOST_FILES: usize = 64;

/// How a file takes the place of one that is there.
///
/// ```no_run
/// use ssh_pool::sftp::Replace;
///
/// # async fn example(sftp: ssh_pool::sftp::Sftp) -> Result<(), ssh_pool::sftp::Error> {
/// sftp.upload("app.conf", "/etc/app.conf").replace(Replace::InPlace).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replace {
    /// In one step: a reader sees the old file or the new one. The new one is written beside it and
    /// moved over it, which takes the right to make files in that folder, and
    /// `posix-rename@openssh.com`. It keeps the owner of the old one where the account may give it
    /// away; its hard links keep the old content.
    #[default]
    Atomic,
    /// As `Atomic` where the server can replace in one step. Elsewhere the old file is moved aside
    /// first, and removed in the end: for a moment there is no file of that name, and after a lost
    /// connection the old one may be left under a name that begins with `.ssh-pool.`.
    Aside,
    /// The old file is emptied and written: a reader sees parts of the new one, and a copy that
    /// fails leaves such a part. Owner, mode and hard links stay, and no other file has to be made.
    /// A symbolic link is an error.
    InPlace,
}

#[derive(Clone)]
pub(super) struct Options {
    pub(super) progress: Option<Callback>,
    pub(super) verify: bool,
    pub(super) resume: bool,
    pub(super) times: bool,
    pub(super) sync: bool,
    pub(super) strict: bool,
    pub(super) keep_going: bool,
    pub(super) replace: Replace,
    pub(super) concurrency: usize,
    pub(super) attempts: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            progress: None,
            verify: false,
            resume: false,
            times: false,
            sync: true,
            strict: false,
            keep_going: false,
            replace: Replace::Atomic,
            concurrency: 32,
            attempts: 5,
        }
    }
}

impl Options {
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency.clamp(1, MOST_FILES)
    }
}

/// The options that both builders have.
macro_rules! options {
    ($builder:ident) => {
        impl $builder {
            /// Calls `progress` whenever bytes have arrived. It is called inside the transfer, so it
            /// must not block.
            pub fn progress(
                mut self,
                progress: impl Fn(&$crate::sftp::Progress<'_>) + Send + Sync + 'static,
            ) -> Self {
                self.options.progress = Some(std::sync::Arc::new(progress));
                self
            }

            /// Compares the SHA-256 sums of both sides before the file gets its name. Default: no.
            ///
            /// Of a file that is downloaded, only as much is compared as was copied: a log may grow
            /// meanwhile.
            ///
            /// On the server that is `head -c` and `sha256sum`, run by `sh` as a command of the pool.
            /// Where it cannot be run, or says something else than expected, the file is read back
            /// over SFTP.
            pub fn verify(mut self, verify: bool) -> Self {
                self.options.verify = verify;
                self
            }

            /// Continues where an earlier call with this option was interrupted, and leaves what is
            /// there if this one is. Default: no, each call begins anew and leaves nothing.
            ///
            /// What an earlier call has left is always verified, and thrown away if it does not
            /// fit: the file may have changed since. Two calls with this option must not copy to
            /// the same place at once.
            pub fn resume(mut self, resume: bool) -> Self {
                self.options.resume = resume;
                self
            }

            /// Keeps the times of the last change of files, in whole seconds from 1970 to 2106.
            /// Default: no. Permissions are always kept, without setuid, setgid and sticky.
            pub fn times(mut self, times: bool) -> Self {
                self.options.times = times;
                self
            }

            /// Waits until a file is on the disk (fsync) before it gets its name, so that a power
            /// cut leaves the old file or the new one. Default: yes. Where an upload goes to, that
            /// takes `fsync@openssh.com`.
            pub fn sync(mut self, sync: bool) -> Self {
                self.options.sync = sync;
                self
            }

            /// Fails where the mode, the owner or the time of a file cannot be set: with
            /// [`Error::Unset`](crate::sftp::Error::Unset), and the old file stays. Default: no, the
            /// file is replaced, and [`Summary::unset`](crate::sftp::Summary::unset) says what it
            /// lacks.
            pub fn strict(mut self, strict: bool) -> Self {
                self.options.strict = strict;
                self
            }

            /// Of a folder, copies what can be copied, and lists the rest in
            /// [`Summary::failed`](crate::sftp::Summary::failed): files and folders that cannot be
            /// read, or cannot be made on the other side. Default: no, the first that fails ends the
            /// copy. A lost session, a server that does not answer, and one that does not keep to
            /// the protocol end it all the same.
            pub fn keep_going(mut self, keep_going: bool) -> Self {
                self.options.keep_going = keep_going;
                self
            }

            /// Files of a tree that are copied at once: 1 to 64. Default: 32.
            pub fn concurrency(mut self, files: usize) -> Self {
                self.options.concurrency = files;
                self
            }

            /// How many times in a row a lost session is replaced without a byte of the file having
            /// arrived in between, before the transfer fails. Default: 5, with pauses from 100 ms up
            /// to 5 s. 0: never.
            ///
            /// A transfer goes on only with the machine on which it began. Where the name of the host
            /// leads to another address when the session is replaced, a single file begins again from
            /// its start, and a folder fails with [`Error::Moved`](crate::sftp::Error::Moved). What
            /// answers at the same address is taken for the same machine.
            pub fn attempts(mut self, attempts: u32) -> Self {
                self.options.attempts = attempts;
                self
            }
        }

        impl std::fmt::Debug for $builder {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($builder))
                    .field("local", &self.local)
                    .field("remote", &self.remote)
                    .field("tree", &self.tree)
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(super) use options;

/// One call of a transfer.
pub(super) struct Call {
    pub(super) sftp: Sftp,
    pub(super) options: Options,
    /// A folder, which all comes from one machine.
    pub(super) is_tree: bool,
    pub(super) meter: Meter,
    /// In KiB.
    pub(super) window: Arc<Semaphore>,
    failed: Mutex<Vec<Failed>>,
    current: Mutex<Current>,
}

/// The session of a call, and the machine that it is made with.
#[derive(Default)]
struct Current {
    /// Kept until it ends, though its connection may be on the way out by then.
    session: Option<Arc<Session>>,
    peer: Option<SocketAddr>,
}

impl Call {
    pub(super) fn new(sftp: Sftp, options: Options, is_tree: bool) -> Self {
        Self {
            current: Mutex::default(),
            is_tree,
            sftp,
            meter: Meter::new(options.progress.clone()),
            options,
            window: Arc::new(Semaphore::new(WINDOW >> 10)),
            failed: Mutex::default(),
        }
    }

    /// The session of this call, or a new one on the same machine.
    pub(super) async fn live(&self) -> Result<Arc<Session>, Fault> {
        let alive = self.current().session.clone();
        if let Some(session) = alive.filter(|session| session.is_alive()) {
            return Ok(session);
        }
        let session = self.sftp.live().await?;
        let mut current = self.current();
        if let Some(moved) = session.moved_from(current.peer) {
            return Err(moved);
        }
        current.peer = session.peer;
        current.session = Some(session.clone());
        Ok(session)
    }

    pub(super) async fn session(&self, path: &str) -> Result<Arc<Session>, Error> {
        let live = self.live().await;
        live.map_err(|fault| self.sftp.at(fault, "open", path))
    }

    /// Begins anew, on whichever machine the host is now.
    pub(super) fn forget_machine(&self) {
        *self.current() = Current::default();
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // It is replaced as a whole, and checked before it is used.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a part of a folder came to. `None`: it has failed, and that is kept for the summary.
    pub(super) fn part<T>(
        &self,
        path: &Path,
        result: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error) if self.options.keep_going && !error.is_fatal() => {
                let (path, error) = (path.to_owned(), Arc::new(error));
                self.failures().push(Failed { path, error });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn take_failed(&self) -> Vec<Failed> {
        std::mem::take(&mut *self.failures())
    }

    fn failures(&self) -> MutexGuard<'_, Vec<Failed>> {
        // A list is as good as it was before a panic.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this many bytes take of the window.
pub(super) fn permits(bytes: usize) -> u32 {
    u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX)
}

/// Whether a lost session is replaced once more.
#[derive(Debug)]
pub(super) struct Attempts {
    allowed: u32,
    /// In a row, without progress.
    failed: u32,
    reached: u64,
    pub(super) retries: u64,
}

impl Attempts {
    pub(super) fn new(allowed: u32) -> Self {
        Self {
            allowed,
            failed: 0,
            reached: 0,
            retries: 0,
        }
    }

    /// Gives the error back if this was enough, and otherwise waits a moment. `reached` is how far
    /// the file has come.
    pub(super) async fn again(&mut self, error: Error, reached: u64) -> Result<(), Error> {
        // A server that leaves one request unanswered for a minute is not asked five times, and
        // nothing goes on with another machine.
        let goes_on = !matches!(error, Error::Timeout { .. } | Error::Moved { .. });
        if !error.is_transient() || !goes_on {
            return Err(error);
        }
        self.once_more(error, reached).await
    }

    /// The same for an error after which the file can be copied all the same.
    pub(super) async fn once_more(&mut self, error: Error, reached: u64) -> Result<(), Error> {
        if reached > self.reached {
            self.reached = reached;
            self.failed = 0;
        }
        if self.failed >= self.allowed {
            return Err(error);
        }
        tracing::debug!(%error, reached, "a transfer goes on with a new session");
        let pause = Duration::from_millis(100) * 2_u32.pow(self.failed.min(6));
        self.failed += 1;
        self.retries += 1;
        // In a task: when the runtime of the pool ends, a timer of its own would panic.
        let pause = tokio::time::sleep(pause.min(Duration::from_secs(5)));
        tokio::spawn(pause).await.ok();
        Ok(())
    }
}

/// A request of a tree, asked again with a new session when the session ends. What is asked for may
/// have been done already.
macro_rules! persistent {
    ($call:expr, $operation:literal, $path:expr, $session:ident => $request:expr) => {{
        let (call, path): (&$crate::sftp::options::Call, &str) = ($call, $path);
        let mut attempts = $crate::sftp::options::Attempts::new(call.options.attempts);
        loop {
            let result = match call.live().await {
                Ok($session) => $request.await,
                Err(fault) => Err(fault),
            };
            match result {
                Err(fault @ (Fault::Lost(_) | Fault::Session(_))) => {
                    let error = call.sftp.at(fault, $operation, path);
                    if let Err(error) = attempts.again(error, 0).await {
                        break Err(error);
                    }
                }
                Err(fault) => break Ok(Err(fault)),
                Ok(done) => break Ok(Ok(done)),
            }
        }
    }};
}
pub(super) use persistent;
