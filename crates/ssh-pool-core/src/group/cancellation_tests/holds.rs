//! No hold-and-wait: what a program holds never stands in the way of what it needs next.
//!
//! The model is the pool itself, over a scripted server on paused time: programs that hold some
//! streams and need more, on limits that their streams fill. A wait with no end would be a time-out.

use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::*;
use crate::StreamGroup;

/// No stream ends by itself within this time; a program that waits so long waits for ever.
const FOREVER: Duration = Duration::from_secs(600);

fn patient() -> Timeouts {
    Timeouts::default().acquire(FOREVER)
}

/// A server whose limit of sessions is never reached: the limits are ours.
fn roomy() -> Server {
    Server::new(Script {
        max_sessions: 1_000,
        ..Script::default()
    })
}

/// What a program needs: a stream that it holds to its end, or a command that ends by itself.
#[derive(Debug, Clone, Copy)]
enum Need {
    Child,
    Stream,
    SharedChild,
    SharedStream,
    Subsystem,
    Output,
}

const NEEDS: [Need; 6] = [
    Need::Child,
    Need::Stream,
    Need::SharedChild,
    Need::SharedStream,
    Need::Subsystem,
    Need::Output,
];

/// Something that is held until it is dropped.
type Held = Box<dyn std::any::Any + Send>;

fn meet(need: Need, host: &Host) -> BoxFuture<'static, Result<Held, Error>> {
    fn held<T: Send + 'static>(
        got: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> BoxFuture<'static, Result<Held, Error>> {
        async { Ok(Box::new(got.await?) as Held) }.boxed()
    }
    match need {
        Need::Child => held(host.command("hold").spawn()),
        Need::SharedChild => held(host.command("hold").shared().spawn()),
        Need::Stream => held(host.connect_tcp("db", 5432).into_future()),
        Need::SharedStream => held(host.connect_tcp("db", 5432).shared().into_future()),
        Need::Subsystem => held(host.subsystem("hold").into_future()),
        Need::Output => held(host.command("true").output()),
    }
}

/// A program: after a pause each it needs something on a host, and it holds all of it to its end.
#[derive(Debug, Clone)]
struct Program(Vec<(u64, Need, usize)>);

impl Program {
    async fn run(self, hosts: Vec<Host>) -> Result<(), Error> {
        let stream_group = StreamGroup::new();
        let mut holds = Vec::new();
        for (pause, need, on) in self.0 {
            sleep(Duration::from_millis(pause)).await;
            let got = meet(need, &hosts[on % hosts.len()].in_group(&stream_group)).await;
            match got {
                // A full queue turns away who holds no stream, at once.
                Err(Error::QueueFull { .. }) if stream_group.open() == 0 => return Ok(()),
                got => holds.push(got?),
            }
        }
        sleep(Duration::from_millis(100)).await;
        Ok(())
    }
}

fn programs() -> impl Strategy<Value = Vec<Program>> {
    let step = (0u64..60, prop::sample::select(&NEEDS[..]), 0usize..3);
    let program = prop::collection::vec(step, 1..6).prop_map(Program);
    prop::collection::vec(program, 1..12)
}

