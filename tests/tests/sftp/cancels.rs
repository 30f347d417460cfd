//! Transfers that are dropped.

use std::fs;
use std::future::{IntoFuture, poll_fn};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use ssh_pool::sftp::SftpExt;
use ssh_pool_tests::{Sshd, eventually_async, procs};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::{Place, SOON, names, noise};

/// Polls a transfer so many times, then drops it.
async fn polled<F: IntoFuture>(times: usize, transfer: F) -> Option<F::Output> {
    let mut transfer = Box::pin(transfer.into_future());
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        transfer.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Files below `folder` that the process has open.
fn open_below(pid: &str, folder: &Path) -> Vec<PathBuf> {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path.starts_with(folder))
        .collect()
}

/// Files below `folder` that the server has open.
pub(crate) fn open_on(sshd: &Sshd, folder: &Path) -> Vec<PathBuf> {
    let processes = sshd.session_processes();
    let pids = processes.iter().map(|(pid, _)| pid.to_string());
    pids.flat_map(|pid| open_below(&pid, folder)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_dropped_at_any_await_leaves_no_file_and_no_descriptor() {
    let place = Place::new().await;
    let (old, new) = (b"old".to_vec(), noise(6 << 20, 1));
    let remote = place.remote_file("file", &old);
    let local = place.file("new", &new);
    let mut finished = 0;
    for times in (0..40).chain([60, 100, 200, 100_000]) {
        let up = place.sftp.upload(&local, &remote).verify(times % 2 == 0);
        finished += usize::from(polled(times, up).await.is_some());
        let seen = fs::read(&remote).unwrap();
        assert!(seen == old || seen == new, "half a file");
        // Neighbours on the same session go on.
        assert!(place.sftp.metadata(&remote).await.unwrap().is_file());
    }
    assert!(finished > 0, "the last one is never dropped");
    let remote = place.remote.path();
    let gone = || names(remote) == ["file"] && open_on(&place.sshd, remote).is_empty();
    let gone = eventually_async(SOON, gone).await;
    let left = (names(remote), open_on(&place.sshd, remote));
    assert!(gone, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_dropped_at_any_await_leaves_no_file_and_no_descriptor() {
    let place = Place::new().await;
    let new = noise(6 << 20, 1);
    let remote = place.remote_file("file", &new);
    let local = place.file("file", b"old");
    for times in (0..40).chain([60, 100, 200, 100_000]) {
        let down = place.sftp.download(&remote, &local).verify(times % 2 == 0);
        polled(times, down).await;
        let seen = fs::read(&local).unwrap();
        assert!(seen == b"old" || seen == new, "half a file");
    }
    let (remote, local) = (place.remote.path(), place.local.path());
    let gone = || {
        names(local) == ["file"]
            && open_below("self", local).is_empty()
            && open_on(&place.sshd, remote).is_empty()
    };
    assert!(eventually_async(SOON, gone).await, "{:?}", names(local));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_dropped_half_way_leaves_whole_files_only() {
    let place = Place::new().await;
    let local = place.here("tree");
    fs::create_dir(&local).unwrap();
    for number in 0..100 {
        fs::write(local.join(format!("{number}")), noise(300 << 10, number)).unwrap();
    }
    let remote = place.there("tree");
    for files in [0, 1, 50] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let up = place.sftp.upload_dir(&local, &remote);
        let up = up.progress(move |progress| {
            if progress.file_bytes == progress.file_total {
                tell.send(()).ok();
            }
        });
        tokio::select! {
            _ = up.into_future() => panic!("it was to be dropped"),
            () = async {
                for _ in 0..=files {
                    told.recv().await;
                }
            } => {}
        }
        let whole = || {
            names(&remote).iter().all(|name| {
                let original = fs::read(local.join(name));
                original.is_ok_and(|bytes| fs::read(remote.join(name)).unwrap() == bytes)
            })
        };
        let gone = || whole() && open_on(&place.sshd, place.remote.path()).is_empty();
        assert!(eventually_async(SOON, gone).await, "{:?}", names(&remote));
    }
}

/// A server that takes nothing, for ever: what was dropped must not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_holds_nobody_up_and_keeps_nothing() {
    let server = Sshd::builder().option("Subsystem sftp /usr/lib/openssh/sftp-server");
    let place = Place::on(server).await;
    let processes = place.sshd.session_processes();
    let server = |(_, line): &&(u32, String)| line == "/usr/lib/openssh/sftp-server";
    let (pid, _) = *processes.iter().find(server).as_ref().unwrap();
    let neighbours = async || {
        let other = place.host.sftp().await.unwrap();
        other.write(place.there("c"), "c").await.unwrap();
        let run = place.host.command("true").status().await;
        assert!(run.unwrap().success());
    };
    // Its connections are there from now on.
    neighbours().await;
    let alone = || place.host.status().isolated_busy == 1;
    assert!(eventually_async(SOON, alone).await);
    let metrics = Handle::current().metrics();
    let tasks = metrics.num_alive_tasks();
    let (tell, mut told) = mpsc::unbounded_channel();
    let (pid, local) = (*pid, place.file("a", &noise(32 << 20, 1)));
    place.sftp.set_request_timeout(SOON);
    let up = |name| place.sftp.upload(&local, place.there(name));
    // The first has more under way than goes through a channel that nobody reads; the second has
    // only asked for a file.
    let first = up("a").progress(move |_| {
        procs::pause(pid);
        tell.send(()).ok();
    });
    let first = tokio::spawn(first.into_future());
    told.recv().await;
    let second = tokio::spawn(up("b").into_future());
    neighbours().await;
    assert!(!first.is_finished() && !second.is_finished());

    first.abort();
    second.abort();
    drop(place.sftp);
    // When the server is given up, or after 30 s for what was to be cleaned up, the two tasks of the
    // session have gone too.
    let gone = || metrics.num_alive_tasks() <= tasks - 2;
    let gone = eventually_async(SOON + Duration::from_secs(30), gone).await;
    assert!(gone, "{} tasks of {tasks}", metrics.num_alive_tasks());
    // sshd keeps the channel as long as its process lives.
    procs::resume(pid);
    let free = || place.host.status().isolated_busy == 0;
    assert!(eventually_async(SOON, free).await);
}
