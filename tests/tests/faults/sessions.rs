//! Servers that allow few sessions, give them back late, or not at all.

use std::time::{Duration, Instant};

use ssh_pool::{CommandState, Error, Limits, Phase, Timeouts};
use ssh_pool_tests::{PacedCaller, eventually_async, storm};

use crate::{SOON, Setting, all};

#[tokio::test(flavor = "multi_thread")]
async fn more_commands_than_there_are_sessions_queue_and_none_fails() {
    for sessions in [2, 3] {
        let few = Setting::new()
            .option(format!("MaxSessions {sessions}"))
            .limits(Limits::default().connections_per_host(2));
        few.on_each(async |place| {
            storm(&place.host, 200, 60).await;
            let status = place.host.status();
            assert_eq!(status.learned_sessions, sessions, "{status:?}");
            assert!(status.dials <= 2, "{status:?}");
            let learning = status.refused_opens < 40;
            assert!(learning, "learning is not guessing: {status:?}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_are_released_late_are_absorbed_and_the_learned_limit_does_not_sink() {
    // Each end of a command goes out together with the open for the next one.
    let full = Setting::new()
        .option("MaxSessions 3")
        .limits(Limits::default().connections_per_host(1));
    full.on_each(async |place| {
        storm(&place.host, 60, 12).await;
        let learned = place.host.status();
        assert_eq!(learned.learned_sessions, 3, "{learned:?}");
        storm(&place.host, 300, 12).await;
        let status = place.host.status();
        assert_eq!(status.learned_sessions, 3, "{status:?}");
        assert_eq!((status.dials, status.failed_dials), (1, 0), "{status:?}");
        let late = status.refused_opens - learned.refused_opens;
        assert!(late <= 15, "{late} of 300 were asked too early: {status:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_one_session_serves_one_at_a_time_and_gets_no_spare() {
    let one = Setting::new()
        .option("MaxSessions 1")
        .limits(Limits::default().connections_per_host(1));
    one.on_each(async |place| {
        storm(&place.host, 40, 4).await;
        let before = place.host.status().refused_opens;
        storm(&place.host, 40, 1).await;
        let status = place.host.status();
        assert_eq!(
            status.refused_opens, before,
            "what was learned is not asked again: {status:?}"
        );
        let learned = (status.learned_sessions, status.spare, status.dials);
        assert_eq!(learned, (1, 0, 1), "{status:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_no_session_is_an_error_at_once_that_says_so() {
    let none = Setting::new().option("MaxSessions 0");
    none.on_each(async |place| {
        let started = Instant::now();
        for result in place.all_at_once(20).await {
            let error = result.unwrap_err();
            let Error::SessionRefused { reason, .. } = &error else {
                panic!("{error:?}")
            };
            assert!(!reason.is_empty());
            assert_eq!(error.phase(), Phase::Channel);
            assert_eq!(error.command_state(), CommandState::NotStarted);
            assert!(!error.is_transient());
            assert!(error.to_string().contains("MaxSessions"), "{error}");
        }
        // Well before the 30 s that a command waits for a channel.
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(place.server.accepted(), 1);
        let status = place.host.status();
        assert!(status.last_error.is_some(), "{status:?}");

        // Every login succeeds. It is made after 0.1 s, 0.2 s, 0.4 s … with jitter, all the same.
        let caller = PacedCaller::new(SOON, Duration::from_millis(10));
        let (began, span) = (Instant::now(), Duration::from_secs(3));
        let goes_on = || began.elapsed() < span || place.server.accepted() < 2;
        let mut calls = 0;
        while goes_on() && caller.comes_back().await {
            let error = place.host.command("true").output().await.unwrap_err();
            assert!(matches!(error, Error::SessionRefused { .. }), "{error}");
            calls += 1;
        }
        let logins = place.server.accepted();
        assert!((2..=8).contains(&logins), "{logins} for {calls} calls");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_is_signalled_and_counts_until_it_is_gone_and_others_go_elsewhere() {
    let grace = Duration::from_secs(1);
    let narrow = Setting::new()
        .limits(
            Limits::default()
                .sessions_per_connection(1)
                .connections_per_host(2),
        )
        .timeouts(
            Timeouts::default()
                .kill_grace(grace)
                .patience(Duration::ZERO),
        )
        .option("MaxSessions 1");
    narrow
        .on_each(async |place| {
            // One that ends when it is told to, and one that does not.
            let tame = tokio::spawn(place.host.command("sleep").arg("61").output());
            place.server.comes_to(true, "sleep 61").await;
            tame.abort();
            place.server.comes_to(false, "sleep 61").await;
            place.is_at_rest().await;

            let line = "trap '' TERM; sleep 62; exit";
            let stubborn = tokio::spawn(place.host.shell(line).output());
            place.server.comes_to(true, "sleep 62").await;
            let started = Instant::now();
            stubborn.abort();
            for _ in 0..5 {
                place.serves().await;
                let (status, lives) = (place.host.status(), place.server.runs("sleep 62"));
                if started.elapsed() < grace {
                    assert!(lives, "{status:?}");
                    assert_eq!(status.running, 1, "{status:?}");
                    assert_eq!(status.connections, 2, "{status:?}");
                }
            }
            assert_eq!(place.dials(), (2, 0));
            // It had its grace, and was then killed; its slot comes back with it.
            place.server.comes_to(false, "sleep 62").await;
            assert!(started.elapsed() >= grace);
            let back = || place.host.status().running == 0;
            assert!(eventually_async(SOON, back).await);
            all(place.host.clone(), 4)
                .await
                .into_iter()
                .for_each(Result::unwrap);
            assert_eq!(place.dials(), (2, 0));
        })
        .await;
}
