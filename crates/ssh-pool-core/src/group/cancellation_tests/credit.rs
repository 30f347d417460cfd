//! Identities that may not be let in, at one address, on a clock that jumps.

use super::*;
use crate::event::EventKind;
use crate::{Events, LoginDelay};

/// A server whose handshakes take a second, so that there is time to look.
fn slow() -> Server {
    Server::new(Script {
        handshake: Duration::from_secs(1),
        ..Script::default()
    })
}

fn host(pool: &Pool, user: &str) -> Host {
    pool.host(format!("{user}@test:22")).expect("valid target")
}

/// This many users whose logins the server refuses.
fn strangers(server: &Server, pool: &Pool, count: usize) -> Vec<Host> {
    let stranger = |number| {
        let user = format!("stranger-{number}");
        server.reject(&user);
        host(pool, &user)
    };
    (0..count).map(stranger).collect()
}

/// The largest penalty that these refused logins earn from sshd (9.8 and later), in seconds: five for
/// each, and time pays them off.
fn worst_penalty(rejected: &[Instant]) -> f64 {
    let (mut penalty_left, mut worst) = (0_f64, 0_f64);
    let mut last = rejected.first().copied();
    for at in rejected {
        let passed = last.map_or(Duration::ZERO, |last| *at - last);
        penalty_left = (penalty_left - passed.as_secs_f64()).max(0.0) + 5.0;
        worst = worst.max(penalty_left);
        last = Some(*at);
    }
    worst
}

#[tokio::test(start_paused = true)]
async fn wrong_identities_at_once_never_owe_more_than_the_address_bears_and_who_is_known_goes_by() {
    let server = slow();
    let timeouts = Timeouts::default().acquire(Duration::from_secs(60));
    let (pool, known) = pool(&server, Limits::default(), timeouts);
    known.warm().await.expect("let in");
    let mut callers = JoinSet::new();
    for host in strangers(&server, &pool, 8) {
        callers.spawn(host.command("true").output());
    }
    let began = Instant::now();
    while !callers.is_empty() {
        // More of them wait than there are handshakes.
        settle().await;
        known.evict();
        let asked = Instant::now();
        known.command("true").output().await.expect("let in");
        let took = asked.elapsed();
        assert!(took < Duration::from_millis(1100), "{took:?}");
        while let Some(refused) = callers.try_join_next() {
            let error = refused.expect("no panic").expect_err("refused");
            assert!(matches!(error, Error::AuthRejected { .. }), "{error}");
        }
    }
    let rejected = server.rejected();
    assert_eq!(rejected.len(), 8);
    let worst = worst_penalty(&rejected);
    assert!(worst <= 10.0, "{worst} s: {rejected:?}");
    // As fast as that allows.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_identity_without_a_cool_down_never_owes_more_either() {
    let server = Server::new(Script::default());
    let timeouts = Timeouts::default().auth_cooldown(Duration::ZERO);
    let (pool, _) = pool(&server, Limits::default(), timeouts);
    let stranger = strangers(&server, &pool, 1).remove(0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let mut callers = JoinSet::new();
        for _ in 0..5 {
            callers.spawn(stranger.command("true").output());
        }
        while let Some(refused) = callers.join_next().await {
            let error = refused.expect("no panic").expect_err("refused");
            assert!(matches!(error, Error::AuthRejected { .. }), "{error}");
        }
        sleep(Duration::from_millis(100)).await; // the callers' own pause
        stranger.evict();
    }
    let rejected = server.rejected();
    assert!((10..=14).contains(&rejected.len()), "{rejected:?}");
    let worst = worst_penalty(&rejected);
    assert!(worst <= 10.0, "{worst} s: {rejected:?}");
}

/// The waits for failed logins since the last look, by user.
fn delays(events: &mut Events) -> Vec<(String, Duration)> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::LoginDelayed { wait, reason } => {
                assert_eq!(reason, LoginDelay::FailedLogins);
                Some((event.target.to_string(), wait))
            }
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_pause_after_refused_logins_is_an_event_that_says_how_long_it_is() {
    let server = slow();
    let (pool, known) = pool(&server, Limits::default(), Timeouts::default());
    let mut events = pool.events();
    // One after the other: what the third waits for is known when it comes.
    for (number, host) in strangers(&server, &pool, 3).iter().enumerate() {
        let began = Instant::now();
        host.command("true").output().await.expect_err("refused");
        let told = delays(&mut events);
        if number < 2 {
            assert_eq!(told, []);
            continue;
        }
        let [(target, wait)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(target, "stranger-2@test:22");
        assert_eq!(wait.as_secs(), 4, "a second has been paid off: {wait:?}");
        // The wait, and its handshake.
        assert_eq!(began.elapsed(), *wait + Duration::from_secs(1));
    }
    // All at once: it comes to be known while they wait.
    sleep(Duration::from_secs(60)).await;
    pool.host("known@test:22")
        .expect("valid target")
        .warm()
        .await
        .expect("let in");
    let others = strangers(&server, &pool, 6).split_off(3);
    let mut callers = JoinSet::new();
    for host in &others {
        callers.spawn(host.command("true").output());
    }
    while let Some(refused) = callers.join_next().await {
        refused.expect("no panic").expect_err("refused");
    }
    let told = delays(&mut events);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1.as_secs(), 5, "{told:?}");
    // A login that waits without an earlier failure reports nothing.
    sleep(Duration::from_secs(60)).await;
    let mut callers = JoinSet::new();
    for user in ["anna", "bert", "cleo"] {
        callers.spawn(host(&pool, user).command("true").output());
    }
    callers.spawn(known.command("true").output());
    while let Some(done) = callers.join_next().await {
        done.expect("no panic").expect("let in");
    }
    assert_eq!(delays(&mut events), []);
}

