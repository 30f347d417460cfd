//! What an image is built from: `git archive` on the server, as a stream.

use std::io;

use futures_util::stream::{self, Stream};
use ssh_pool::{Child, ChildStdout, Host, docker};
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;

use crate::failure::{Failure, Said};

const CHUNK: usize = 64 << 10;

/// Starts `git archive` of a commit. What it writes goes from the one connection to the other, a
/// chunk at a time: each has a connection of its own, so when the daemon is slow git waits, and
/// nothing piles up here.
///
/// The receiver says why the stream has failed, if it was its own fault.
pub(crate) async fn archive(
    host: &Host,
    dir: &str,
    commit: &str,
) -> Result<
    (
        impl Stream<Item = io::Result<Vec<u8>>> + use<>,
        oneshot::Receiver<Failure>,
    ),
    Failure,
> {
    let mut child = (host.command("git"))
        .args(["-C", dir, "archive", "--format=tar", commit])
        .spawn()
        .await?;
    let (failed, failure) = oneshot::channel();
    let archive = child.stdout.take().map(|stdout| Archive {
        child,
        stdout,
        failed,
    });
    Ok((stream::unfold(archive, next), failure))
}

struct Archive {
    child: Child,
    stdout: ChildStdout,
    failed: oneshot::Sender<Failure>,
}

async fn next(archive: Option<Archive>) -> Option<(io::Result<Vec<u8>>, Option<Archive>)> {
    let mut archive = archive?;
    let mut chunk = Vec::with_capacity(CHUNK);
    let (failure, failed) = match archive.stdout.read_buf(&mut chunk).await {
        Ok(1..) => return Some((Ok(chunk), Some(archive))),
        // The end of its output says nothing: half an archive can be unpacked too. So the request
        // only ends well if git has.
        Ok(0) => (status(archive.child).await.err()?, archive.failed),
        Err(error) => {
            let lost = docker::Error::find::<ssh_pool::Error>(&error).cloned();
            let Some(lost) = lost else {
                return Some((Err(error), None));
            };
            (Failure::Ssh(lost), archive.failed)
        }
    };
    let error = io::Error::other(failure.to_string());
    // Without a receiver nobody wants to know.
    failed.send(failure).ok();
    Some((Err(error), None))
}

async fn status(child: Child) -> Result<(), Failure> {
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = Said::default();
    said.add(&output.stderr).await;
    Err(Failure::Git {
        doing: "archive",
        status: output.status,
        said: said.last(),
    })
}
