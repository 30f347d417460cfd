//! A name that moves to another machine in the middle of a transfer: no file, and no folder, is put
//! together from two machines.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use ssh_pool::sftp::{Error, Progress, Replace, Sftp, SftpExt};
use ssh_pool::{Host, Pool};
use ssh_pool_tests::{Machines, Names, Sshd, SshdBuilder, TempDir};

use crate::{names, noise, remote_folder};

const SIZE: usize = (24 << 20) + 77;

/// Two machines with a file system each: a relative path leads to another folder on each.
struct Site {
    machines: Machines,
    dns: Names,
    old: TempDir,
    new: TempDir,
    local: TempDir,
    moved: AtomicBool,
}

impl Site {
    fn start(dns: Names) -> Arc<Self> {
        let (old, new) = (remote_folder(), remote_folder());
        let machines = Machines::of(serving(&old), serving(&new));
        machines.resolve(&dns, &[&machines.old]);
        Arc::new(Self {
            machines,
            dns,
            old,
            new,
            local: TempDir::new(),
            moved: AtomicBool::new(false),
        })
    }

    async fn sftp(&self) -> (Pool, Host, Sftp) {
        let pool = self.machines.builder().build().unwrap();
        let host = self.machines.host(&pool);
        let sftp = host.sftp().await.unwrap();
        (pool, host, sftp)
    }

    fn here(&self, name: &str) -> PathBuf {
        self.local.path().join(name)
    }

    /// The name moves to the new machine, and the old one is gone.
    fn move_away(&self) {
        let Machines { old, new, .. } = &self.machines;
        self.machines.resolve(&self.dns, &[new]);
        old.stop();
        old.kill_connections();
    }

    /// A call-back that does so at half time, once, after something else.
    fn moves_at_half_time(
        self: &Arc<Self>,
        before: impl Fn() + Send + Sync + 'static,
    ) -> impl Fn(&Progress<'_>) + Send + Sync + 'static {
        let site = self.clone();
        move |progress| {
            let half = progress.bytes >= progress.total / 2;
            if half && !site.moved.swap(true, Ordering::SeqCst) {
                before();
                site.move_away();
            }
        }
    }

    fn at(&self) -> [String; 2] {
        let at = |sshd: &Sshd| sshd.addr().to_string();
        [at(&self.machines.old), at(&self.machines.new)]
    }
}

fn serving(folder: &TempDir) -> SshdBuilder {
    let folder = folder.path().display();
    Sshd::builder().option(format!("Subsystem sftp internal-sftp -d {folder}"))
}

/// A file of which only the content differs between the machines.
fn plant(path: &Path, content: &[u8], modified: SystemTime) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn a_download_begins_again_on_the_machine_that_the_name_has_moved_to() {
    Names::run(async |dns| {
        let site = Site::start(dns);
        let (old, new) = (noise(SIZE, 1), noise(SIZE, 2));
        let now = SystemTime::now();
        plant(&site.old.path().join("a"), &old, now);
        plant(&site.new.path().join("a"), &new, now);
        let (_pool, _host, sftp) = site.sftp().await;
        let down = sftp.download("a", site.here("a"));
        let summary = down.progress(site.moves_at_half_time(|| ())).await.unwrap();
        assert!(site.moved.load(Ordering::SeqCst) && summary.retries >= 1);
        assert!(fs::read(site.here("a")).unwrap() == new);
        assert_eq!(names(site.local.path()), ["a"]);
    });
}

#[test]
fn a_folder_is_not_put_together_from_two_machines() {
    Names::run(async |dns| {
        let site = Site::start(dns);
        let now = SystemTime::now();
        for n in 0..24 {
            let name = format!("tree/{n}");
            plant(&site.old.path().join(&name), &noise(1 << 20, n), now);
            plant(&site.new.path().join(&name), &noise(1 << 20, 100 + n), now);
        }
        let (_pool, _host, sftp) = site.sftp().await;
        let down = sftp.download_dir("tree", site.here("tree")).verify(true);
        let down = down.keep_going(true).concurrency(2);
        let error = down
            .progress(site.moves_at_half_time(|| ()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Moved { .. }), "{error}");
        assert!(error.is_transient());
        let text = error.to_string();
        for at in site.at() {
            assert!(text.contains(&at), "{text}");
        }
        for name in names(&site.here("tree")) {
            let copied = fs::read(site.here("tree").join(&name)).unwrap();
            assert!(copied == fs::read(site.old.path().join("tree").join(&name)).unwrap());
        }
        // The next call is one of the new machine alone.
        let summary = sftp.download_dir("tree", site.here("tree")).await.unwrap();
        assert_eq!(summary.files, 24);
        for n in 0..24 {
            let copied = fs::read(site.here("tree").join(n.to_string())).unwrap();
            assert!(copied == noise(1 << 20, 100 + n));
        }
    });
}

#[test]
fn an_upload_of_a_folder_does_not_go_on_with_another_machine() {
    Names::run(async |dns| {
        let site = Site::start(dns);
        fs::create_dir(site.here("tree")).unwrap();
        for n in 0..24 {
            fs::write(site.here("tree").join(n.to_string()), noise(1 << 20, n)).unwrap();
        }
        // There the folder is, with what is to be kept.
        fs::create_dir(site.new.path().join("tree")).unwrap();
        let (_pool, _host, sftp) = site.sftp().await;
        let up = sftp.upload_dir(site.here("tree"), "tree").concurrency(2);
        let error = up
            .progress(site.moves_at_half_time(|| ()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Moved { .. }), "{error}");
        assert_eq!(names(&site.new.path().join("tree")), [""; 0]);
    });
}

/// What is there is neither taken for a part of this file, nor appended to.
#[test]
fn an_upload_begins_again_on_another_machine_whatever_lies_there() {
    for replace in [Replace::Atomic, Replace::InPlace] {
        Names::run(async move |dns| {
            let site = Site::start(dns);
            let content = noise(SIZE, 3);
            fs::write(site.here("a"), &content).unwrap();
            let (_pool, _host, sftp) = site.sftp().await;
            // A file of the same name and size, in the place of the one that is written.
            let plants = site.clone();
            let before = move || {
                let written = names(plants.old.path());
                assert_eq!(written.len(), 1);
                let path = plants.new.path().join(&written[0]);
                plant(&path, &noise(SIZE, 4), SystemTime::now());
                ssh_pool_tests::TestUser::plain().own(&path);
            };
            let up = sftp.upload(site.here("a"), "a").replace(replace);
            let up = up.resume(replace == Replace::Atomic);
            let summary = up.progress(site.moves_at_half_time(before)).await.unwrap();
            assert!(site.moved.load(Ordering::SeqCst) && summary.retries >= 1);
            assert_eq!(names(site.new.path()), ["a"]);
            assert!(fs::read(site.new.path().join("a")).unwrap() == content);
        });
    }
}
