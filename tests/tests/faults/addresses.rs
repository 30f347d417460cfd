//! One host is one machine: names with several addresses, and names that move.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ssh_pool::{
    Error, EventKind, Events, Host, HostKeyPolicy, Identity, Output, Phase, Pool, Retirement,
    Timeouts,
};
use ssh_pool_tests::{BlackHole, Machines, Names, Sshd, eventually_async, free_address};
use tokio::task::JoinSet;

use crate::SOON;

const NAME: &str = Machines::NAME;

/// Longer than any dial on a busy machine takes.
const CONNECT: Duration = Duration::from_secs(20);

/// Says where the server is: its address and port are the last two words.
const WHERE: &str = "echo $SSH_CONNECTION";

fn loopback(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

fn host_of(machines: &Machines) -> (Pool, Host) {
    let timeouts = Timeouts::default().connect(CONNECT);
    let pool = machines.builder().timeouts(timeouts).build().unwrap();
    let host = machines.host(&pool);
    (pool, host)
}

/// Where a command that said [`WHERE`] has run, which is what its output says, too.
fn ran_at(output: &Output) -> SocketAddr {
    let said = String::from_utf8_lossy(&output.stdout);
    let words: Vec<_> = said.split_whitespace().collect();
    let address: IpAddr = words[2].parse().unwrap();
    let port: u16 = words[3].parse().unwrap();
    let peer = SocketAddr::new(address, port);
    assert_eq!(output.peer_addr, Some(peer), "{said}");
    peer
}

async fn all_ran_at(commands: JoinSet<Result<Output, Error>>, address: SocketAddr) {
    for result in commands.join_all().await {
        assert_eq!(ran_at(&result.unwrap()), address);
    }
}

fn changes(events: &mut Events) -> Vec<(SocketAddr, SocketAddr)> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::AddressChanged { from, to } => Some((from, to)),
            _ => None,
        })
        .collect()
}

#[test]
fn forty_commands_on_a_name_with_two_addresses_run_on_one_machine_and_the_output_says_which() {
    Names::run(async |names| {
        let machines = Machines::start();
        machines.resolve(&names, &[&machines.old]);
        let (pool, host) = host_of(&machines);
        let mut events = pool.events();
        host.warm().await.unwrap();
        machines.resolve(&names, &[&machines.old, &machines.new]);
        let mut commands = JoinSet::new();
        for n in 0..40 {
            let line = format!("sleep 1; {WHERE}");
            match n % 4 {
                0 => commands.spawn({
                    let mut child = host.shell(line);
                    async move { child.spawn().await?.wait_with_output().await }
                }),
                _ => commands.spawn(host.shell(line).output()),
            };
        }
        all_ran_at(commands, machines.old.addr()).await;
        let status = host.status();
        assert!(status.dials > 2, "on several connections: {status:?}");
        for connection in &status.each_connection {
            assert_eq!(connection.peer_addr, Some(machines.old.addr()));
        }
        let mut dialled = 0;
        while let Some(event) = events.try_next() {
            if matches!(event.kind, EventKind::Dialled { .. }) {
                assert_eq!(event.peer_addr, Some(machines.old.addr()));
                dialled += 1;
            }
        }
        assert_eq!(dialled, status.dials);
        assert_eq!(machines.new.connections(), 0);
    });
}

#[test]
fn a_name_that_moves_while_commands_run_is_a_replacement_that_loses_no_command() {
    Names::run(async |names| {
        let machines = Machines::start();
        let (old, new) = (machines.old.addr(), machines.new.addr());
        machines.resolve(&names, &[&machines.old]);
        let (pool, host) = host_of(&machines);
        let gate = machines.folder().join("gate");
        let until_it_opens = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
        let mut running = JoinSet::new();
        for _ in 0..10 {
            let line = format!("{until_it_opens}; {WHERE}");
            running.spawn(host.shell(line).output());
        }
        let mut follower = host.shell(format!("{until_it_opens}; {WHERE}"));
        let follower = follower.spawn().await.unwrap();
        assert_eq!(follower.peer_addr(), Some(old));
        let all_run = || host.status().running == 10;
        assert!(eventually_async(SOON, all_run).await, "{:?}", host.status());

        machines.resolve(&names, &[&machines.new]);
        let mut events = pool.events();
        let mut next = JoinSet::new();
        for _ in 0..20 {
            next.spawn(host.shell(WHERE).output());
        }
        all_ran_at(next, new).await;
        let output = host.shell(WHERE).spawn().await.unwrap();
        assert_eq!(ran_at(&output.wait_with_output().await.unwrap()), new);
        let (mut retired, mut changed) = (0, Vec::new());
        while let Some(event) = events.try_next() {
            match event.kind {
                EventKind::Retired {
                    reason: Retirement::AddressChanged,
                } => {
                    assert_eq!(event.peer_addr, Some(old));
                    assert_eq!(changed, [], "no new command runs there by then");
                    retired += 1;
                }
                EventKind::AddressChanged { from, to } => changed.push((from, to)),
                _ => {}
            }
        }
        assert_eq!(changed, [(old, new)]);
        assert_eq!(retired, 2, "the shared connection, and the follower's");

        fs::write(&gate, "").unwrap();
        all_ran_at(running, old).await;
        assert_eq!(ran_at(&follower.wait_with_output().await.unwrap()), old);
        let gone = || machines.old.open_connections() == 0;
        assert!(eventually_async(SOON, gone).await, "drained, then closed");
    });
}

