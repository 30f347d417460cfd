//! The programs of `docs/migration.md`, after their move to ssh-pool: each does on real servers what
//! it did before. Those they were are compiled with the feature `contenders` of the benches.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "they are programs, and here their main is not called"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use ssh_pool::{HostKeyPolicy, Pool};
use ssh_pool_tests::{Sshd, TempDir};

#[path = "../../../docs/migration/async_ssh2_backup/after.rs"]
mod backup;
#[path = "../../../docs/migration/async_ssh2_inventory/after.rs"]
mod inventory;
#[path = "../../../docs/migration/openssh_release/after.rs"]
mod release;
#[path = "../../../docs/migration/openssh_watch/after.rs"]
mod watch;

/// A folder that the user of a server may write in, until this is dropped.
struct Remote(PathBuf);

impl Remote {
    fn new(sshd: &Sshd) -> Self {
        let path = sshd.home().join(format!("migration-{}", sshd.port()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// How a program logs in to that server.
macro_rules! server {
    ($program:ident, $sshd:expr) => {
        $program::Server {
            user: $sshd.user().to_owned(),
            host: $sshd.addr().ip().to_string(),
            port: $sshd.port(),
            key: $sshd.client_key().to_owned(),
            known_hosts: $sshd.known_hosts(),
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_unpacked_migrated_and_switched_to() {
    let sshd = Sshd::start();
    let files = TempDir::new();
    let remote = Remote::new(&sshd);
    let work = remote.0.join("app");
    let folder = work.to_str().unwrap();
    let archive = |migrate: &str| {
        fs::write(files.path().join("VERSION"), "7\n").unwrap();
        fs::write(files.path().join("migrate"), migrate).unwrap();
        let tar = Command::new("tar")
            .args(["--mode=755", "-c", "-C"])
            .arg(files.path())
            .args(["VERSION", "migrate"])
            .output()
            .unwrap();
        assert!(tar.status.success(), "{tar:?}");
        tar.stdout
    };
    let server = server!(release, sshd);
    let archive_that_works = archive("#!/bin/sh\ntouch migrated\n");
    let version = release::release(&server, &archive_that_works, folder).await;
    assert_eq!(version.unwrap(), "7");
    assert!(work.join("current/migrated").exists());

    let broken = archive("#!/bin/sh\necho no such table\nexit 3\n");
    let error = release::release(&server, &broken, folder)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "migrate: exit status: 3: no such table\n"
    );
    let error = release::release(&server, b"no archive", folder).await;
    assert!(error.unwrap_err().to_string().starts_with("tar: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_restarted_followed_and_asked() {
    let sshd = Sshd::start();
    let remote = Remote::new(&sshd);
    let log = remote.0.join("log").display().to_string();
    let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = service.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (stream, _) = service.accept().unwrap();
        let mut question = String::new();
        BufReader::new(&stream).read_line(&mut question).unwrap();
        (&stream)
            .write_all(format!("{question} is good").as_bytes())
            .unwrap();
    });
    let server = server!(watch, sshd);
    let command = format!("echo starting > {log}; echo app is ready >> {log}");
    let restarted = watch::restart(&server, &command, &log, address).await;
    let (line, health) = restarted.unwrap();
    assert_eq!(
        (line.as_str(), health.as_str()),
        ("app is ready", "health\n is good")
    );
    serving.join().unwrap();

    let error = watch::restart(&server, "echo no unit >&2; exit 5", &log, address).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("exit status: 5") && error.contains("no unit"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_has_every_server_in_order() {
    let sshds = [Sshd::start(), Sshd::start(), Sshd::start()];
    let mut servers: Vec<_> = sshds.iter().map(|sshd| server!(inventory, sshd)).collect();
    // Of an unknown server there is nothing but the reason.
    servers[1].known_hosts = sshds[0].known_hosts();
    let pool = Pool::builder(HostKeyPolicy::known_hosts()).build().unwrap();
    let all = inventory::inventory(&pool, &servers).await;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    for number in [0, 2] {
        let facts = all[number].as_ref().unwrap();
        assert_eq!(facts.kernel, kernel.trim());
        assert!(facts.load.parse::<f64>().is_ok(), "{facts:?}");
        assert!(facts.free.parse::<u64>().is_ok(), "{facts:?}");
    }
    let error = all[1].as_ref().unwrap_err();
    assert!(error.contains(&sshds[1].target()), "{error}");
    // One connection for the three commands of each.
    assert_eq!((sshds[0].accepted(), sshds[2].accepted()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_from_one_server_to_the_other() {
    let (source, copy) = (Sshd::start(), Sshd::start());
    let here = TempDir::new();
    let script = here.path().join("dump.sh");
    // It says more on the side than a channel takes that is not read.
    fs::write(
        &script,
        "head -c 9000000 /dev/zero; head -c 8000000 /dev/zero >&2",
    )
    .unwrap();
    let report = here.path().join("report");
    // Both servers are this machine, and log in the same user.
    let remote = Remote::new(&source);
    let folder = remote.0.display().to_string();
    let (source, copy) = (server!(backup, source), server!(backup, copy));
    let done = backup::back_up(&source, &copy, &script, &folder, &report).await;
    done.unwrap();
    let counted = fs::read_to_string(&report).unwrap();
    assert_eq!(counted.trim(), "9000000");

    fs::write(&script, "echo disk is broken >&2; exit 2").unwrap();
    let done = backup::back_up(&source, &copy, &script, &folder, &report).await;
    let error = done.unwrap_err().to_string();
    assert!(
        error.contains("exit status: 2") && error.contains("disk is broken"),
        "{error}"
    );
}
