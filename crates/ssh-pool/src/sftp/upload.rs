//! Files to the server.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::attributes::{self, Settings};
use super::error::{Error, Reason};
use super::local::{Content, Source, Stamp};
use super::options::{Attempts, Call, Options, REQUESTS, Replace, options, permits};
use super::place::{self, Place};
use super::session::{Fault, Handle, Mode, Session};
use super::summary::{FileMeter, Summary, Unset};
use super::temp::RemoteTemp;
use super::{Sftp, ops, path, tree_up, verify};

/// An upload that is to be made: `.await` it. From [`Sftp::upload`] and [`Sftp::upload_dir`].
///
/// Each file is written under a temporary name beside the final one, and replaces what is there in
/// one step: readers see the old file or the new one. If the upload fails, or is dropped, the old
/// file stays and the temporary one is removed, as far as the server can be reached. Other ways to
/// [`replace`](Self::replace) a file are a choice. What stands in the way is found out before anything is sent.
///
/// A file is read to its end, as `scp` does: those of `/proc` and `/sys` are longer or shorter than they
/// say. But of one that changes while it is copied, what is appended is not in the copy, and one that
/// becomes shorter is an [`Error::Changed`].
///
/// The new file has the mode of the local one, and the owner of the file that it replaces, where
/// the account may give files away; else it keeps at least the group, if it can, and
/// [`Summary::unset`] says so. In a folder with the sticky bit, such as `/tmp`, it belongs to the
/// account. Other hard links of the old file keep the old content.
///
/// Of a folder, symbolic links become links with the same text and are never followed; devices,
/// sockets, FIFOs and names that are not UTF-8 are left out and listed in [`Summary::skipped`]. The
/// first file that fails ends the upload, unless it is to [`keep_going`](Self::keep_going); those
/// before it stay.
///
/// ```no_run
/// # async fn example(sftp: ssh_pool::sftp::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// let summary = sftp.upload("app.tar", "/srv/app.tar").verify(true).await?;
/// println!("{} bytes", summary.bytes);
/// # Ok(())
/// # }
/// ```
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

    /// How a file takes the place of one that is there. Default: [`Replace::Atomic`], in one step.
    /// With [`Replace::InPlace`] there is nothing to [`resume`](Self::resume): each call writes the
    /// whole file.
    ///
    /// ```no_run
    /// use ssh_pool::sftp::{Replace, Sftp};
    ///
    /// # async fn f(sftp: Sftp) -> Result<(), ssh_pool::sftp::Error> {
    /// // The account may write this file, and make none beside it.
    /// let up = sftp.upload("app.conf", "/etc/app.conf");
    /// up.replace(Replace::InPlace).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn replace(mut self, replace: Replace) -> Self {
        self.options.replace = replace;
        self
    }

    async fn run(self) -> Result<Summary, Error> {
        let call = Call::new(self.sftp, self.options, self.tree);
        if self.tree {
            let remote = path::remote(&self.remote)?;
            return tree_up::copy(&call, &self.local, &remote).await;
        }
        let remote = path::remote_file(&self.remote)?;
        let session = call.session(&remote).await?;
        let source = Source::open(&self.local, session.write_len).await?;
        drop(session);
        call.meter.expect(source.size);
        let mut summary = Summary::default();
        let done = file(&call, &source, &remote, false).await?;
        done.count(&mut summary);
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
    /// [`Error::Local`] for this side, [`Error::Refused`] for the other one. Before anything is sent:
    /// [`Error::WrongType`] if there is a folder in the place of the file or the reverse,
    /// [`Error::Folder`] if no file can be made beside it, and [`Error::NotAtomic`] on servers that
    /// cannot replace. [`Error::Changed`] if the file became shorter meanwhile,
    /// [`Error::Mismatch`] after a verification, [`Error::Unset`] if it is [`strict`](Self::strict);
    /// [`Error::Timeout`] if the server does not answer, [`Error::Session`] and [`Error::Lost`] when
    /// there is no more session after all attempts, and [`Error::Moved`] when there is one with
    /// another machine only.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the file has its old content or, if the last step was under way, its new one; one that
    /// is written in place has a part of it. What is unfinished is removed in the background, which
    /// may take a new connection, and up to 30 s.
    fn into_future(self) -> Self::IntoFuture {
        let host = self.sftp.host().clone();
        Box::pin(host.within(self.run()))
    }
}

/// What a file came to.
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) retries: u64,
    pub(super) resumed: u64,
    pub(super) unset: Vec<Unset>,
}

impl Done {
    pub(super) fn count(self, summary: &mut Summary) {
        summary.files += 1;
        summary.bytes += self.bytes;
        summary.retries += self.retries;
        summary.resumed += self.resumed;
        summary.unset.extend(self.unset);
    }
}

/// Writes bytes from memory.
pub(super) async fn bytes(
    sftp: &Sftp,
    bytes: Vec<u8>,
    remote: &str,
    options: &Options,
) -> Result<(), Error> {
    let call = Call::new(sftp.clone(), options.clone(), false);
    let source = Source {
        path: remote.into(),
        size: bytes.len() as u64,
        content: Content::Memory(bytes.into()),
        stamp: Stamp::default(),
        settings: Settings::mode(0o644),
    };
    file(&call, &source, remote, false).await.map(drop)
}

/// How far a file has come, over all attempts.
pub(super) struct Work<'a> {
    meter: FileMeter<'a>,
    /// What is written: the final file itself, if it is written in place.
    pub(super) temp: RemoteTemp,
    /// Nothing can be there yet: the folder was made for this upload.
    pub(super) is_fresh: bool,
    pub(super) place: Place,
    /// Whether the temporary file may be there.
    begun: bool,
    /// The server has all bytes before this one.
    acknowledged: u64,
    resumed: u64,
    unset: Vec<Unset>,
}

