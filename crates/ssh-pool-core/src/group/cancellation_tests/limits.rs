//! The limits of a whole pool, over hosts that share one server.

use futures_util::TryFutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::event::{EventKind, Retirement};
use crate::group::make_room;
use crate::transport::ConnectError;
use crate::{Cause, CommandState};

/// One connection with one session to each host, so that all other callers wait.
fn narrow() -> Limits {
    Limits::default()
        .connections_per_host(1)
        .sessions_per_connection(1)
}

/// A server whose commands run for a second.
fn slow() -> Server {
    Server::new(Script {
        runtime: Duration::from_secs(1),
        ..Script::default()
    })
}

fn hosts(pool: &Pool, count: usize) -> Vec<Host> {
    let host = |n: usize| pool.host(format!("user-{n}@test:22").as_str());
    (0..count).map(|n| host(n).expect("valid")).collect()
}

fn full(error: &Error) -> bool {
    matches!(error, Error::QueueFull { limit: 3, .. })
}

#[tokio::test(start_paused = true)]
async fn one_caller_too_many_is_turned_away_at_once_and_nothing_else_changes() {
    let server = slow();
    let (pool, host) = pool(&server, narrow().queued_commands(3), Timeouts::default());
    let mut events = pool.events();
    host.warm().await.expect("warm");
    let mut commands = JoinSet::new();
    for _ in 0..4 {
        commands.spawn(host.command("true").output());
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!((pool.status().waiting, pool.status().waiting_limit), (3, 3));

    // Another host would have to be dialled first, which waiting for would be of no use.
    let other = &hosts(&pool, 1)[0];
    let (dials, began) = (server.seen().dials, Instant::now());
    for _ in 0..10 {
        let errors = [
            host.command("true").output().await.expect_err("full"),
            host.command("true").spawn().await.expect_err("full"),
            host.warm().await.expect_err("full"),
            host.connect_tcp("db", 5432).await.expect_err("full"),
            other.command("true").output().await.expect_err("full"),
        ];
        assert!(errors.iter().all(full), "{errors:?}");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.seen().dials, dials, "nothing was dialled for them");
    assert_eq!(pool.status().waiting, 3);
    let told = std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event.kind, EventKind::QueueFull { limit: 3 }))
        .count();
    assert_eq!(told, 1, "once, and not for each");

    while let Some(done) = commands.join_next().await {
        done.expect("no panic").expect("those who wait are served");
    }
    assert_eq!(pool.status().waiting, 0);
    other.command("true").output().await.expect("room again");
    assert_eq!(server.seen().started, 5);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_not_block_idle_channels() {
    let server = slow();
    let (pool, host) = pool(&server, narrow().queued_commands(3), Timeouts::default());
    let other = hosts(&pool, 1).remove(0);
    other.warm().await.expect("warm");
    host.warm().await.expect("warm");
    settle().await;
    let mut commands = JoinSet::new();
    for _ in 0..4 {
        commands.spawn(host.command("true").output());
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(pool.status().waiting, 3);
    let output = other.command("true").output().await;
    output.expect("it does not have to wait");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_gives_its_permit_back() {
    let server = slow();
    let (pool, host) = pool(&server, narrow().queued_commands(3), Timeouts::default());
    host.warm().await.expect("warm");
    let running = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(100)).await;
    for _ in 0..20 {
        let mut waiting = JoinSet::new();
        for _ in 0..3 {
            waiting.spawn(host.command("true").output());
        }
        sleep(Duration::from_millis(10)).await;
        assert_eq!(pool.status().waiting, 3);
        drop(waiting);
        tokio::task::yield_now().await;
        assert_eq!(pool.status().waiting, 0);
        let after = Duration::from_millis(10);
        let late = host.command("true").timeout(after).output();
        let error = late.await.expect_err("busy");
        assert!(error.is_timeout(), "{error}");
        assert_eq!(pool.status().waiting, 0);
    }
    running.await.expect("no panic").expect("undisturbed");
}

/// As many wait as may.
fn fill_the_queue(host: &Host, pool: &Pool) -> Vec<Admission> {
    let wait = || {
        let mut admission = Admission::default();
        let place = host.pools().shared().take_queue_permit(&mut admission);
        place.map(|()| admission).ok()
    };
    let waiting: Vec<_> = std::iter::from_fn(wait).collect();
    assert_eq!(pool.status().waiting, 3);
    waiting
}

#[tokio::test(start_paused = true)]
async fn an_admitted_caller_is_not_refused_when_the_connection_was_gone() {
    type Call = fn(&Host) -> BoxFuture<'static, Result<(), Error>>;
    let calls: [(&str, Call); 5] = [
        ("output", |host| {
            host.command("true").output().map_ok(drop).boxed()
        }),
        ("spawn", |host| {
            host.command("true").shared().spawn().map_ok(drop).boxed()
        }),
        ("warm", |host| {
            let host = host.clone();
            async move { host.warm().await }.boxed()
        }),
        ("stream", |host| {
            let stream = host.connect_tcp("db", 5432).shared();
            stream.into_future().map_ok(drop).boxed()
        }),
        ("subsystem", |host| {
            let stream = host.subsystem("sftp").shared();
            stream.into_future().map_ok(drop).boxed()
        }),
    ];
    for (name, call) in calls {
        let server = Server::new(Script::default());
        let limits = small().queued_commands(3);
        let (pool, host) = pool(&server, limits, Timeouts::default());
        host.command("true").output().await.expect("served");
        // So long that it is asked for a sign of life, and gives none.
        sleep(Duration::from_secs(6)).await;
        server.forget_connections(true);
        let _waiting = fill_the_queue(&host, &pool);
        let served = call(&host).await;
        served.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(server.seen().dials, 2, "{name}");
        assert_eq!(pool.status().waiting, 3, "{name}: its place is free");
    }
}

#[tokio::test(start_paused = true)]
async fn an_admitted_caller_is_not_refused_when_the_connection_is_lost() {
    for half_ms in 0..20 {
        let server = Server::new(Script::default());
        let limits = small().queued_commands(3);
        let (pool, host) = pool(&server, limits, Timeouts::default());
        host.warm().await.expect("warm");
        let command = tokio::spawn(host.command("true").output());
        tokio::task::yield_now().await;
        let _waiting = fill_the_queue(&host, &pool);
        sleep(Duration::from_micros(500 * half_ms + 1)).await;
        server.kill_connections();
        if let Err(error) = command.await.expect("no panic") {
            assert_eq!(error.command_state(), CommandState::Unknown, "{error}");
        }
    }

    let server = slow();
    let limits = small().queued_commands(3);
    let (pool, host) = pool(&server, limits, Timeouts::default());
    let command = tokio::spawn(host.command("true").idempotent().output());
    sleep(Duration::from_millis(500)).await;
    let _waiting = fill_the_queue(&host, &pool);
    server.kill_connections();
    let output = command.await.expect("no panic").expect("run again");
    assert_eq!(output.attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn hosts_in_turn_and_at_once_share_the_connections_of_the_pool() {
    let server = Server::new(Script::default());
    let (pool, _) = pool(
        &server,
        Limits::default().connections(2),
        Timeouts::default(),
    );
    let hosts = hosts(&pool, 5);
    let mut events = pool.events();
    for round in 0..3 {
        for host in &hosts {
            host.command("true").output().await.expect("in turn");
        }
        let mut commands = JoinSet::new();
        for host in hosts.iter().cycle().take(50) {
            commands.spawn(host.command("true").output());
        }
        while let Some(done) = commands.join_next().await {
            let output = done.expect("no panic");
            output.unwrap_or_else(|error| panic!("round {round}, at once: {error}"));
        }
        assert!(pool.status().connections <= 2, "{:?}", pool.status());
    }
    assert_eq!(server.seen().most_connections, 2);
    assert_eq!(server.seen().started, 3 * 55);
    let retired: Vec<_> = std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::Retired { reason } => Some(reason),
            _ => None,
        })
        .collect();
    assert!(!retired.is_empty());
    assert!(
        retired.iter().all(|reason| *reason == Retirement::MadeRoom),
        "{retired:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_was_idle_for_longest_makes_room() {
    let server = Server::new(Script::default());
    let (pool, _) = pool(
        &server,
        Limits::default().connections(3),
        Timeouts::default(),
    );
    let hosts = hosts(&pool, 4);
    for number in [0, 1, 2, 0] {
        hosts[number]
            .command("true")
            .output()
            .await
            .expect("served");
        sleep(Duration::from_secs(1)).await;
    }
    hosts[3].command("true").output().await.expect("served");
    let left: Vec<_> = hosts.iter().map(|host| host.status().connections).collect();
    assert_eq!(left, [1, 0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn no_command_is_cut_off_for_room_and_the_error_says_what_was_lacking() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(60),
        ..Script::default()
    });
    let (pool, _) = pool(
        &server,
        Limits::default().connections(1),
        Timeouts::default(),
    );
    let hosts = hosts(&pool, 2);
    let running = tokio::spawn(hosts[0].command("true").output());
    sleep(Duration::from_secs(1)).await;

    let after = Duration::from_secs(5);
    let late = hosts[1].command("true").timeout(after).output().await;
    let error = late.expect_err("no room");
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Queue);
    assert_eq!(error.command_state(), CommandState::NotStarted);
    let said = error.to_string();
    assert!(said.contains("Limits::connections"), "{said}");

    let output = running.await.expect("no panic");
    output.expect("it has run to its end");
    // The connect that waited for that caller is no longer wanted.
    settle().await;
    assert_eq!((server.seen().dials, hosts[1].status().dialling), (1, 0));
    hosts[1].command("true").output().await.expect("room");
    assert_eq!(server.seen().most_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_closed_for_a_connect_that_is_not_needed_and_a_returning_caller_gets_room() {
    let server = slow();
    let (pool, _) = pool(
        &server,
        Limits::default().connections(1),
        Timeouts::default(),
    );
    let hosts = hosts(&pool, 2);
    let running = tokio::spawn(hosts[0].command("true").output());
    sleep(Duration::from_millis(100)).await;
    let mut impatient = hosts[1].command("true");
    let impatient = impatient.timeout(Duration::from_millis(100)).output();
    impatient.await.expect_err("no room");
    running.await.expect("no panic").expect("undisturbed");
    settle().await;
    let status: Vec<_> = hosts.iter().map(Host::status).collect();
    assert_eq!(status[0].connections, 1, "{status:?}");
    assert_eq!(status[1].dialling, 0, "{status:?}");

    let running = tokio::spawn(hosts[0].command("true").output());
    sleep(Duration::from_millis(100)).await;
    let mut impatient = hosts[1].command("true");
    let impatient = impatient.timeout(Duration::from_millis(100)).output();
    impatient.await.expect_err("no room");
    let patient = tokio::spawn(hosts[1].command("true").output());
    running.await.expect("no panic").expect("undisturbed");
    let waited = patient.await.expect("no panic").expect("room").waited;
    assert!(waited.total() < Duration::from_millis(1100), "{waited:?}");
    assert_eq!(server.seen().most_connections, 1);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_room_is_looked_for_does_not_wait_for_the_next_look() {
    let server = slow();
    let (pool, _) = pool(&server, narrow().connections(1), Timeouts::default());
    let hosts = hosts(&pool, 2);
    let limiter = hosts[0].pools().shared().budget.limiter();
    let running = tokio::spawn(hosts[0].command("true").output());
    sleep(Duration::from_millis(100)).await;
    let mut impatient = hosts[1].command("true");
    let impatient = tokio::spawn(impatient.timeout(Duration::from_millis(100)).output());
    sleep(Duration::from_millis(10)).await;
    // The next news that room may be had goes to the pool's maintenance; those after it come here.
    let mut news: Vec<_> = (0..9).map(|_| Box::pin(limiter.changed())).collect();
    for news in &mut news {
        assert!(news.now_or_never().is_none());
    }
    limiter.notify();
    impatient.await.expect("no panic").expect_err("no room");
    running.await.expect("no panic").expect("undisturbed");
    sleep(Duration::from_millis(100)).await;
    // Looked at, they are spent, and the maintenance is next again.
    news.retain_mut(|news| news.now_or_never().is_none());
    assert!(news.len() < 9, "a connection is idle");
    drop(news);
    // The connect is not needed; then a caller needs it before it has ended.
    make_room(limiter, hosts.iter().flat_map(|host| host.pools().groups()));
    let mut quick = Box::pin(hosts[1].command("true").output());
    assert!((&mut quick).now_or_never().is_none());
    assert_eq!(hosts[1].status().waiting, 1);
    let waited = quick.await.expect("room").waited;
    assert!(waited.total() < Duration::from_millis(100), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_closes_does_not_wait_for_room() {
    let server = slow();
    let (pool, _) = pool(
        &server,
        Limits::default().connections(1),
        Timeouts::default(),
    );
    let hosts = hosts(&pool, 2);
    let running = tokio::spawn(hosts[0].command("true").output());
    sleep(Duration::from_millis(100)).await;
    let waiting = tokio::spawn(hosts[1].command("true").output());
    sleep(Duration::from_millis(100)).await;
    let closing = pool.close();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(hosts[1].status().dialling, 0, "nor keeps a dial waiting");
    closing.await;
    let error = waiting.await.expect("no panic").expect_err("closed");
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    running.await.expect("no panic").expect("finished");
    assert_eq!((server.seen().dials, pool.status().connections), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn without_descriptors_a_dial_is_tried_again_and_idle_connections_make_room() {
    let server = Server::new(Script::default());
    let (pool, host) = pool(&server, Limits::default(), Timeouts::default());
    let hosts = hosts(&pool, 3);
    for other in &hosts {
        other.warm().await.expect("warm");
        sleep(Duration::from_millis(10)).await;
    }
    let none_left = || ConnectError {
        error: Error::Descriptors {
            target: "t".into(),
            source: Cause::new("too many open files"),
        },
        transient: true,
    };
    server.fail_next_connect(none_left());
    host.command("true").output().await.expect("the next dial");
    let left: Vec<_> = hosts.iter().map(|host| host.status().connections).collect();
    assert_eq!(left, [0, 0, 1], "as many as a dial needs descriptors");

    // While there are none, the caller waits until its deadline, and does not ask all the time.
    host.evict();
    settle().await;
    for _ in 0..100 {
        server.fail_next_connect(none_left());
    }
    let (began, dials) = (Instant::now(), server.seen().dials);
    let deadline = Duration::from_secs(20);
    let mut command = host.command("true");
    let error = command.timeout(deadline).output().await;
    let error = error.expect_err("none left");
    assert!(matches!(error, Error::Descriptors { .. }), "{error:?}");
    assert!(began.elapsed() >= deadline, "{:?}", began.elapsed());
    let tried = server.seen().dials - dials;
    assert!((10..=50).contains(&tried), "{tried}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_a_limit_of_connections_is_a_pool() {
    // More than a semaphore takes, where a usize has 32 bits.
    let limits = Limits::default().connections(u32::MAX);
    let (pool, host) = pool(&Server::new(Script::default()), limits, Timeouts::default());
    host.command("true").output().await.expect("served");
    assert_eq!(pool.status().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_no_longer_wanted_makes_room_at_once() {
    let server = Server::new(Script {
        handshake: Duration::from_secs(1),
        ..Script::default()
    });
    let (pool, host) = pool(
        &server,
        Limits::default().connections(1),
        Timeouts::default(),
    );
    let gone = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(500)).await;
    gone.abort();
    let other = pool.host("tester@other:22").expect("target");
    let began = Instant::now();
    other.command("true").output().await.expect("there is room");
    // The rest of that dial, and its own.
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1700), "{took:?}");
}
