//! Folders from the server. What the server says is not trusted: nothing is written outside the
//! folder that was named.

use std::path::{Path, PathBuf};

use super::attributes::{self, Lacking};
use super::download;
use super::error::Error;
use super::local::{self, blocking};
use super::metadata::{DirEntry, FileType, Metadata};
use super::ops::ENTRIES;
use super::options::{Call, persistent};
use super::path::{self, Name};
use super::session::Fault;
use super::summary::{Attribute, SkipReason, Skipped, Summary, UnsetReason};
use super::tree_up::at_once;
use crate::printable;

/// Folders in each other. A path of more than 4,096 bytes is none, and a server can list a folder
/// inside itself for ever.
const DEEPEST: u64 = 100;
/// Names in all.
const MOST: u64 = 1_000_000;

/// Something of the tree.
struct DownloadItem {
    remote: String,
    local: PathBuf,
    found: Metadata,
    /// Folders between it and the root.
    depth: usize,
}

#[derive(Default)]
struct DownloadPlan {
    /// Parents before their children, without the root.
    dirs: Vec<DownloadItem>,
    files: Vec<DownloadItem>,
    links: Vec<DownloadItem>,
    skipped: Vec<Skipped>,
    names: u64,
    bytes: u64,
}

/// Copies a tree.
pub(super) async fn copy(call: &Call, remote: &str, local: &Path) -> Result<Summary, Error> {
    let root = persistent!(call, "stat", remote, session => session.stat(remote))?;
    let root = root.map_err(|fault| call.sftp.at(fault, "stat", remote))?;
    if !root.is_dir() {
        return Err(Error::WrongType {
            place: call.sftp.target().clone(),
            path: remote.into(),
            found: root.file_type(),
            wanted: FileType::Dir,
        });
    }
    let plan = plan(call, remote, local, root.clone()).await?;
    call.meter.expect(plan.bytes);
    let mut summary = Summary {
        skipped: plan.skipped,
        ..Summary::default()
    };
    // Dropped, the folders get their modes, whatever becomes of the copy.
    let made = make_dirs(call, local.to_owned(), root, plan.dirs).await?;
    summary.dirs = made.0.len() as u64;
    let copy = |item: DownloadItem| async move {
        let done = download::file(call, &item.remote, &item.local, item.found.len()).await;
        call.part(Path::new(&item.remote), done)
    };
    for done in at_once(call, plan.files, copy).await?.into_iter().flatten() {
        done.count(&mut summary);
    }
    // After all files: nothing is written through a link of the server's.
    let link = |item: DownloadItem| async move {
        let path = item.remote.clone();
        call.part(Path::new(&path), make_link(call, item, local).await)
    };
    for skipped in at_once(call, plan.links, link).await?.into_iter().flatten() {
        match skipped {
            None => summary.symlinks += 1,
            Some(skipped) => summary.skipped.push(skipped),
        }
    }
    for (path, lacking) in blocking(move || Ok(made.finish())).await? {
        let unset = attributes::lacking(call, &local::here(), &path, vec![lacking])?;
        summary.unset.extend(unset);
    }
    summary.failed = call.take_failed();
    Ok(summary)
}

/// Folders that were made, parents first, with the modes that they are to have in the end: until then
/// it must be possible to write to them.
struct Made(Vec<(PathBuf, u32)>);

impl Made {
    /// Sets the modes; those that this machine's file system refuses.
    fn finish(mut self) -> Vec<(PathBuf, Lacking)> {
        let mut refused = Vec::new();
        for (path, mode) in std::mem::take(&mut self.0).into_iter().rev() {
            if let Err(error) = local::set_mode(&path, mode) {
                let reason = UnsetReason::Refused(printable(error.to_string()));
                refused.push((path, (Attribute::Mode, reason)));
            }
        }
        refused
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (path, mode) in self.0.iter().rev() {
            if let Err(error) = local::set_mode(path, *mode) {
                tracing::debug!(%error, "a folder keeps another mode");
            }
        }
    }
}

/// Lists everything, a level of depth after the other.
async fn plan(
    call: &Call,
    remote: &str,
    local: &Path,
    root: Metadata,
) -> Result<DownloadPlan, Error> {
    let mut plan = DownloadPlan::default();
    let mut folders = vec![DownloadItem {
        remote: remote.to_owned(),
        local: local.to_owned(),
        found: root,
        depth: 0,
    }];
    let mut level = 0;
    while !folders.is_empty() {
        let too_much = |what, limit| Error::TooMuch {
            target: call.sftp.target().clone(),
            path: remote.to_owned(),
            what,
            limit,
        };
        if level > DEEPEST {
            return Err(too_much("folders in each other", DEEPEST));
        }
        let list = |folder: DownloadItem| async move {
            let listed = list(call, &folder.remote).await;
            if folder.depth == 0 {
                return listed.map(|entries| Some((folder, entries)));
            }
            let listed = call.part(Path::new(&folder.remote), listed)?;
            Ok(listed.map(|entries| (folder, entries)))
        };
        let mut below = Vec::new();
        for (folder, entries) in at_once(call, folders, list).await?.into_iter().flatten() {
            plan.names += entries.len() as u64;
            if plan.names > MOST {
                return Err(too_much("names", MOST));
            }
            for entry in entries {
                sort(call, &mut plan, &folder, entry, &mut below, local).await?;
            }
            if folder.depth > 0 {
                plan.dirs.push(folder);
            }
        }
        folders = below;
        level += 1;
    }
    Ok(plan)
}

