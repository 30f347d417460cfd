//! How a file takes the place of another one, and what stands in its way: found out before anything
//! is sent.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ssh_pool::sftp::{Error, FileType, Reason, Replace};
use ssh_pool_tests::{Sshd, TestUser};

use crate::{Place, counted, mode, names, noise};

/// A server that keeps to the draft, which has no way to replace a file in one step.
fn without_posix_rename() -> ssh_pool_tests::SshdBuilder {
    Sshd::builder().option("Subsystem sftp internal-sftp -P posix-rename")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_onto_a_folder_is_told_before_anything_is_sent() {
    for server in [Sshd::builder(), without_posix_rename()] {
        let place = Place::on(server).await;
        let folder = place.there("folder");
        place.sftp.create_dir(&folder).await.unwrap();
        let local = place.file("a", &noise(20 << 20, 1));
        for replace in [Replace::Atomic, Replace::Aside, Replace::InPlace] {
            for resume in [false, true] {
                let (progress, calls) = counted();
                let up = place.sftp.upload(&local, &folder).replace(replace);
                let error = up.resume(resume).progress(progress).await.unwrap_err();
                let Error::WrongType { found, wanted, .. } = &error else {
                    panic!("{replace:?}: {error}");
                };
                assert_eq!((*found, *wanted), (FileType::Dir, FileType::File));
                assert!(error.to_string().contains("folder"), "{error}");
                assert_eq!(calls.load(Ordering::SeqCst), 0);
            }
        }
        let file = place.remote_file("file", b"a");
        for error in [
            place.sftp.write(&folder, "a").await.unwrap_err(),
            place.sftp.rename(&file, &folder).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::WrongType { .. }), "{error}");
        }
        // In a tree as well, for files and for links.
        let tree = place.here("tree");
        fs::create_dir(&tree).unwrap();
        symlink("a", tree.join("folder")).unwrap();
        for file in [false, true] {
            if file {
                fs::remove_file(tree.join("folder")).unwrap();
                fs::write(tree.join("folder"), "a").unwrap();
            }
            let up = place.sftp.upload_dir(&tree, place.remote.path());
            let error = up.await.unwrap_err();
            assert!(matches!(error, Error::WrongType { .. }), "{error}");
        }
        assert_eq!(names(place.remote.path()), ["file", "folder"]);
        assert!(names(&folder).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_special_file_is_not_replaced() {
    let place = Place::new().await;
    let fifo = place.there("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let local = place.file("a", b"a");
    let error = place.sftp.upload(&local, &fifo).await.unwrap_err();
    assert!(matches!(error, Error::WrongType { .. }), "{error}");
    assert_eq!(names(place.remote.path()), ["fifo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_takes_no_new_file_is_named_before_anything_is_sent() {
    let place = Place::new().await;
    let remote = place.remote_file("file", b"old, and longer than what comes");
    fs::hard_link(&remote, place.there("link")).unwrap();
    fs::set_permissions(&remote, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&remote).unwrap();
    fs::set_permissions(place.remote.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let local = place.file("new", b"new");
    let (progress, calls) = counted();
    let up = place.sftp.upload(&local, &remote).progress(progress);
    let error = up.await.unwrap_err();
    let Error::Folder { folder, reason, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(folder, place.remote.path().to_str().unwrap());
    assert_eq!(*reason, Reason::PermissionDenied);
    assert!(error.to_string().contains("Replace::InPlace"), "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    // What it proposes works, and the file is the same one.
    let up = place.sftp.upload(&local, &remote).replace(Replace::InPlace);
    let summary = up.verify(true).await.unwrap();
    assert!(summary.unset.is_empty(), "{summary:?}");
    assert_eq!(fs::read(&remote).unwrap(), b"new");
    assert_eq!(fs::read(place.there("link")).unwrap(), b"new");
    let after = fs::metadata(&remote).unwrap();
    assert_eq!((after.ino(), after.uid()), (before.ino(), before.uid()));
    assert_eq!(mode(&remote), 0o640);
    assert_eq!(names(place.remote.path()), ["file", "link"]);
    // A folder that is not there.
    let up = place.sftp.upload(&local, place.there("no/file"));
    let error = up.await.unwrap_err();
    let Error::Folder { folder, reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        folder.ends_with("/no") && *reason == Reason::NotFound,
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_in_place_is_made_if_need_be_and_a_link_is_not_written_through() {
    let place = Place::new().await;
    let bytes = noise((2 << 20) + 1, 1);
    let local = place.file("a", &bytes);
    fs::set_permissions(&local, fs::Permissions::from_mode(0o604)).unwrap();
    let remote = place.there("a");
    let up = place.sftp.upload(&local, &remote).replace(Replace::InPlace);
    up.resume(true).await.unwrap();
    assert!(fs::read(&remote).unwrap() == bytes);
    assert_eq!(mode(&remote), 0o604);
    place.sftp.symlink("a", place.there("link")).await.unwrap();
    let up = place.sftp.upload(&local, place.there("link"));
    let error = up.replace(Replace::InPlace).await.unwrap_err();
    let Error::WrongType { found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*found, FileType::Symlink);
    assert_eq!(names(place.remote.path()), ["a", "link"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_in_place_survives_a_lost_connection() {
    let place = Place::new().await;
    let proxy = Arc::new(ssh_pool_tests::Proxy::to(place.sshd.addr()));
    let folder = ssh_pool_tests::TempDir::new();
    let (_pool, sftp) = crate::through(&proxy, &place.sshd, &folder).await;
    let bytes = noise(12 << 20, 1);
    let local = place.file("a", &bytes);
    let remote = place.remote_file("a", b"old");
    let (broken, breaks) = (AtomicBool::new(false), proxy.clone());
    let up = sftp.upload(&local, &remote).replace(Replace::InPlace);
    let up = up.verify(true).progress(move |progress| {
        if progress.bytes > 4 << 20 && !broken.swap(true, Ordering::SeqCst) {
            breaks.reset();
        }
    });
    let summary = up.await.unwrap();
    assert!(summary.retries >= 1, "{summary:?}");
    assert!(fs::read(&remote).unwrap() == bytes);
    assert_eq!(names(place.remote.path()), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_replace_in_one_step_says_so_before_anything_is_sent() {
    let place = Place::on(without_posix_rename()).await;
    let remote = place.remote_file("file", b"old");
    let local = place.file("new", &noise(3 << 20, 1));
    let (progress, calls) = counted();
    let up = place.sftp.upload(&local, &remote).progress(progress);
    let error = up.await.unwrap_err();
    assert!(matches!(error, Error::NotAtomic { .. }), "{error}");
    assert!(error.to_string().contains("Replace::Aside"), "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(fs::read(&remote).unwrap(), b"old");
    assert_eq!(names(place.remote.path()), ["file"]);
    // What it proposes works, also for a tree with links, and where nothing is replaced.
    for name in ["file", "another"] {
        let up = place.sftp.upload(&local, place.there(name));
        up.replace(Replace::Aside).await.unwrap();
        let same = fs::read(place.there(name)).unwrap() == fs::read(&local).unwrap();
        assert!(same, "{name}");
    }
    let tree = place.here("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "newer").unwrap();
    symlink("file", tree.join("link")).unwrap();
    for _ in 0..2 {
        let up = place.sftp.upload_dir(&tree, place.remote.path());
        let summary = up.replace(Replace::Aside).await.unwrap();
        assert_eq!((summary.files, summary.symlinks), (1, 1));
    }
    assert_eq!(fs::read(&remote).unwrap(), b"newer");
    assert_eq!(names(place.remote.path()), ["another", "file", "link"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_file_can_be_replaced_in_one_step_it_is_not_moved_aside() {
    let place = Place::new().await;
    let (a, b) = (vec![b'a'; 1 << 20], vec![b'b'; 1 << 20]);
    let (up_a, up_b) = (place.file("a", &a), place.file("b", &b));
    let remote = place.remote_file("file", &a);
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (done, remote) = (done.clone(), remote.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let seen = fs::read(&remote).unwrap();
                assert!(seen == a || seen == b, "half a file: {} bytes", seen.len());
            }
        })
    };
    for round in 0..10 {
        let from = if round % 2 == 0 { &up_b } else { &up_a };
        let up = place.sftp.upload(from, &remote).replace(Replace::Aside);
        up.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    reader.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_no_server_takes_is_refused_here() {
    let place = Place::new().await;
    let long = format!("/{}", "a".repeat(300 << 10));
    let error = place.sftp.metadata(&long).await.unwrap_err();
    assert!(matches!(error, Error::InvalidPath { .. }), "{error}");
    let long = format!("/{}", "a/".repeat(20 << 10));
    let error = place.sftp.metadata(&long).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    // The session has not suffered.
    assert_eq!(place.host.status().isolated, 1);
    place.sftp.write(place.there("a"), "a").await.unwrap();
    TestUser::plain().own(&place.there("a"));
}
