//! Deadlines of commands.

use std::time::{Duration, Instant};

use ssh_pool::{CommandState, Error, Limits, Phase};
use ssh_pool_tests::{Sshd, TestUser, eventually_async};

use crate::{Gate, Ledger, SECOND, SOON, builder, dials, known, on, starts, stops};

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_of_zero_is_what_the_error_names() {
    let (sshd, _pool, host) = on(Sshd::start());
    for warm in [false, true] {
        if warm {
            host.warm().await.unwrap();
        }
        let at_once = host.command("true").timeout(Duration::ZERO).output().await;
        let mut spawned = host.command("true");
        let spawned = spawned.timeout(Duration::ZERO).spawn().await;
        let spawned = match spawned {
            Ok(child) => child.wait_with_output().await,
            Err(error) => Err(error),
        };
        for error in [at_once.unwrap_err(), spawned.unwrap_err()] {
            assert!(error.is_timeout(), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("the time-out is zero"), "{text}");
            for part in ["disk", "limits", "resolver", "no result"] {
                assert!(!text.contains(part), "{text}");
            }
        }
    }
    assert!(sshd.connections() <= 4, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_past_its_deadline_is_told_to_end() {
    // sshd passes signals on for ordinary users; for root only since OpenSSH 10.0.
    let (sshd, pool, host) = on(Sshd::builder().user(TestUser::plain()).start());
    host.warm().await.unwrap();
    let started = Instant::now();
    let error = host.shell("sleep 61").timeout(SECOND).output().await;
    let error = error.unwrap_err();
    assert!(started.elapsed() >= SECOND && started.elapsed() < SOON);
    let Error::Timeout {
        phase,
        after,
        state,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((*phase, *after), (Phase::Running, SECOND));
    assert_eq!(*state, CommandState::Unknown);
    assert_eq!(error.command_state(), CommandState::Unknown);
    assert!(error.is_killed(), "{error}");
    assert!(error.is_timeout());
    stops(&sshd, "sleep 61").await;

    // The session comes back, and its connection goes on.
    let idle = || pool.status().hosts[0].running == 0;
    assert!(eventually_async(SOON, idle).await, "{:?}", pool.status());
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(dials(&pool), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_command_is_told_to_end() {
    let (sshd, pool, host) = on(Sshd::builder().user(TestUser::plain()).start());
    let running = tokio::spawn(host.command("sleep").arg("62").output());
    starts(&sshd, "sleep 62").await;
    running.abort();
    stops(&sshd, "sleep 62").await;
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(dials(&pool), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_in_the_queue_says_that_nothing_has_started() {
    let sshd = Sshd::start();
    let limits = Limits::default()
        .connections_per_host(1)
        .sessions_per_connection(1);
    let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let (gate, ledger) = (Gate::new(), Ledger::new());
    let line = format!("{}; {}", ledger.enter("busy"), gate.pass());
    let busy = tokio::spawn(host.shell(line).output());
    ledger.has(1).await;

    let deadline = Duration::from_millis(300);
    let mut late = host.shell(ledger.enter("late"));
    let error = late.timeout(deadline).output().await.unwrap_err();
    assert_eq!(error.command_state(), CommandState::NotStarted);
    assert_eq!(error.phase(), Phase::Queue);
    assert!(error.is_timeout() && error.is_transient(), "{error:?}");
    gate.open();
    assert!(busy.await.unwrap().unwrap().status.success());

    // It never ran, and its place in the queue went to nobody.
    assert!(
        host.shell(ledger.enter("next"))
            .status()
            .await
            .unwrap()
            .success()
    );
    assert_eq!(ledger.lines(), ["busy", "next"]);
    assert_eq!(dials(&pool), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_within_its_deadline_does_not_notice_it() {
    let (_sshd, _pool, host) = crate::server();
    let mut command = host.shell("echo ok; exit 4");
    let output = command.timeout(SOON).output().await.unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(output.stdout, b"ok\n");
}