/// As many as asked for by the environment, which a longer search does.
fn cases() -> u32 {
    let asked = std::env::var("SSH_POOL_HOLD_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_program_ends_whatever_it_holds_while_it_needs_more(
        programs in programs(),
        (shared, sessions, isolated) in (1u32..3, 1u32..4, 1u32..4),
        connections in 1u32..8,
        (per_host, in_all) in (1u32..5, 1u32..5),
        queued in 1usize..20,
        host_count in 1usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let server = roomy();
            let limits = Limits::default()
                .connections_per_host(shared)
                .sessions_per_connection(sessions)
                .isolated_per_host(isolated)
                .connections(connections)
                .handshakes_per_host(per_host)
                .handshakes(in_all)
                .queued_commands(queued);
            let (pool, _) = pool(&server, limits, patient());
            // One address: its handshakes are shared, too.
            let host = |n: usize| pool.host(format!("user-{n}@test:22").as_str());
            let hosts: Vec<_> = (0..host_count).map(|n| host(n).expect("valid")).collect();
            let mut running = JoinSet::new();
            for program in programs {
                running.spawn(program.run(hosts.clone()));
            }
            while let Some(ended) = running.join_next().await {
                ended.expect("no panic").expect("every program ends");
            }
            // A stream that was dropped lingers for a few seconds.
            sleep(Duration::from_secs(20)).await;
            for host in &hosts {
                let status = host.status();
                let busy = (status.isolated_busy, status.running, status.waiting, status.dialling);
                assert_eq!(busy, (0, 0, 0, 0), "{status:?}");
                assert_eq!(host.pools().held(), 0, "{status:?}");
            }
            pool.close().await;
            assert_eq!(server.seen().connections, 0, "said goodbye");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_with_more_streams_than_isolated_connections_gets_them_all_at_once() {
    let server = roomy();
    let limits = Limits::default().isolated_per_host(2).connections(3);
    let (_pool, host) = pool(&server, limits, patient());
    let began = Instant::now();
    let mut programs = JoinSet::new();
    for _ in 0..20 {
        let host = host.in_group(&StreamGroup::new());
        programs.spawn(async move {
            let push = host.command("hold").spawn().await?;
            let hook = host.command("hold").spawn().await?;
            drop((hook, push));
            Ok::<_, Error>(())
        });
    }
    while let Some(ended) = programs.join_next().await {
        ended.expect("no panic").expect("both streams");
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn streams_that_a_program_asks_for_together_all_come_when_the_first_has_come() {
    let server = roomy();
    let limits = Limits::default().isolated_per_host(1);
    let (_pool, host) = pool(&server, limits, patient());
    let host = host.in_group(&StreamGroup::new());
    let began = Instant::now();
    let all = (0..40).map(|_| host.command("hold").spawn());
    let all = futures_util::future::try_join_all(all).await;
    assert_eq!(all.expect("all of them").len(), 40);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let status = host.status();
    assert_eq!(
        (status.isolated_busy, status.grouped),
        (40, 39),
        "{status:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_ceiling_for_groups_the_answer_comes_at_once_and_names_the_limit() {
    let server = roomy();
    let limits = Limits::default().isolated_per_host(1).grouped_per_host(2);
    let (_pool, host) = pool(&server, limits, patient());
    let host = host.in_group(&StreamGroup::new());
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(host.command("hold").spawn().await.expect("served"));
    }
    let began = Instant::now();
    let errors = [
        host.command("hold")
            .spawn()
            .await
            .expect_err("one too many"),
        host.connect_tcp("db", 5432)
            .await
            .expect_err("one too many"),
        host.subsystem("hold").await.expect_err("one too many"),
    ];
    assert_eq!(began.elapsed(), Duration::ZERO);
    for error in errors {
        let Error::StreamLimit {
            open: 2,
            limit: "grouped_per_host",
            after: None,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert!(!error.is_timeout() && error.is_transient());
    }
    drop(children.pop());
    settle().await;
    drop(host.command("hold").spawn().await.expect("a place again"));
}

#[tokio::test(start_paused = true)]
async fn without_a_group_the_wait_for_a_stream_ends_with_what_fills_the_limit() {
    let server = roomy();
    let limits = Limits::default().isolated_per_host(2);
    let (_pool, host) = pool(&server, limits, Timeouts::default());
    let mut children = Vec::new();
    for _ in 0..2 {
        children.push(host.command("hold").spawn().await.expect("served"));
    }
    for error in [
        host.command("hold").spawn().await.expect_err("full"),
        host.connect_tcp("db", 5432).await.expect_err("full"),
    ] {
        let Error::StreamLimit {
            open: 2,
            limit: "isolated_per_host",
            after: Some(after),
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(after, Duration::from_secs(30));
        assert!(error.is_timeout(), "{error}");
        assert!(error.to_string().contains("2 streams are open"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn commands_do_not_wait_for_the_sessions_that_shared_children_hold() {
    let server = roomy();
    let (_pool, host) = pool(&server, small(), Timeouts::default());
    let mut followers = Vec::new();
    for _ in 0..20 {
        let follower = host.command("hold").shared().spawn().await;
        followers.push(follower.expect("served"));
    }
    host.command("true").output().await.expect("served");
    // One connection for commands, and six whose three sessions are all held.
    assert_eq!(host.status().connections, 7, "{:?}", host.status());
    drop(followers);
    settle().await;
    assert_eq!(host.pools().held(), 0);
    assert_full_strength(&host, &server, 3, "as before").await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_turns_no_caller_away_whose_group_has_a_stream() {
    let server = roomy();
    let limits = small().isolated_per_host(1).queued_commands(2);
    let (_pool, host) = pool(&server, limits, patient());
    let ours = host.in_group(&StreamGroup::new());
    let held = ours.command("hold").spawn().await.expect("served");
    let mut others = JoinSet::new();
    for _ in 0..2 {
        others.spawn(host.command("hold").spawn());
    }
    sleep(Duration::from_millis(100)).await;
    let error = host.command("hold").spawn().await.expect_err("full");
    assert!(matches!(error, Error::QueueFull { .. }), "{error:?}");
    drop(ours.command("hold").spawn().await.expect("not turned away"));
    ours.command("true")
        .output()
        .await
        .expect("not turned away");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn where_shared_streams_fill_every_connection_the_error_names_that_limit() {
    let server = roomy();
    let limits = small().streams_per_connection(2);
    let (_pool, host) = pool(&server, limits, Timeouts::default());
    let ours = host.in_group(&StreamGroup::new());
    let stream = |host: &Host| host.connect_tcp("db", 5432).shared().into_future();
    let _held = [
        stream(&ours).await.expect("served"),
        stream(&host).await.expect("served"),
    ];
    let began = Instant::now();
    for (host, waits) in [(&ours, false), (&host, true)] {
        let error = stream(host).await.expect_err("full");
        let Error::StreamLimit {
            open: 2,
            limit: "streams_per_connection",
            after,
            ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(after.is_some(), waits);
        assert_eq!(began.elapsed() > Duration::from_secs(29), waits);
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_forward_opens_a_further_stream_while_its_client_holds_others() {
    let server = roomy();
    let limits = Limits::default().isolated_per_host(1);
    let (_pool, host) = pool(&server, limits, patient());
    let forward = host.forward_local(("127.0.0.1", 0), ("db", 5432));
    let forward = forward.await.expect("it listens");
    let address = forward.address().to_string();
    let mut clients = Vec::new();
    // The clients are real, and so is this clock.
    let began = std::time::Instant::now();
    for count in 1..=3 {
        let client = tokio::net::TcpStream::connect(&address).await;
        clients.push(client.expect("accepted"));
        while host.status().isolated_busy < count {
            let in_time = began.elapsed() < Duration::from_secs(60);
            assert!(in_time, "{count}: {:?}", host.status());
            sleep(Duration::from_millis(1)).await;
        }
    }
}
