//! Files to the server.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::error::{Error, Reason};
use super::handle::Handle;
use super::local::{Content, Source};
use super::options::{Attempts, Call, Options, REQUESTS, options, permits};
use super::session::{Fault, Mode, Session, Settings};
use super::summary::{FileMeter, Summary};
use super::temp::RemoteTemp;
use super::{Sftp, path, tree_up, verify};

/// An upload that is to be made: `.await` it. From [`Sftp::upload`] and [`Sftp::upload_dir`].
///
/// Each file is written under a temporary name beside the final one, and replaces what is there in
/// one step: readers see the old file or the new one. If the upload fails, or is dropped, the old
/// file stays and the temporary one is removed, as far as the server can be reached.
///
/// Of a folder, symbolic links become links with the same text and are never followed; devices,
/// sockets, FIFOs and names that are not UTF-8 are left out and listed in [`Summary::skipped`]. The
/// first file that fails ends the upload; those before it stay.
#[must_use = "nothing is copied before it is awaited"]
#[derive(Clone)]
pub struct Upload {
    sftp: Sftp,
    local: PathBuf,
    remote: PathBuf,
    tree: bool,
    options: Options,
}

options!(Upload);

impl Upload {
    pub(super) fn new(sftp: Sftp, local: &Path, remote: &Path, tree: bool) -> Self {
        Self {
            sftp,
            local: local.to_owned(),
            remote: remote.to_owned(),
            tree,
            options: Options::default(),
        }
    }

    async fn run(self) -> Result<Summary, Error> {
        let call = Call::new(self.sftp, self.options);
        if self.tree {
            let remote = path::remote(&self.remote)?;
            return tree_up::copy(&call, &self.local, &remote).await;
        }
        let remote = path::remote_file(&self.remote)?;
        let session = call.sftp.session(&remote).await?;
        let source = Source::open(&self.local, session.write_len as u64).await?;
        drop(session);
        call.meter.expect(source.size);
        let mut summary = Summary::default();
        file(&call, &source, &remote).await?.count(&mut summary);
        Ok(summary)
    }
}

impl IntoFuture for Upload {
    type Output = Result<Summary, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Copies.
    ///
    /// # Errors
    ///
    /// [`Error::Local`] for this side, [`Error::Refused`] for the other one,
    /// [`Error::WrongType`] if there is a folder in the place of the file or the reverse,
    /// [`Error::Changed`] if the file became shorter meanwhile, [`Error::Mismatch`] after a
    /// verification, [`Error::NotAtomic`] on servers that cannot replace; [`Error::Session`] and
    /// [`Error::Lost`] when there is no more session after all attempts.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the file has its old content or, if the last step was under way, its new one. What
    /// is unfinished is removed in the background, which may take a new connection, and up to 30 s.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// What a file came to.
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) retries: u64,
    pub(super) resumed: u64,
}

impl Done {
    pub(super) fn count(&self, summary: &mut Summary) {
        summary.files += 1;
        summary.bytes += self.bytes;
        summary.retries += self.retries;
        summary.resumed += self.resumed;
    }
}

/// Writes bytes from memory.
pub(super) async fn bytes(
    sftp: &Sftp,
    bytes: Vec<u8>,
    remote: &str,
    options: &Options,
) -> Result<(), Error> {
    let call = Call::new(sftp.clone(), options.clone());
    let source = Source {
        path: remote.into(),
        size: bytes.len() as u64,
        content: Content::Memory(bytes.into()),
        settings: Settings {
            mode: Some(0o644),
            modified: None,
        },
    };
    file(&call, &source, remote).await.map(drop)
}

/// How far a file has come, over all attempts.
struct Work<'a> {
    meter: FileMeter<'a>,
    temp: RemoteTemp,
    /// Whether the temporary file may be there.
    begun: bool,
    /// The server has all bytes before this one.
    acknowledged: u64,
    resumed: u64,
}

/// Copies one file.
pub(super) async fn file(call: &Call, source: &Source, remote: &str) -> Result<Done, Error> {
    let resume = call.options.resume;
    let name = if resume {
        path::lasting_name(remote)
    } else {
        path::fresh_name()
    };
    let mut work = Work {
        meter: call.meter.file(&source.path, source.size),
        temp: RemoteTemp::new(&call.sftp, path::beside(remote, &name), resume),
        begun: false,
        acknowledged: 0,
        resumed: 0,
    };
    let mut attempts = Attempts::new(call.options.attempts);
    loop {
        let error = match attempt(call, source, remote, &mut work).await {
            Ok(()) => break,
            // What an earlier call has left is of another file.
            Err(Error::Mismatch { .. }) if work.resumed > 0 => {
                work.acknowledged = 0;
                work.resumed = 0;
                attempts.retries += 1;
                continue;
            }
            Err(error) => error,
        };
        if matches!(error, Error::Mismatch { .. }) {
            work.temp.discard();
        }
        if let Err(error) = attempts.again(error, work.acknowledged).await {
            if !error.is_transient() {
                work.temp.remove().await;
            }
            return Err(error);
        }
    }
    work.temp.moved();
    Ok(Done {
        bytes: source.size,
        retries: attempts.retries,
        resumed: work.resumed,
    })
}

