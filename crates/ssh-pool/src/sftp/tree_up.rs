//! Folders to the server.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::error::Error;
use super::local::{self, Source, blocking};
use super::metadata::FileType;
use super::options::{Call, persistent};
use super::path::{self, Name};
use super::session::{Attributes, Fault};
use super::summary::{Attribute, Failed, SkipReason, Skipped, Summary, Unset, UnsetReason};
use super::{attributes, links, upload};

/// What is in a local folder, parents before their children.
#[derive(Default)]
struct UploadPlan {
    root: PathBuf,
    keep_going: bool,
    /// Each level of depth for itself: a folder can be made when the one above it is there.
    levels: Vec<Vec<Dir>>,
    files: Vec<UploadItem>,
    links: Vec<(UploadItem, String)>,
    skipped: Vec<Skipped>,
    failed: Vec<Failed>,
    bytes: u64,
}

struct Dir {
    local: PathBuf,
    remote: String,
    mode: u32,
}

struct UploadItem {
    local: PathBuf,
    remote: String,
}

/// Copies a tree.
pub(super) async fn copy(call: &Call, local: &Path, remote: &str) -> Result<Summary, Error> {
    let plan = {
        let (local, remote) = (local.to_owned(), remote.to_owned());
        let keep_going = call.options.keep_going;
        blocking(move || plan(&local, &remote, keep_going)).await?
    };
    call.meter.expect(plan.bytes);
    let mut summary = Summary {
        skipped: plan.skipped,
        failed: plan.failed,
        ..Summary::default()
    };
    let mut folders = Folders::default();
    let copied = async {
        for (depth, level) in plan.levels.into_iter().enumerate() {
            make_dirs(call, level, depth == 0, &mut folders).await?;
        }
        copy_files(call, plan.files, &folders, &mut summary).await?;
        let link = |(item, target): (UploadItem, String)| async move {
            let made = links::make(call, &target, &item.remote).await;
            call.part(&item.local, made)
        };
        let links = plan.links.into_iter();
        let links = links
            .filter(|(item, _)| folders.has(&item.remote))
            .collect();
        let made = at_once(call, links, link).await?;
        summary.symlinks = made.iter().flatten().count() as u64;
        Ok(())
    };
    let copied = copied.await;
    summary.dirs = folders.made.len() as u64;
    // Last: a folder may be one without write permission. After a failure too, where the server can
    // still be asked.
    if !copied.as_ref().is_err_and(Error::is_transient) {
        let made = std::mem::take(&mut folders.made);
        let unset = at_once(call, made, |dir| set_mode(call, dir)).await;
        copied?;
        summary.unset.extend(unset?.into_iter().flatten());
    } else {
        copied?;
    }
    summary.failed.extend(call.take_failed());
    Ok(summary)
}

/// What became of the folders of a tree.
#[derive(Default)]
struct Folders {
    made: Vec<Dir>,
    /// Of those that were made: nothing is in them but what this copy puts there.
    fresh: HashSet<String>,
    /// Could not be made.
    missing: HashSet<String>,
}

impl Folders {
    /// Whether the folder of this is there.
    fn has(&self, remote: &str) -> bool {
        !self.missing.contains(path::folder(remote))
    }
}

/// Makes the folders of one level of depth.
async fn make_dirs(
    call: &Call,
    level: Vec<Dir>,
    is_root: bool,
    folders: &mut Folders,
) -> Result<(), Error> {
    let (level, lost): (Vec<Dir>, Vec<Dir>) =
        (level.into_iter()).partition(|dir| is_root || folders.has(&dir.remote));
    folders
        .missing
        .extend(lost.into_iter().map(|dir| dir.remote));
    let make = |dir: Dir| async move {
        let (local, remote) = (dir.local.clone(), dir.remote.clone());
        let made = make_dir(call, dir, is_root).await;
        if is_root {
            return made.map(|made| (remote, Some(made)));
        }
        Ok((remote, call.part(&local, made)?))
    };
    for (remote, made) in at_once(call, level, make).await? {
        match made {
            Some(Some(dir)) => {
                folders.fresh.insert(remote);
                folders.made.push(dir);
            }
            Some(None) => {}
            None => {
                folders.missing.insert(remote);
            }
        }
    }
    Ok(())
}

