//! What a transfer says of itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Error;

/// How far a transfer is. From the call-back of [`Upload::progress`](super::Upload::progress) and
/// [`Download::progress`](super::Download::progress).
///
/// ```
/// use ssh_pool::sftp::Progress;
///
/// fn line(progress: &Progress<'_>) -> String {
///     format!("{}: {} of {}", progress.file.display(), progress.bytes, progress.total)
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The file that has advanced: its path at the source.
    pub file: &'a Path,
    /// Bytes of this file that have arrived.
    pub file_bytes: u64,
    /// Bytes that it has in all, by what it says of itself: not less than have arrived.
    pub file_total: u64,
    /// Bytes of the whole transfer that have arrived.
    pub bytes: u64,
    /// Bytes that it has in all.
    pub total: u64,
}

/// What a transfer has done.
///
/// ```no_run
/// # async fn example(sftp: ssh_pool::sftp::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// let summary = sftp.upload_dir("site", "/srv/www").await?;
/// for skipped in &summary.skipped {
///     println!("left out: {}, {:?}", skipped.path.display(), skipped.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Files copied.
    pub files: u64,
    /// Folders made.
    pub dirs: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Bytes of all files, however they came there.
    pub bytes: u64,
    /// How often a file had to be continued or begun again, after the session had ended.
    pub retries: u64,
    /// Bytes that an earlier call had left and that were not copied again.
    pub resumed: u64,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
    /// What was copied, but for its mode, its owner or its time. See
    /// [`Upload::strict`](super::Upload::strict).
    pub unset: Vec<Unset>,
    /// What could not be copied. Empty, unless the copy was to
    /// [keep going](super::Upload::keep_going).
    pub failed: Vec<Failed>,
}

/// What belongs to a file beside its content.
///
/// ```
/// use ssh_pool::sftp::{Attribute, Unset};
///
/// fn is_about_times(unset: &Unset) -> bool {
///     unset.attribute == Attribute::Modified
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attribute {
    /// The permission bits.
    Mode,
    /// The user and the group that it belongs to.
    Owner,
    /// The time of the last change.
    Modified,
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Modified => "time of the last change",
        })
    }
}

/// Something of a copy that could not be set; its content is complete.
///
/// ```
/// use ssh_pool::sftp::Unset;
///
/// fn line(unset: &Unset) -> String {
///     format!("{}: no {}: {}", unset.path.display(), unset.attribute, unset.reason)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unset {
    /// The path of the copy.
    pub path: PathBuf,
    /// What could not be set.
    pub attribute: Attribute,
    /// Why not.
    pub reason: UnsetReason,
}

/// Why something of a copy could not be set.
///
/// ```
/// use ssh_pool::sftp::{Unset, UnsetReason};
///
/// fn is_refused(unset: &Unset) -> bool {
///     matches!(unset.reason, UnsetReason::Refused(_))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnsetReason {
    /// The other side refuses it; its words, escaped.
    Refused(String),
    /// A time before 1970 or after 2106-02-07: SFTP version 3 has 32 bits for it
    /// (draft-ietf-secsh-filexfer-02, section 5).
    OutOfRange,
    /// The old file belongs to another user, and its folder has the sticky bit, as `/tmp` has:
    /// there, a file may have been put in the way in order to get the new content.
    SharedFolder,
}

impl fmt::Display for UnsetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => f.write_str(text),
            Self::OutOfRange => f.write_str("SFTP has no times before 1970 or after 2106"),
            Self::SharedFolder => {
                f.write_str("it is that of another user, in a folder with the sticky bit")
            }
        }
    }
}

/// Something of a folder that could not be copied. Two are equal if path and text of the error are.
///
/// ```
/// use ssh_pool::sftp::Failed;
///
/// fn line(failed: &Failed) -> String {
///     format!("{}: {}", failed.path.display(), failed.error)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failed {
    /// Its path at the source. Of a folder nothing below it was copied.
    pub path: PathBuf,
    /// Why not.
    pub error: Arc<Error>,
}

impl PartialEq for Failed {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.error.to_string() == other.error.to_string()
    }
}

impl Eq for Failed {}

/// Something that was left out.
///
/// ```
/// use ssh_pool::sftp::{SkipReason, Skipped, Summary};
///
/// /// Links are expected there; what else was left out is not.
/// fn unexpected(summary: &Summary) -> impl Iterator<Item = &Skipped> {
///     let skipped = summary.skipped.iter();
///     skipped.filter(|skipped| !matches!(skipped.reason, SkipReason::LeadsOut))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Its path, below the folder that was copied. Of a name that is not UTF-8 some characters are
    /// U+FFFD.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

/// Why something was left out.
///
/// ```
/// use ssh_pool::sftp::{SkipReason, Skipped};
///
/// fn is_link(skipped: &Skipped) -> bool {
///     matches!(skipped.reason, SkipReason::LeadsOut)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It is a device, socket or FIFO.
    Special,
    /// It is a symbolic link that may lead out of the tree: an absolute one, or one with `..` that
    /// go too far up, or come after a name.
    LeadsOut,
    /// Its name holds control characters, or is not UTF-8.
    Name,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Special => "a device, socket or FIFO",
            Self::LeadsOut => "a link that may lead out of the tree",
            Self::Name => "a name with control characters, or not in UTF-8",
        })
    }
}

pub(super) type Callback = Arc<dyn Fn(&Progress<'_>) + Send + Sync>;

/// Counts what a transfer has done, over all its files.
pub(super) struct Meter {
    callback: Option<Callback>,
    bytes: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    pub(super) fn new(callback: Option<Callback>) -> Self {
        Self {
            callback,
            bytes: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The part of one file.
    pub(super) fn file<'a>(&'a self, file: &'a Path, total: u64) -> FileMeter<'a> {
        FileMeter {
            meter: self,
            file,
            done: 0,
            total,
        }
    }
}

pub(super) struct FileMeter<'a> {
    meter: &'a Meter,
    file: &'a Path,
    pub(super) done: u64,
    total: u64,
}

impl FileMeter<'_> {
    /// The bytes that have arrived in all: less than before, if a file is begun again.
    pub(super) fn set(&mut self, done: u64) {
        let meter = self.meter;
        let grown = done.wrapping_sub(self.done);
        // Wrapping on purpose: it may be less.
        let bytes = meter.bytes.fetch_add(grown, Ordering::Relaxed);
        self.done = done;
        // Its size was a hint.
        let more = done.saturating_sub(self.total);
        self.total += more;
        meter.total.fetch_add(more, Ordering::Relaxed);
        if let Some(callback) = &meter.callback {
            callback(&Progress {
                file: self.file,
                file_bytes: done,
                file_total: self.total,
                bytes: bytes.wrapping_add(grown),
                total: meter.total.load(Ordering::Relaxed),
            });
        }
    }
}
