//! Connections that are lost half way.

use std::fs;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ssh_pool::sftp::{Error, Progress};
use ssh_pool_tests::{Cut, Greeting, Proxy, Step, eventually_async};

use crate::{Place, SOON, names, noise, through};

const SIZE: usize = (24 << 20) + 77;

/// A call-back that does something at half time, once, and what it has been told.
fn at_half_time(
    act: impl Fn() + Send + Sync + 'static,
) -> (
    impl Fn(&Progress<'_>) + Send + Sync + 'static,
    Arc<Mutex<Vec<u64>>>,
) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let callback = move |progress: &Progress<'_>| {
        let mut seen = seen.lock().unwrap();
        let half = progress.total / 2;
        let before = seen.iter().any(|bytes| *bytes >= half);
        seen.push(progress.bytes);
        if progress.bytes >= half && !before {
            act();
        }
    };
    (callback, told)
}

/// Nothing was copied again that the other side had.
fn went_on(told: &[u64]) {
    assert_eq!(told.last(), Some(&(SIZE as u64)));
    let before = told.iter().position(|bytes| *bytes >= SIZE as u64 / 2);
    let before = before.unwrap();
    let least = told[before..].iter().min().unwrap();
    assert!(*least >= SIZE as u64 / 2, "it began again at {least}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_connection_is_lost_half_way_goes_on_and_is_verified() {
    let place = Place::new().await;
    for cut in [Proxy::reset, Proxy::fin] {
        let proxy = Arc::new(Proxy::to(place.sshd.addr()));
        let (_pool, sftp) = through(&proxy, &place.sshd, &place.local).await;
        let bytes = noise(SIZE, 1);
        let local = place.file("a", &bytes);
        let breaks = proxy.clone();
        let (progress, told) = at_half_time(move || cut(&breaks));
        let up = sftp.upload(&local, place.there("a")).verify(true);
        let summary = up.progress(progress).await.unwrap();
        assert!(summary.retries >= 1, "{summary:?}");
        assert!(fs::read(place.there("a")).unwrap() == bytes);
        assert_eq!(names(place.remote.path()), ["a"]);
        went_on(&told.lock().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_whose_connection_is_lost_half_way_goes_on_and_is_verified() {
    let place = Place::new().await;
    let bytes = noise(SIZE, 2);
    let remote = place.remote_file("a", &bytes);
    for cut in [Cut::Reset, Cut::Fin] {
        let proxy = Proxy::to(place.sshd.addr());
        proxy.script([Step::from_server(SIZE / 2 + (1 << 20), cut)]);
        let folder = ssh_pool_tests::TempDir::new();
        let (_pool, sftp) = through(&proxy, &place.sshd, &folder).await;
        let (progress, told) = at_half_time(|| ());
        let down = sftp.download(&remote, place.here("a")).verify(true);
        let summary = down.progress(progress).await.unwrap();
        assert_eq!(summary.retries, 1, "{summary:?}");
        assert!(fs::read(place.here("a")).unwrap() == bytes);
        assert_eq!(names(place.local.path()), ["a"]);
        went_on(&told.lock().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_process_that_dies_half_way_is_replaced() {
    let place = Arc::new(Place::new().await);
    let bytes = noise(SIZE, 3);
    let local = place.file("a", &bytes);
    let kills = place.clone();
    let (progress, _) = at_half_time(move || kills.sshd.kill_connections());
    let up = place.sftp.upload(&local, place.there("a"));
    let summary = up.verify(true).progress(progress).await.unwrap();
    assert!(summary.retries >= 1, "{summary:?}");
    assert!(fs::read(place.there("a")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_for_good_is_an_error_after_so_many_attempts() {
    let place = Place::new().await;
    let proxy = Arc::new(Proxy::to(place.sshd.addr()));
    let (_pool, sftp) = through(&proxy, &place.sshd, &place.local).await;
    place.remote_file("a", b"old");
    let local = place.file("a", &noise(SIZE, 4));
    let breaks = proxy.clone();
    let (progress, _) = at_half_time(move || {
        // What answers from now on is no SSH server.
        breaks.greet(Greeting::Garbage);
        breaks.reset();
    });
    let up = sftp.upload(&local, place.there("a")).attempts(1);
    let error = up.progress(progress).await.unwrap_err();
    assert!(matches!(error, Error::Session { .. }), "{error}");
    assert_eq!(fs::read(place.there("a")).unwrap(), b"old");

    let error = sftp.metadata(place.there("a")).await.unwrap_err();
    assert!(matches!(error, Error::Session { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_without_attempts_is_told_and_what_is_left_is_removed() {
    let place = Place::new().await;
    let proxy = Arc::new(Proxy::to(place.sshd.addr()));
    let (_pool, sftp) = through(&proxy, &place.sshd, &place.local).await;
    let local = place.file("a", &noise(SIZE, 5));
    let breaks = proxy.clone();
    let (progress, _) = at_half_time(move || breaks.reset());
    let up = sftp.upload(&local, place.there("a")).attempts(0);
    let error = up.progress(progress).await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert!(error.is_transient());
    assert!(error.to_string().contains("connection was lost"), "{error}");
    // With a new connection, in the background.
    let empty = || names(place.remote.path()).is_empty();
    assert!(eventually_async(SOON, empty).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_dead_is_found_by_the_keepalives() {
    let place = Place::new().await;
    let proxy = Arc::new(Proxy::to(place.sshd.addr()));
    let known_hosts = place.here("known_hosts");
    let line = proxy.known_hosts_line(&place.sshd.host_public_key("ed25519"));
    fs::write(&known_hosts, line).unwrap();
    let timeouts = ssh_pool::Timeouts::default().keepalive_interval(Duration::from_secs(1));
    let policy = ssh_pool::HostKeyPolicy::known_hosts_file(known_hosts);
    let pool = ssh_pool::Pool::builder(policy)
        .identity(ssh_pool::Identity::key_file(place.sshd.client_key()))
        .timeouts(timeouts)
        .build()
        .unwrap();
    let host = pool.host(format!("{}@{}", place.sshd.user(), proxy.addr()));
    let sftp = ssh_pool::sftp::SftpExt::sftp(&host.unwrap()).await.unwrap();
    let bytes = noise(SIZE, 6);
    let local = place.file("a", &bytes);
    let breaks = proxy.clone();
    let (progress, _) = at_half_time(move || breaks.forget());
    let up = sftp.upload(&local, place.there("a")).progress(progress);
    let summary = up.await.unwrap();
    assert!(summary.retries >= 1, "{summary:?}");
    assert!(fs::read(place.there("a")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_call_resumes_what_an_earlier_one_has_left() {
    let place = Place::new().await;
    let bytes = noise(SIZE, 7);
    let local = place.file("a", &bytes);
    let (remote, back) = (place.there("a"), place.here("back"));
    for stale in [false, true] {
        // Interrupted half way: dropped.
        let (halted, halt) = tokio::sync::oneshot::channel();
        let halted = Mutex::new(Some(halted));
        let (progress, _) = at_half_time(move || {
            halted.lock().unwrap().take().unwrap().send(()).unwrap();
        });
        let up = place.sftp.upload(&local, &remote).resume(true);
        tokio::select! {
            _ = up.progress(progress).into_future() => panic!("it was to be interrupted"),
            _ = halt => {}
        }
        let left = names(place.remote.path());
        let part = left.iter().find(|name| name.ends_with(".part")).unwrap();
        let mut wanted = bytes.clone();
        if stale {
            wanted[5] ^= 1;
            fs::write(&local, &wanted).unwrap();
        }
        // What was under way when it was interrupted may still be written.
        let size = || fs::metadata(place.there(part)).map_or(0, |found| found.len());
        assert!(eventually_async(SOON, || size() >= SIZE as u64 / 2).await);
        let up = place.sftp.upload(&local, &remote).resume(true);
        let summary = up.await.unwrap();
        assert!(fs::read(&remote).unwrap() == wanted);
        assert_eq!(summary.resumed == 0, stale, "{summary:?}");
        assert_eq!(names(place.remote.path()), ["a"]);
    }
    fs::write(&remote, &bytes).unwrap();
    for stale in [false, true] {
        let (halted, halt) = tokio::sync::oneshot::channel();
        let halted = Mutex::new(Some(halted));
        let (progress, _) = at_half_time(move || {
            halted.lock().unwrap().take().unwrap().send(()).unwrap();
        });
        let down = place.sftp.download(&remote, &back).resume(true);
        tokio::select! {
            _ = down.progress(progress).into_future() => panic!("it was to be interrupted"),
            _ = halt => {}
        }
        let mut wanted = bytes.clone();
        if stale {
            wanted[5] ^= 1;
            fs::write(&remote, &wanted).unwrap();
        }
        let down = place.sftp.download(&remote, &back).resume(true);
        let summary = down.await.unwrap();
        assert!(fs::read(&back).unwrap() == wanted);
        assert_eq!(summary.resumed == 0, stale, "{summary:?}");
        assert_eq!(names(place.local.path()), ["a", "back"]);
        fs::remove_file(&back).unwrap();
    }
}
