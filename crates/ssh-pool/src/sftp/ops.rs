//! Single operations, named like those of `tokio::fs`.

use std::path::Path;
use std::sync::Arc;

use super::error::{Error, Reason};
use super::metadata::{DirEntry, FileType, Metadata};
use super::options::{Options, Replace};
use super::session::{Attributes, Fault, Mode, Session};
use super::{Sftp, download, links, path, upload};
use crate::printable;

/// More names than any folder has that is listed at once.
pub(super) const ENTRIES: usize = 1_000_000;
/// The most that `read` keeps in memory.
pub(super) const SMALL: u64 = 64 << 20;

/// What only looks is asked again, once, when the session ends meanwhile.
macro_rules! look {
    ($sftp:ident, $operation:literal, $path:ident, $session:ident => $request:expr) => {{
        let mut again = true;
        loop {
            let $session = $sftp.session($path).await?;
            match $request.await {
                Err(Fault::Lost(_)) if again => again = false,
                result => break result.map_err(|fault| $sftp.at(fault, $operation, $path)),
            }
        }
    }};
}

/// Single operations. They fail with [`Error::Refused`] when the server says no, with
/// [`Error::Lost`] when the session ends on the way (what only looks is asked once more before), and
/// with [`Error::Session`] when there is none.
///
/// # Cancel safety
///
/// Dropped while it waits, an operation that changes something may or may not have been carried out;
/// nothing stays open.
impl Sftp {
    /// What is known of a file. A symbolic link is followed.
    ///
    /// # Errors
    ///
    /// As for every operation: [`Error::Refused`], [`Error::Lost`], [`Error::Session`], and
    /// [`Error::InvalidPath`]. What is not there is [`Reason::NotFound`].
    pub async fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            look!(self, "stat", path, session => session.stat(path))
        };
        self.host().within(work).await
    }

    /// What is known of a file. A symbolic link is not followed.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata).
    pub async fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            look!(self, "stat", path, session => session.lstat(path))
        };
        self.host().within(work).await
    }

    /// Everything in a folder, in the server's order, without `.` and `..`.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`] for names that no file can have, and [`Error::TooMuch`] past a million
    /// names.
    pub async fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>, Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            let listed = look!(self, "list", path, session => session.list(path, ENTRIES))?;
            self.checked(path, listed)
        };
        self.host().within(work).await
    }

    /// A listing, if there are only names in it that files may have. `None`: it has too many.
    pub(super) fn checked(
        &self,
        path: &str,
        listed: Option<Vec<DirEntry>>,
    ) -> Result<Vec<DirEntry>, Error> {
        let entries = listed.ok_or_else(|| Error::TooMuch {
            target: self.target().clone(),
            path: path.to_owned(),
            what: "names",
            limit: ENTRIES as u64,
        })?;
        let mut seen = std::collections::HashSet::new();
        for entry in &entries {
            let what = match path::judge(&entry.name) {
                path::Name::Impossible(what) => what,
                // Two names that are not UTF-8 may look the same here.
                path::Name::Good if !seen.insert(&*entry.name) => "it lists it twice",
                _ => continue,
            };
            return Err(Error::BadName {
                target: self.target().clone(),
                folder: path.to_owned(),
                name: printable(&entry.name),
                what,
            });
        }
        Ok(entries)
    }

    /// Makes a folder, with the mode that the server gives it.
    ///
    /// # Errors
    ///
    /// [`Reason::Failure`] if there is something of that name.
    pub async fn create_dir(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            let session = self.session(path).await?;
            let made = session.mkdir(path, 0o777).await;
            made.map_err(|fault| self.at(fault, "make the folder", path))
        };
        self.host().within(work).await
    }

    /// Removes a file or a symbolic link.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata).
    pub async fn remove_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            let session = self.session(path).await?;
            let removed = session.remove(path).await;
            removed.map_err(|fault| self.at(fault, "remove", path))
        };
        self.host().within(work).await
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    ///
    /// [`Reason::Failure`] if it is not empty.
    pub async fn remove_dir(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            let session = self.session(path).await?;
            let removed = session.rmdir(path).await;
            removed.map_err(|fault| self.at(fault, "remove the folder", path))
        };
        self.host().within(work).await
    }

    /// Moves a file or folder within a file system. A file that is there is replaced in one step
    /// where the server can do that (`posix-rename@openssh.com`). ProFTPD follows symbolic links here,
    /// and moves what they lead to.
    ///
    /// # Errors
    ///
    /// [`Error::NotAtomic`] where it cannot, and something is there.
    pub async fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
        let work = async {
            let (from, to) = (path::remote(from.as_ref())?, path::remote(to.as_ref())?);
            let session = self.session(&from).await?;
            self.move_over(&session, &from, &to, Replace::Atomic).await
        };
        self.host().within(work).await
    }

    /// Moves, and says why it cannot replace.
    pub(super) async fn move_over(
        &self,
        session: &Arc<Session>,
        from: &str,
        to: &str,
        replace: Replace,
    ) -> Result<(), Error> {
        let fault = match session.rename(from, to).await {
            Ok(()) => return Ok(()),
            Err(fault @ Fault::Refused(..)) => fault,
            Err(fault) => return Err(self.at(fault, "rename to", to)),
        };
        // There is no code for what is there already.
        let (moved, there) = tokio::join!(session.lstat(from), session.lstat(to));
        let there = match there {
            Err(Fault::Refused(..)) => return Err(self.at(fault, "rename to", to)),
            there => there.map_err(|fault| self.at(fault, "rename to", to))?,
        };
        let wanted = moved.map_or(FileType::File, |moved| moved.file_type());
        if there.is_dir() && wanted != FileType::Dir {
            return Err(Error::WrongType {
                place: self.target().clone(),
                path: to.into(),
                found: FileType::Dir,
                wanted,
            });
        }
        let in_the_way = match session.posix_rename {
            true => fault.is(Reason::Unsupported),
            false => fault.is(Reason::Failure) || fault.is(Reason::Unsupported),
        };
        if !in_the_way {
            return Err(self.at(fault, "rename to", to));
        }
        if replace != Replace::Aside {
            return Err(Error::NotAtomic {
                target: self.target().clone(),
                path: to.to_owned(),
            });
        }
        let link = match there.is_symlink() {
            true => session.read_link(to).await.ok(),
            false => None,
        };
        let moved = move_in_steps(session, from, to, link).await;
        moved.map_err(|fault| self.at(fault, "rename to", to))
    }

    /// Makes a symbolic link at `link` that says `target`.
    ///
    /// # Errors
    ///
    /// [`Reason::Failure`] if there is something at `link`.
    pub async fn symlink(
        &self,
        target: impl AsRef<Path>,
        link: impl AsRef<Path>,
    ) -> Result<(), Error> {
        let work = async {
            let (to, link) = (path::remote(target.as_ref())?, path::remote(link.as_ref())?);
            let session = self.session(&link).await?;
            let at = |fault| self.at(fault, "make the link", &link);
            links::learn_order(self, &session, &link)
                .await
                .map_err(at)?;
            session.symlink(&to, &link).await.map_err(at)
        };
        self.host().within(work).await
    }

    /// What a symbolic link says. ProFTPD puts its folder before a relative text.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata).
    pub async fn read_link(&self, path: impl AsRef<Path>) -> Result<String, Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            look!(self, "read the link", path, session => session.read_link(path))
        };
        self.host().within(work).await
    }

    /// Sets the permission bits, such as `0o644`. A symbolic link is followed.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata).
    pub async fn set_permissions(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            let session = self.session(path).await?;
            let mode = Attributes {
                mode: Some(mode & 0o7777),
                ..Attributes::default()
            };
            let set = session.set(path, &mode).await;
            set.map_err(|fault| self.at(fault, "change", path))
        };
        self.host().within(work).await
    }

    /// The absolute path, without links and dots. `"."` is the folder that relative paths start
    /// from.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata).
    pub async fn canonicalize(&self, path: impl AsRef<Path>) -> Result<String, Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            look!(self, "find", path, session => session.real_path(path))
        };
        self.host().within(work).await
    }

    /// All of a small file, up to 64 MiB. For larger ones there is [`download`](Self::download).
    ///
    /// What it has read is the caller's memory from the beginning, and not counted in
    /// [`Limits::buffered_bytes`](crate::Limits::buffered_bytes): many calls at once may need 64 MiB
    /// each.
    ///
    /// # Errors
    ///
    /// [`Error::TooMuch`] for a larger file.
    pub async fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let work = async {
            let path = &*path::remote(path.as_ref())?;
            let mut again = true;
            loop {
                let session = self.session(path).await?;
                let opened = session.open_file(path, Mode::Read).await;
                let read = match opened.map_err(|fault| self.at(fault, "open", path)) {
                    Ok(handle) => download::collect(self, &handle, path).await,
                    Err(error) => Err(error),
                };
                match read {
                    Err(Error::Lost { .. }) if again => again = false,
                    read => return read,
                }
            }
        };
        self.host().within(work).await
    }

    /// Writes all of a file, and replaces one that is there in one step, as
    /// [`upload`](Self::upload) does. The mode is 0644. It does not say whether the owner of the old
    /// file could be kept; an upload does.
    ///
    /// # Errors
    ///
    /// Those of an upload.
    pub async fn write(
        &self,
        path: impl AsRef<Path>,
        contents: impl Into<Vec<u8>>,
    ) -> Result<(), Error> {
        let work = async {
            let path = path::remote_file(path.as_ref())?;
            let contents = contents.into();
            upload::bytes(self, contents, &path, &Options::default()).await
        };
        self.host().within(work).await
    }
}

