//! Pool over a scripted server on paused time: whatever is dropped, wherever it is dropped,
//! nothing is lost.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Admission, Deadline, Handoff, channels};
use crate::transport::scripted::{Asked, Script, Server, connection_refused};
use crate::{Error, Host, HostKeyPolicy, Identity, Limits, Phase, Pool, Timeouts, Waited};

mod addresses;
mod checks;
mod connects;
mod control;
mod credit;
mod deadlines;
mod holds;
mod limits;
mod login_budget;
mod losses;
mod replacements;
mod retries;
mod stalls;
mod waits;

fn pool(server: &Server, limits: Limits, timeouts: Timeouts) -> (Pool, Host) {
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::password("not a secret"))
        .limits(limits)
        .timeouts(timeouts)
        .build_on(std::sync::Arc::new(server.clone()))
        .expect("valid settings");
    let host = pool.host("tester@test:22").expect("valid target");
    (pool, host)
}

fn small() -> Limits {
    Limits::default()
        .connections_per_host(1)
        .sessions_per_connection(3)
}

/// Long enough for everything that is under way to end, on a clock that jumps.
async fn settle() {
    sleep(Duration::from_secs(2)).await;
}

/// Nothing is in use, no caller waits, and the server agrees about every session.
fn assert_at_rest(host: &Host, server: &Server, case: &str) {
    let status = host.status();
    let busy = (
        status.running,
        status.opening,
        status.dialling,
        status.waiting,
    );
    assert_eq!(busy, (0, 0, 0, 0), "{case}: {status:?}");
    assert_eq!(
        server.held(),
        status.spare,
        "{case}: the server holds what we count: {status:?}"
    );
    assert_eq!(server.seen().running, 0, "{case}: no process is left");
}

/// All permits are there: as many commands as ever run at once.
async fn assert_full_strength(host: &Host, server: &Server, at_once: u32, case: &str) {
    let before = server.seen().started;
    let mut commands = JoinSet::new();
    for _ in 0..at_once {
        commands.spawn(host.command("true").output());
    }
    let mut most = 0;
    while !commands.is_empty() {
        tokio::select! {
            Some(done) = commands.join_next() => {
                done.expect("no panic").unwrap_or_else(|error| panic!("{case}: {error}"));
            }
            () = sleep(Duration::from_micros(500)) => most = most.max(server.seen().running),
        }
    }
    assert_eq!(most, at_once, "{case}: all at once");
    assert_eq!(
        server.seen().started,
        before + at_once,
        "{case}: each ran once"
    );
}

/// Drops a command after every half millisecond of its life, cold and warm, alone and among
/// others: through queue, dial, open, exec, stdin and the wait for its end.
#[tokio::test(start_paused = true)]
async fn dropped_at_any_moment_a_command_leaves_nothing_behind() {
    for others in [0, 5] {
        for warm in [false, true] {
            for half_ms in 0..140 {
                let case = format!("{others} others, warm: {warm}, dropped at {half_ms}/2 ms");
                let server = Server::new(Script::default());
                let (pool, host) = pool(&server, small(), Timeouts::default());
                if warm {
                    host.warm().await.expect("warm");
                }
                let mut neighbours = JoinSet::new();
                for _ in 0..others {
                    neighbours.spawn(host.command("true").output());
                }
                // The neighbours are first in the queue, or the dropped one is.
                if half_ms % 2 == 0 {
                    tokio::task::yield_now().await;
                }
                let after = Duration::from_micros(500 * half_ms);
                let command = host.command("true").stdin("some input").output();
                drop(tokio::time::timeout(after, command).await);

                while let Some(done) = neighbours.join_next().await {
                    let output = done.expect("no panic");
                    assert!(output.is_ok(), "{case}: a neighbour failed: {output:?}");
                }
                settle().await;
                assert_at_rest(&host, &server, &case);
                assert_full_strength(&host, &server, 3, &case).await;
                settle().await;
                assert_at_rest(&host, &server, &case);
                pool.close().await;
                assert_eq!(server.seen().connections, 0, "{case}: said goodbye");
            }
        }
    }
}

