//! Callers that go away.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ssh_pool::{Host, Limits, Timeouts};
use ssh_pool_tests::{Greeting, eventually_async, storm};

use crate::{Place, SOON, Setting};

/// Drops a future when it has been polled that often and is not ready; `true` if it was.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        left -= 1;
        if left == 0 {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    })
    .await
}

async fn runs(host: &Host, spawned: bool) {
    let mut command = host.command("true");
    let status = if spawned {
        let child = command.spawn().await;
        child
            .unwrap()
            .wait_with_output()
            .await
            .map(|out| out.status)
    } else {
        command.output().await.map(|out| out.status)
    };
    assert!(status.unwrap().success());
}

/// The host has as many sessions as it should, at once.
async fn has_all(place: &Place, sessions: u32) {
    let running: Vec<_> = (0..sessions)
        .map(|_| tokio::spawn(place.host.command("sleep").arg("600").output()))
        .collect();
    let all = || place.host.status().running == sessions;
    assert!(
        eventually_async(SOON, all).await,
        "{:#?}",
        place.host.status()
    );
    for command in running {
        command.abort();
    }
    place.is_at_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_dropped_at_any_await_leaks_no_place_no_slot_and_no_dial() {
    let limits = Limits::default()
        .connections_per_host(1)
        .sessions_per_connection(3)
        .isolated_per_host(1);
    let dropped = Setting::new().option("MaxSessions 3").limits(limits);
    dropped
        .on_each(async |place| {
            // On a host without a connection, and on one that has served.
            for (spawned, cold) in [(false, true), (false, false), (true, true), (true, false)] {
                let mut polls = 1;
                while !dropped_after(polls, runs(&place.host, spawned)).await {
                    place.is_at_rest().await;
                    if cold {
                        place.host.evict();
                        place.is_disconnected().await;
                    }
                    polls += 1;
                }
                let enough = if spawned { 2 } else { 1 };
                assert!(polls > enough, "it was never dropped");
            }
            let (dials, failed) = place.dials();
            assert_eq!(failed, 0);
            // One dial for each connection that the proxy has seen: none was lost.
            assert_eq!(u64::try_from(place.proxy.connections()).unwrap(), dials);
            has_all(place, 3).await;
            runs(&place.host, true).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_nobody_waits_for_any_more_leaves_no_socket_either() {
    let timeouts = Timeouts::default().connect(Duration::from_secs(1));
    let stalled = Setting::new().timeouts(timeouts);
    stalled
        .on_each(async |place| {
            place.proxy.greet(Greeting::BannerOnly);
            let command = tokio::spawn(place.host.command("true").output());
            let dialled = || place.proxy.connections() == 1;
            assert!(eventually_async(SOON, dialled).await);
            command.abort();
            place.is_disconnected().await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_thirty_callers_on_a_cold_host_the_first_is_dropped_and_one_dial_serves_the_others() {
    let patient = Timeouts::default().patience(SOON);
    let cold = Setting::new().timeouts(patient).dropbear();
    cold.on_each(async |place| {
        // The dial is under way, and does not finish before the first caller has gone.
        place.proxy.freeze();
        let first = tokio::spawn(place.host.command("true").output());
        assert!(eventually_async(SOON, || place.proxy.connections() == 1).await);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let host = place.host.clone();
        let others = tokio::spawn(async move { storm(&host, 29, 29).await });
        assert!(eventually_async(SOON, || place.host.status().waiting == 29).await);
        assert_eq!(place.host.status().dialling, 1);
        place.proxy.thaw();
        others.await.unwrap();
        assert_eq!(place.server.accepted(), 1);
        assert_eq!(place.dials(), (1, 0));
        assert_eq!(place.proxy.connections(), 1);
    })
    .await;
}
