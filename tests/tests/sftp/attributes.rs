//! Modes, owners and times: set where that is allowed, and else said.

use std::fs;
use std::future::IntoFuture;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ssh_pool::sftp::{Attribute, Error, Reason, Summary, UnsetReason};
use ssh_pool_tests::{Sshd, TestUser, eventually_async};

use crate::cancels::open_on;
use crate::{Place, SOON, counted, mode, names, noise};

/// What was not set, of files whose path does not matter.
fn unset(summary: &Summary) -> Vec<Attribute> {
    summary.unset.iter().map(|unset| unset.attribute).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.uid(), found.gid())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_to_set_attributes_keeps_the_file_and_the_summary_says_so() {
    for refused in ["setstat,fsetstat", "fsetstat", "setstat"] {
        let all = refused == "setstat,fsetstat";
        let server = format!("Subsystem sftp internal-sftp -P {refused}");
        let place = Place::on(Sshd::builder().option(server)).await;
        let bytes = noise(600 << 10, 1);
        let local = place.file("a", &bytes);
        let remote = place.there("a");
        // The mask of the server lets 0644 through, and this not.
        for (bits, lacks) in [(0o644, false), (0o664, all), (0o600, false), (0o444, all)] {
            set_mode(&local, bits);
            let summary = place.sftp.upload(&local, &remote).await.unwrap();
            assert!(fs::read(&remote).unwrap() == bytes, "{refused}");
            let wanted: &[Attribute] = if lacks { &[Attribute::Mode] } else { &[] };
            assert_eq!(unset(&summary), wanted, "{refused}: {summary:?}");
            if lacks {
                assert_eq!(mode(&remote), (bits & 0o755) | 0o600);
                let said = summary.unset[0].reason.to_string();
                assert!(said.contains("permission denied"), "{said}");
                assert_eq!(summary.unset[0].path, remote);
            } else {
                assert_eq!(mode(&remote), bits, "{refused}");
            }
        }
        set_mode(&local, 0o644);
        let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(&local).unwrap().set_modified(old).unwrap();
        let summary = place.sftp.upload(&local, &remote).times(true).await;
        let summary = summary.unwrap();
        let wanted: &[Attribute] = if all { &[Attribute::Modified] } else { &[] };
        assert_eq!(unset(&summary), wanted, "{refused}: {summary:?}");
        let strict = place.sftp.upload(&local, &remote).times(true).strict(true);
        match strict.await {
            Ok(_) => assert!(!all, "{refused}"),
            Err(Error::Unset { attribute, .. }) => {
                assert!(all && attribute == Attribute::Modified, "{refused}");
            }
            Err(error) => panic!("{error}"),
        }
        // A tree with a folder whose mode cannot be had by making it.
        let folder = place.here("folder");
        fs::create_dir_all(folder.join("sub")).unwrap();
        set_mode(&folder.join("sub"), 0o555);
        let summary = place.sftp.upload_dir(&folder, place.there("folder")).await;
        let summary = summary.unwrap();
        let lacks = refused.starts_with("setstat");
        assert_eq!(summary.unset.len(), usize::from(lacks), "{summary:?}");
        assert_eq!(names(place.remote.path()), ["a", "folder"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_upload_needs_no_right_to_set_attributes() {
    let server = "Subsystem sftp internal-sftp -P setstat,fsetstat";
    let place = Place::on(Sshd::builder().option(server)).await;
    let local = place.file("a", &noise(900 << 10, 1));
    let remote = place.there("a");
    for left in [300 << 10, 2 << 20] {
        // What an earlier call has left: a part of it, and something longer.
        let (halted, halt) = tokio::sync::oneshot::channel();
        let halted = Mutex::new(Some(halted));
        let up = place.sftp.upload(&local, &remote).resume(true);
        let up = up.progress(move |_| {
            if let Some(halted) = halted.lock().unwrap().take() {
                halted.send(()).unwrap();
            }
        });
        tokio::select! {
            biased;
            _ = halt => {}
            _ = up.into_future() => panic!("it was to be interrupted"),
        }
        let folder = place.remote.path();
        let closed = || open_on(&place.sshd, folder).is_empty();
        assert!(eventually_async(SOON, closed).await);
        let all = names(folder);
        let part = all.iter().find(|name| name.ends_with(".part")).unwrap();
        let mut bytes = fs::read(&local).unwrap();
        bytes.resize(left, 9);
        fs::write(place.there(part), bytes).unwrap();
        let up = place.sftp.upload(&local, &remote).resume(true);
        let summary = up.await.unwrap();
        assert_eq!(
            summary.resumed,
            if left > 900 << 10 { 0 } else { left as u64 }
        );
        assert!(fs::read(&remote).unwrap() == fs::read(&local).unwrap());
        assert_eq!(names(folder), ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_sftp_cannot_say_are_said_and_never_are_now() {
    let place = Place::new().await;
    let before = UNIX_EPOCH - Duration::from_secs(300_000_000);
    let after = UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) + 10);
    let local = place.file("a", b"content");
    let remote = place.there("a");
    let set = |time: SystemTime| fs::File::open(&local).unwrap().set_modified(time).unwrap();
    for time in [before, after] {
        set(time);
        let summary = place.sftp.upload(&local, &remote).times(true).await;
        let summary = summary.unwrap();
        assert_eq!(summary.unset.len(), 1, "{summary:?}");
        assert_eq!(summary.unset[0].attribute, Attribute::Modified);
        assert_eq!(summary.unset[0].reason, UnsetReason::OutOfRange);
        let strict = place.sftp.upload(&local, place.there("b")).times(true);
        let error = strict.strict(true).await.unwrap_err();
        let Error::Unset { reason, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*reason, UnsetReason::OutOfRange);
        assert!(error.to_string().contains("1970"), "{error}");
        // Nothing was asked of times here.
        let plain = place.sftp.upload(&local, &remote).strict(true).await;
        assert!(plain.unwrap().unset.is_empty());
        assert_eq!(names(place.remote.path()), ["a"]);
    }
    // The first and the last that it can.
    for time in [UNIX_EPOCH, after - Duration::from_secs(10)] {
        set(time);
        let up = place.sftp.upload(&local, &remote).times(true).strict(true);
        up.await.unwrap();
        assert_eq!(fs::metadata(&remote).unwrap().modified().unwrap(), time);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_replaced_file_is_kept_where_the_account_may_give_it_away() {
    let root = TestUser::root_or_current();
    let place = Place::by(root, Sshd::builder()).await;
    let remote = place.remote_file("service.conf", b"old");
    set_mode(&remote, 0o640);
    let theirs = owner(&remote);
    assert_ne!(theirs.0, 0, "run as root");
    let local = place.file("new", b"new");
    set_mode(&local, 0o600);
    let summary = place.sftp.upload(&local, &remote).strict(true).await;
    assert!(summary.unwrap().unset.is_empty());
    assert_eq!(fs::read(&remote).unwrap(), b"new");
    assert_eq!((owner(&remote), mode(&remote)), (theirs, 0o600));
    place.sftp.write(&remote, "newer").await.unwrap();
    assert_eq!(owner(&remote), theirs);
    // A new file belongs to whom made it.
    place.sftp.upload(&local, place.there("b")).await.unwrap();
    assert_eq!(owner(&place.there("b")).0, 0);
    // The same on this side.
    let here = place.file("here.conf", b"old");
    chown(&here, Some(theirs.0), Some(theirs.1)).unwrap();
    let down = place.sftp.download(&remote, &here).strict(true);
    down.await.unwrap();
    assert_eq!(owner(&here), theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_cannot_be_kept_is_said() {
    let place = Place::new().await;
    let ours = owner(place.remote.path());
    let local = place.file("new", b"new");
    let remote = place.there("theirs");
    fs::write(&remote, "old").unwrap();
    chown(&remote, Some(0), Some(ours.1)).unwrap();
    let error = place.sftp.upload(&local, &remote).strict(true).await;
    let error = error.unwrap_err();
    let Error::Unset { attribute, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*attribute, Attribute::Owner);
    assert_eq!(fs::read(&remote).unwrap(), b"old");
    let summary = place.sftp.upload(&local, &remote).await.unwrap();
    assert_eq!(unset(&summary), [Attribute::Owner]);
    assert_eq!(fs::read(&remote).unwrap(), b"new");
    assert_eq!(owner(&remote), ours);
    // From now on it is ours, and there is nothing to say.
    let summary = place.sftp.upload(&local, &remote).strict(true).await;
    assert!(summary.unwrap().unset.is_empty());
    assert_eq!(names(place.remote.path()), ["theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_folder_for_all_a_file_in_the_way_does_not_get_the_new_content() {
    // Another user has put a file where root is about to write a secret.
    let place = Place::by(TestUser::root_or_current(), Sshd::builder()).await;
    chown(place.remote.path(), Some(0), Some(0)).unwrap();
    set_mode(place.remote.path(), 0o1777);
    let remote = place.remote_file("secret", b"");
    let theirs = owner(&remote).0;
    let local = place.file("secret", b"secret");
    set_mode(&local, 0o600);
    let summary = place.sftp.upload(&local, &remote).await.unwrap();
    assert_eq!((owner(&remote).0, mode(&remote)), (0, 0o600));
    assert_eq!(summary.unset.len(), 1, "{summary:?}");
    assert_eq!(summary.unset[0].reason, UnsetReason::SharedFolder);
    // The other way round the old file could not be replaced in the end: nothing is sent.
    let place = Place::new().await;
    chown(place.remote.path(), Some(0), Some(0)).unwrap();
    set_mode(place.remote.path(), 0o1777);
    let remote = place.there("theirs");
    fs::write(&remote, "old").unwrap();
    set_mode(&remote, 0o666);
    assert_ne!(owner(&remote).0, theirs);
    let (progress, calls) = counted();
    let up = place.sftp.upload(&local, &remote).progress(progress);
    let error = up.await.unwrap_err();
    let Error::Folder {
        reason, message, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*reason, Reason::PermissionDenied);
    assert!(message.contains("sticky"), "{error}");
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(fs::read(&remote).unwrap(), b"old");
    assert_eq!(names(place.remote.path()), ["theirs"]);
}