#[tokio::test(start_paused = true)]
async fn right_identities_that_are_unverified_log_in_two_at_a_time_and_then_three() {
    let server = slow();
    let (pool, first) = pool(&server, Limits::default(), Timeouts::default());
    let others = ["anna", "bert", "cleo", "dora", "emil"].map(|user| host(&pool, user));
    let hosts: Vec<_> = std::iter::once(first).chain(others).collect();
    for (round, expected) in [3, 2].into_iter().enumerate() {
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for host in &hosts {
            callers.spawn(host.command("true").output());
        }
        while let Some(done) = callers.join_next().await {
            done.expect("no panic").expect("let in");
        }
        assert_eq!(began.elapsed().as_secs(), expected, "round {round}");
        settle().await;
        hosts.iter().for_each(Host::evict);
        settle().await;
    }
    assert_eq!(server.seen().dials, 12);
}

#[tokio::test(start_paused = true)]
async fn whose_deadline_ends_in_the_wait_for_credit_is_told_so_and_leaves_nothing_behind() {
    let server = slow();
    let (pool, _) = pool(&server, Limits::default(), Timeouts::default());
    let mut hosts = strangers(&server, &pool, 2);
    let mut callers = JoinSet::new();
    for host in &hosts {
        callers.spawn(host.command("true").output());
    }
    while let Some(refused) = callers.join_next().await {
        refused.expect("no panic").expect_err("refused");
    }
    let late = host(&pool, "late");
    let after = Duration::from_secs(2);
    let result = late.command("true").timeout(after).output().await;
    let error = result.expect_err("too late");
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Queue);
    assert!(!error.to_string().contains("network"), "{error}");
    let said = error.to_string();
    assert!(said.contains("PerSourcePenalties"), "{said}");
    assert!(error.waited().dial >= after, "{error:?}");
    // For any other group of that host as well.
    let result = late.command("true").timeout(after).spawn().await;
    assert_eq!(result.expect_err("too late").phase(), Phase::Queue);

    sleep(Duration::from_secs(10)).await;
    assert_eq!(server.seen().dials, 2, "no caller waited any more");
    hosts.push(late.clone());
    for host in &hosts {
        assert_at_rest(host, &server, "afterwards");
    }
    let began = Instant::now();
    late.command("true").output().await.expect("let in");
    assert_eq!(began.elapsed().as_secs(), 1, "at once");
}

/// Drops the callers of a login that may fail after every quarter of a second: while it waits for
/// its reservation, is under way, and after that.
#[tokio::test(start_paused = true)]
async fn callers_who_leave_at_any_moment_leave_the_credit_as_it_was() {
    for quarters in 0..28 {
        let case = format!("dropped after {quarters}/4 s");
        let server = slow();
        let (pool, _) = pool(&server, Limits::default(), Timeouts::default());
        let hosts = strangers(&server, &pool, 2);
        let mut callers = JoinSet::new();
        for host in &hosts {
            callers.spawn(host.command("true").output());
        }
        while let Some(refused) = callers.join_next().await {
            refused.expect("no panic").expect_err("refused");
        }
        let third = host(&pool, "third");
        let after = Duration::from_millis(250 * quarters + 1);
        drop(tokio::time::timeout(after, third.command("true").output()).await);
        sleep(Duration::from_secs(20)).await;
        assert_at_rest(&third, &server, &case);
        // All is paid: two at once.
        let began = Instant::now();
        for user in ["anna", "bert"] {
            callers.spawn(host(&pool, user).command("true").output());
        }
        while let Some(done) = callers.join_next().await {
            done.expect("no panic").expect("let in");
        }
        assert_eq!(began.elapsed().as_secs(), 1, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_let_in_no_more_never_owes_more_than_the_address_bears() {
    let server = Server::new(Script {
        handshake: Duration::from_secs(1),
        runtime: Duration::from_secs(60),
        max_sessions: 1,
        ..Script::default()
    });
    let timeouts = Timeouts::default().acquire(Duration::from_secs(10));
    let (_pool, host) = pool(&server, Limits::default().connections_per_host(8), timeouts);
    let running = tokio::spawn(host.command("true").output());
    settle().await;
    assert_eq!(server.seen().running, 1);
    // Its key is withdrawn, and more connections are needed.
    server.reject("tester");
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        callers.spawn(host.command("true").output());
    }
    while let Some(late) = callers.join_next().await {
        late.expect("no panic").expect_err("no way in");
    }
    let rejected = server.rejected();
    assert!(!rejected.is_empty());
    let worst = worst_penalty(&rejected);
    assert!(worst <= 15.0, "{worst} s: {rejected:?}");
    running.await.expect("no panic").expect("it ran");
}
