//! One host is one machine: a name with several addresses, on a clock that jumps.

use std::net::SocketAddr;

use super::*;
use crate::transport::Signals;
use crate::{EventKind, Events, Retirement};

const FAST: Duration = Duration::from_millis(1);
const REFUSES: Duration = Duration::MAX;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 22))
}

/// The changes of address since the last look: from, to.
fn changes(events: &mut Events) -> Vec<(SocketAddr, SocketAddr)> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::AddressChanged { from, to } => Some((from, to)),
            _ => None,
        })
        .collect()
}

fn served_at(status: &crate::HostStatus) -> Vec<SocketAddr> {
    let in_service = status.each_connection.iter().filter(|c| !c.retiring);
    in_service.filter_map(|c| c.peer_addr).collect()
}

#[tokio::test(start_paused = true)]
async fn dials_of_a_cold_host_that_resolve_its_name_differently_agree_on_one_address() {
    for slower in [2, 20, 200] {
        let server = Server::new(Script::default());
        let (pool, _) = pool(&server, Limits::default(), Timeouts::default());
        let mut hosts = Vec::new();
        let mut commands = JoinSet::new();
        // Each user has connections of their own.
        for n in 1..=4 {
            let host = pool.host(format!("user-{n}@test:22")).expect("a target");
            let connect = Duration::from_millis(slower * u64::from(5 - n));
            // A resolver that gives the addresses in turn.
            let addresses = [0, 1, 2, 3].map(|next| (address((n + next - 1) % 4 + 1), connect));
            server.resolve_to(&addresses);
            commands.spawn(host.command("true").output());
            // Its dial looks the name up.
            tokio::task::yield_now().await;
            sleep(Duration::from_micros(100)).await;
            hosts.push(host);
        }
        let mut ran_at: Vec<_> = commands.join_all().await.into_iter().collect();
        let first = ran_at.pop().expect("four").expect("served").peer_addr;
        assert!(first.is_some());
        for output in ran_at {
            assert_eq!(output.expect("served").peer_addr, first, "{slower}");
        }
        for host in hosts {
            assert_eq!(served_at(&host.status()), [first.expect("an address")]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_resolves_elsewhere_moves_all_connections_and_loses_no_command() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(5),
        ..Script::default()
    });
    server.resolve_to(&[(address(1), FAST)]);
    let limits = Limits::default()
        .connections_per_host(2)
        .sessions_per_connection(3);
    let (pool, host) = pool(&server, limits, Timeouts::default());
    let other = pool.host("other@test:22").expect("a target");
    other.warm().await.expect("connected");
    let mut running = JoinSet::new();
    for _ in 0..3 {
        running.spawn(host.command("true").output());
    }
    sleep(Duration::from_secs(1)).await;
    server.resolve_to(&[(address(2), FAST)]);
    let mut events = pool.events();
    // There is no room on the first connection.
    let next = host.command("true").output().await.expect("served");
    assert_eq!(next.peer_addr, Some(address(2)));
    let mut told = Vec::new();
    while let Some(event) = events.try_next() {
        let user = event.target.split('@').next().map(str::to_owned);
        match event.kind {
            EventKind::Retired { reason } => {
                assert_eq!(reason, Retirement::AddressChanged);
                assert_eq!(event.peer_addr, Some(address(1)));
                told.push(format!("{} retired", user.expect("a user")));
            }
            EventKind::AddressChanged { from, to } => {
                assert_eq!((from, to), (address(1), address(2)));
                told.push(format!("{} changed", user.expect("a user")));
            }
            EventKind::Dialled { .. } => {
                assert_eq!(event.peer_addr, Some(address(2)));
                told.push(format!("{} dialled", user.expect("a user")));
            }
            _ => {}
        }
    }
    let (before, after) = told.split_at(2);
    let mut before = before.to_vec();
    before.sort();
    assert_eq!(before, ["other retired", "tester retired"], "{told:?}");
    let changed = ["tester changed", "other changed", "tester dialled"];
    assert_eq!(after[..3], changed, "{told:?}");
    while let Some(done) = running.join_next().await {
        let output = done.expect("no panic").expect("it had begun");
        assert_eq!(output.peer_addr, Some(address(1)), "where it began");
    }
    let output = other.command("true").output().await.expect("served");
    assert_eq!(output.peer_addr, Some(address(2)));
    assert_eq!(changes(&mut events), [], "told once");
}

#[tokio::test(start_paused = true)]
async fn connections_that_serve_hold_their_host_to_an_address_that_refuses_new_ones() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(1),
        ..Script::default()
    });
    server.resolve_to(&[(address(1), FAST), (address(2), FAST)]);
    let (pool, host) = pool(
        &server,
        small().connections_per_host(2),
        Timeouts::default(),
    );
    host.warm().await.expect("connected");
    let mut events = pool.events();
    server.resolve_to(&[(address(1), REFUSES), (address(2), FAST)]);
    let mut commands = JoinSet::new();
    for _ in 0..12 {
        commands.spawn(host.command("true").output());
    }
    for output in commands.join_all().await {
        assert_eq!(output.expect("queued").peer_addr, Some(address(1)));
    }
    assert!(host.status().failed_dials > 0, "more were wanted");
    assert_eq!(changes(&mut events), []);
    // Nothing is left there: the other address takes over.
    server.kill_connections();
    let output = host.command("true").output().await.expect("served");
    assert_eq!(output.peer_addr, Some(address(2)));
    assert_eq!(changes(&mut events), [(address(1), address(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_does_not_hold_its_host_to_an_address_that_refuses() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(600),
        ..Script::default()
    });
    server.resolve_to(&[(address(1), FAST), (address(2), FAST)]);
    let (pool, host) = pool(&server, small(), Timeouts::default());
    let follower = host.command("tail").spawn().await.expect("started");
    assert_eq!(follower.peer_addr(), Some(address(1)));
    let mut events = pool.events();
    server.resolve_to(&[(address(1), REFUSES), (address(2), FAST)]);
    let next = host.command("true").spawn().await.expect("served");
    let failed = host.status().failed_dials;
    assert_eq!(failed, 1, "at first the server may only be restarting");
    assert_eq!(next.peer_addr(), Some(address(2)));
    assert_eq!(changes(&mut events), [(address(1), address(2))]);
    let output = follower.wait_with_output().await.expect("it goes on");
    assert_eq!(output.peer_addr, Some(address(1)));
}

/// A resolver that gives another address each time, under load: each move is complete, and there is
/// one a minute at most.
#[tokio::test(start_paused = true)]
async fn whatever_the_resolver_says_no_command_begins_elsewhere_than_the_others_of_its_time() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(2),
        ..Script::default()
    });
    server.resolve_to(&[(address(0), FAST)]);
    let limits = small().connections_per_host(4);
    let timeouts = Timeouts::default().lifetime(Duration::from_secs(20));
    let (pool, host) = pool(&server, limits, timeouts);
    let other = pool.host("other@test:22").expect("a target");
    let mut events = pool.events();
    let began = Instant::now();
    let mut commands = JoinSet::new();
    let mut round = 0_u8;
    while began.elapsed() < Duration::from_secs(300) {
        round = round.wrapping_add(1);
        server.resolve_to(&[(address(round), FAST), (address(round / 2), FAST)]);
        for n in 0..20 {
            let host = if n % 3 == 0 { &other } else { &host };
            commands.spawn(host.command("true").output());
        }
        sleep(Duration::from_millis(2_500)).await;
    }
    for output in commands.join_all().await {
        output.expect("no command is lost");
    }
    let mut starts = server.take_started_at();
    starts.dedup();
    let mut moves = changes(&mut events);
    // Each of the two hosts tells.
    moves.dedup();
    let went: Vec<_> = (moves.iter().take(1).map(|(from, _)| *from))
        .chain(moves.iter().map(|(_, to)| *to))
        .collect();
    assert_eq!(starts, went);
    assert!((2..=7).contains(&moves.len()), "{moves:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_runs_at_the_old_address_is_ended_there() {
    let server = Server::new(Script {
        runtime: Duration::from_secs(60),
        // Only a script ends it.
        signals: Signals::Ignored,
        ..Script::default()
    });
    server.resolve_to(&[(address(1), FAST)]);
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let timeout = Duration::from_secs(10);
    let late = tokio::spawn(host.command("true").timeout(timeout).output());
    sleep(Duration::from_secs(1)).await;
    server.resolve_to(&[(address(2), FAST)]);
    host.evict();
    settle().await;
    assert_eq!(served_at(&host.status()), [address(2)]);
    assert_eq!(server.take_started_at(), [address(1)]);
    let error = late.await.expect("no panic").expect_err("its time is up");
    assert!(error.is_timeout(), "{error}");
    let scripts = server.take_started_at();
    assert_eq!(scripts, [address(1); 2], "to ask it, and to force it");
}
