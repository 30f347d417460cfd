//! Files whose size is not what they say, beside `sftp`; and files that change while they are copied.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use ssh_pool::sftp::{Error, Progress};
use ssh_pool_tests::Sshd;

use crate::{Place, names};

/// Without a size; with a page; with the right one; without one, and more than one request brings.
const ODD: &[&str] = &[
    "/proc/version",
    "/proc/filesystems",
    "/sys/devices/system/cpu/online",
    "/sys/kernel/notes",
    "/proc/kallsyms",
];
/// More than is on its way at once.
const LARGE: u64 = 64 << 20;
/// What fits into one request.
const SMALL: u64 = 100;

/// What OpenSSH's client makes of it, with the same server and key.
fn sftp(place: &Place, line: &str) {
    let mut client = Command::new("sftp");
    client.args(["-q", "-F", "none", "-b", "-", "-o"]);
    let known_hosts = place.sshd.known_hosts();
    client.arg(format!("UserKnownHostsFile={}", known_hosts.display()));
    client.arg("-i").arg(place.sshd.client_key());
    client.arg("-P").arg(place.sshd.port().to_string());
    client.arg(format!("{}@{}", place.sshd.user(), place.sshd.addr().ip()));
    client.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut client = client.spawn().unwrap();
    writeln!(client.stdin.take().unwrap(), "{line}").unwrap();
    assert!(client.wait().unwrap().success(), "{line}");
}

fn content(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_whose_size_is_not_what_they_say_arrive_as_with_sftp() {
    let place = Place::new().await;
    for (number, path) in ODD.iter().enumerate() {
        // Not over the last one: `sftp` cannot write to what has its mode.
        let (ours, theirs) = (format!("ours{number}"), format!("theirs{number}"));
        let (there, theirs_there) = (place.there(&ours), place.there(&theirs));
        let summary = place.sftp.upload(path, &there).verify(true).await.unwrap();
        sftp(&place, &format!("put {path} {}", theirs_there.display()));
        assert!(content(&there) == content(&theirs_there), "{path} up");
        assert!(!content(&there).is_empty(), "{path}");
        assert_eq!(summary.bytes, content(&there).len() as u64, "{path}");

        let (here, theirs) = (place.here(&ours), place.here(&theirs));
        let summary = place.sftp.download(path, &here).verify(true).await;
        let summary = summary.unwrap();
        sftp(&place, &format!("get {path} {}", theirs.display()));
        assert!(content(&here) == content(&theirs), "{path} down");
        assert_eq!(summary.bytes, content(&here).len() as u64, "{path}");
        assert_eq!(place.sftp.read(path).await.unwrap(), content(&here));
    }
}

/// Copies a file to or from `path`, which is changed as soon as something has arrived. Its length then.
async fn changed_meanwhile(
    place: &Place,
    up: bool,
    change: impl Fn(&File) + Send + Sync + 'static,
) -> Result<u64, Error> {
    let path = match up {
        true => place.file("from", b""),
        false => place.remote_file("from", b""),
    };
    let file = File::options().append(true).open(&path).unwrap();
    file.set_len(LARGE).unwrap();
    let once = Arc::new(AtomicBool::new(false));
    let progress = move |_: &Progress<'_>| {
        if !once.swap(true, Ordering::SeqCst) {
            change(&file);
        }
    };
    let to = if up {
        place.there("to")
    } else {
        place.here("to")
    };
    if up {
        place.sftp.upload(&path, &to).progress(progress).await?;
    } else {
        place.sftp.download(&path, &to).progress(progress).await?;
    }
    Ok(fs::metadata(to).unwrap().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_to_a_file_while_it_is_copied_is_not_in_the_copy() {
    let place = Place::new().await;
    for up in [true, false] {
        let append = |mut file: &File| file.write_all(b"more").unwrap();
        let length = changed_meanwhile(&place, up, append).await;
        assert_eq!(length.unwrap(), LARGE, "up: {up}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_shorter_while_it_is_copied_is_an_error() {
    let place = Place::new().await;
    for up in [true, false] {
        let cut = |file: &File| file.set_len(SMALL).unwrap();
        let error = changed_meanwhile(&place, up, cut).await.unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "up: {up}: {error}");
        assert!(!place.there("to").exists() && !place.here("to").exists());
    }
}

/// A file that grows, a byte at a time, for as long as this exists.
struct Log {
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    fn at(path: &Path) -> Self {
        let mut file = File::options().append(true).open(path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let writer = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                file.write_all(b"+").unwrap();
            }
        });
        Self {
            stop,
            writer: Some(writer),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.writer.take().unwrap().join().unwrap();
    }
}

/// One that tells sums, and one where files are read back.
async fn places() -> [Place; 2] {
    let reads_back = Sshd::builder().option("ForceCommand internal-sftp");
    [Place::new().await, Place::on(reads_back).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_while_it_is_copied_and_compared_is_like_its_copy() {
    for place in places().await {
        let path = place.remote_file("log", b"");
        let _log = Log::at(&path);
        for _ in 0..10 {
            let down = place.sftp.download(&path, place.here("log")).verify(true);
            let copied = down.await.unwrap().bytes;
            let content = content(&place.here("log"));
            assert_eq!(copied, content.len() as u64);
            assert!(content.iter().all(|byte| *byte == b'+'));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_and_changes_in_what_was_copied_is_not_like_its_copy() {
    for place in places().await {
        let path = place.remote_file("from", b"");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(LARGE).unwrap();
        let progress = move |progress: &Progress<'_>| {
            if progress.file_bytes > 0 {
                file.write_all_at(b"other", 0).unwrap();
                file.write_all_at(b"more", LARGE).unwrap();
            }
        };
        let down = place.sftp.download(&path, place.here("to")).verify(true);
        let error = down.progress(progress).await.unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        assert!(names(place.local.path()).is_empty());
    }
}
