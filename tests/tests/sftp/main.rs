//! Files over SFTP on real servers, and on one that lies: byte for byte, in one step, over lost
//! connections, and nothing left behind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ssh_pool::sftp::{Progress, Sftp, SftpExt};
use ssh_pool::{Host, HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Proxy, Sshd, SshdBuilder, TempDir, TestUser};

mod attributes;
mod cancels;
mod fake;
mod files;
mod hostile;
mod losses;
mod moved;
mod parts;
mod refusals;
mod replacing;
mod retired;
mod room;
mod servers;
mod silence;
mod sizes;
#[path = "../support/mod.rs"]
mod support;
mod trees;

pub(crate) use ssh_pool_tests::noise;
pub(crate) use support::{SOON, builder, known};

/// A server, a session there, a folder of its user, and one of this side.
pub(crate) struct Place {
    pub(crate) sshd: Sshd,
    pub(crate) host: Host,
    pub(crate) sftp: Sftp,
    pub(crate) remote: TempDir,
    pub(crate) local: TempDir,
    pub(crate) pool: Pool,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::on(Sshd::builder()).await
    }

    pub(crate) async fn on(server: SshdBuilder) -> Self {
        Self::by(TestUser::plain(), server).await
    }

    /// The folder on the server belongs to the ordinary user, whichever user logs in.
    pub(crate) async fn by(user: TestUser, server: SshdBuilder) -> Self {
        let sshd = server.user(user).start();
        let pool = builder(&sshd, known(&sshd))
            .in_current_runtime()
            .build()
            .unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let sftp = host.sftp().await.unwrap();
        Self {
            sshd,
            host,
            sftp,
            remote: remote_folder(),
            local: TempDir::new(),
            pool,
        }
    }

    /// What it is called on the server.
    pub(crate) fn there(&self, name: &str) -> PathBuf {
        self.remote.path().join(name)
    }

    pub(crate) fn here(&self, name: &str) -> PathBuf {
        self.local.path().join(name)
    }

    /// A file on this side with that content.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.here(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A file on the server with that content, which its user may read.
    pub(crate) fn remote_file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.there(name);
        fs::write(&path, content).unwrap();
        TestUser::plain().own(&path);
        path
    }
}

/// A folder that the user of the servers may write to.
pub(crate) fn remote_folder() -> TempDir {
    let folder = TempDir::new();
    TestUser::plain().own(folder.path());
    folder
}

/// A session through a proxy.
pub(crate) async fn through(proxy: &Proxy, sshd: &Sshd, folder: &TempDir) -> (Pool, Sftp) {
    let known_hosts = folder.path().join("known_hosts");
    let line = proxy.known_hosts_line(&sshd.host_public_key("ed25519"));
    fs::write(&known_hosts, line).unwrap();
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
        .identity(Identity::key_file(sshd.client_key()))
        .build()
        .unwrap();
    let host = pool.host(format!("{}@{}", sshd.user(), proxy.addr()));
    let sftp = host.unwrap().sftp().await.unwrap();
    (pool, sftp)
}

/// The names in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Counts calls of a progress call-back: there are none before a file is open for writing.
pub(crate) fn counted() -> (
    impl Fn(&Progress<'_>) + Send + Sync + 'static,
    Arc<AtomicUsize>,
) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let progress = move |_: &Progress<'_>| {
        count.fetch_add(1, Ordering::SeqCst);
    };
    (progress, calls)
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Everything below a folder: kind, mode and content.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, (char, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_string_lossy();
            let mode = metadata.mode() & 0o777;
            let what = if metadata.is_dir() {
                folders.push(path.clone());
                ('d', mode, Vec::new())
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                ('l', 0, target.to_string_lossy().as_bytes().to_vec())
            } else if metadata.is_file() {
                ('f', mode, fs::read(&path).unwrap())
            } else {
                ('?', mode, Vec::new())
            };
            found.insert(name.into_owned(), what);
        }
    }
    found
}