/// Carries a file on with one session.
async fn attempt(
    call: &Call,
    source: &Source,
    remote: &str,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let session = call.sftp.session(remote).await?;
    let handle = open(call, &session, source, remote, work).await?;
    let written = async {
        pump(call, &handle, source, remote, work).await?;
        let settings = Settings {
            modified: source.settings.modified.filter(|_| call.options.times),
            ..source.settings
        };
        let sync = async {
            match call.options.sync {
                true => handle.sync().await,
                false => Ok(()),
            }
        };
        let (set, synced) = tokio::join!(handle.set(settings), sync);
        synced.map_err(|fault| call.sftp.at(fault, "write", remote))?;
        set.map_err(|fault| call.sftp.at(fault, "change", remote))
    };
    if let Err(error) = written.await {
        return Err(explain(&session, work.temp.path(), error).await);
    }
    let closed = handle.close().await;
    closed.map_err(|fault| call.sftp.at(fault, "write", remote))?;
    if call.options.verify || work.resumed > 0 {
        let content = source.content.clone();
        let sum = verify::local(content, source.size, &source.path).await?;
        if !verify::remote_is(call, work.temp.path(), &sum).await? {
            return Err(Error::Mismatch {
                target: call.sftp.target().clone(),
                path: remote.to_owned(),
            });
        }
    }
    call.sftp
        .move_over(&session, work.temp.path(), remote)
        .await
}

/// Opens the temporary file, and finds out where to go on.
async fn open(
    call: &Call,
    session: &Arc<Session>,
    source: &Source,
    remote: &str,
    work: &mut Work<'_>,
) -> Result<Handle, Error> {
    let first = !std::mem::replace(&mut work.begun, true);
    let mode = if first && !call.options.resume {
        Mode::Create
    } else {
        Mode::Continue
    };
    let at = |fault: Fault| call.sftp.at(fault, "write", remote);
    let opened = session.open_file(work.temp.path(), mode).await;
    let handle = opened.map_err(at)?;
    if matches!(mode, Mode::Continue) {
        let there = handle.stat().await.map_err(at)?.len();
        if first {
            work.acknowledged = there;
            work.resumed = there;
        }
        // More than that is no part of this file; less was lost with the server's memory.
        if there > source.size {
            work.acknowledged = 0;
            work.resumed = 0;
        }
        work.acknowledged = work.acknowledged.min(there);
        if there > work.acknowledged {
            let cut = handle.truncate(work.acknowledged).await;
            cut.map_err(at)?;
        }
    }
    work.meter.set(work.acknowledged);
    Ok(handle)
}

/// Sends what is missing, many requests at once.
async fn pump(
    call: &Call,
    handle: &Handle,
    source: &Source,
    remote: &str,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let mut offset = work.acknowledged;
    let mut chunks = source.chunks(offset, handle.session().write_len);
    let mut writes = FuturesOrdered::new();
    let mut more = true;
    while more || !writes.is_empty() {
        let next = async {
            // The window first: what is taken from the disk must not wait in memory.
            let room = permits(handle.session().write_len);
            let permit = call.window.clone().acquire_many_owned(room).await;
            (permit, chunks.next().await)
        };
        tokio::select! {
            biased;
            Some(written) = writes.next(), if !writes.is_empty() => {
                let length: u64 = match written {
                    Ok(length) => length,
                    Err(fault) => return Err(call.sftp.at(fault, "write", remote)),
                };
                work.acknowledged += length;
                work.meter.set(work.acknowledged);
            }
            (permit, chunk) = next, if more && writes.len() < REQUESTS => match chunk {
                Some(chunk) => {
                    let chunk = chunk?;
                    let at = offset;
                    offset += chunk.len() as u64;
                    // The semaphore is never closed.
                    writes.push_back(write(handle, at, chunk, permit.ok()));
                }
                None => more = false,
            },
        }
    }
    Ok(())
}

async fn write(
    handle: &Handle,
    at: u64,
    chunk: Vec<u8>,
    _permit: Option<OwnedSemaphorePermit>,
) -> Result<u64, Fault> {
    let length = chunk.len() as u64;
    handle.write(at, chunk).await?;
    Ok(length)
}

/// Finds the reason for a write that failed without one.
async fn explain(session: &Session, path: &str, error: Error) -> Error {
    match error {
        Error::Refused {
            target,
            operation,
            path: remote,
            reason: Reason::Failure,
            message,
        } => {
            let reason = match session.is_full(path).await {
                true => Reason::NoSpace,
                false => Reason::Failure,
            };
            Error::Refused {
                target,
                operation,
                path: remote,
                reason,
                message,
            }
        }
        error => error,
    }
}