impl Work<'_> {
    /// Begins anew on another machine. What was written on the old one is out of reach.
    fn leave(&mut self) {
        self.place = Place::default();
        self.begun = false;
        self.acknowledged = 0;
        self.resumed = 0;
        self.unset.clear();
    }
}

/// Copies one file, into a folder that was made a moment ago or another one.
pub(super) async fn file(
    call: &Call,
    source: &Source,
    remote: &str,
    is_fresh: bool,
) -> Result<Done, Error> {
    let in_place = call.options.replace == Replace::InPlace;
    let resume = call.options.resume;
    let written = match resume {
        _ if in_place => remote.to_owned(),
        true => path::beside(remote, &path::lasting_name(remote)),
        false => path::beside(remote, &path::fresh_name()),
    };
    let mut work = Work {
        meter: call.meter.file(&source.path, source.size),
        temp: RemoteTemp::new(&call.sftp, written, resume || in_place),
        is_fresh,
        place: Place::default(),
        begun: false,
        acknowledged: 0,
        resumed: 0,
        unset: Vec::new(),
    };
    let mut attempts = Attempts::new(call.options.attempts);
    loop {
        let error = match attempt(call, source, remote, &mut work).await {
            Ok(()) => break,
            Err(moved @ Error::Moved { .. }) if !call.is_tree => {
                attempts.once_more(moved, work.acknowledged).await?;
                call.forget_machine();
                work.leave();
                continue;
            }
            // What an earlier call has left is of another file.
            Err(Error::Mismatch { .. }) if work.resumed > 0 => {
                work.acknowledged = 0;
                work.resumed = 0;
                attempts.retries += 1;
                continue;
            }
            Err(error) => error,
        };
        if matches!(error, Error::Mismatch { .. }) && !in_place {
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
        bytes: work.acknowledged,
        retries: attempts.retries,
        resumed: work.resumed,
        unset: work.unset,
    })
}

/// Carries a file on with one session.
async fn attempt(
    call: &Call,
    source: &Source,
    remote: &str,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let session = call.session(remote).await?;
    let handle = open(call, &session, source, remote, work).await?;
    let written = async {
        transfer(call, &handle, source, remote, work).await?;
        let wanted = Settings {
            mode: source.settings.mode.filter(|_| !work.place.keeps_mode),
            owner: work.place.owner,
            modified: source.settings.modified.filter(|_| call.options.times),
        };
        let sync = async {
            match call.options.sync {
                true => handle.sync().await,
                false => Ok(()),
            }
        };
        let set = attributes::settle(&handle, work.temp.path(), &wanted);
        let (lacking, synced) = tokio::join!(set, sync);
        synced.map_err(|fault| call.sftp.at(fault, "write", remote))?;
        lacking.map_err(|fault| call.sftp.at(fault, "change", remote))
    };
    let mut lacking = match written.await {
        Ok(lacking) => lacking,
        Err(error) => return Err(explain(&session, work.temp.path(), error).await),
    };
    lacking.extend(work.place.lacking.iter().cloned());
    work.unset = attributes::lacking(call, call.sftp.target(), remote.as_ref(), lacking)?;
    let closed = handle.close().await;
    closed.map_err(|fault| call.sftp.at(fault, "write", remote))?;
    if call.options.verify || work.resumed > 0 {
        let content = source.content.clone();
        let size = work.acknowledged;
        let sum = verify::local(content, size, &source.path).await?;
        // A file that is longer there has another sum.
        let most = size.saturating_add(1);
        if !verify::remote_is(call, &session, work.temp.path(), &sum, most).await? {
            return Err(Error::Mismatch {
                target: call.sftp.target().clone(),
                path: remote.to_owned(),
            });
        }
    }
    if call.options.replace == Replace::InPlace {
        return Ok(());
    }
    if let Some(text) = work.place.link.take() {
        let moved = ops::move_in_steps(&session, work.temp.path(), remote, Some(text));
        return moved
            .await
            .map_err(|fault| call.sftp.at(fault, "rename to", remote));
    }
    call.sftp
        .move_over(&session, work.temp.path(), remote, call.options.replace)
        .await
}

/// Opens what is written, and finds out where to go on.
async fn open(
    call: &Call,
    session: &Arc<Session>,
    source: &Source,
    remote: &str,
    work: &mut Work<'_>,
) -> Result<Handle, Error> {
    let first = !std::mem::replace(&mut work.begun, true);
    work.temp.is_on(session);
    // It can be written to and opened again until all is done, and is no more open than in the end.
    let mode = source.settings.mode.unwrap_or(0o644) | 0o600;
    let at = |fault: Fault| call.sftp.at(fault, "write", remote);
    let mut handle = if first {
        place::open(call, session, remote, mode, work).await?
    } else {
        let opened = session.open_file(work.temp.path(), Mode::Continue(mode));
        opened.await.map_err(at)?
    };
    let in_place = call.options.replace == Replace::InPlace;
    if !first || (call.options.resume && !in_place) {
        let there = handle.stat().await.map_err(at)?.len();
        if first {
            work.acknowledged = there;
            work.resumed = there;
        }
        if there > source.size {
            // That is no part of this file. Opened anew, and not cut: some servers refuse FSETSTAT.
            let opened = session.open_file(work.temp.path(), Mode::Truncate(mode));
            handle = opened.await.map_err(at)?;
            work.acknowledged = 0;
            work.resumed = 0;
        }
        // Less was lost with the server's memory; more is written again.
        work.acknowledged = work.acknowledged.min(there);
    }
    work.meter.set(work.acknowledged);
    Ok(handle)
}

/// Sends what is missing, many requests at once.
async fn transfer(
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
    handle.write(at, &chunk).await?;
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
