//! Folders of which some parts cannot be copied.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ssh_pool::sftp::{Error, Reason, Summary};
use ssh_pool_tests::TestUser;

use crate::{Place, mode, names};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A file that can be read and others, in folders of several modes.
fn plant(root: &Path) {
    for folder in ["sub/deep", "closed/below"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in [
        "a",
        "b",
        "sub/c",
        "sub/deep/d",
        "closed/e",
        "closed/below/f",
    ] {
        fs::write(root.join(file), file).unwrap();
    }
    set_mode(root, 0o750);
    set_mode(&root.join("sub"), 0o555);
}

fn failed(summary: &Summary) -> Vec<&Path> {
    let mut paths: Vec<_> = summary.failed.iter().map(|failed| &*failed.path).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_by_choice_and_lists_what_cannot_be_read() {
    let place = Place::new().await;
    let remote = place.there("tree");
    fs::create_dir(&remote).unwrap();
    plant(&remote);
    TestUser::plain().own(&remote);
    set_mode(&remote.join("b"), 0);
    set_mode(&remote.join("closed"), 0);
    // Without that choice: the first failure, and modes as they should be all the same.
    let error = place.sftp.download_dir(&remote, place.here("first"));
    let error = error.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PermissionDenied), "{error}");
    assert!(names(place.local.path()).is_empty(), "the listing fails");
    set_mode(&remote.join("closed"), 0o755);
    let error = place.sftp.download_dir(&remote, place.here("first"));
    let error = error.await.unwrap_err();
    assert!(error.to_string().contains("tree/b"), "{error}");
    assert_eq!(mode(&place.here("first")), 0o750);
    assert_eq!(mode(&place.here("first/sub")), 0o555);

    set_mode(&remote.join("closed"), 0);
    let local = place.here("all");
    let down = place.sftp.download_dir(&remote, &local).keep_going(true);
    let summary = down.await.unwrap();
    assert_eq!(failed(&summary), [remote.join("b"), remote.join("closed")]);
    for failed in &summary.failed {
        assert_eq!(failed.error.reason(), Some(Reason::PermissionDenied));
    }
    assert_eq!((summary.files, summary.dirs), (3, 3));
    assert_eq!(names(&local), ["a", "sub"]);
    assert_eq!(fs::read(local.join("sub/deep/d")).unwrap(), b"sub/deep/d");
    assert_eq!((mode(&local), mode(&local.join("sub"))), (0o750, 0o555));
    // A root that cannot be listed is no part.
    set_mode(&remote, 0);
    let down = place.sftp.download_dir(&remote, place.here("none"));
    let error = down.keep_going(true).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PermissionDenied), "{error}");
    set_mode(&remote, 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_by_choice_and_lists_what_cannot_be_written() {
    let place = Place::new().await;
    let local = place.here("tree");
    fs::create_dir(&local).unwrap();
    plant(&local);
    let remote = place.there("tree");
    for folder in ["tree", "tree/a", "tree/sub"] {
        let folder = place.there(folder);
        fs::create_dir(&folder).unwrap();
        TestUser::plain().own(&folder);
    }
    // A folder in the place of a file, a file in that of a folder, and one that takes nothing.
    fs::write(remote.join("closed"), "in the way").unwrap();
    set_mode(&remote.join("sub"), 0o555);
    let error = place.sftp.upload_dir(&local, &remote).await.unwrap_err();
    assert!(matches!(error, Error::WrongType { .. }), "{error}");
    let up = place.sftp.upload_dir(&local, &remote).keep_going(true);
    let summary = up.await.unwrap();
    let wanted = ["a", "closed", "sub/c", "sub/deep"].map(|name| local.join(name));
    assert_eq!(failed(&summary), wanted);
    for failed in &summary.failed {
        match &*failed.error {
            Error::WrongType { .. } => assert!(!failed.path.ends_with("sub/c")),
            error => assert_eq!(error.reason(), Some(Reason::PermissionDenied), "{error}"),
        }
    }
    assert_eq!(summary.files, 1, "{summary:?}");
    assert_eq!(names(&remote), ["a", "b", "closed", "sub"]);
    assert_eq!(fs::read(remote.join("b")).unwrap(), b"b");
    assert_eq!(fs::read(remote.join("closed")).unwrap(), b"in the way");
    assert_eq!(mode(&remote.join("sub")), 0o555);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_a_copy_that_fails_have_their_modes() {
    let place = Place::new().await;
    let local = place.here("tree");
    fs::create_dir_all(local.join("shut")).unwrap();
    fs::write(local.join("shut/a"), "a").unwrap();
    fs::write(local.join("b"), "b").unwrap();
    set_mode(&local.join("shut"), 0o511);
    let remote = place.there("tree");
    let blocked = remote.join("b");
    fs::create_dir_all(&blocked).unwrap();
    TestUser::plain().own(&remote);
    let error = place.sftp.upload_dir(&local, &remote).await.unwrap_err();
    assert!(matches!(error, Error::WrongType { .. }), "{error}");
    assert_eq!(mode(&remote.join("shut")), 0o511);
}
