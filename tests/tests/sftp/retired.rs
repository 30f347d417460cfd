//! Sessions whose connection is retired: calls after that get another one, and what is under way
//! keeps its own.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ssh_pool::sftp::SftpExt;
use ssh_pool::{Host, Limits};
use ssh_pool_tests::{Machines, Names, Sshd, eventually_async};

use crate::{Place, SOON, builder, known, noise, remote_folder};

/// Waits until every connection that is left takes new commands.
async fn wait_until_none_is_retiring(host: &Host) {
    let gone = || {
        let status = host.status();
        status.each_connection.iter().all(|one| !one.retiring)
    };
    assert!(eventually_async(SOON, gone).await, "{:?}", host.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_eviction_the_next_call_gets_a_session_on_a_fresh_connection() {
    let place = Place::new().await;
    let file = place.remote_file("a", b"text");
    for logins in 1..4 {
        assert_eq!(place.sftp.read(&file).await.unwrap(), b"text");
        assert_eq!(place.sshd.accepted(), logins);
        place.host.evict();
    }
    place.sftp.metadata(&file).await.unwrap();
    wait_until_none_is_retiring(&place.host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_ends_on_the_connection_that_is_retired_under_it() {
    let place = Place::new().await;
    let content = noise((24 << 20) + 7, 5);
    let file = place.remote_file("a", &content);
    let evicted = Arc::new(AtomicBool::new(false));
    let (host, once) = (place.host.clone(), evicted.clone());
    let down = place.sftp.download(&file, place.here("a"));
    let summary = down
        .progress(move |progress| {
            if progress.bytes >= progress.total / 2 && !once.swap(true, Ordering::SeqCst) {
                host.evict();
            }
        })
        .await
        .unwrap();
    assert!(evicted.load(Ordering::SeqCst));
    assert_eq!(summary.retries, 0);
    assert!(fs::read(place.here("a")).unwrap() == content);
    assert_eq!(place.sshd.accepted(), 1);
    place.sftp.metadata(&file).await.unwrap();
    assert_eq!(place.sshd.accepted(), 2);
    wait_until_none_is_retiring(&place.host).await;
}

/// One connection has to do for the host, and the old one is still there when another is needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_does_not_wait_for_the_old_one() {
    let sshd = Sshd::start();
    let limits = Limits::default().isolated_per_host(1).connections(1);
    let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let sftp = host.sftp().await.unwrap();
    for _ in 0..3 {
        host.evict();
        sftp.metadata(".").await.unwrap();
    }
}

#[test]
fn a_session_does_not_stay_on_a_machine_that_the_host_is_no_more() {
    Names::run(async |dns| {
        let (old, new) = (remote_folder(), remote_folder());
        fs::write(old.path().join("a"), "old").unwrap();
        fs::write(new.path().join("a"), "new").unwrap();
        let serving = |folder: &std::path::Path| {
            let folder = folder.display();
            Sshd::builder().option(format!("Subsystem sftp internal-sftp -d {folder}"))
        };
        let machines = Machines::of(serving(old.path()), serving(new.path()));
        machines.resolve(&dns, &[&machines.old]);
        let pool = machines.builder().build().unwrap();
        let host = machines.host(&pool);
        let sftp = host.sftp().await.unwrap();
        assert_eq!(sftp.read("a").await.unwrap(), b"old");
        machines.resolve(&dns, &[&machines.new]);
        // It dials, and finds that out. The old machine is still there.
        let output = host.command("true").output().await.unwrap();
        assert_eq!(output.peer_addr, Some(machines.new.addr()));
        assert_eq!(sftp.read("a").await.unwrap(), b"new");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_being_closed_leaves_an_open_session_to_its_holder() {
    let place = Place::new().await;
    let file = place.remote_file("a", b"text");
    let pool = place.pool.clone();
    let closing = tokio::spawn(async move { pool.close().await });
    let closes = || {
        place
            .host
            .status()
            .each_connection
            .iter()
            .all(|one| one.retiring)
    };
    assert!(eventually_async(SOON, closes).await);
    assert_eq!(place.sftp.read(&file).await.unwrap(), b"text");
    drop(place.sftp);
    closing.await.unwrap();
}
