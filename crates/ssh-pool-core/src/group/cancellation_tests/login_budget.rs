//! Logins that one address sees, whatever the server and its callers do, on a clock that jumps.

use proptest::prelude::*;

use super::*;
use crate::event::EventKind;
use crate::transport::scripted::ConnectionEnding;

/// What keeps a program's task busy.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Retries,
    Evicts,
    Idempotent,
    Spawns,
    Streams,
    Shares,
    Cancels,
    OtherUser(u8),
}

impl Caller {
    /// Does it once, and ignores what comes of it.
    async fn call(self, pool: &Pool, host: &Host) {
        let short = Duration::from_millis(40);
        match self {
            Caller::Retries => drop(host.command("true").output().await),
            Caller::Evicts => {
                host.evict();
                drop(host.command("true").output().await);
            }
            Caller::Idempotent => drop(host.command("true").idempotent().output().await),
            Caller::Spawns => {
                if let Ok(mut child) = host.command("true").spawn().await {
                    drop(child.wait().await);
                }
            }
            Caller::Streams => drop(host.connect_tcp("localhost", 80).await),
            Caller::Shares => drop(host.connect_tcp("localhost", 80).shared().await),
            Caller::Cancels => {
                drop(host.command("true").timeout(short).output().await);
            }
            Caller::OtherUser(user) => {
                let host = pool.host(format!("user-{user}@test:22")).expect("target");
                drop(host.command("true").output().await);
            }
        }
    }
}

/// Checks every window from one login to another against the stated budget.
fn assert_within_budget(server: &Server, burst: u32, case: &str) {
    let changes = server.up();
    let (mut up, mut most_up) = (0, 0);
    for (_, change) in &changes {
        up += change;
        most_up = most_up.max(up);
    }
    let logins: Vec<Instant> = (changes.iter())
        .filter(|(_, change)| *change > 0)
        .map(|(at, _)| *at)
        .collect();
    for (first, began) in logins.iter().enumerate() {
        for (last, ended) in logins.iter().enumerate().skip(first) {
            let window = (*ended - *began).as_secs_f64();
            let most = f64::from(most_up) * (1.0 + window / 30.0) + f64::from(burst) + 2.0 * window;
            let seen = f64::from(u32::try_from(last - first + 1).expect("few"));
            assert!(
                seen <= most,
                "{case}: {seen} logins in {window} s, at most {most}, {most_up} up"
            );
        }
    }
}