async fn copy_files(
    call: &Call,
    mut files: Vec<UploadItem>,
    folders: &Folders,
    summary: &mut Summary,
) -> Result<(), Error> {
    let Some(first) = files.first() else {
        return Ok(());
    };
    // What is small is taken into memory; what is large has a thread that reads ahead.
    let small = call.session(&first.remote).await?.write_len;
    files.retain(|item| folders.has(&item.remote));
    let copy = |item: UploadItem| async move {
        let is_fresh = folders.fresh.contains(path::folder(&item.remote));
        let copied = async {
            let source = Source::open(&item.local, small).await?;
            upload::file(call, &source, &item.remote, is_fresh).await
        };
        call.part(&item.local, copied.await)
    };
    for done in at_once(call, files, copy).await?.into_iter().flatten() {
        done.count(summary);
    }
    Ok(())
}

/// Does the same for all of them, a limited number at once; the first error ends it.
pub(super) async fn at_once<T, R, F>(
    call: &Call,
    items: Vec<T>,
    work: impl Fn(T) -> F,
) -> Result<Vec<R>, Error>
where
    F: Future<Output = Result<R, Error>>,
{
    let mut waiting = VecDeque::from(items);
    let mut running = FuturesUnordered::new();
    let mut results = Vec::with_capacity(waiting.len());
    loop {
        while running.len() < call.options.concurrency()
            && let Some(item) = waiting.pop_front()
        {
            running.push(work(item));
        }
        match running.next().await {
            Some(result) => results.push(result?),
            None => return Ok(results),
        }
    }
}

/// Looks at everything, without following a link.
fn plan(local: &Path, remote: &str, keep_going: bool) -> Result<UploadPlan, Error> {
    let root = fs::metadata(local).map_err(|e| local::failed("open", local, e))?;
    if !root.is_dir() {
        let found = root.file_type().into();
        return Err(local::wrong_type(local, found, FileType::Dir));
    }
    let mut plan = UploadPlan {
        root: local.to_owned(),
        keep_going,
        ..UploadPlan::default()
    };
    let mut folders = vec![(
        local.to_owned(),
        remote.to_owned(),
        root.permissions().mode(),
    )];
    while !folders.is_empty() {
        let mut below = Vec::new();
        let mut level = Vec::new();
        for (folder, remote, mode) in folders {
            let listed = fs::read_dir(&folder).map_err(|e| local::failed("list", &folder, e));
            let Some(listed) = plan.part(&folder, listed)? else {
                continue;
            };
            for entry in listed {
                let added = add(&mut plan, &folder, &remote, entry, &mut below);
                if let Err((path, error)) = added {
                    plan.part(&path, Err::<(), _>(error))?;
                }
            }
            level.push(Dir {
                local: folder,
                remote,
                mode: mode & 0o777,
            });
        }
        plan.levels.push(level);
        folders = below;
    }
    Ok(plan)
}

impl UploadPlan {
    fn skip(&mut self, local: &Path, reason: SkipReason) {
        let path = local.strip_prefix(&self.root).unwrap_or(local).to_owned();
        self.skipped.push(Skipped { path, reason });
    }

