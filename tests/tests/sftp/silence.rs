//! Servers that leave requests unanswered.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ssh_pool::sftp::Error;
use ssh_pool_tests::noise;
use tokio::task::JoinSet;

use crate::SOON;
use crate::fake::{CLOSE, EOF, FILE, Fake, OPEN, OPENDIR, READ, READDIR, READLINK, Request, WRITE};

const SHORT: Duration = Duration::from_secs(1);
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const STAT: u8 = 17;

/// A server that leaves requests of this kind unanswered, while it is to.
async fn deaf(kind: u8, on: &Arc<AtomicBool>) -> Fake {
    let on = on.clone();
    let fake = Fake::new(move |request: &Request| {
        (request.kind == kind && on.load(Ordering::SeqCst)).then(Vec::new)
    });
    let fake = fake.await;
    fake.sftp.set_request_timeout(SHORT);
    fake
}

fn is_timeout(error: &Error, what: &str) {
    assert!(matches!(error, Error::Timeout { .. }), "{what}: {error}");
    assert!(error.is_timeout() && error.is_transient());
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_request_that_is_never_answered_ends_in_time() {
    // Also fsetstat, remove, mkdir, rmdir, realpath, symlink and posix-rename.
    let kinds = [
        OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, STAT, OPENDIR, READDIR, READLINK, 10, 13, 14, 15,
        16, 20, 200,
    ];
    let mut running: JoinSet<()> = kinds.into_iter().map(never_answered).collect();
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

async fn never_answered(kind: u8) {
    let on = Arc::new(AtomicBool::new(true));
    let fake = deaf(kind, &on).await;
    let (sftp, local) = (&fake.sftp, fake.local.path());
    fs::write(local.join("new"), "0123456789").unwrap();
    let call = async {
        let tree = local.join("tree");
        match kind {
            OPEN | WRITE | CLOSE | 10 | 200 => sftp.write("/new/file", "a").await,
            READ | FSTAT | STAT => sftp.download("/file", local.join("a")).await.map(drop),
            OPENDIR | READDIR => sftp.download_dir("/dir", tree).await.map(drop),
            READLINK => sftp.read_link("/file").await.map(drop),
            LSTAT => sftp.upload(local.join("new"), "/file").await.map(drop),
            13 => sftp.remove_file("/file").await,
            14 => sftp.create_dir("/new").await,
            15 => sftp.remove_dir("/dir").await,
            16 => sftp.canonicalize("/file").await.map(drop),
            _ => sftp.symlink("a", "/file").await,
        }
    };
    let ended = tokio::time::timeout(SOON + SHORT * 10, call).await;
    let ended = ended.unwrap_or_else(|_| panic!("{kind}: it waits for ever"));
    is_timeout(&ended.unwrap_err(), &format!("request {kind}"));
    // The session was given up; the next call has another one.
    on.store(false, Ordering::SeqCst);
    sftp.set_request_timeout(SOON);
    assert!(fake.sftp.metadata("/file").await.unwrap().is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_that_is_passed_over_ends_while_others_are_answered() {
    let passed = Arc::new(AtomicUsize::new(0));
    let count = passed.clone();
    let fake = Fake::new(move |request: &Request| match request.kind {
        READ if count.fetch_add(1, Ordering::SeqCst) == 0 => Some(Vec::new()),
        _ => None,
    })
    .await;
    fake.sftp.set_request_timeout(SHORT);
    let sftp = fake.sftp.clone();
    let neighbour = async {
        while sftp.metadata("/file").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(SOON, async {
        tokio::select! {
            ended = fake.file() => ended,
            () = async { neighbour.await; std::future::pending().await } => unreachable!(),
        }
    });
    is_timeout(&ended.await.unwrap().unwrap_err(), "passed over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_that_answers_in_turn_is_waited_for() {
    // Ten pieces, each after a fifth of the time that one may take.
    let size: u64 = 10 * (32 << 10);
    let fake = Fake::new(move |request: &Request| match request.kind {
        LSTAT | FSTAT | STAT => Some(request.attributes(FILE, size)),
        READ => {
            std::thread::sleep(SHORT);
            let (at, wanted) = request.range();
            Some(match at < size {
                true => request.data(&vec![7; wanted as usize]),
                false => request.status(EOF),
            })
        }
        _ => None,
    })
    .await;
    fake.sftp.set_request_timeout(SHORT * 5);
    let began = Instant::now();
    let summary = fake.file().await.unwrap();
    assert_eq!((summary.bytes, summary.retries), (size, 0));
    assert!(began.elapsed() > SHORT * 5, "it was not slow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_dropped_unanswered_does_not_hold_up_the_next_ones() {
    // The first read is not answered, and with `stuck` nothing behind it in its session either.
    for stuck in [false, true] {
        let session = Mutex::new(None);
        let fake = Fake::new(move |request: &Request| {
            let this = std::thread::current().id();
            let mut session = session.lock().unwrap();
            let first = request.kind == READ && session.is_none();
            if first {
                *session = Some(this);
            }
            (first || stuck && *session == Some(this)).then(Vec::new)
        })
        .await;
        fake.sftp.set_request_timeout(SHORT);
        let dropped = tokio::time::timeout(SHORT / 3, fake.file()).await;
        assert!(dropped.is_err(), "it answers");
        fake.sftp.set_request_timeout(SOON);
        // The answer to the first is still due: with that session, or with the next one.
        let read = async {
            loop {
                match fake.file().await {
                    Ok(summary) => return summary,
                    Err(error) => is_timeout(&error, "after a dropped one"),
                }
            }
        };
        let summary = tokio::time::timeout(SOON, read).await.unwrap();
        assert_eq!(summary.bytes, 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_puts_a_file_on_the_disk_may_take_longer() {
    let closed = Arc::new(Mutex::new(0));
    let count = closed.clone();
    let fake = Fake::new(move |request: &Request| {
        if request.kind == CLOSE {
            std::thread::sleep(SHORT * 2);
            *count.lock().unwrap() += 1;
        }
        None
    })
    .await;
    fake.sftp.set_request_timeout(SHORT);
    fake.sftp.write("/new/file", noise(10, 1)).await.unwrap();
    assert_eq!(*closed.lock().unwrap(), 1);
}
