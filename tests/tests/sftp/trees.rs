//! Folders with everything in them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssh_pool::sftp::{Error, FileType, SkipReason, Skipped};
use ssh_pool_tests::{Cut, Proxy, Step, TestUser};

use crate::{Place, names, noise, through, tree};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Folders, files of all kinds, links that stay inside, an empty folder.
fn plant(root: &Path) {
    for folder in ["a/b/c/d", "empty", "many", "bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for number in 0..300 {
        let path = root.join(format!("many/{number}"));
        fs::write(path, noise(number as usize * 13, number)).unwrap();
    }
    fs::write(root.join("a/b/c/d/large"), noise(3 << 20, 1)).unwrap();
    fs::write(root.join("a/nothing"), "").unwrap();
    fs::write(root.join("a/ä ö'\"$x"), "a name").unwrap();
    fs::write(root.join("bin/tool"), "#!/bin/sh\n").unwrap();
    set_mode(&root.join("bin/tool"), 0o755);
    set_mode(&root.join("a/nothing"), 0o400);
    symlink("b/c", root.join("a/link")).unwrap();
    symlink("../../many/7", root.join("a/b/up")).unwrap();
    symlink("missing", root.join("dangling")).unwrap();
    set_mode(&root.join("bin"), 0o555);
    set_mode(&root.join("a/b"), 0o700);
}