/// Moves the old file away, the new one there, and removes the old one; if the new one cannot be
/// moved, the old one gets its name again. An old link, of which `link` is the text, is removed and
/// made again: servers may move what it leads to. In a task of its own: half of it is worse than all
/// or nothing.
pub(super) async fn move_in_steps(
    session: &Arc<Session>,
    from: &str,
    to: &str,
    link: Option<String>,
) -> Result<(), Fault> {
    let aside = path::beside(to, &path::fresh_name());
    let (session, from, to) = (session.clone(), from.to_owned(), to.to_owned());
    let work = session.runtime.clone().spawn(async move {
        match &link {
            Some(_) => session.remove(&to).await?,
            None => session.rename(&to, &aside).await?,
        }
        let moved = session.rename(&from, &to).await;
        let after = match (&moved, &link) {
            (Ok(()), None) => session.remove(&aside).await,
            (Ok(()), Some(_)) => Ok(()),
            (Err(_), None) => session.rename(&aside, &to).await,
            (Err(_), Some(text)) => session.symlink(text, &to).await,
        };
        if after.is_err() {
            tracing::warn!(path = to, aside, "a file that was replaced stays aside");
        }
        moved
    });
    // The runtime is shutting down.
    work.await.unwrap_or(Err(Fault::Lost(None)))
}
