//! Single files: byte for byte, with their modes, in one step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use ssh_pool::sftp::{Error, FileType, Reason};
use tokio::task::JoinSet;

use crate::{Place, mode, names, noise};

/// What OpenSSH takes and gives in one request.
const CHUNK: usize = 255 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_arrive_byte_for_byte_in_both_directions() {
    let place = Place::new().await;
    let sizes = [
        0,
        1,
        2,
        4095,
        32 << 10,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        3 * CHUNK,
        3 * CHUNK + 7,
        (9 << 20) + 13,
    ];
    for size in sizes {
        let bytes = noise(size, size as u64);
        let local = place.file("up", &bytes);
        let remote = place.there("file");
        let up = place.sftp.upload(&local, &remote).verify(true);
        let summary = up.await.unwrap();
        assert_eq!((summary.files, summary.bytes), (1, size as u64));
        assert!(fs::read(&remote).unwrap() == bytes, "{size} bytes up");

        let down = place.sftp.download(&remote, place.here("down"));
        let summary = down.verify(true).await.unwrap();
        assert_eq!((summary.files, summary.bytes), (1, size as u64));
        assert!(
            fs::read(place.here("down")).unwrap() == bytes,
            "{size} down"
        );
    }
    assert_eq!(names(place.remote.path()), ["file"]);
    assert_eq!(names(place.local.path()), ["down", "up"]);
}

