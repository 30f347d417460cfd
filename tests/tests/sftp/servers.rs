//! Other servers than the installed sshd.

use std::fs;

use ssh_pool::sftp::{Sftp, SftpExt};
use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Dropbear, Release, Sshd, TempDir, TestUser};

use crate::{Place, names, noise, remote_folder, tree};

/// A file and a tree, up and down.
async fn serves(sftp: &Sftp) {
    let (local, remote) = (TempDir::new(), remote_folder());
    let bytes = noise((5 << 20) + 3, 1);
    let (file, there) = (local.path().join("a"), remote.path().join("a"));
    fs::write(&file, &bytes).unwrap();
    // Twice: the second replaces the first.
    for _ in 0..2 {
        sftp.upload(&file, &there).verify(true).await.unwrap();
        assert!(fs::read(&there).unwrap() == bytes);
    }
    let back = local.path().join("back");
    sftp.download(&there, &back).verify(true).await.unwrap();
    assert!(fs::read(back).unwrap() == bytes);

    let folder = local.path().join("folder");
    fs::create_dir_all(folder.join("sub/sub")).unwrap();
    for number in 0..50 {
        let name = format!("sub/{number}");
        fs::write(folder.join(name), noise(number as usize, number)).unwrap();
    }
    std::os::unix::fs::symlink("sub/1", folder.join("link")).unwrap();
    let there = remote.path().join("folder");
    let summary = sftp.upload_dir(&folder, &there).await.unwrap();
    assert_eq!((summary.files, summary.dirs, summary.symlinks), (50, 3, 1));
    assert_eq!(tree(&folder), tree(&there));
    let back = local.path().join("folder back");
    let summary = sftp.download_dir(&there, &back).await.unwrap();
    assert_eq!((summary.files, summary.dirs, summary.symlinks), (50, 3, 1));
    assert_eq!(tree(&folder), tree(&back));
    assert_eq!(names(remote.path()), ["a", "folder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_as_installed_serves_files() {
    serves(&Place::new().await.sftp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_10_serves_files() {
    let place = Place::on(Sshd::builder().release(Release::Trixie)).await;
    serves(&place.sftp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropbear_serves_files_with_the_sftp_server_of_openssh() {
    let dropbear = Dropbear::start();
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(dropbear.known_hosts()))
        .identity(Identity::key_file(dropbear.client_key()))
        .build()
        .unwrap();
    let host = pool.host(dropbear.target()).unwrap();
    serves(&host.sftp().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_run_no_command_is_verified_by_reading_back() {
    let server = Sshd::builder().option("ForceCommand internal-sftp");
    let place = Place::on(server.user(TestUser::plain())).await;
    serves(&place.sftp).await;
}
