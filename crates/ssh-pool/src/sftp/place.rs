//! Where an upload is written, and what stands in its way: found out before anything is sent.

use std::sync::Arc;

use super::error::{Error, Reason};
use super::metadata::{FileType, Metadata};
use super::options::{Call, Replace};
use super::session::{Fault, Handle, Mode, Session};
use super::summary::{Attribute, UnsetReason};
use super::upload::Work;
use super::{attributes, links, path};

/// S_ISVTX: only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// What an upload finds where it is to be.
#[derive(Default)]
pub(super) struct Place {
    /// Of the file that is replaced, and to be kept.
    pub(super) owner: Option<(u32, u32)>,
    /// The file is written in place, and was there: its mode is to stay.
    pub(super) keeps_mode: bool,
    /// What a symbolic link in the way says, which has to be removed.
    pub(super) link: Option<String>,
    /// What cannot be kept.
    pub(super) lacking: Vec<attributes::Lacking>,
}

/// Opens what is written, for the first time.
pub(super) async fn open(
    call: &Call,
    session: &Arc<Session>,
    remote: &str,
    mode: u32,
    work: &mut Work<'_>,
) -> Result<Handle, Error> {
    if call.options.replace == Replace::InPlace {
        let there = look(call, session, remote, false).await?;
        work.place.keeps_mode = there.is_some();
        let opened = session.open_file(remote, Mode::Truncate(mode)).await;
        return opened.map_err(|fault| call.sftp.at(fault, "write", remote));
    }
    if call.options.resume {
        // What it makes would stay.
        let around = look_around(call, session, remote).await?;
        check(call, session, remote, &around, work).await?;
        let open = session.open_file(work.temp.path(), Mode::Continue(mode));
        let handle = beside(call, remote, open.await, work)?;
        return keep_owner(call, remote, &around, handle, work).await;
    }
    let open = session.open_file(work.temp.path(), Mode::Create(mode));
    if work.is_fresh {
        return beside(call, remote, open.await, work);
    }
    // One round trip for all of it.
    let (opened, around) = tokio::join!(open, look_around(call, session, remote));
    let opened = beside(call, remote, opened, work);
    let around = around?;
    check(call, session, remote, &around, work).await?;
    keep_owner(call, remote, &around, opened?, work).await
}

/// What is at the final name, and the folder of it, if the server says.
struct Around {
    there: Option<Metadata>,
    folder: Metadata,
}

async fn look_around(call: &Call, session: &Session, remote: &str) -> Result<Around, Error> {
    let folder = session.stat(path::folder(remote));
    let (there, folder) = tokio::join!(look(call, session, remote, true), folder);
    Ok(Around {
        there: there?,
        folder: folder.unwrap_or_default(),
    })
}

/// Whether what is there can be replaced as it is to be.
async fn check(
    call: &Call,
    session: &Arc<Session>,
    remote: &str,
    around: &Around,
    work: &mut Work<'_>,
) -> Result<(), Error> {
    let at = |fault| call.sftp.at(fault, "stat", remote);
    let link = around.there.as_ref().is_some_and(Metadata::is_symlink);
    let in_one_step = if link {
        let moved = links::are_moved(&call.sftp, session, remote).await;
        moved.map_err(at)?
    } else {
        around.there.is_none() || session.posix_rename
    };
    if in_one_step {
        return Ok(());
    }
    if call.options.replace == Replace::Atomic {
        return Err(Error::NotAtomic {
            target: call.sftp.target().clone(),
            path: remote.to_owned(),
        });
    }
    if link {
        // It may have to be made again.
        let learned = links::learn_order(&call.sftp, session, remote).await;
        learned.map_err(at)?;
        work.place.link = Some(session.read_link(remote).await.map_err(at)?);
    }
    Ok(())
}

/// The new file is to have the owner of the old one, except where any user may put files.
async fn keep_owner(
    call: &Call,
    remote: &str,
    around: &Around,
    handle: Handle,
    work: &mut Work<'_>,
) -> Result<Handle, Error> {
    let there = around.there.as_ref().filter(|there| there.is_file());
    let Some(owner) = there.and_then(|there| there.owner) else {
        return Ok(handle);
    };
    if around.folder.mode.unwrap_or_default() & STICKY == 0 {
        work.place.owner = Some(owner);
        return Ok(handle);
    }
    let ours = handle.stat().await;
    let ours = ours.map_err(|fault| call.sftp.at(fault, "write", remote))?;
    let Some(us) = ours.uid().filter(|uid| *uid != owner.0) else {
        return Ok(handle);
    };
    if us != 0 && around.folder.uid() != Some(us) {
        return Err(refused(
            call,
            remote,
            Reason::PermissionDenied,
            "the sticky bit: only the owner of the file may replace it".to_owned(),
        ));
    }
    let lacking = (Attribute::Owner, UnsetReason::SharedFolder);
    work.place.lacking.push(lacking);
    Ok(handle)
}

/// What is there, if the server says; what a file cannot replace is an error. A link is replaced, and
/// not written through.
async fn look(
    call: &Call,
    session: &Session,
    remote: &str,
    links: bool,
) -> Result<Option<Metadata>, Error> {
    match session.lstat(remote).await {
        Ok(found) if found.mode.is_none() || found.is_file() => Ok(Some(found)),
        Ok(found) if found.is_symlink() && links => Ok(Some(found)),
        Ok(found) => Err(Error::WrongType {
            place: call.sftp.target().clone(),
            path: remote.into(),
            found: found.file_type(),
            wanted: FileType::File,
        }),
        // Not there, or not for us to know: then it shows later.
        Err(Fault::Refused(reason, _)) if reason.of(remote) != Reason::NameTooLong => Ok(None),
        Err(fault) => Err(call.sftp.at(fault, "stat", remote)),
    }
}

/// A refusal to make the temporary file is about the folder.
fn beside(
    call: &Call,
    remote: &str,
    opened: Result<Handle, Fault>,
    work: &mut Work<'_>,
) -> Result<Handle, Error> {
    match opened {
        Err(Fault::Refused(reason, message)) => {
            work.temp.refused();
            Err(refused(call, remote, reason, message))
        }
        opened => opened.map_err(|fault| call.sftp.at(fault, "write", remote)),
    }
}

fn refused(call: &Call, remote: &str, reason: Reason, message: String) -> Error {
    Error::Folder {
        target: call.sftp.target().clone(),
        folder: path::folder(remote).to_owned(),
        path: remote.to_owned(),
        reason,
        message,
    }
}