/// The same, by polls instead of time: dropped at its first, second, third … wait, at once or
/// after what it waited for has come and has not been looked at.
#[tokio::test(start_paused = true)]
async fn dropped_at_every_await_a_command_leaves_nothing_behind() {
    for unseen in [Duration::ZERO, Duration::from_secs(1)] {
        let mut finished = false;
        for polls in 1.. {
            let case = format!("{polls} polls, then {unseen:?} unseen");
            let server = Server::new(Script::default());
            let (_pool, host) = pool(&server, small(), Timeouts::default());
            let mut command = Box::pin(host.command("true").stdin("input").output());
            let mut left = polls;
            let output = std::future::poll_fn(|cx| {
                let poll = command.as_mut().poll(cx);
                left -= 1;
                match poll {
                    std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                    other => other.map(Some),
                }
            })
            .await;
            if !unseen.is_zero() {
                sleep(unseen).await;
            }
            drop(command);
            settle().await;
            assert_at_rest(&host, &server, &case);
            assert_full_strength(&host, &server, 3, &case).await;
            if output.is_some() {
                finished = polls > 4;
                break;
            }
        }
        assert!(finished, "a command has more awaits than that");
    }
}

#[tokio::test(start_paused = true)]
async fn thirty_callers_share_one_dial_though_the_first_has_gone() {
    let server = Server::new(Script {
        max_sessions: 30,
        ..Script::default()
    });
    let limits = Limits::default().sessions_per_connection(30);
    let (_pool, host) = pool(&server, limits, Timeouts::default());
    let first = tokio::spawn(host.command("true").output());
    sleep(Duration::from_millis(5)).await;
    let rest: Vec<_> = (0..29)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    tokio::task::yield_now().await;
    first.abort();
    for command in rest {
        assert!(command.await.expect("no panic").is_ok());
    }
    assert_eq!(server.seen().dials, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_connect_fails_all_waiters_and_the_next_one_backs_off() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    server.fail_next_connect(connection_refused());
    let callers: Vec<_> = (0..100)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    for caller in callers {
        let error = caller.await.expect("no panic").expect_err("no listener");
        assert!(matches!(error, Error::Connect { .. }), "{error}");
    }
    assert_eq!(server.seen().dials, 1);
    assert_eq!(host.status().failed_dials, 1);
    sleep(Duration::from_secs(1)).await;
    host.command("true")
        .output()
        .await
        .expect("it has a listener now");
    assert_eq!(server.seen().dials, 2);
}

#[tokio::test(start_paused = true)]
async fn a_restarting_server_is_dialled_again_within_the_deadline() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    host.warm().await.expect("up");
    server.kill_connections();
    for _ in 0..3 {
        server.fail_next_connect(connection_refused());
    }
    host.command("true").output().await.expect("absorbed");
    assert_eq!(server.seen().dials, 5);
}