async fn list(call: &Call, remote: &str) -> Result<Vec<DirEntry>, Error> {
    let listed = persistent!(call, "list", remote, session => session.list(remote, ENTRIES))?;
    let listed = listed.map_err(|fault| call.sftp.at(fault, "list", remote))?;
    call.sftp.checked(remote, listed)
}

/// Puts a name where it belongs. Impossible ones have been refused with the whole listing.
async fn sort(
    call: &Call,
    plan: &mut DownloadPlan,
    folder: &DownloadItem,
    entry: DirEntry,
    below: &mut Vec<DownloadItem>,
    root: &Path,
) -> Result<(), Error> {
    let local = folder.local.join(&entry.name);
    if path::judge(&entry.name) != Name::Good {
        plan.skipped.push(skipped(root, &local, SkipReason::Name));
        return Ok(());
    }
    let remote = path::join(&folder.remote, &entry.name);
    let mut found = entry.metadata;
    if found.mode.is_none() {
        // Some servers list names alone.
        let asked = persistent!(call, "stat", &*remote, session => session.lstat(&remote))?;
        let asked = asked.map_err(|fault| call.sftp.at(fault, "stat", &remote));
        match call.part(Path::new(&remote), asked)? {
            Some(asked) => found = asked,
            None => return Ok(()),
        }
    }
    let found_type = found.file_type();
    let item = DownloadItem {
        remote,
        local,
        found,
        depth: folder.depth + 1,
    };
    match found_type {
        FileType::Dir => below.push(item),
        FileType::File => {
            plan.bytes = plan.bytes.saturating_add(item.found.len());
            plan.files.push(item);
        }
        FileType::Symlink => plan.links.push(item),
        FileType::Other => {
            let skipped = skipped(root, &item.local, SkipReason::Special);
            plan.skipped.push(skipped);
        }
    }
    Ok(())
}

fn skipped(root: &Path, local: &Path, reason: SkipReason) -> Skipped {
    Skipped {
        path: local.strip_prefix(root).unwrap_or(local).to_owned(),
        reason,
    }
}

/// Makes the folders.
async fn make_dirs(
    call: &Call,
    local: PathBuf,
    root: Metadata,
    dirs: Vec<DownloadItem>,
) -> Result<Made, Error> {
    let mode = |found: &Metadata| found.mode.unwrap_or(0o755) & 0o777;
    let (made, failed) = blocking(move || {
        let mut made = Made(Vec::new());
        // The caller has named the root: there a link is as good as a folder.
        if !local.is_dir() && local::make_dir(&local)? {
            local::set_mode(&local, 0o700)?;
            made.0.push((local, mode(&root)));
        }
        let mut failed = Vec::new();
        for dir in dirs {
            match local::make_dir(&dir.local) {
                Ok(true) => made.0.push((dir.local, mode(&dir.found))),
                Ok(false) => {}
                Err(error) => failed.push((dir.remote, error)),
            }
        }
        Ok((made, failed))
    })
    .await?;
    for (path, error) in failed {
        call.part(Path::new(&path), Err::<(), _>(error))?;
    }
    Ok(made)
}

/// Makes a link, unless it may lead out of the tree.
async fn make_link(call: &Call, item: DownloadItem, root: &Path) -> Result<Option<Skipped>, Error> {
    let remote = &*item.remote;
    let target = persistent!(call, "read the link", remote, session => {
        session.read_link(remote)
    })?;
    let target = target.map_err(|fault| call.sftp.at(fault, "read the link", remote))?;
    if target.chars().any(|c| c.is_control() || c == '\u{fffd}') {
        return Ok(Some(skipped(root, &item.local, SkipReason::Name)));
    }
    // The link lies in a folder that is one level up.
    if !path::stays_inside(&target, item.depth - 1) {
        return Ok(Some(skipped(root, &item.local, SkipReason::LeadsOut)));
    }
    let path = item.local;
    blocking(move || {
        let aside = path.with_file_name(path::fresh_name());
        local::make_link(&target, &path, &aside)
    })
    .await?;
    Ok(None)
}
