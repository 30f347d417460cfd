//! Folders to the server.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::error::Error;
use super::local::{self, Source, blocking};
use super::metadata::FileType;
use super::options::{Call, persistent};
use super::path::{self, Name};
use super::session::{Fault, Settings};
use super::summary::{SkipReason, Skipped, Summary};
use super::temp::RemoteTemp;
use super::upload;

/// What is in a local folder, parents before their children.
#[derive(Default)]
struct Plan {
    /// Each level of depth for itself: a folder can be made when the one above it is there.
    levels: Vec<Vec<Dir>>,
    files: Vec<Item>,
    links: Vec<(Item, String)>,
    skipped: Vec<Skipped>,
    bytes: u64,
}

struct Dir {
    remote: String,
    mode: u32,
}

struct Item {
    local: PathBuf,
    remote: String,
}

/// Copies a tree.
pub(super) async fn copy(call: &Call, local: &Path, remote: &str) -> Result<Summary, Error> {
    let plan = {
        let (local, remote) = (local.to_owned(), remote.to_owned());
        blocking(move || plan(&local, &remote)).await?
    };
    call.meter.expect(plan.bytes);
    let mut summary = Summary {
        skipped: plan.skipped,
        ..Summary::default()
    };
    let mut made = Vec::new();
    for (depth, level) in plan.levels.into_iter().enumerate() {
        let make = |dir| make_dir(call, dir, depth == 0);
        made.extend(at_once(call, level, make).await?.into_iter().flatten());
    }
    summary.dirs = made.len() as u64;
    // What is small is taken into memory; what is large has a thread that reads ahead.
    let small = call.sftp.session(remote).await?.write_len as u64;
    let copy = |item: Item| async move {
        let source = Source::open(&item.local, small).await?;
        upload::file(call, &source, &item.remote).await
    };
    for done in at_once(call, plan.files, copy).await? {
        done.count(&mut summary);
    }
    let link = |(item, target): (Item, String)| async move {
        make_link(call, &target, &item.remote).await
    };
    summary.symlinks = at_once(call, plan.links, link).await?.len() as u64;
    // Last: a folder may be one that nobody may write to.
    at_once(call, made, |dir| set_mode(call, dir)).await?;
    Ok(summary)
}

/// Does the same for all of them, so many at once; the first error ends it.
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
fn plan(local: &Path, remote: &str) -> Result<Plan, Error> {
    let root = fs::metadata(local).map_err(|e| local::failed("open", local, e))?;
    if !root.is_dir() {
        let found = root.file_type().into();
        return Err(local::wrong_type(local, found, FileType::Dir));
    }
    let mut plan = Plan::default();
    let mut folders = vec![(
        local.to_owned(),
        remote.to_owned(),
        root.permissions().mode(),
    )];
    while !folders.is_empty() {
        let mut below = Vec::new();
        let mut level = Vec::new();
        for (folder, remote, mode) in folders {
            look(&mut plan, local, &folder, &remote, &mut below)?;
            level.push(Dir {
                remote,
                mode: mode & 0o777,
            });
        }
        plan.levels.push(level);
        folders = below;
    }
    Ok(plan)
}

fn look(
    plan: &mut Plan,
    root: &Path,
    folder: &Path,
    remote: &str,
    below: &mut Vec<(PathBuf, String, u32)>,
) -> Result<(), Error> {
    let unreadable = |error| local::failed("list", folder, error);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let local = entry.path();
        let mut skip = |reason| {
            let path = local.strip_prefix(root).unwrap_or(&local).to_owned();
            plan.skipped.push(Skipped { path, reason });
        };
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| path::judge(name) == Name::Good) else {
            skip(SkipReason::Name);
            continue;
        };
        let remote = path::join(remote, name);
        // Of the entry itself, not of what a link leads to.
        let found = entry.metadata();
        let found = found.map_err(|e| local::failed("stat", &local, e))?;
        match found.file_type().into() {
            FileType::Dir => below.push((local, remote, found.permissions().mode())),
            FileType::File => {
                plan.bytes += found.len();
                plan.files.push(Item { local, remote });
            }
            FileType::Symlink => {
                let target = fs::read_link(&local);
                let target = target.map_err(|e| local::failed("read the link", &local, e))?;
                match target.to_str() {
                    Some(target) => {
                        let target = target.to_owned();
                        plan.links.push((Item { local, remote }, target));
                    }
                    None => skip(SkipReason::Name),
                }
            }
            FileType::Other => skip(SkipReason::Special),
        }
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

async fn set_mode(call: &Call, dir: Dir) -> Result<(), Error> {
    let path = &*dir.remote;
    let settings = Settings {
        mode: Some(dir.mode),
        modified: None,
    };
    let set = persistent!(call, "change", path, session => session.set(path, settings))?;
    set.map_err(|fault| call.sftp.at(fault, "change", path))
}

/// Makes a link in one step, in the place of whatever was there.
async fn make_link(call: &Call, target: &str, remote: &str) -> Result<(), Error> {
    let at = |fault| call.sftp.at(fault, "make the link", remote);
    let mut attempts = super::options::Attempts::new(call.options.attempts);
    loop {
        // Another name each time: whether a lost request was carried out is not known.
        let temp = RemoteTemp::new(&call.sftp, path::beside(remote, &path::fresh_name()), false);
        let made = async {
            let session = call.sftp.session(remote).await?;
            session.symlink(target, temp.path()).await.map_err(at)?;
            call.sftp.move_over(&session, temp.path(), remote).await
        };
        let made = made.await;
        match made {
            Ok(()) => {
                temp.moved();
                return Ok(());
            }
            Err(error) => {
                if !error.is_transient() {
                    temp.remove().await;
                }
                attempts.again(error, 0).await?;
            }
        }
    }
}
