//! Symbolic links of a server, which may follow them where others do not.

use std::sync::Arc;

use super::error::{Error, Reason};
use super::metadata::FileType;
use super::options::{Attempts, Call, Replace};
use super::session::{Fault, Mode, Session};
use super::temp::RemoteTemp;
use super::{Sftp, path};

/// Makes a link, in the place of whatever was there.
pub(super) async fn make(call: &Call, target: &str, remote: &str) -> Result<(), Error> {
    let mut attempts = Attempts::new(call.options.attempts);
    loop {
        match attempt(call, target, remote).await {
            Ok(()) => return Ok(()),
            Err(error) => attempts.again(error, 0).await?,
        }
    }
}

async fn attempt(call: &Call, target: &str, remote: &str) -> Result<(), Error> {
    let at = |fault| call.sftp.at(fault, "make the link", remote);
    let session = call.session(remote).await?;
    learn_order(&call.sftp, &session, remote)
        .await
        .map_err(at)?;
    let refused = match session.symlink(target, remote).await {
        Err(fault @ Fault::Refused(..)) => fault,
        made => return made.map_err(at),
    };
    // There is no code for what is there already.
    let there = match session.lstat(remote).await {
        Err(Fault::Refused(..)) => return Err(at(refused)),
        there => there.map_err(at)?,
    };
    if there.is_dir() {
        return Err(Error::WrongType {
            place: call.sftp.target().clone(),
            path: remote.into(),
            found: FileType::Dir,
            wanted: FileType::Symlink,
        });
    }
    if there.is_symlink()
        && session
            .read_link(remote)
            .await
            .is_ok_and(|text| text == target)
    {
        return Ok(());
    }
    if are_moved(&call.sftp, &session, remote).await.map_err(at)? {
        let name = path::beside(remote, &path::fresh_name());
        let temp = RemoteTemp::on(&session, &call.sftp, name);
        session.symlink(target, temp.path()).await.map_err(at)?;
        let replace = call.options.replace;
        let moved = call
            .sftp
            .move_over(&session, temp.path(), remote, replace)
            .await;
        match moved {
            Ok(()) => temp.moved(),
            Err(_) => temp.remove().await,
        }
        return moved;
    }
    if call.options.replace != Replace::Aside {
        return Err(Error::NotAtomic {
            target: call.sftp.target().clone(),
            path: remote.to_owned(),
        });
    }
    session.remove(remote).await.map_err(at)?;
    session.symlink(target, remote).await.map_err(at)
}

/// Whether this server can replace a file in one step, and moves a link itself. That of ProFTPD moves
/// what the link leads to, and replaces what a link in the way leads to. Tried once in a session, with
/// files that are made for it in the folder of `path`.
pub(super) async fn are_moved(
    sftp: &Sftp,
    session: &Arc<Session>,
    path: &str,
) -> Result<bool, Fault> {
    if !session.posix_rename {
        return Ok(false);
    }
    let moved = session
        .moves_links
        .get_or_try_init(|| try_rename(sftp, session, path));
    match moved.await {
        // Where no file can be made, nothing can be replaced in one step.
        Err(fault) if fault.is(Reason::PermissionDenied) => Ok(false),
        moved => moved.copied(),
    }
}

/// Finds out which of its two words a server takes for the new link, once in a session. OpenSSH has
/// them in the other order than the draft (PROTOCOL, section 4.1), and others follow it; asyncssh does
/// so only for clients that call themselves OpenSSH. With two fresh names no order does harm.
pub(super) async fn learn_order(
    sftp: &Sftp,
    session: &Arc<Session>,
    path: &str,
) -> Result<(), Fault> {
    let learned = session
        .link_first
        .get_or_try_init(|| try_order(sftp, session, path));
    learned.await.map(drop)
}

async fn try_order(sftp: &Sftp, session: &Arc<Session>, path: &str) -> Result<bool, Fault> {
    let name = path::fresh_name();
    let beside = |end| RemoteTemp::on(session, sftp, path::beside(path, &format!("{name}{end}")));
    let (first, second) = (beside(".a"), beside(".b"));
    session.symlink(first.path(), second.path()).await?;
    let link_first = match session.read_link(second.path()).await {
        Ok(_) => false,
        Err(Fault::Refused(..)) => true,
        Err(fault) => return Err(fault),
    };
    tokio::join!(first.remove(), second.remove());
    Ok(link_first)
}

async fn try_rename(sftp: &Sftp, session: &Arc<Session>, path: &str) -> Result<bool, Fault> {
    let name = path::fresh_name();
    let beside = |end| RemoteTemp::on(session, sftp, path::beside(path, &format!("{name}{end}")));
    let (file, link, moved) = (beside(""), beside(".a"), beside(".b"));
    let made = session.open_file(file.path(), Mode::Create(0o600)).await?;
    made.close().await?;
    learn_order(sftp, session, path).await?;
    session.symlink(&name, link.path()).await?;
    session.rename(link.path(), moved.path()).await?;
    let found = session.lstat(moved.path()).await?;
    for temp in [file, link, moved] {
        temp.remove().await;
    }
    Ok(found.is_symlink())
}
