//! Files from the server.

use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::attributes::{self, Lacking, Settings};
use super::error::Error;
use super::local::{self, Content, Temp, Writer, blocking};
use super::metadata::{FileType, Metadata};
use super::options::{Attempts, Call, Options, options};
use super::reads::{Reads, changed, is_same, within_limit};
use super::session::{Fault, Handle, Mode, Session};
use super::summary::{FileMeter, Summary, Unset};
use super::upload::Done;
use super::verify::Sum;
use super::{Sftp, path, tree_down, verify};

/// A download that is to be made: `.await` it. From [`Sftp::download`] and [`Sftp::download_dir`].
///
/// Each file is written under a temporary name beside the final one, and replaces what is there in
/// one step. If the download fails, or is dropped, the old file stays and the temporary one is
/// removed. It has the mode of the remote file, and the owner of the file that it replaces, where
/// this process may give files away (else see [`Summary::unset`]), except in a folder with the sticky
/// bit.
///
/// A file is read to its end, as `scp` does: those of `/proc` and `/sys` are longer or shorter than they
/// say. But of one that changes while it is copied, what is appended is not in the copy, and one that
/// becomes shorter is an [`Error::Changed`]. A file may have up to 64 MiB more than it says, so that a
/// server cannot send without end what it has called small: else [`Error::TooMuch`].
///
/// Of a folder, nothing is written outside `local`, whatever the server says. Symbolic links are
/// made last, and only those that stay inside the tree: relative, and with `..` only at their
/// beginning and not too many. Other links, devices, sockets, FIFOs, and names with control
/// characters or not in UTF-8 are left out and listed in [`Summary::skipped`]. Trees may be 100
/// folders deep and have a million names. The first file that fails ends the download, unless it is to
/// [`keep_going`](Self::keep_going); those before it stay.
///
/// ```no_run
/// # async fn example(sftp: ssh_pool::sftp::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// let summary = sftp.download("/var/backups/db.dump", "db.dump").verify(true).await?;
/// println!("{} bytes", summary.bytes);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is copied before it is awaited"]
#[derive(Clone)]
pub struct Download {
    sftp: Sftp,
    remote: PathBuf,
    local: PathBuf,
    tree: bool,
    options: Options,
}

options!(Download);

impl Download {
    pub(super) fn new(sftp: Sftp, remote: &Path, local: &Path, tree: bool) -> Self {
        Self {
            sftp,
            remote: remote.to_owned(),
            local: local.to_owned(),
            tree,
            options: Options::default(),
        }
    }

    async fn run(self) -> Result<Summary, Error> {
        let remote = path::remote(&self.remote)?;
        let call = Call::new(self.sftp, self.options, self.tree);
        if self.tree {
            return tree_down::copy(&call, &remote, &self.local).await;
        }
        // Opening a FIFO could hold up the server.
        let found = call.sftp.metadata(&remote).await?;
        is_file(&call, &remote, &found)?;
        call.meter.expect(found.len());
        let mut summary = Summary::default();
        let done = file(&call, &remote, &self.local, found.len()).await?;
        done.count(&mut summary);
        Ok(summary)
    }
}

impl IntoFuture for Download {
    type Output = Result<Summary, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Copies.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for the other side, [`Error::Local`] for this one,
    /// [`Error::WrongType`] if something else is there than a file or a folder, or in their place
    /// here, [`Error::Unset`] if it is [`strict`](Self::strict), [`Error::Changed`] if the file became shorter meanwhile, [`Error::Mismatch`] after a
    /// verification; [`Error::BadName`], [`Error::TooMuch`] and [`Error::Protocol`] for servers
    /// that are hostile or broken; [`Error::Timeout`] if the server does not answer,
    /// [`Error::Session`] and [`Error::Lost`] when there is no more session after all attempts, and
    /// [`Error::Moved`] when there is one with another machine only.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the file has its old content or, if the last step was under way, its new one. What
    /// is unfinished is removed.
    fn into_future(self) -> Self::IntoFuture {
        let host = self.sftp.host().clone();
        Box::pin(host.within(self.run()))
    }
}

/// A server that does not say what it is is taken at its word.
fn is_file(call: &Call, remote: &str, found: &Metadata) -> Result<(), Error> {
    if found.mode.is_none() || found.is_file() {
        return Ok(());
    }
    Err(Error::WrongType {
        place: call.sftp.target().clone(),
        path: remote.into(),
        found: found.file_type(),
        wanted: FileType::File,
    })
}

/// How far a file has come, over all attempts.
struct Work<'a> {
    meter: FileMeter<'a>,
    /// What the file was like when it was opened first.
    found: Option<Metadata>,
    /// Where it goes, and how far it is written.
    place: Option<(Temp, Writer)>,
    written: u64,
    resumed: u64,
    unset: Vec<Unset>,
}