fn skipped(list: &[Skipped]) -> Vec<(String, SkipReason)> {
    let mut list: Vec<_> = list
        .iter()
        .map(|skipped| (skipped.path.to_string_lossy().into_owned(), skipped.reason))
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_up_and_comes_back_as_it_was() {
    let place = Place::new().await;
    let local = place.here("tree");
    fs::create_dir(&local).unwrap();
    plant(&local);
    let (remote, back) = (place.there("tree"), place.here("back"));
    let wanted = tree(&local);
    let files = wanted.values().filter(|(kind, ..)| *kind == 'f').count() as u64;
    for again in [false, true] {
        let summary = place.sftp.upload_dir(&local, &remote).await;
        let summary = summary.unwrap();
        assert_eq!((summary.files, summary.symlinks), (files, 3));
        assert_eq!(summary.dirs, if again { 0 } else { 8 });
        if again {
            set_mode(&remote.join("bin"), 0o555);
        }
        assert_eq!(tree(&remote), wanted);
        // A folder that is there keeps its mode, and this one could not be written to.
        set_mode(&remote.join("bin"), 0o755);
    }
    set_mode(&remote.join("bin"), 0o555);
    for again in [false, true] {
        let summary = place.sftp.download_dir(&remote, &back).await;
        let summary = summary.unwrap();
        assert_eq!((summary.files, summary.symlinks), (files, 3));
        assert_eq!(summary.dirs, if again { 0 } else { 8 });
        assert!(summary.skipped.is_empty(), "{summary:?}");
        assert_eq!(tree(&back), wanted);
    }
    // What is there under other names stays.
    fs::write(back.join("mine"), "mine").unwrap();
    place.sftp.download_dir(&remote, &back).await.unwrap();
    assert_eq!(fs::read(back.join("mine")).unwrap(), b"mine");
}

#[tokio::test]
async fn links_are_never_followed_and_what_leads_out_is_listed() {
    let place = Place::new().await;
    let secret = place.file("secret", b"secret");
    let local = place.here("tree");
    fs::create_dir_all(local.join("sub")).unwrap();
    let inside = [("in", "sub/x"), ("sub/in", "../in"), ("same", ".")];
    let outside = [
        ("absolute", secret.to_str().unwrap()),
        ("sub/up", "../../secret"),
        ("through", "sub/../../secret"),
    ];
    for (name, target) in inside.iter().chain(&outside) {
        symlink(target, local.join(name)).unwrap();
    }
    let fifo = Command::new("mkfifo").arg(local.join("fifo")).status();
    assert!(fifo.unwrap().success());
    fs::write(local.join("sub/new\nline"), "").unwrap();
    let remote = place.there("tree");
    let up = place.sftp.upload_dir(&local, &remote).await.unwrap();
    // As they are: their text is all that is sent.
    assert_eq!(up.symlinks, 6);
    for (name, target) in inside.iter().chain(&outside) {
        let there = fs::read_link(remote.join(name)).unwrap();
        assert_eq!(there.to_str(), Some(*target));
    }
    let odd = [
        ("fifo".to_owned(), SkipReason::Special),
        ("sub/new\nline".to_owned(), SkipReason::Name),
    ];
    assert_eq!(skipped(&up.skipped), odd);

    let fifo = Command::new("mkfifo").arg(remote.join("fifo")).status();
    assert!(fifo.unwrap().success());
    fs::write(remote.join("sub/new\nline"), "").unwrap();
    let back = place.here("back");
    let down = place.sftp.download_dir(&remote, &back).await.unwrap();
    assert_eq!(down.symlinks, 3);
    let mut wanted: Vec<_> = outside
        .iter()
        .map(|(name, _)| ((*name).to_owned(), SkipReason::LeadsOut))
        .chain(odd)
        .collect();
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(skipped(&down.skipped), wanted);
    assert_eq!(names(&back), ["in", "same", "sub"]);
}

#[tokio::test]
async fn a_link_in_the_place_of_a_folder_is_not_written_through_on_either_side() {
    let place = Place::new().await;
    let outside = place.here("outside");
    fs::create_dir(&outside).unwrap();
    let remote = place.there("tree");
    fs::create_dir_all(remote.join("sub")).unwrap();
    fs::write(remote.join("sub/file"), "theirs").unwrap();
    let local = place.here("tree");
    fs::create_dir(&local).unwrap();
    symlink(&outside, local.join("sub")).unwrap();
    let error = place.sftp.download_dir(&remote, &local).await.unwrap_err();
    let Error::WrongType { path, found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((path, *found), (&local.join("sub"), FileType::Symlink));
    assert!(names(&outside).is_empty());

    // The other way round.
    let far = place.there("outside");
    fs::create_dir(&far).unwrap();
    TestUser::plain().own(&far);
    let remote = place.there("linked");
    fs::create_dir(&remote).unwrap();
    TestUser::plain().own(&remote);
    symlink(&far, remote.join("sub")).unwrap();
    let local = place.here("plain");
    fs::create_dir_all(local.join("sub")).unwrap();
    fs::write(local.join("sub/file"), "ours").unwrap();
    let error = place.sftp.upload_dir(&local, &remote).await.unwrap_err();
    let Error::WrongType { path, found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((path, *found), (&remote.join("sub"), FileType::Symlink));
    assert!(names(&far).is_empty());
}

#[tokio::test]
async fn a_link_in_the_place_of_a_file_is_replaced_and_not_followed() {
    let place = Place::new().await;
    let (mine, theirs) = (
        place.file("mine", b"mine"),
        place.remote_file("theirs", b"theirs"),
    );
    let (here, there) = (place.here("link"), place.there("link"));
    symlink(&mine, &here).unwrap();
    place.sftp.symlink(&theirs, &there).await.unwrap();
    let new = place.file("new", b"new");
    place.sftp.upload(&new, &there).await.unwrap();
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
    assert!(fs::symlink_metadata(&there).unwrap().is_file());
    place.sftp.download(&theirs, &here).await.unwrap();
    assert_eq!(fs::read(&mine).unwrap(), b"mine");
    assert!(fs::symlink_metadata(&here).unwrap().is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_survives_connections_that_are_lost_again_and_again() {
    let place = Place::new().await;
    let local = place.here("tree");
    fs::create_dir(&local).unwrap();
    plant(&local);
    let proxy = Arc::new(Proxy::to(place.sshd.addr()));
    let folder = ssh_pool_tests::TempDir::new();
    let (_pool, sftp) = through(&proxy, &place.sshd, &folder).await;
    let remote = place.there("tree");
    let done = Arc::new(AtomicUsize::new(0));
    let (breaks, count) = (proxy.clone(), done.clone());
    let up = sftp.upload_dir(&local, &remote).progress(move |progress| {
        let whole = progress.file_bytes == progress.file_total;
        if whole && [20, 120, 200].contains(&count.fetch_add(1, Ordering::SeqCst)) {
            breaks.reset();
        }
    });
    let summary = up.await.unwrap();
    assert!(summary.retries >= 3, "{summary:?}");
    assert_eq!(tree(&remote), tree(&local));

    proxy.script([Step::from_server(1 << 20, Cut::Reset)]);
    proxy.reset();
    let back = place.here("back");
    let summary = sftp.download_dir(&remote, &back).await.unwrap();
    assert!(summary.retries >= 1, "{summary:?}");
    assert_eq!(tree(&back), tree(&local));
}