    /// `None`: it has failed, and the rest is to be copied.
    fn part<T>(&mut self, path: &Path, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(found) => Ok(Some(found)),
            // Without its root there is nothing to copy.
            Err(error) if self.keep_going && path != self.root => {
                let (path, error) = (path.to_owned(), Arc::new(error));
                self.failed.push(Failed { path, error });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Puts an entry of a folder where it belongs.
#[allow(
    clippy::result_large_err,
    reason = "a disk access for each entry costs more"
)]
fn add(
    plan: &mut UploadPlan,
    folder: &Path,
    remote: &str,
    entry: io::Result<fs::DirEntry>,
    below: &mut Vec<(PathBuf, String, u32)>,
) -> Result<(), (PathBuf, Error)> {
    let entry = entry.map_err(|e| (folder.to_owned(), local::failed("list", folder, e)))?;
    let local = entry.path();
    let failed = |what| {
        let path = local.clone();
        move |error| (path.clone(), local::failed(what, &path, error))
    };
    let name = entry.file_name();
    let Some(name) = name.to_str().filter(|name| path::judge(name) == Name::Good) else {
        plan.skip(&local, SkipReason::Name);
        return Ok(());
    };
    let remote = path::join(remote, name);
    // Of the entry itself, not of what a link leads to.
    let found = entry.metadata().map_err(failed("stat"))?;
    match found.file_type().into() {
        FileType::Dir => below.push((local, remote, found.permissions().mode())),
        FileType::File => {
            plan.bytes += found.len();
            plan.files.push(UploadItem { local, remote });
        }
        FileType::Symlink => {
            let target = fs::read_link(&local).map_err(failed("read the link"))?;
            match target.to_str() {
                Some(target) => {
                    let target = target.to_owned();
                    plan.links.push((UploadItem { local, remote }, target));
                }
                None => plan.skip(&local, SkipReason::Name),
            }
        }
        FileType::Other => plan.skip(&local, SkipReason::Special),
    }
    Ok(())
}

/// Makes a folder, or finds one, in which case there is nothing more to do with it. Only the first
/// may be a link: the others would lead out of the tree.
async fn make_dir(call: &Call, dir: Dir, root: bool) -> Result<Option<Dir>, Error> {
    let path = &*dir.remote;
    let at = |fault| call.sftp.at(fault, "make the folder", path);
    // Until the end it must be possible to write to it.
    let made = persistent!(call, "make the folder", path, session => {
        session.mkdir(path, dir.mode | 0o700)
    })?;
    let Err(refused) = made else {
        return Ok(Some(dir));
    };
    if !matches!(refused, Fault::Refused(..)) {
        return Err(at(refused));
    }
    // There is no code for what is there already.
    let found = persistent!(call, "stat", path, session => async {
        if root { session.stat(path).await } else { session.lstat(path).await }
    })?;
    match found {
        Ok(found) if found.is_dir() => Ok(None),
        Ok(found) => Err(Error::WrongType {
            place: call.sftp.target().clone(),
            path: path.into(),
            found: found.file_type(),
            wanted: FileType::Dir,
        }),
        Err(_) => Err(at(refused)),
    }
}

async fn set_mode(call: &Call, dir: Dir) -> Result<Option<Unset>, Error> {
    let path = &*dir.remote;
    let mode = Attributes {
        mode: Some(dir.mode),
        ..Attributes::default()
    };
    let set = persistent!(call, "change", path, session => session.set(path, &mode))?;
    let refusal = match set {
        Ok(()) => return Ok(None),
        Err(Fault::Refused(reason, message)) => format!("{reason} (\"{message}\")"),
        Err(fault) => return Err(call.sftp.at(fault, "change", path)),
    };
    // It may have been made with that mode.
    let found = persistent!(call, "stat", path, session => session.stat(path))?;
    if found.is_ok_and(|found| {
        found
            .permissions()
            .is_some_and(|bits| bits & 0o777 == dir.mode)
    }) {
        return Ok(None);
    }
    let lacking = vec![(Attribute::Mode, UnsetReason::Refused(refusal))];
    let unset = attributes::lacking(call, call.sftp.target(), path.as_ref(), lacking)?;
    Ok(unset.into_iter().next())
}
