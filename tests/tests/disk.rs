//! Nothing on disk to go stale: a pool at work holds TCP sockets and nothing else. In a test
//! binary of its own, because it looks at this process's descriptors.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Sshd, TestUser, eventually_async};

const PATIENCE: Duration = Duration::from_secs(60);

/// What this process has open, as the kernel names it: `socket:[1234]`, `/a/path`.
fn open_things() -> BTreeSet<String> {
    let descriptors = fs::read_dir("/proc/self/fd").expect("Linux");
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| !target.starts_with("/proc/"))
        .collect()
}

/// The inodes of all TCP sockets.
fn tcp_sockets() -> String {
    ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default())
        .concat()
}

#[tokio::test]
async fn a_pool_at_work_holds_tcp_sockets_and_nothing_else() {
    let sshd = Sshd::builder().user(TestUser::plain()).start();
    let before = open_things();
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::key_file(sshd.client_key()))
        .build()
        .expect("valid settings");
    let host = pool.host(sshd.target()).expect("target");
    let running: Vec<_> = (0..20)
        .map(|_| tokio::spawn(host.command("sleep").arg("600").output()))
        .collect();
    let busy = || host.status().running == 20 && host.status().opening == 0;
    assert!(
        eventually_async(PATIENCE, busy).await,
        "{:?}",
        host.status()
    );

    let tcp = tcp_sockets();
    let new: Vec<_> = open_things().difference(&before).cloned().collect();
    assert_eq!(
        new.len(),
        usize::try_from(host.status().connections).expect("few"),
        "{new:?}"
    );
    for thing in &new {
        let inode = thing
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        let inode = inode.unwrap_or_else(|| panic!("{thing} is not a socket"));
        assert!(
            tcp.contains(&format!(" {inode} ")),
            "{thing} is not a TCP socket"
        );
    }

    for command in running {
        command.abort();
    }
    drop((host, pool));
    assert!(eventually_async(PATIENCE, || open_things() == before).await);
}
