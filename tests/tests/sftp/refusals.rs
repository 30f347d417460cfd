//! What servers and machines refuse: told by type, with the path, and the old file stays.

use std::error::Error as _;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ssh_pool::Timeouts;
use ssh_pool::sftp::{Error, FileType, Reason, SftpExt};
use ssh_pool_tests::{Sshd, TestUser};

use crate::{Place, SOON, builder, counted, known, names, noise, remote_folder};

/// A file system of 4 MiB.
struct Small(ssh_pool_tests::TempDir);

impl Small {
    fn mount() -> Self {
        let folder = remote_folder();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0777", "tmpfs"]);
        let status = mount.arg(folder.path()).status().unwrap();
        assert!(status.success(), "run as root, with the right to mount");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        let status = umount.arg("-l").arg(self.path()).status();
        assert!(status.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_there_is_told_and_the_old_file_stays() {
    let place = Place::new().await;
    let disk = Small::mount();
    let remote = disk.path().join("file");
    place.sftp.write(&remote, "old").await.unwrap();
    let local = place.file("a", &noise(16 << 20, 1));
    let error = place.sftp.upload(&local, &remote).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoSpace), "{error}");
    assert!(error.to_string().contains(remote.to_str().unwrap()));
    assert_eq!(fs::read(&remote).unwrap(), b"old");
    assert_eq!(names(disk.path()), ["file"]);
    // There is room again.
    place.sftp.write(&remote, "new").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_here_is_told_and_the_old_file_stays() {
    let place = Place::new().await;
    let disk = Small::mount();
    let local = disk.path().join("file");
    fs::write(&local, "old").unwrap();
    let remote = place.remote_file("a", &noise(16 << 20, 1));
    let error = place.sftp.download(&remote, &local).await.unwrap_err();
    let Error::Local { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs::read(&local).unwrap(), b"old");
    assert_eq!(names(disk.path()), ["file"]);
}

#[tokio::test]
async fn what_may_not_be_written_or_read_is_told_with_its_path() {
    let place = Place::new().await;
    let remote = place.remote_file("file", b"old");
    let local = place.file("new", b"new");
    fs::set_permissions(place.remote.path(), fs::Permissions::from_mode(0o555)).unwrap();
    for error in [
        place.sftp.upload(&local, &remote).await.unwrap_err(),
        place.sftp.write(&remote, "new").await.unwrap_err(),
        place.sftp.create_dir(place.there("a")).await.unwrap_err(),
    ] {
        assert_eq!(error.reason(), Some(Reason::PermissionDenied), "{error}");
        assert!(
            error
                .to_string()
                .contains(place.remote.path().to_str().unwrap())
        );
        assert!(!error.is_transient());
    }
    assert_eq!(fs::read(&remote).unwrap(), b"old");
    assert_eq!(names(place.remote.path()), ["file"]);
    fs::set_permissions(&remote, fs::Permissions::from_mode(0o000)).unwrap();
    let down = place.sftp.download(&remote, place.here("a"));
    let error = down.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PermissionDenied), "{error}");
    assert_eq!(names(place.local.path()), ["new"]);
}

