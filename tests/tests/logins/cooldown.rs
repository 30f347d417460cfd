//! A refused login is not tried again for a while: servers count, and ban.

use std::time::{Duration, Instant, SystemTime};

use ssh_pool::{Error, EventKind, Events, Host, Identity, LoginDelay, Timeouts};
use ssh_pool_tests::{PacedCaller, Release, Sshd};

use crate::{RELEASES, SOON, builder, host_for, known, new_key, offered, pool};

/// The errors of that many callers at once, all refused.
async fn refusals(host: &Host, callers: usize) -> Vec<Error> {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..callers {
        running.spawn(host.command("true").output());
    }
    let results = running.join_all().await;
    results.into_iter().map(Result::unwrap_err).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_under_many_callers_is_tried_once_and_all_get_the_same_error() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    let (_dir, key) = new_key();
    let host = host_for(&pool, &sshd, Identity::key_file(key.private()));
    let mut errors = refusals(&host, 30).await;
    // Later ones do not try, either.
    for _ in 0..3 {
        errors.extend(refusals(&host, 10).await);
    }
    assert_eq!(errors.len(), 60);
    for error in &errors {
        assert_eq!(offered(error).len(), 1);
        assert_eq!(error.to_string(), errors[0].to_string());
    }
    let text = errors[0].to_string();
    assert!(
        text.contains(&key.fingerprint()) && text.contains("60s"),
        "{text}"
    );
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
    assert_eq!(sshd.auth_failures(), 1, "{}", sshd.log());
    assert_eq!(sshd.refused_credentials(), 1, "{}", sshd.log());
    let status = &pool.status().hosts[0];
    assert_eq!((status.dials, status.failed_dials), (0, 1));
    assert_eq!(status.last_error.as_deref(), Some(&*text));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_cool_down_it_is_tried_again() {
    let sshd = Sshd::start();
    // So long that somebody asks before it is over, on a busy machine too.
    let cooldown = Duration::from_secs(5);
    let timeouts = Timeouts::default().auth_cooldown(cooldown);
    let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
    let pool = pool.build().unwrap();
    let (_dir, key) = new_key();
    let host = host_for(&pool, &sshd, Identity::key_file(key.private()));
    let started = Instant::now();
    offered(&host.command("true").output().await.unwrap_err());
    sshd.authorize(&key.public_line());

    // The remembered error answers until then.
    let caller = PacedCaller::new(SOON, Duration::from_millis(5));
    let mut remembered = 0;
    while let Err(error) = host.command("true").status().await {
        offered(&error);
        remembered += 1;
        assert!(caller.comes_back().await, "{error}");
    }
    assert!(remembered > 0);
    assert!(started.elapsed() >= cooldown, "{:?}", started.elapsed());
    assert_eq!(
        (sshd.connections(), sshd.accepted()),
        (2, 1),
        "{}",
        sshd.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn evicting_a_host_forgets_its_cool_down() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    let (_dir, key) = new_key();
    let host = host_for(&pool, &sshd, Identity::key_file(key.private()));
    offered(&refusals(&host, 1).await[0]);
    sshd.authorize(&key.public_line());
    offered(&refusals(&host, 1).await[0]);
    assert_eq!(sshd.connections(), 1, "{}", sshd.log());
    host.evict();
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(
        (sshd.connections(), sshd.accepted()),
        (2, 1),
        "{}",
        sshd.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_in_its_cool_down_does_not_keep_another_out() {
    let sshd = Sshd::start();
    let pool = pool(&sshd);
    let (_dir, key) = new_key();
    let wrong = host_for(&pool, &sshd, Identity::key_file(key.private()));
    offered(&refusals(&wrong, 1).await[0]);
    let right = pool.host(sshd.target()).unwrap();
    assert!(right.command("true").status().await.unwrap().success());
    offered(&refusals(&wrong, 1).await[0]);
    assert_eq!(
        (sshd.connections(), sshd.accepted()),
        (2, 1),
        "{}",
        sshd.log()
    );
}

/// When dials have failed so far, by the pool's own account.
fn failures(events: &mut Events) -> Vec<SystemTime> {
    std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event.kind, EventKind::DialFailed { .. }))
        .map(|event| event.at)
        .collect()
}

/// The largest penalty that such a series earns from OpenSSH 10.0, in seconds: five for each failed
/// login, and time pays them off. From fifteen on it refuses the address.
fn worst_penalty(failures: &[SystemTime]) -> f64 {
    let (mut owed, mut worst) = (0_f64, 0_f64);
    let mut last: Option<SystemTime> = None;
    for at in failures {
        // Two that happen at the same time are told in either order.
        let passed = last.and_then(|last| at.duration_since(last).ok());
        let passed = passed.unwrap_or_default();
        owed = (owed - passed.as_secs_f64()).max(0.0) + 5.0;
        worst = worst.max(owed);
        last = Some(*at);
    }
    worst
}

/// A hundred callers with a wrong key, who come back again and again for that long.
async fn besieged(release: Release, cooldown: Duration, span: Duration) {
    let sshd = Sshd::builder().release(release).start();
    let timeouts = Timeouts::default().auth_cooldown(cooldown);
    let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
    let pool = pool.build().unwrap();
    let mut events = pool.events();
    let (_dir, key) = new_key();
    let host = host_for(&pool, &sshd, Identity::key_file(key.private()));
    let began = Instant::now();
    let caller = PacedCaller::new(span, Duration::from_millis(50));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (host, fingerprint) = (host.clone(), key.fingerprint());
        callers.spawn(async move {
            let mut calls = 0;
            while caller.comes_back().await {
                let mut command = host.command("true");
                // For the two kinds of connections that callers get.
                let error = if number % 2 == 0 {
                    command.output().await.unwrap_err()
                } else {
                    command.spawn().await.unwrap_err()
                };
                assert!(offered(&error)[0].contains(&fingerprint), "{error}");
                calls += 1;
            }
            calls
        });
    }
    let calls: usize = callers.join_all().await.into_iter().sum();
    let elapsed = began.elapsed();
    let failures = failures(&mut events);
    let log = sshd.log();
    let most = 1 + usize::try_from(elapsed.as_millis() / cooldown.as_millis()).unwrap();
    let logins = sshd.auth_failures();
    assert!((1..=most).contains(&logins), "{logins} of {most}: {log}");
    assert_eq!(
        (
            sshd.connections(),
            sshd.refused_credentials(),
            failures.len()
        ),
        (logins, logins, logins),
        "{log}"
    );
    let worst = worst_penalty(&failures);
    assert!(worst < 15.0, "{worst} s: {log}");
    sshd.assert_not_banned();
    assert!(calls > 200, "{calls} calls in {elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_with_a_wrong_key_make_one_login_a_cool_down_and_nobody_bans_them() {
    let (cooldown, span) = (Duration::from_secs(6), Duration::from_secs(14));
    let servers = RELEASES.map(|release| besieged(release, cooldown, span));
    futures_util::future::join_all(servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_wrong_identities_at_once_get_nobody_banned_and_the_right_ones_get_in() {
    let sshd = Sshd::builder().release(Release::Trixie).start();
    let timeouts = Timeouts::default()
        .auth_cooldown(Duration::ZERO)
        .acquire(SOON * 2);
    let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
    let pool = pool.build().unwrap();
    let familiar = pool.host(sshd.target()).unwrap();
    assert!(familiar.command("true").status().await.unwrap().success());
    let mut events = pool.events();
    let wrong: Vec<_> = (0..5).map(|_| new_key()).collect();
    let mut callers = tokio::task::JoinSet::new();
    for (_, key) in &wrong {
        let host = host_for(&pool, &sshd, Identity::key_file(key.private()));
        callers.spawn(host.command("true").output());
    }
    // Who has been let in before does not wait for the others.
    familiar.evict();
    assert!(familiar.command("true").status().await.unwrap().success());
    assert!(sshd.auth_failures() < 3, "{}", sshd.log());
    for result in callers.join_all().await {
        offered(&result.unwrap_err());
    }
    let (_dir, key) = new_key();
    sshd.authorize(&key.public_line());
    let right = host_for(&pool, &sshd, Identity::key_file(key.private()));
    assert!(right.command("true").status().await.unwrap().success());
    assert_eq!((sshd.auth_failures(), sshd.accepted()), (5, 3));
    let worst = worst_penalty(&failures(&mut events));
    assert!(worst <= 10.0, "{worst} s: {}", sshd.log());
    sshd.assert_not_banned();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_identity_that_nothing_cools_down_gets_nobody_banned_either() {
    let sshd = Sshd::builder().release(Release::Trixie).start();
    let timeouts = Timeouts::default().auth_cooldown(Duration::ZERO);
    let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
    let pool = pool.build().unwrap();
    let mut events = pool.events();
    let (_dir, key) = new_key();
    let host = host_for(&pool, &sshd, Identity::key_file(key.private()));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(9) {
        for error in refusals(&host, 5).await {
            offered(&error);
        }
    }
    let logins = sshd.auth_failures();
    assert!((3..=5).contains(&logins), "{logins}: {}", sshd.log());
    sshd.assert_not_banned();
    // Two go out at once, and each of the others has told how long it waits.
    let waits: Vec<_> = std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::LoginDelayed { wait, reason } => Some((wait, reason)),
            _ => None,
        })
        .collect();
    assert!(
        (logins - 2..=logins - 1).contains(&waits.len()),
        "{waits:?}"
    );
    for (wait, reason) in waits {
        assert_eq!(reason, LoginDelay::FailedLogins);
        assert!(
            !wait.is_zero() && wait <= Duration::from_secs(5),
            "{wait:?}"
        );
    }
    sshd.authorize(&key.public_line());
    assert!(host.command("true").status().await.unwrap().success());
}
