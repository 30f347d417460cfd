//! A server that lies. It gets a typed error, and nothing is written outside the folder.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ssh_pool::sftp::{Error, Reason, SkipReason};

use crate::fake::{
    CONNECTION_LOST, DIR, EOF, FAILURE, FILE, Fake, LINK, OK, OPEN, OPENDIR, READ, READDIR,
    READLINK, Request, WRITE,
};
use crate::{SOON, names};

/// Lists these names in `/dir`, once; other folders are empty.
async fn listing(entries: &'static [(&'static [u8], u32)]) -> Fake {
    let asked = AtomicUsize::new(0);
    Fake::new(move |request: &Request| match request.kind {
        OPENDIR => Some(request.handle(&request.word())),
        READDIR if request.word() == "/dir" && asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            Some(request.names(entries))
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_answer_is_taken() {
    let fake = listing(&[(b".", DIR), (b"..", DIR), (b"a", FILE), (b"sub", DIR)]).await;
    let summary = fake.tree().await.unwrap();
    assert_eq!((summary.files, summary.dirs), (1, 2));
    let tree = fake.local.path().join("tree");
    assert_eq!(fs::read(tree.join("a")).unwrap(), b"0123456789");
    fake.file().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_file_has_are_refused_and_nothing_is_written() {
    let listings: [&[(&[u8], u32)]; 8] = [
        &[(b"good", FILE), (b"", FILE)],
        &[(b"../evil", FILE)],
        &[(b"/tmp/evil", FILE)],
        &[(b"sub/evil", FILE)],
        &[(b"..\0", FILE)],
        &[(b"a\0b", DIR)],
        &[(b"same", LINK), (b"same", DIR)],
        &[(b"good", FILE), (b"other", FILE), (b"good", FILE)],
    ];
    for entries in listings {
        let fake = listing(entries).await;
        let error = fake.tree().await.unwrap_err();
        assert!(matches!(error, Error::BadName { .. }), "{error}");
        assert!(!error.to_string().contains('\0'));
        assert!(names(fake.local.path()).is_empty(), "{entries:?}");
        // The same for a listing by itself.
        let fake = listing(entries).await;
        let error = fake.sftp.read_dir("/dir").await.unwrap_err();
        assert!(matches!(error, Error::BadName { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_suit_are_left_out_and_listed() {
    let fake = listing(&[
        (b"a\x1b[2Jb", FILE),
        (b"new\nline", DIR),
        (b"\xff\xfe", FILE),
        (b"\xfe\xff", FILE),
        (b"good", FILE),
    ])
    .await;
    let summary = fake.tree().await.unwrap();
    assert_eq!((summary.files, summary.skipped.len()), (1, 4));
    let by_name = |skipped: &ssh_pool::sftp::Skipped| skipped.reason == SkipReason::Name;
    assert!(summary.skipped.iter().all(by_name), "{summary:?}");
    assert_eq!(names(&fake.local.path().join("tree")), ["good"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_cannot_lead_out_by_way_of_each_other() {
    let once = AtomicUsize::new(0);
    let fake = Fake::new(move |request: &Request| match request.kind {
        OPENDIR => Some(request.handle(&request.word())),
        READLINK => Some(match request.word().rsplit('/').next().unwrap() {
            "up" => request.names(&[(b"..", 0)]),
            "through" => request.names(&[(b"up/..", 0)]),
            "control" => request.names(&[(b"a\nb", 0)]),
            _ => request.names(&[(b"/etc", 0)]),
        }),
        READDIR => match (&*request.word(), once.fetch_add(1, Ordering::SeqCst)) {
            ("/dir", 0) => {
                Some(request.names(&[(b"sub", DIR), (b"out", LINK), (b"control", LINK)]))
            }
            ("/dir/sub", 2) => Some(request.names(&[(b"up", LINK), (b"through", LINK)])),
            _ => None,
        },
        _ => None,
    })
    .await;
    let summary = fake.tree().await.unwrap();
    assert_eq!(summary.symlinks, 1, "{summary:?}");
    let left_out: Vec<_> = summary
        .skipped
        .iter()
        .map(|skipped| skipped.reason)
        .collect();
    let count = |reason| left_out.iter().filter(|other| **other == reason).count();
    assert_eq!(count(SkipReason::LeadsOut), 2, "{summary:?}");
    assert_eq!(count(SkipReason::Name), 1, "{summary:?}");
    let tree = fake.local.path().join("tree");
    assert_eq!(names(&tree), ["sub"]);
    // `sub/through` would look like `sub`, and be what is above the tree.
    assert_eq!(names(&tree.join("sub")), ["up"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_in_each_other_without_end_are_given_up() {
    let listed = AtomicUsize::new(0);
    let fake = Fake::new(move |request: &Request| match request.kind {
        OPENDIR => Some(request.handle("dir")),
        READDIR if listed.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => {
            Some(request.names(&[(b"again", DIR)]))
        }
        _ => None,
    })
    .await;
    let error = fake.tree().await.unwrap_err();
    let Error::TooMuch { what, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*what, "folders in each other");
    assert!(names(fake.local.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_without_end_are_given_up() {
    let names: Vec<String> = (0..2000).map(|number| format!("{number:060}")).collect();
    let round = AtomicUsize::new(0);
    let fake = Fake::new(move |request: &Request| {
        (request.kind == READDIR).then(|| {
            let round = round.fetch_add(1, Ordering::SeqCst);
            let names: Vec<String> = names.iter().map(|name| format!("{round}{name}")).collect();
            let entries: Vec<(&[u8], u32)> =
                names.iter().map(|name| (name.as_bytes(), FILE)).collect();
            request.names(&entries)
        })
    })
    .await;
    let error = fake.tree().await.unwrap_err();
    assert!(matches!(error, Error::TooMuch { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_a_file_are_told_and_leave_nothing() {
    type Lie = fn(&Request) -> Option<Vec<u8>>;
    let protocol: [(&str, Lie); 6] = [
        ("more than was asked for", |request| {
            (request.kind == READ).then(|| request.data(&[7; 64 << 10]))
        }),
        ("nothing", |request| {
            (request.kind == READ).then(|| request.data(&[]))
        }),
        ("yes in the place of an answer", |request| {
            (request.kind == OPEN).then(|| request.status(OK))
        }),
        ("another question", |request| {
            (request.kind == OPEN).then(|| request.attributes(FILE, 1))
        }),
        ("says that something ends", |request| {
            (request.kind == OPEN).then(|| request.status(EOF))
        }),
        ("what is not SFTP", |request| {
            (request.kind == READ).then(|| vec![250, 1, 2, 3])
        }),
    ];
    for (what, lie) in protocol {
        let fake = Fake::new(lie).await;
        let error = fake.file().await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{what}: {error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert!(names(fake.local.path()).is_empty(), "{what}");
    }
    // A server that has answered has a connection: this is not tried again.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let fake = Fake::new(move |request: &Request| {
        (request.kind == OPEN).then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            request.status(CONNECTION_LOST)
        })
    })
    .await;
    let error = fake.file().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Failure), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Shorter than it says, now and before: as in /sys. One that says something else now has changed.
    for size in [11, 1 << 20, u64::MAX] {
        let fake = Fake::new(move |request: &Request| {
            matches!(request.kind, 7 | 8 | 17).then(|| request.attributes(FILE, size))
        })
        .await;
        assert_eq!(fake.file().await.unwrap().bytes, 10);
        assert_eq!(
            fs::read(fake.local.path().join("file")).unwrap(),
            b"0123456789"
        );

        let read = AtomicBool::new(false);
        let fake = Fake::new(move |request: &Request| {
            read.fetch_or(request.kind == READ, Ordering::SeqCst);
            let size = size - u64::from(read.load(Ordering::SeqCst));
            matches!(request.kind, 7 | 8 | 17).then(|| request.attributes(FILE, size))
        })
        .await;
        let error = fake.file().await.unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        assert!(names(fake.local.path()).is_empty(), "{size}");
    }
    // Larger than it says, and without an end: in memory and on the disk.
    for size in [10, 1 << 20] {
        let fake = Fake::new(move |request: &Request| match request.kind {
            7 | 8 | 17 => Some(request.attributes(FILE, size)),
            READ => Some(request.data(&vec![7; request.range().1 as usize])),
            _ => None,
        })
        .await;
        let error = fake.file().await.unwrap_err();
        assert!(matches!(error, Error::TooMuch { .. }), "{error}");
        assert!(names(fake.local.path()).is_empty(), "{size}");
    }
    // A file without a size that never ends.
    let fake = Fake::new(|request: &Request| match request.kind {
        7 | 8 | 17 => Some(request.attributes(FILE, 0)),
        READ => Some(request.data(&vec![7; request.range().1 as usize])),
        _ => None,
    })
    .await;
    let error = fake.file().await.unwrap_err();
    assert!(matches!(error, Error::TooMuch { .. }), "{error}");
    assert!(names(fake.local.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_in_any_portions_and_are_put_together() {
    let fake = Fake::new(|request: &Request| match request.kind {
        7 | 8 | 17 => Some(request.attributes(FILE, 100_000)),
        READ => {
            let (offset, wanted) = request.range();
            let end = (offset + u64::from(wanted.min(1 + offset as u32 % 977))).min(100_000);
            let bytes: Vec<u8> = (offset..end).map(|at| (at % 251) as u8).collect();
            Some(request.data(&bytes))
        }
        _ => None,
    })
    .await;
    fake.file().await.unwrap();
    let wanted: Vec<u8> = (0..100_000_u64).map(|at| (at % 251) as u8).collect();
    assert!(fs::read(fake.local.path().join("file")).unwrap() == wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_not_like_the_original_is_thrown_away() {
    // It says that it has written, and has something else.
    let fake = Fake::new(|_: &Request| None).await;
    let local = fake.local.path().join("mine");
    fs::write(&local, "0123456780").unwrap();
    let up = fake.sftp.upload(&local, "/file").verify(true);
    let error = up.await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    fs::write(&local, "0123456789").unwrap();
    let up = fake.sftp.upload(&local, "/file").verify(true);
    up.await.unwrap();

    // It refuses to write.
    let fake =
        Fake::new(|request: &Request| (request.kind == WRITE).then(|| request.status(FAILURE)))
            .await;
    let error = fake.sftp.write("/file", "a").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Failure), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_can_be_left() {
    let fake = Fake::new(|request: &Request| {
        if request.kind == READ {
            loop {
                std::thread::park();
            }
        }
        None
    })
    .await;
    let file = tokio::time::timeout(Duration::from_secs(1), fake.file());
    assert!(file.await.is_err(), "it answers");
    assert!(names(fake.local.path()).is_empty());
    let run = fake.host.command("true").status();
    let status = tokio::time::timeout(SOON, run).await.unwrap();
    assert!(status.unwrap().success());
}