#[tokio::test]
async fn a_folder_is_no_file_and_a_file_is_no_folder() {
    let place = Place::new().await;
    let (file, folder) = (place.remote_file("file", b"a"), place.there("folder"));
    place.sftp.create_dir(&folder).await.unwrap();
    let (own_file, own_folder) = (place.file("file", b"a"), place.here("folder"));
    fs::create_dir(&own_folder).unwrap();
    let wrong = |error: Error, wanted| match &error {
        Error::WrongType { wanted: told, .. } => assert_eq!(*told, wanted, "{error}"),
        _ => panic!("{error}"),
    };
    let up = place.sftp.upload(&own_folder, place.there("a"));
    wrong(up.await.unwrap_err(), FileType::File);
    let up = place.sftp.upload_dir(&own_file, place.there("a"));
    wrong(up.await.unwrap_err(), FileType::Dir);
    let up = place.sftp.upload_dir(&own_folder, &file);
    wrong(up.await.unwrap_err(), FileType::Dir);
    let down = place.sftp.download(&folder, place.here("a"));
    wrong(down.await.unwrap_err(), FileType::File);
    let down = place.sftp.download_dir(&file, place.here("a"));
    wrong(down.await.unwrap_err(), FileType::Dir);
    let down = place.sftp.download_dir(&folder, &own_file);
    wrong(down.await.unwrap_err(), FileType::Dir);
    // A file does not replace a folder.
    let up = place.sftp.upload(&own_file, &folder).await.unwrap_err();
    wrong(up, FileType::File);
    let down = place.sftp.download(&file, &own_folder).await.unwrap_err();
    wrong(down, FileType::File);
    // Opening a FIFO would wait for its other end, for ever.
    for fifo in [place.here("fifo"), place.there("fifo")] {
        let made = Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
    }
    let up = place.sftp.upload(place.here("fifo"), place.there("a"));
    wrong(up.await.unwrap_err(), FileType::File);
    let down = place.sftp.download(place.there("fifo"), place.here("a"));
    wrong(down.await.unwrap_err(), FileType::File);
    assert_eq!(names(place.remote.path()), ["fifo", "file", "folder"]);
    assert_eq!(names(place.local.path()), ["fifo", "file", "folder"]);
}

#[tokio::test]
async fn a_missing_file_is_told_on_either_side() {
    let place = Place::new().await;
    let down = place.sftp.download(place.there("a"), place.here("a"));
    let error = down.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NotFound), "{error}");
    let up = place.sftp.upload(place.here("a"), place.there("a"));
    let error = up.await.unwrap_err();
    assert!(matches!(error, Error::Local { .. }), "{error}");
    assert!(error.to_string().contains(": No such file"), "{error}");
    assert!(error.source().is_some());
    let local = place.file("a", b"a");
    let up = place.sftp.upload(&local, place.there("no/a"));
    let error = up.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NotFound), "{error}");
    assert!(names(place.remote.path()).is_empty());
}

#[tokio::test]
async fn a_local_name_that_is_too_long_is_told_before_anything_is_read() {
    let place = Place::new().await;
    let remote = place.remote_file("a", &noise(1 << 20, 1));
    let folder = format!("{}/", "n".repeat(255)).repeat(16);
    for long in [place.here(&"n".repeat(256)), place.here(&folder).join("a")] {
        let (progress, calls) = counted();
        let down = place.sftp.download(&remote, &long).progress(progress);
        let up = place.sftp.upload(&long, place.there("b"));
        for error in [down.await.unwrap_err(), up.await.unwrap_err()] {
            assert!(matches!(error, Error::Local { .. }), "{error:?}");
            assert_eq!(error.reason(), Some(Reason::NameTooLong), "{error}");
            assert!(error.to_string().contains("names of 255 bytes"), "{error}");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 0);
    }
    let longest = place.here(&"n".repeat(255));
    place.sftp.download(&remote, &longest).await.unwrap();
}

#[tokio::test]
async fn a_server_without_sftp_is_told_by_the_cores_own_error() {
    let sshd = Sshd::builder().option("Subsystem other /bin/true").start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let error = pool.host(sshd.target()).unwrap().sftp().await.unwrap_err();
    let Error::Session { source, .. } = &error else {
        panic!("{error}");
    };
    let refused = matches!(**source, ssh_pool::Error::SubsystemRefused { .. });
    assert!(refused, "{source}");
    assert!(!error.is_transient());
    let text = error.to_string();
    for part in ["no subsystem \"sftp\"", "check Subsystem and ForceCommand"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let target = format!("{}: ", sshd.target());
    assert_eq!(text.matches(&target).count(), 1, "{text}");
}

#[tokio::test]
async fn a_session_that_pam_denies_may_be_why_there_is_no_sftp() {
    let rules = "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_deny.so\n";
    let sshd = Sshd::builder().pam(rules).user(TestUser::plain()).start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let opened = tokio::time::timeout(SOON, host.sftp()).await.unwrap();
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("that PAM opens the session"), "{text}");
}