#[tokio::test]
async fn modes_are_kept_and_times_on_request() {
    let place = Place::new().await;
    let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for bits in [0o600, 0o644, 0o755, 0o444, 0o4755] {
        let local = place.file("a", b"content");
        fs::set_permissions(&local, fs::Permissions::from_mode(bits)).unwrap();
        let file = fs::File::open(&local).unwrap();
        file.set_modified(old).unwrap();
        let remote = place.there("b");
        place.sftp.upload(&local, &remote).await.unwrap();
        // Without setuid: whose it would be has changed.
        assert_eq!(mode(&remote), bits & 0o777);
        assert_ne!(fs::metadata(&remote).unwrap().modified().unwrap(), old);
        let up = place.sftp.upload(&local, &remote).times(true);
        up.await.unwrap();
        assert_eq!(fs::metadata(&remote).unwrap().modified().unwrap(), old);

        let back = place.here("back");
        place.sftp.download(&remote, &back).await.unwrap();
        assert_eq!(mode(&back), bits & 0o777);
        assert_ne!(fs::metadata(&back).unwrap().modified().unwrap(), old);
        let down = place.sftp.download(&remote, &back).times(true);
        down.await.unwrap();
        assert_eq!(fs::metadata(&back).unwrap().modified().unwrap(), old);
        fs::remove_file(local).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_half_a_file_in_either_direction() {
    let place = Place::new().await;
    let (a, b) = (vec![b'a'; 3 << 20], vec![b'b'; 2 << 20]);
    let (up_a, up_b) = (place.file("a", &a), place.file("b", &b));
    let (remote, local) = (place.there("file"), place.here("file"));
    place.sftp.upload(&up_a, &remote).await.unwrap();
    place.sftp.download(&remote, &local).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [remote.clone(), local.clone()]
        .into_iter()
        .map(|path| {
            let (done, a, b) = (done.clone(), a.clone(), b.clone());
            std::thread::spawn(move || {
                let mut reads = 0;
                while !done.load(Ordering::SeqCst) {
                    let seen = fs::read(&path).unwrap();
                    assert!(seen == a || seen == b, "half a file: {} bytes", seen.len());
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for round in 0..20 {
        let from = if round % 2 == 0 { &up_b } else { &up_a };
        place.sftp.upload(from, &remote).await.unwrap();
        place.sftp.download(&remote, &local).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
}

#[tokio::test]
async fn single_operations_do_what_their_names_say() {
    let place = Place::new().await;
    let sftp = &place.sftp;
    let folder = place.there("folder");
    sftp.create_dir(&folder).await.unwrap();
    assert!(sftp.metadata(&folder).await.unwrap().is_dir());
    let file = folder.join("file");
    sftp.write(&file, "some text").await.unwrap();
    sftp.write(&file, "text").await.unwrap();
    assert_eq!(sftp.read(&file).await.unwrap(), b"text");
    assert_eq!(mode(&file), 0o644);
    sftp.set_permissions(&file, 0o640).await.unwrap();
    let metadata = sftp.metadata(&file).await.unwrap();
    assert_eq!(metadata.permissions(), Some(0o640));
    assert_eq!((metadata.len(), metadata.file_type()), (4, FileType::File));
    assert!(metadata.modified().is_some() && metadata.uid().is_some());

    let link = folder.join("link");
    sftp.symlink("file", &link).await.unwrap();
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("file"));
    assert_eq!(sftp.read_link(&link).await.unwrap(), "file");
    assert!(sftp.symlink_metadata(&link).await.unwrap().is_symlink());
    assert!(sftp.metadata(&link).await.unwrap().is_file());
    assert_eq!(
        sftp.canonicalize(&link).await.unwrap(),
        file.to_str().unwrap()
    );

    let other = folder.join("other");
    sftp.write(&other, "other").await.unwrap();
    sftp.rename(&other, &file).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"other");
    let mut listed: Vec<_> = sftp.read_dir(&folder).await.unwrap();
    listed.sort_by(|a, b| a.file_name().cmp(b.file_name()));
    let listed: Vec<_> = listed
        .iter()
        .map(|entry| (entry.file_name(), entry.metadata().file_type()))
        .collect();
    assert_eq!(
        listed,
        [("file", FileType::File), ("link", FileType::Symlink)]
    );

    let error = sftp.remove_dir(&folder).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Failure), "{error}");
    sftp.remove_file(&link).await.unwrap();
    sftp.remove_file(&file).await.unwrap();
    sftp.remove_dir(&folder).await.unwrap();
    let error = sftp.metadata(&folder).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NotFound), "{error}");
    assert!(error.to_string().contains(folder.to_str().unwrap()));
    // Relative to the login folder.
    let home = sftp.canonicalize(".").await.unwrap();
    assert!(fs::metadata(home).unwrap().is_dir());
}

#[tokio::test]
async fn what_cannot_be_a_file_is_told_before_anything_is_asked() {
    let place = Place::new().await;
    let sftp = &place.sftp;
    for path in ["", "a\0b"] {
        let error = sftp.metadata(path).await.unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{error}");
    }
    let local = place.file("a", b"a");
    for path in ["/tmp/", "..", "a/."] {
        let error = sftp.upload(&local, path).await.unwrap_err();
        assert!(matches!(error, Error::InvalidPath { .. }), "{error}");
    }
    let remote = place.remote_file("large", &[]);
    let file = fs::OpenOptions::new().write(true).open(&remote).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let error = sftp.read(&remote).await.unwrap_err();
    assert!(matches!(error, Error::TooMuch { .. }), "{error}");
}

#[tokio::test]
async fn a_file_without_a_size_is_read_to_its_end() {
    let place = Place::new().await;
    let down = place.sftp.download("/proc/self/status", place.here("a"));
    down.await.unwrap();
    let text = fs::read_to_string(place.here("a")).unwrap();
    assert!(text.starts_with("Name:"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_up_to_the_last_byte() {
    let place = Place::new().await;
    let size = (2 << 20) + 5;
    let local = place.file("a", &noise(size, 1));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let up = place.sftp.upload(&local, place.there("a"));
    up.progress(move |progress| {
        assert_eq!(
            (progress.file_total, progress.total),
            (size as u64, size as u64)
        );
        assert_eq!(progress.bytes, progress.file_bytes);
        tell.lock().unwrap().push(progress.bytes);
    })
    .await
    .unwrap();
    let told = told.lock().unwrap();
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&(size as u64)));
    assert!(told.len() > 5, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clones_of_one_session_get_their_own_bytes() {
    let place = Place::new().await;
    let mut running = JoinSet::new();
    for number in 0..200_u64 {
        let sftp = place.sftp.clone();
        let (local, remote) = (
            place.here(&format!("{number}")),
            place.there(&format!("{number}")),
        );
        running.spawn(async move {
            let bytes = noise(number as usize * 701, number);
            sftp.write(&remote, bytes.clone()).await.unwrap();
            assert!(sftp.read(&remote).await.unwrap() == bytes);
            sftp.download(&remote, &local).await.unwrap();
            assert!(fs::read(local).unwrap() == bytes);
        });
    }
    running.join_all().await;
    assert_eq!(place.host.status().isolated, 1, "one connection");
}