/// Copies one file; `expected` is for the progress alone.
pub(super) async fn file(
    call: &Call,
    remote: &str,
    local: &Path,
    expected: u64,
) -> Result<Done, Error> {
    let free = local.to_owned();
    blocking(move || local::is_free(&free)).await?;
    let mut work = Work {
        meter: call.meter.file(Path::new(remote), expected),
        found: None,
        place: None,
        written: 0,
        resumed: 0,
        unset: Vec::new(),
    };
    let mut attempts = Attempts::new(call.options.attempts);
    loop {
        let error = match attempt(call, remote, local, &mut work).await {
            Ok(()) => break,
            Err(moved @ Error::Moved { .. }) if !call.is_tree => {
                attempts.once_more(moved, work.written).await?;
                call.forget_machine();
                work.found = None;
                work.restart().await?;
                continue;
            }
            // What an earlier call has left is of another file.
            Err(Error::Mismatch { .. }) if work.resumed > 0 => {
                work.restart().await?;
                attempts.retries += 1;
                continue;
            }
            Err(error) => error,
        };
        if let (Error::Mismatch { .. }, Some((temp, _))) = (&error, &mut work.place) {
            temp.discard();
        }
        attempts.again(error, work.written).await?;
    }
    Ok(Done {
        bytes: work.meter.done,
        retries: attempts.retries,
        resumed: work.resumed,
        unset: work.unset,
    })
}

impl Work<'_> {
    /// Keeps for the summary what the copy lacks.
    fn lacks(&mut self, call: &Call, local: &Path, lacking: Vec<Lacking>) -> Result<(), Error> {
        self.unset = attributes::lacking(call, &local::here(), local, lacking)?;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Error> {
        if let Some((temp, writer)) = self.place.take() {
            writer.finish(temp.path()).await?;
            temp.truncate()?;
        }
        self.written = 0;
        self.resumed = 0;
        Ok(())
    }
}

/// Where a file is written before it is ready.
fn aside(local: &Path, name: &str) -> PathBuf {
    local.with_file_name(name)
}

/// Carries a file on with one session.
async fn attempt(
    call: &Call,
    remote: &str,
    local: &Path,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let at = |fault: Fault| call.sftp.at(fault, "read", remote);
    let session = call.session(remote).await?;
    let handle = session.open_file(remote, Mode::Read).await.map_err(at)?;
    let found = handle.stat().await.map_err(at)?;
    is_file(call, remote, &found)?;
    let first = work.found.get_or_insert_with(|| found.clone());
    if !is_same(first, &found) {
        return Err(changed(call, remote));
    }
    let size = found.len();
    let settings = Settings {
        mode: found.mode.map(|mode| mode & 0o777),
        owner: None,
        modified: found.modified.filter(|_| call.options.times).map(i64::from),
    };
    let small = size <= u64::from(session.read_len) && !call.options.resume;
    if small {
        let bytes = match size {
            0 => collect(&call.sftp, &handle, remote).await?,
            _ => whole(call, &handle, remote, &found).await?,
        };
        close(handle).await;
        return keep(call, &session, bytes, settings, remote, local, work).await;
    }
    if work.place.is_none() {
        place(call, remote, local, size, work).await?;
    }
    transfer(call, &handle, remote, &found, work).await?;
    close(handle).await;
    let Some((temp, writer)) = work.place.take() else {
        return Ok(());
    };
    writer.finish(temp.path()).await?;
    let (sync, path) = (call.options.sync, local.to_owned());
    let (temp, lacking) = blocking(move || {
        let lacking = temp.finish(settings, &path, sync)?;
        Ok((temp, lacking))
    })
    .await?;
    work.lacks(call, local, lacking)?;
    if call.options.verify || work.resumed > 0 {
        let content = Content::File(temp.file.clone());
        let same = verified(call, &session, content, work.written, remote, temp.path()).await;
        if !matches!(same, Ok(true)) {
            // It may be continued, or begun again.
            let writer = Writer::new(temp.file.clone());
            work.place = Some((temp, writer));
            return same.and_then(|_| Err(mismatch(call, remote)));
        }
    }
    let local = local.to_owned();
    blocking(move || temp.commit(&local)).await
}

/// Closing what was only read says nothing.
async fn close(handle: Handle) {
    if handle.close().await.is_err() {
        tracing::debug!("a server does not close a file that was read");
    }
}