/// Cuts every connection at each half millisecond of a command's life: before its request went
/// out that is absorbed, after it the outcome is unknown, and in no case it runs twice.
#[tokio::test(start_paused = true)]
async fn a_connection_lost_at_any_moment_is_absorbed_or_reported_and_never_runs_anything_twice() {
    let (mut absorbed, mut unknown) = (0, 0);
    for half_ms in 0..80 {
        let server = Server::new(Script::default());
        let (_pool, host) = pool(&server, small(), Timeouts::default());
        host.warm().await.expect("warm");
        let command = tokio::spawn(host.command("true").output());
        sleep(Duration::from_micros(500 * half_ms + 1)).await;
        let done = command.is_finished();
        let requested = server.seen().requested;
        server.kill_connections();
        let result = command.await.expect("no panic");
        match result {
            Ok(_) if done => {}
            Ok(_) => absorbed += 1,
            Err(error) => {
                assert_eq!(
                    requested, 1,
                    "{half_ms}: nothing was sent, and it failed: {error}"
                );
                assert_eq!(
                    error.command_state(),
                    crate::CommandState::Unknown,
                    "{error}"
                );
                unknown += 1;
            }
        }
        settle().await;
        assert_eq!(
            server.seen().requested,
            1,
            "{half_ms}: exactly one request in all"
        );
        assert_at_rest(&host, &server, &format!("cut at {half_ms}/2 ms"));
    }
    assert!(
        absorbed > 0 && unknown > 10,
        "{absorbed} absorbed, {unknown} unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_host_queues_until_the_deadline_and_then_says_what_it_waited_for() {
    let script = Script {
        runtime: Duration::from_secs(60),
        ..Script::default()
    };
    let server = Server::new(script);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let running: Vec<_> = (0..3)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let error = host.command("true").output().await.expect_err("full");
    assert_eq!(began.elapsed().as_secs(), 30, "the acquire timeout");
    assert_eq!((error.phase(), error.is_timeout()), (Phase::Queue, true));
    assert_eq!(error.command_state(), crate::CommandState::NotStarted);
    for command in running {
        assert!(command.await.expect("no panic").is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_leave_a_full_host_leave_its_queue() {
    // One session where three were hoped for: some wait for a permit, some for a slot.
    let script = Script {
        runtime: Duration::from_secs(20),
        max_sessions: 1,
        ..Script::default()
    };
    let server = Server::new(script);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let running = tokio::spawn(host.command("true").output());
    sleep(Duration::from_secs(1)).await;
    let waiting: Vec<_> = (0..50)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(host.status().waiting, 50);
    for command in waiting {
        command.abort();
    }
    tokio::task::yield_now().await;
    assert_eq!(host.status().waiting, 0);
    // And nothing is opened on their behalf later.
    let opens = host.status().opens;
    assert!(running.await.expect("no panic").is_ok());
    settle().await;
    assert_eq!(host.status().opens, opens, "{:?}", host.status());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_full_and_retiring_does_not_block_its_replacement() {
    let script = Script {
        runtime: Duration::from_secs(60),
        ..Script::default()
    };
    let server = Server::new(script);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let mut commands = JoinSet::new();
    for generation in 1..=4 {
        for _ in 0..3 {
            commands.spawn(host.command("true").output());
        }
        settle().await;
        let seen = server.seen();
        assert_eq!((seen.running, seen.dials), (3 * generation, generation));
        host.evict();
    }
    while let Some(done) = commands.join_next().await {
        assert!(done.expect("no panic").is_ok(), "no command was cut");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_command_that_ignores_signals_keeps_its_slot_until_its_connection_is_replaced()
{
    let script = Script {
        runtime: Duration::from_secs(20),
        heeds_signals: false,
        ..Script::default()
    };
    let server = Server::new(script);
    let grace = Duration::from_secs(5);
    let (_pool, host) = pool(&server, small(), Timeouts::default().kill_grace(grace));
    let command = host.command("true").output();
    drop(tokio::time::timeout(Duration::from_secs(1), command).await);
    settle().await;
    assert_eq!((host.status().running, server.seen().running), (1, 1));
    let others: Vec<_> = (0..4)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        server.seen().running,
        3,
        "two beside it, and the rest queue"
    );
    // Grace and three seconds are over: its channel is closed, and it is not known when the server
    // will let go of it.
    sleep(Duration::from_secs(7)).await;
    assert_eq!((host.status().retiring, host.status().connections), (1, 1));
    assert_eq!(server.seen().running, 5, "the others wait no longer");
    for command in others {
        assert!(command.await.expect("no panic").is_ok());
    }
    sleep(Duration::from_secs(30)).await;
    assert_at_rest(&host, &server, "after its end");
}

#[tokio::test(start_paused = true)]
async fn close_lets_running_commands_finish_and_tells_the_queued_ones() {
    let script = Script {
        runtime: Duration::from_secs(5),
        ..Script::default()
    };
    let server = Server::new(script);
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let running: Vec<_> = (0..3)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    sleep(Duration::from_secs(1)).await;
    let queued: Vec<_> = (0..20)
        .map(|_| tokio::spawn(host.command("true").output()))
        .collect();
    sleep(Duration::from_millis(10)).await;
    let closing = pool.close();
    for command in queued {
        let error = command.await.expect("no panic").expect_err("closed");
        assert!(matches!(error, Error::Closed { .. }), "{error}");
    }
    let error = host.command("true").output().await.expect_err("closed");
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(pool.host("tester@other:22").is_err());
    closing.await;
    for command in running {
        assert!(
            command.await.expect("no panic").is_ok(),
            "running commands finish"
        );
    }
    assert_eq!(server.seen().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn close_does_not_wait_for_a_connect_that_is_not_needed() {
    let server = Server::new(Script {
        handshake: Duration::from_secs(9),
        ..Script::default()
    });
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let command = tokio::spawn(host.command("true").output());
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    pool.close().await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let error = command.await.expect("no panic").expect_err("closed");
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_and_old_ones_replaced_without_affecting_callers() {
    let server = Server::new(Script::default());
    let timeouts = Timeouts::default().lifetime(Duration::from_secs(60));
    let (_pool, host) = pool(&server, Limits::default(), timeouts);
    for _ in 0..100 {
        host.command("true").output().await.expect("served");
        sleep(Duration::from_secs(3)).await;
    }
    let dials = server.seen().dials;
    assert!(
        (4..=7).contains(&dials),
        "300 s of one-minute connections: {dials}"
    );
    sleep(Duration::from_secs(60 * 6)).await;
    assert_eq!(server.seen().connections, 0, "idle");
}

#[tokio::test(start_paused = true)]
async fn idle_channels_are_in_the_channel_pool_and_not_beside_it() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    for commands in 1..=5 {
        host.command("true").output().await.expect("served");
        settle().await;
        let group = host.pools().shared();
        let (idle, beside) = (group.channels.idle(), group.state().unclaimed.len());
        assert_eq!((idle, beside), (1, 0), "after {commands} commands");
        assert_eq!(host.status().spare, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_idle_channel_is_opened_behind_the_request() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    host.command("true").output().await.expect("served");
    settle().await;
    server.take_asked();
    for command in 1..=3 {
        host.command("true").output().await.expect("served");
        settle().await;
        let asked = server.take_asked();
        assert_eq!(asked, [Asked::Start, Asked::Open], "command {command}");
    }
    // Taking an idle channel without using it still opens the next one.
    let group = host.pools().shared();
    let deadline = Deadline::after(Duration::from_secs(30));
    let (mut admission, mut waited) = (Admission::default(), Waited::default());
    let spare = group
        .checkout_before(&mut admission, deadline, &mut waited)
        .await;
    let (guard, next) = spare.expect("a spare");
    assert_eq!(waited, Waited::default());
    drop(guard);
    assert_eq!(server.take_asked(), [], "not yet");
    drop(next);
    assert_eq!(server.take_asked(), [Asked::Open]);
    settle().await;
    assert_at_rest(&host, &server, "taken for nothing");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_an_answer_first_delays_no_idle_channel() {
    let server = Server::new(Script::default());
    let (_pool, host) = pool(&server, Limits::default(), Timeouts::default());
    host.command("true").output().await.expect("served");
    settle().await;
    server.take_asked();
    let mut command = host.command("true");
    command.env("NAME", "value"); // to which this server says nothing
    let mut asks = Box::pin(command.output());
    assert!((&mut asks).now_or_never().is_none(), "is it taken?");
    assert_eq!(server.take_asked(), [Asked::Open]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_misses_a_returning_idle_channel_is_served_by_it() {
    let server = Server::new(Script::default());
    let limits = small().sessions_per_connection(1);
    let (_pool, host) = pool(&server, limits, Timeouts::default());
    let group = host.pools().shared();
    let channel = group.channels.get().await.expect("served");
    // As a channel guard does when it is dropped, with another caller in between.
    assert!(matches!(group.next_handoff(&channel), Handoff::Idle));
    let deadline = Deadline::after(Duration::from_secs(30));
    let (mut admission, mut waited) = (Admission::default(), Waited::default());
    let mut other = Box::pin(group.checkout(&mut admission, deadline, &mut waited));
    assert!((&mut other).now_or_never().is_none(), "nothing lies there");
    drop(channel);
    group.match_idle();
    let served = other.now_or_never().expect("at once");
    served.expect("the spare");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_misses_an_unclaimed_channel_is_served_by_it() {
    let server = Server::new(Script::default());
    let limits = small().sessions_per_connection(1);
    let (_pool, host) = pool(&server, limits, Timeouts::default());
    let group = host.pools().shared();
    let old = group.channels.get().await.expect("served");
    host.evict();
    let ready = channels::take_out(group.channels.get().await.expect("served"));
    assert!(matches!(group.next_handoff(&ready), Handoff::Idle));
    let deadline = Deadline::after(Duration::from_secs(30));
    let (mut admission, mut waited) = (Admission::default(), Waited::default());
    let mut other = Box::pin(group.checkout(&mut admission, deadline, &mut waited));
    assert!((&mut other).now_or_never().is_none(), "nothing lies there");
    // The old connection and the waiters hold all permits.
    group.deliver(Handoff::Idle, ready);
    let served = other.now_or_never().expect("at once");
    served.expect("the spare");
    drop(old);
}
