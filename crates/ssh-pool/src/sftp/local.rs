//! This machine's side. What blocks runs on tokio's threads for that.

use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::attributes::{Lacking, Settings};
use super::error::Error;
use super::metadata::FileType;
use super::summary::{Attribute, UnsetReason};
use crate::printable;

/// What a file of `/proc` or `/sys` seldom exceeds.
const PAGE: usize = 4096;
/// Chunks that wait between the disk and the network.
const AHEAD: usize = 4;

/// The name of this side in errors.
pub(super) fn here() -> Arc<str> {
    "this machine".into()
}

/// Runs what blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is shutting down.
        Err(error) => Err(failed(
            "work on",
            Path::new("files"),
            io::Error::other(error),
        )),
    }
}

pub(super) fn failed(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Local {
        operation,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn wrong_type(path: &Path, found: FileType, wanted: FileType) -> Error {
    Error::WrongType {
        place: here(),
        path: path.to_owned(),
        found,
        wanted,
    }
}

pub(super) fn changed(path: &Path) -> Error {
    Error::Changed {
        place: here(),
        path: path.to_owned(),
    }
}

/// What is uploaded.
pub(super) struct Source {
    /// For errors and progress.
    pub(super) path: PathBuf,
    pub(super) content: Content,
    /// What it says of itself; of bytes in memory it is right.
    pub(super) size: u64,
    pub(super) stamp: Stamp,
    pub(super) settings: Settings,
}

/// By which a file that changes is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

#[derive(Clone)]
pub(super) enum Content {
    Memory(Arc<[u8]>),
    File(Arc<File>),
}

impl Source {
    /// Opens a regular file; what is small is read at once, for that saves a thread for each file.
    pub(super) async fn open(path: &Path, small: usize) -> Result<Self, Error> {
        let path = path.to_owned();
        blocking(move || {
            // Opening a FIFO would wait for its other end.
            let found = fs::metadata(&path).map_err(|e| failed("open", &path, e))?;
            if !found.is_file() {
                return Err(wrong_type(&path, found.file_type().into(), FileType::File));
            }
            let file = File::open(&path).map_err(|e| failed("open", &path, e))?;
            let found = file.metadata().map_err(|e| failed("stat", &path, e))?;
            let stamp = Stamp::of(&found);
            let (content, size) = match whole(&file, stamp, small, &path)? {
                Some(bytes) => (Content::Memory(bytes.clone()), bytes.len() as u64),
                None => (Content::File(Arc::new(file)), stamp.size),
            };
            Ok(Self {
                content,
                size,
                stamp,
                settings: Settings {
                    modified: Some(found.mtime()),
                    ..Settings::mode(found.mode() & 0o777)
                },
                path,
            })
        })
        .await
    }

    /// The content from an offset, in chunks.
    pub(super) fn chunks(&self, from: u64, chunk: usize) -> Chunks {
        match &self.content {
            Content::Memory(bytes) => Chunks::Memory {
                bytes: bytes.clone(),
                at: usize::try_from(from).unwrap_or(usize::MAX),
                chunk,
            },
            Content::File(file) => {
                let (sender, receiver) = mpsc::channel(AHEAD);
                let (file, path, stamp) = (file.clone(), self.path.clone(), self.stamp);
                tokio::task::spawn_blocking(move || {
                    let mut at = from;
                    loop {
                        let read = read_at(&file, stamp, at, chunk, &path);
                        let count = read.as_ref().map_or(0, Vec::len);
                        at += count as u64;
                        let end = count == 0 && read.is_ok();
                        // It has no receiver: the transfer was dropped, or has failed.
                        if end || sender.blocking_send(read).is_err() || count < chunk {
                            return;
                        }
                    }
                });
                Chunks::File(receiver)
            }
        }
    }
}

/// All of a file, if that is not more than `small`.
fn whole(file: &File, stamp: Stamp, small: usize, path: &Path) -> Result<Option<Arc<[u8]>>, Error> {
    let size = usize::try_from(stamp.size).unwrap_or(usize::MAX);
    if size > small {
        return Ok(None);
    }
    // Most files are as long as they say. One byte more shows that.
    for most in [(size + 1).max(PAGE), usize::MAX] {
        let most = most.min(small + 1);
        let bytes = read_at(file, stamp, 0, most, path)?;
        if bytes.len() < most {
            return Ok(Some(bytes.into()));
        }
    }
    Ok(None)
}

/// Reads up to `most` bytes; fewer are the end. The size of a file is a hint: many of `/proc` have
/// none, those of `/sys` have a page. But of a file that changes while it is read, what is appended is
/// left out, and what is missing is an error.
fn read_at(file: &File, stamp: Stamp, at: u64, most: usize, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; most];
    let mut count = 0;
    while let Some(rest) = bytes.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path, error)),
        }
    }
    let left = usize::try_from(stamp.size.saturating_sub(at)).unwrap_or(usize::MAX);
    let expected = left.min(most);
    if count != expected {
        let now = file.metadata().map_err(|e| failed("stat", path, e))?;
        match Stamp::of(&now) == stamp {
            true => {}
            false if count < expected => return Err(changed(path)),
            false => count = expected,
        }
    }
    bytes.truncate(count);
    Ok(bytes)
}