/// Makes the temporary file of a large file, or finds what an earlier call has left.
async fn place(
    call: &Call,
    remote: &str,
    local: &Path,
    size: u64,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let (temp, there) = if call.options.resume {
        let path = aside(local, &path::lasting_name(&local.to_string_lossy()));
        let (temp, there) = blocking(move || Temp::continued(path)).await?;
        if there > size {
            temp.truncate()?;
            (temp, 0)
        } else {
            (temp, there)
        }
    } else {
        let path = aside(local, &path::fresh_name());
        (blocking(move || Temp::create(path)).await?, 0)
    };
    tracing::trace!(remote, there, "a download begins");
    work.written = there;
    work.resumed = there;
    let writer = Writer::new(temp.file.clone());
    work.place = Some((temp, writer));
    Ok(())
}

/// Writes a small file in one go.
async fn keep(
    call: &Call,
    session: &Arc<Session>,
    bytes: Vec<u8>,
    settings: Settings,
    remote: &str,
    local: &Path,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let size = bytes.len() as u64;
    let path = aside(local, &path::fresh_name());
    let sync = call.options.sync;
    let final_path = local.to_owned();
    // Then it has its name only after another look.
    let pending = call.options.verify || call.options.strict;
    let (temp, lacking) = blocking(move || {
        let temp = Temp::create(path)?;
        temp.write(&bytes, 0)?;
        let lacking = temp.finish(settings, &final_path, sync)?;
        if pending {
            return Ok((Some(temp), lacking));
        }
        temp.commit(&final_path)?;
        Ok((None, lacking))
    })
    .await?;
    work.lacks(call, local, lacking)?;
    if let Some(temp) = temp {
        let content = Content::File(temp.file.clone());
        let verify = call.options.verify;
        if verify && !verified(call, session, content, size, remote, temp.path()).await? {
            return Err(mismatch(call, remote));
        }
        let final_path = local.to_owned();
        blocking(move || temp.commit(&final_path)).await?;
    }
    work.meter.set(size);
    Ok(())
}

async fn verified(
    call: &Call,
    session: &Arc<Session>,
    content: Content,
    size: u64,
    remote: &str,
    path: &Path,
) -> Result<bool, Error> {
    let sum = verify::local(content, size, path).await?;
    // What was appended meanwhile is not in the copy.
    verify::remote_is(call, session, remote, &sum, size).await
}

fn mismatch(call: &Call, remote: &str) -> Error {
    Error::Mismatch {
        target: call.sftp.target().clone(),
        path: remote.to_owned(),
    }
}

/// Fetches what is missing.
async fn transfer(
    call: &Call,
    handle: &Handle,
    remote: &str,
    found: &Metadata,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    work.meter.set(work.written);
    let mut reads = Reads::new(call, handle, remote, work.written, found);
    while let Some((at, bytes)) = reads.next().await? {
        let end = at + bytes.len() as u64;
        let open = match &work.place {
            Some((_, writer)) => writer.write(at, bytes).await,
            None => false,
        };
        if !open {
            // It says why.
            return match work.place.take() {
                Some((temp, writer)) => writer.finish(temp.path()).await,
                None => Ok(()),
            }
            .and_then(|()| Err(local::changed(Path::new(remote))));
        }
        work.written = end;
        work.meter.set(end);
    }
    Ok(())
}

/// All of a file that says that it is small.
async fn whole(
    call: &Call,
    handle: &Handle,
    remote: &str,
    found: &Metadata,
) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    let mut reads = Reads::new(call, handle, remote, 0, found);
    while let Some((_, bytes)) = reads.next().await? {
        if all.is_empty() {
            all = bytes;
        } else {
            all.extend(bytes);
        }
    }
    Ok(all)
}

/// The sum of the first `most` bytes of a remote file, which are read for it.
pub(super) async fn sum(
    call: &Call,
    handle: &Handle,
    remote: &str,
    most: u64,
) -> Result<Sum, Error> {
    let found = handle.stat().await;
    let mut found = found.map_err(|fault| call.sftp.at(fault, "read", remote))?;
    // No more is asked for.
    found.size = found.size.map(|size| size.min(most));
    let mut sum = Sha256::new();
    let mut reads = Reads::new(call, handle, remote, 0, &found);
    while let Some((at, bytes)) = reads.next().await? {
        let left = usize::try_from(most.saturating_sub(at)).unwrap_or(usize::MAX);
        sum.update(bytes.get(..left).unwrap_or(&bytes));
    }
    Ok(sum.finalize().into())
}

/// Everything up to the end, whatever the size is said to be, up to a limit.
pub(super) async fn collect(sftp: &Sftp, handle: &Handle, remote: &str) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    loop {
        let read = handle.read(all.len() as u64, handle.session().read_len);
        match read.await.map_err(|fault| sftp.at(fault, "read", remote))? {
            None => return Ok(all),
            Some(bytes) => all.extend(bytes),
        }
        within_limit(sftp, remote, all.len() as u64)?;
    }
}