fn endings() -> impl Strategy<Value = ConnectionEnding> {
    prop_oneof![
        (0_u64..3_000).prop_map(|ms| ConnectionEnding::After(Duration::from_millis(ms))),
        Just(ConnectionEnding::After(Duration::from_secs(31))),
        Just(ConnectionEnding::AtOpen),
        Just(ConnectionEnding::AfterOpen),
        Just(ConnectionEnding::AtExec),
        Just(ConnectionEnding::Throttles),
        Just(ConnectionEnding::Resets),
        Just(ConnectionEnding::Garbage),
        Just(ConnectionEnding::Never),
    ]
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let caller = prop_oneof![
        Just(Caller::Retries),
        Just(Caller::Evicts),
        Just(Caller::Idempotent),
        Just(Caller::Spawns),
        Just(Caller::Streams),
        Just(Caller::Shares),
        Just(Caller::Cancels),
        (0_u8..6).prop_map(Caller::OtherUser),
    ];
    prop::collection::vec(caller, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_window_has_more_logins_than_the_budget_whatever_server_and_callers_do(
        stages in prop::collection::vec((endings(), 1_u64..20), 1..4),
        callers in callers(),
        burst in prop_oneof![1_u32..20, Just(128)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let case = format!("{stages:?} {callers:?} burst {burst}");
            let server = Server::new(Script::default());
            let timeouts = Timeouts::default().acquire(Duration::from_secs(2));
            let limits = Limits::default().login_burst(burst);
            let (pool, host) = pool(&server, limits, timeouts);
            let mut tasks = JoinSet::new();
            for caller in callers {
                let (pool, host) = (pool.clone(), host.clone());
                tasks.spawn(async move {
                    loop {
                        caller.call(&pool, &host).await;
                        sleep(Duration::from_millis(10)).await;
                    }
                });
            }
            for (ending, seconds) in stages {
                server.end_each(ending);
                sleep(Duration::from_secs(seconds)).await;
            }
            tasks.shutdown().await;
            assert_within_budget(&server, burst, &case);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_evicts_in_a_loop_is_served_and_gets_two_logins_a_second_in_the_end() {
    let server = Server::new(Script::default());
    let (pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let mut events = pool.events();
    let began = Instant::now();
    let mut delayed = 0;
    while began.elapsed() < Duration::from_secs(60) {
        host.evict();
        host.command("true").output().await.expect("served");
        let events = std::iter::from_fn(|| events.try_next());
        delayed += events
            .filter(|event| matches!(event.kind, EventKind::LoginDelayed { .. }))
            .count();
    }
    let logins = server.seen().dials;
    assert!((128 + 100..=128 + 125).contains(&logins), "{logins}");
    assert_within_budget(&server, 128, "evicts");
    // Every other one finds the connection before it not ended yet.
    assert!(delayed > 40, "{delayed} of {logins}");
}

#[tokio::test(start_paused = true)]
async fn whose_deadline_ends_in_the_wait_for_the_login_budget_is_told_so() {
    let server = Server::new(Script::default());
    let limits = Limits::default().login_burst(1);
    let (_pool, host) = pool(&server, limits, Timeouts::default());
    host.command("true").output().await.expect("served");
    server.kill_connections();
    for spawns in [false, true] {
        let after = Duration::from_millis(100);
        let mut command = host.command("true");
        let error = match spawns {
            false => command.timeout(after).output().await.expect_err("late"),
            true => command.timeout(after).spawn().await.expect_err("late"),
        };
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(error.phase(), Phase::Queue);
        let said = error.to_string();
        assert!(said.contains("login budget of this address"), "{said}");
        assert!(said.contains("Limits::login_burst"), "{said}");
        assert!(error.waited().dial >= after, "{error:?}");
    }
    let began = Instant::now();
    host.command("true")
        .output()
        .await
        .expect("within its deadline");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(server.seen().dials, 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_delays_nothing_though_all_connections_end_at_once() {
    let script = Script {
        runtime: Duration::from_secs(5),
        ..Script::default()
    };
    let server = Server::new(script);
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    for round in 0..4 {
        let mut callers = JoinSet::new();
        for _ in 0..40 {
            callers.spawn(host.command("true").output());
        }
        let mut children = Vec::new();
        for _ in 0..16 {
            children.push(host.command("true").spawn().await.expect("started"));
        }
        sleep(Duration::from_secs(1)).await;
        server.kill_connections();
        while let Some(lost) = callers.join_next().await {
            lost.expect("no panic").expect_err("lost");
        }
        drop(children);
        let began = Instant::now();
        let child = host.command("true").spawn().await;
        host.warm().await.expect("back");
        drop(child.expect("back"));
        assert!(began.elapsed() < Duration::from_millis(100), "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_of_a_server_that_ends_each_login_cost_three_logins_and_hear_why() {
    for ending in [
        ConnectionEnding::After(Duration::ZERO),
        ConnectionEnding::AtOpen,
    ] {
        let server = Server::new(Script::default());
        server.end_each(ending);
        let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
        let mut callers = JoinSet::new();
        for number in 0..100 {
            let host = host.clone();
            callers.spawn(async move {
                match number % 3 {
                    0 => host.command("true").output().await.map(drop),
                    1 => host.command("true").spawn().await.map(drop),
                    _ => host.connect_tcp("localhost", 80).await.map(drop),
                }
            });
        }
        while let Some(result) = callers.join_next().await {
            let error = result.expect("no panic").expect_err("of no use");
            let Error::ClosedAfterLogin { attempts, .. } = &error else {
                panic!("{ending:?}: {error:?}")
            };
            assert_eq!(*attempts, 3, "{ending:?}");
            let text = error.to_string();
            assert!(text.contains("ended by the server"), "{text}");
        }
        let seen = server.seen();
        assert_eq!(seen.dials, 3, "{ending:?}: {seen:?}");
        let status = host.status();
        assert!(
            matches!(status.breaker, crate::Breaker::Open { .. }),
            "{status:?}"
        );
        assert_eq!(status.failed_dials, u64::from(seen.dials), "{status:?}");
        settle().await;
        assert_at_rest(&host, &server, "told");
        // It has been mended.
        server.end_each(ConnectionEnding::Never);
        sleep(Duration::from_secs(30)).await;
        host.command("true").output().await.expect("served");
        assert_eq!(host.status().breaker, crate::Breaker::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_answers_keeps_no_other_purpose_from_dialling() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    // Its caller leaves, so it is not checked.
    let login = Duration::from_millis(11);
    drop(tokio::time::timeout(login, host.command("true").output()).await);
    assert_eq!(server.seen().connections, 1);
    server.forget_connections(true);
    let began = Instant::now();
    let child = host.command("true").spawn().await;
    drop(child.expect("another connection"));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(server.seen().dials, 2);
}

#[tokio::test(start_paused = true)]
async fn an_evict_does_not_wait_for_what_becomes_of_the_connection_before() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let login = Duration::from_millis(11);
    drop(tokio::time::timeout(login, host.command("true").output()).await);
    server.forget_connections(true);
    host.evict();
    let began = Instant::now();
    host.command("true")
        .output()
        .await
        .expect("on another connection");
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_grant_ends_the_count_of_failures_and_a_login_alone_does_not() {
    let server = Server::new(Script::default());
    let (pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let mut events = pool.events();
    host.warm().await.expect("up");
    server.end_each(ConnectionEnding::AtOpen);
    host.evict();
    let output = tokio::spawn(host.command("true").output());
    sleep(Duration::from_secs(2)).await;
    server.end_each(ConnectionEnding::Never);
    output.await.expect("no panic").expect("absorbed");
    let pauses: Vec<_> = std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::DialFailed { pause, .. } => Some(pause.as_millis()),
            _ => None,
        })
        .collect();
    // 100, 200, 400, 800 ms, each with up to a half taken off.
    assert!((4..=6).contains(&pauses.len()), "{pauses:?}");
    assert!(
        pauses
            .iter()
            .zip([100, 200, 400, 800])
            .all(|(pause, full)| *pause <= full),
        "{pauses:?}"
    );
    assert_eq!(host.status().last_error, None);
}