pub(super) enum Chunks {
    Memory {
        bytes: Arc<[u8]>,
        at: usize,
        chunk: usize,
    },
    File(mpsc::Receiver<Result<Vec<u8>, Error>>),
}

impl Chunks {
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        match self {
            Self::File(receiver) => receiver.recv().await,
            Self::Memory { bytes, at, chunk } => {
                let rest = bytes.get(*at..).unwrap_or_default();
                let next = rest.get(..*chunk).unwrap_or(rest);
                *at += next.len();
                (!next.is_empty()).then(|| Ok(next.to_vec()))
            }
        }
    }
}

/// A file that is not ready yet. Dropped, it is removed, unless it is to be kept.
pub(super) struct Temp {
    path: PathBuf,
    pub(super) file: Arc<File>,
    keep: bool,
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "an unfinished file stays behind");
        }
    }
}

impl Temp {
    /// A new file for this process alone to read.
    pub(super) fn create(path: PathBuf) -> Result<Self, Error> {
        Self::open(path, fs::OpenOptions::new().create_new(true), false)
    }

    /// A file that may be there already; and its size.
    pub(super) fn continued(path: PathBuf) -> Result<(Self, u64), Error> {
        // What is no regular file is not ours: a link must not be followed.
        if let Ok(found) = fs::symlink_metadata(&path)
            && !found.is_file()
        {
            return Err(wrong_type(&path, found.file_type().into(), FileType::File));
        }
        let temp = Self::open(path, fs::OpenOptions::new().create(true), true)?;
        let found = temp.file.metadata();
        let size = found.map_err(|e| failed("stat", &temp.path, e))?.len();
        Ok((temp, size))
    }

    fn open(path: PathBuf, options: &mut fs::OpenOptions, keep: bool) -> Result<Self, Error> {
        let opened = options.read(true).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|e| failed("make", &path, e))?;
        Ok(Self {
            path,
            file: Arc::new(file),
            keep,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|e| failed("write", &self.path, e))
    }

    pub(super) fn truncate(&self) -> Result<(), Error> {
        let cut = self.file.set_len(0);
        cut.map_err(|e| failed("write", &self.path, e))
    }

    /// Removes it when dropped, whatever was said before.
    pub(super) fn discard(&mut self) {
        self.keep = false;
    }

    /// All is written: owner, mode, time and disk. `path` is where it is to be; what the file system
    /// does not let us set is given back.
    pub(super) fn finish(
        &self,
        settings: Settings,
        path: &Path,
        sync: bool,
    ) -> Result<Vec<Lacking>, Error> {
        let mut lacking = Vec::new();
        let refused = |error: io::Error| UnsetReason::Refused(printable(error.to_string()));
        if let Some(reason) = self.own(path) {
            lacking.push((Attribute::Owner, reason));
        }
        if let Some(mode) = settings.mode
            && let Err(error) = self.file.set_permissions(Permissions::from_mode(mode))
        {
            lacking.push((Attribute::Mode, refused(error)));
        }
        if let Some(seconds) = settings.modified {
            let since = Duration::from_secs(seconds.try_into().unwrap_or_default());
            let time = SystemTime::UNIX_EPOCH + since;
            let times = FileTimes::new().set_modified(time).set_accessed(time);
            if let Err(error) = self.file.set_times(times) {
                lacking.push((Attribute::Modified, refused(error)));
            }
        }
        if sync {
            let synced = self.file.sync_all();
            synced.map_err(|e| failed("write", &self.path, e))?;
        }
        Ok(lacking)
    }