#[test]
fn a_machine_that_is_gone_gives_way_to_the_other_address_with_an_event() {
    Names::run(async |names| {
        let machines = Machines::start();
        // The one that the C library prefers goes.
        let (gone, other) = (&machines.new, &machines.old);
        machines.resolve(&names, &[gone, other]);
        let (pool, host) = host_of(&machines);
        host.warm().await.unwrap();
        let mut events = pool.events();
        gone.stop();
        let output = host.shell(WHERE).output().await.unwrap();
        assert_eq!(ran_at(&output), gone.addr());
        gone.kill_connections();
        let lost = || host.status().each_connection.is_empty();
        assert!(eventually_async(SOON, lost).await);
        let output = host.shell(WHERE).output().await.unwrap();
        assert_eq!(ran_at(&output), other.addr());
        assert_eq!(changes(&mut events), [(gone.addr(), other.addr())]);
        // It is back, and the host stays where it is.
        gone.restart();
        host.evict();
        let output = host.shell(WHERE).output().await.unwrap();
        assert_eq!(ran_at(&output), other.addr());
        assert_eq!(changes(&mut events), []);
    });
}

#[test]
fn an_address_that_swallows_packets_costs_a_moment_and_no_share_of_the_connect_time() {
    Names::run(async |names| {
        let port = free_address().port();
        let sshd = Sshd::builder().listen(loopback(2, port)).start();
        let hole = BlackHole::at(loopback(1, port));
        let v6 = BlackHole::at(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
        let silent = [v6.addr().ip(), hole.addr().ip()];
        names.resolve(NAME, &[silent[0], silent[1], sshd.addr().ip()]);
        let pool = |connect| {
            Pool::builder(HostKeyPolicy::dangerous_accept_any())
                .identity(Identity::key_file(sshd.client_key()))
                .timeouts(Timeouts::default().connect(connect))
                .in_current_runtime()
                .build()
                .unwrap()
        };
        let target = format!("{}@{NAME}:{port}", sshd.user());
        let patient = pool(CONNECT);
        let mut events = patient.events();
        let host = patient.host(&*target).unwrap();
        assert_eq!(
            ran_at(&host.shell(WHERE).output().await.unwrap()),
            sshd.addr()
        );
        let dialled = std::iter::from_fn(|| events.try_next()).find_map(|event| match event.kind {
            EventKind::Dialled { took } => Some(took),
            _ => None,
        });
        let took = dialled.unwrap();
        // The two before it have been waited for 250 ms each; a third of the time is 6.7 s.
        assert!(took >= Duration::from_millis(500), "{took:?}");
        assert!(took < CONNECT / 3, "{took:?}");

        names.resolve(NAME, &silent);
        let hasty = pool(Duration::from_secs(2));
        let host = hasty.host(&*target).unwrap();
        let error = host.command("true").output().await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.phase(), Phase::Connect);
        let [v6, hole] = [v6.addr(), hole.addr()];
        let reasons = format!("{v6}: no answer, {hole}: no answer");
        assert!(error.to_string().contains(&reasons), "{error}");
    });
}

#[test]
fn an_address_that_refuses_costs_nothing_and_the_error_names_all_that_were_tried() {
    Names::run(async |names| {
        let sshd = Sshd::start();
        let nobody = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], sshd.port()));
        names.resolve(NAME, &[nobody.ip(), sshd.addr().ip()]);
        let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
            .identity(Identity::key_file(sshd.client_key()))
            .in_current_runtime()
            .build()
            .unwrap();
        let host = (pool.host(format!("{}@{NAME}:{}", sshd.user(), sshd.port()))).unwrap();
        assert_eq!(
            ran_at(&host.shell(WHERE).output().await.unwrap()),
            sshd.addr()
        );
        sshd.stop();
        sshd.kill_connections();
        let mut error = None;
        let fails = async {
            while error.is_none() {
                error = host.command("true").output().await.err();
            }
        };
        tokio::time::timeout(SOON, fails).await.unwrap();
        let refused = |error: &Error| matches!(error, Error::Connect { .. });
        if !error.as_ref().is_some_and(refused) {
            // That one was lost with its connection.
            error = host.command("true").output().await.err();
        }
        let error = error.unwrap();
        assert!(refused(&error), "{error}");
        let reasons = error.to_string();
        for address in [nobody, sshd.addr()] {
            assert!(reasons.contains(&format!("{address}: ")), "{reasons}");
        }
    });
}
