//! What is known of a file.

use std::fmt;
use std::time::{Duration, SystemTime};

/// What a name stands for.
///
/// ```
/// use ssh_pool::sftp::{DirEntry, FileType};
///
/// fn is_link(entry: &DirEntry) -> bool {
///     entry.metadata().file_type() == FileType::Symlink
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, socket or FIFO; or the server does not say.
    Other,
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "regular file",
            Self::Dir => "folder",
            Self::Symlink => "symbolic link",
            Self::Other => "special file",
        })
    }
}

impl From<std::fs::FileType> for FileType {
    fn from(found: std::fs::FileType) -> Self {
        if found.is_file() {
            Self::File
        } else if found.is_dir() {
            Self::Dir
        } else if found.is_symlink() {
            Self::Symlink
        } else {
            Self::Other
        }
    }
}

/// What a server says about a file (draft-ietf-secsh-filexfer-02, section 5). All of it is
/// optional there.
///
/// ```
/// use ssh_pool::sftp::Metadata;
///
/// fn is_empty_file(metadata: &Metadata) -> bool {
///     metadata.is_file() && metadata.len() == 0
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) modified: Option<u32>,
}

impl Metadata {
    /// The same of a link.
    pub(super) fn into_symlink(mut self) -> Self {
        let mode = self.mode.unwrap_or(0o777);
        self.mode = Some((mode & !0o170_000) | 0o120_000);
        self
    }

    /// What it is; [`FileType::Other`] if the server does not say.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        // S_IFMT of POSIX, which the draft takes over.
        match self.mode.unwrap_or_default() & 0o170_000 {
            0o100_000 => FileType::File,
            0o040_000 => FileType::Dir,
            0o120_000 => FileType::Symlink,
            _ => FileType::Other,
        }
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Dir
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::File
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.file_type() == FileType::Symlink
    }

    /// Its size in bytes; 0 if the server does not say.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.size.unwrap_or_default()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The permission bits, such as `0o644`, with setuid, setgid and sticky.
    #[must_use]
    pub fn permissions(&self) -> Option<u32> {
        self.mode.map(|mode| mode & 0o7777)
    }

    /// When it was last written to, in whole seconds.
    #[must_use]
    pub fn modified(&self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(self.modified?.into());
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    }

    /// The number of the user it belongs to.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.owner.map(|(uid, _)| uid)
    }

    /// The number of the group it belongs to.
    #[must_use]
    pub fn gid(&self) -> Option<u32> {
        self.owner.map(|(_, gid)| gid)
    }
}

/// One name in a folder.
///
/// ```
/// use ssh_pool::sftp::DirEntry;
///
/// fn line(entry: &DirEntry) -> String {
///     format!("{:>12} {}", entry.metadata().len(), entry.file_name())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    pub(super) name: String,
    pub(super) metadata: Metadata,
}

impl DirEntry {
    /// The name. Bytes that are not UTF-8 are U+FFFD, and such a file cannot be opened. It may hold
    /// control characters: escape it before it is shown.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.name
    }

    /// What the server says about it. A symbolic link is not followed.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}
