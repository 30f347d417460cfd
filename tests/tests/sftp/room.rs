//! What a session takes, where there is little room: nothing that its own calls need waits for it.

use std::future::IntoFuture;
use std::time::Duration;

use ssh_pool::sftp::SftpExt;
use ssh_pool::{Limits, StreamGroup, Timeouts};
use ssh_pool_tests::{Sshd, TempDir};
use tokio::time::timeout;

use crate::{SOON, builder, known, noise, remote_folder};

/// One connection in all, and one session on each: the transfer itself takes both.
#[tokio::test(flavor = "multi_thread")]
async fn a_verified_transfer_does_not_wait_for_its_own_session() {
    let sshd = Sshd::builder().option("MaxSessions 1").start();
    let limits = Limits::default().connections(1).connections_per_host(1);
    // Whatever waits for room waits longer than this test.
    let timeouts = Timeouts::default().acquire(Duration::from_secs(900));
    let pool = builder(&sshd, known(&sshd)).limits(limits);
    let pool = pool.timeouts(timeouts).build().unwrap();
    let (local, remote) = (TempDir::new(), remote_folder());
    let from = local.path().join("a");
    std::fs::write(&from, noise(1 << 20, 1)).unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let group = StreamGroup::new();
    for (run, host) in [host.clone(), host.in_group(&group)]
        .into_iter()
        .enumerate()
    {
        let sftp = host.sftp().await.unwrap();
        let there = remote.path().join(run.to_string());
        let before = host.status().commands;
        let up = timeout(SOON, sftp.upload(&from, &there).verify(true).into_future());
        up.await.expect("it waits for itself").unwrap();
        let down = sftp.download(&there, local.path().join("b")).verify(true);
        let down = timeout(SOON, down.into_future());
        down.await.expect("it waits for itself").unwrap();
        // The server's own `sha256sum` was run, and nothing was read back in its place.
        assert_eq!(host.status().commands - before, 2, "{run}");
        assert_eq!(
            group.open(),
            run,
            "a session belongs to the group of its host"
        );
    }
}