#[tokio::test]
async fn what_is_no_sftp_server_is_told() {
    let options = [
        ("Subsystem sftp echo This account is closed", true),
        ("Subsystem sftp true", true),
        ("ForceCommand true; echo This account is closed", false),
        ("ForceCommand true", false),
    ];
    for (option, has_commands) in options {
        let sshd = Sshd::builder().option(option);
        let sshd = sshd.user(TestUser::plain()).start();
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let opened = tokio::time::timeout(SOON, host.sftp()).await.unwrap();
        let error = opened.unwrap_err();
        assert!(matches!(error, Error::NotSftp { .. }), "{error:?}");
        assert!(!error.is_transient());
        let text = error.to_string();
        let what = match option.contains("echo") {
            true => "says what is not SFTP",
            false => "ended without a word of SFTP",
        };
        for part in [what, "ForceCommand and Subsystem in sshd_config"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        // It takes nothing along.
        let status = host.command("true").status().await;
        assert!(!has_commands || status.unwrap().success());
    }
}

#[tokio::test]
async fn a_server_that_cannot_replace_in_one_step_keeps_its_file() {
    let plain = "Subsystem sftp internal-sftp -P posix-rename,fsync,limits,statvfs";
    let place = Place::on(Sshd::builder().option(plain)).await;
    let bytes = noise((3 << 20) + 1, 1);
    let local = place.file("a", &bytes);
    let remote = place.there("a");
    // Without limits@openssh.com in pieces of 32 KiB.
    place.sftp.upload(&local, &remote).await.unwrap();
    assert!(fs::read(&remote).unwrap() == bytes);
    let down = place.sftp.download(&remote, place.here("b"));
    down.await.unwrap();
    assert!(fs::read(place.here("b")).unwrap() == bytes);
    let error = place.sftp.write(&remote, "new").await.unwrap_err();
    assert!(matches!(error, Error::NotAtomic { .. }), "{error}");
    assert!(fs::read(&remote).unwrap() == bytes);
    assert_eq!(names(place.remote.path()), ["a"]);
}

#[tokio::test]
async fn after_the_pool_is_closed_there_is_no_session() {
    let sshd = Sshd::start();
    let soon = Timeouts::default().drain(Duration::from_millis(100));
    let pool = builder(&sshd, known(&sshd)).timeouts(soon);
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let sftp = host.sftp().await.unwrap();
    // A session that is open counts as running: it is waited for.
    pool.close().await;
    for error in [
        sftp.metadata(".").await.unwrap_err(),
        host.sftp().await.unwrap_err(),
    ] {
        let Error::Session { source, .. } = &error else {
            panic!("{error}");
        };
        let closed = matches!(**source, ssh_pool::Error::Closed { .. });
        assert!(closed, "{source}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_name_with_any_byte_is_copied_or_shown_escaped_in_a_short_error() {
    let place = Place::new().await;
    let local = place.here("back");
    let bytes = (1..=u8::MAX).filter(|byte| *byte != b'/');
    let names = bytes.map(|byte| vec![b'a', byte, b'z']);
    // It turns the direction of a line.
    for name in names.chain(["a\u{202e}z".into()]) {
        let remote = place.remote.path().join(OsStr::from_bytes(&name));
        let error = place.sftp.download(&remote, &local).await.unwrap_err();
        let shown = error.to_string();
        let raw = |c: char| c.is_control() || c == '\u{202e}' || c == '\u{fffd}';
        assert!(!shown.contains(raw) && shown.len() < 500, "{shown:?}");
        let written = place.sftp.write(&remote, name.clone()).await;
        if std::str::from_utf8(&name).is_err() {
            let error = written.unwrap_err();
            assert!(matches!(error, Error::InvalidPath { .. }), "{error}");
            assert!(error.to_string().contains("not UTF-8"), "{error}");
            continue;
        }
        written.unwrap();
        place.sftp.download(&remote, &local).await.unwrap();
        assert_eq!(fs::read(&local).unwrap(), name);
    }
    // What is not too long for the protocol does not bury the reason.
    let long = place.there(&"a/".repeat(20_000)).join("b");
    let error = place.sftp.metadata(&long).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NameTooLong), "{error}");
    assert!(error.to_string().len() < 500, "{error}");
}