    /// Gives it to the owner of the file that it replaces, or at least to the group. The reason, if
    /// another user owns it then.
    fn own(&self, path: &Path) -> Option<UnsetReason> {
        let old = fs::symlink_metadata(path).ok()?;
        let new = self.file.metadata().ok()?;
        if !old.is_file() || (old.uid(), old.gid()) == (new.uid(), new.gid()) {
            return None;
        }
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = fs::metadata(folder.unwrap_or(Path::new("."))).ok()?;
        if folder.mode() & 0o1000 != 0 {
            return (old.uid() != new.uid()).then_some(UnsetReason::SharedFolder);
        }
        let error = fchown(&*self.file, Some(old.uid()), Some(old.gid())).err()?;
        // That of a group that we are in.
        fchown(&*self.file, None, Some(old.gid())).ok();
        Some(UnsetReason::Refused(printable(error.to_string())))
    }

    /// Gives it its name.
    pub(super) fn commit(mut self, path: &Path) -> Result<(), Error> {
        if let Err(error) = fs::rename(&self.path, path) {
            return Err(failed("replace", path, error));
        }
        self.keep = true;
        Ok(())
    }
}

/// Writes to a file in order, on a thread of its own.
pub(super) struct Writer {
    chunks: mpsc::Sender<(u64, Vec<u8>)>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    pub(super) fn new(file: Arc<File>) -> Self {
        let (chunks, mut receiver) = mpsc::channel::<(u64, Vec<u8>)>(AHEAD);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some((at, bytes)) = receiver.blocking_recv() {
                file.write_all_at(&bytes, at)?;
            }
            Ok(())
        });
        Self { chunks, thread }
    }

    /// False when the thread has failed: [`finish`](Self::finish) says why.
    pub(super) async fn write(&self, at: u64, bytes: Vec<u8>) -> bool {
        self.chunks.send((at, bytes)).await.is_ok()
    }

    /// Waits until everything is written.
    pub(super) async fn finish(self, path: &Path) -> Result<(), Error> {
        drop(self.chunks);
        let written = match self.thread.await {
            Ok(result) => result,
            Err(error) => Err(io::Error::other(error)),
        };
        written.map_err(|e| failed("write", path, e))
    }
}

/// Makes a folder, or finds one. A link in its place is not followed. True if it was made.
pub(super) fn make_dir(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(false),
        Ok(found) => Err(wrong_type(path, found.file_type().into(), FileType::Dir)),
        Err(_) => {
            let made = fs::create_dir(path);
            made.map_err(|e| failed("make the folder", path, e))?;
            Ok(true)
        }
    }
}

/// A file may be put here: a folder would be in the way, and a name may be too long. Found out before
/// anything is read.
pub(super) fn is_free(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() || found.is_symlink() => Ok(()),
        Ok(found) => Err(wrong_type(path, found.file_type().into(), FileType::File)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("write", path, error)),
    }
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let set = fs::set_permissions(path, Permissions::from_mode(mode));
    set.map_err(|e| failed("change", path, e))
}

/// Makes a symbolic link in one step, in the place of whatever was there.
pub(super) fn make_link(target: &str, path: &Path, aside: &Path) -> Result<(), Error> {
    let made = std::os::unix::fs::symlink(target, aside);
    made.map_err(|e| failed("make the link", path, e))?;
    fs::rename(aside, path).map_err(|error| {
        // It was made a moment ago, and has been removed since.
        fs::remove_file(aside).ok();
        failed("make the link", path, error)
    })
}
