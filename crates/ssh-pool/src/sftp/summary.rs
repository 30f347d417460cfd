//! What a transfer says of itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a transfer is. From the call-back of [`Upload::progress`](super::Upload::progress) and
/// [`Download::progress`](super::Download::progress).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The file that has advanced: its path at the source.
    pub file: &'a Path,
    /// Bytes of this file that have arrived.
    pub file_bytes: u64,
    /// Bytes that it has in all.
    pub file_total: u64,
    /// Bytes of the whole transfer that have arrived.
    pub bytes: u64,
    /// Bytes that it has in all.
    pub total: u64,
}

/// What a transfer has done.
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
}

/// Something that was left out.
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
    /// So many bytes have arrived in all: less than before, if a file is begun again.
    pub(super) fn set(&mut self, done: u64) {
        let meter = self.meter;
        let grown = done.wrapping_sub(self.done);
        // Wrapping on purpose: it may be less.
        let bytes = meter.bytes.fetch_add(grown, Ordering::Relaxed);
        self.done = done;
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
