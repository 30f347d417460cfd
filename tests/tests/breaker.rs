//! Hosts that are dead, throttle or ban: what the pool asks of them, and what callers hear.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::time::{Duration, Instant};

use ssh_pool::{
    Breaker, Error, EventKind, Events, Host, HostKeyPolicy, Identity, Pool, Target, Timeouts,
};
use ssh_pool_tests::{
    Fault, KeyFormat, PacedCaller, Proxy, Release, Sshd, Step, TempDir, eventually_async, generate,
};
use support::{RELEASES, SOON, builder, known};
use tokio::task::JoinSet;

mod support;

/// How many bytes an sshd has sent when it has said nothing, a part of who it is, all of it, what it
/// can do, most of its key exchange, that our key would do, and that we are in, but for the end.
fn handshake(release: Release) -> [usize; 7] {
    let (asked, all_but_in) = match release {
        Release::Trixie => (2_700, 2_795),
        _ => (1_735, 1_830),
    };
    [0, 10, 45, 600, 1_300, asked, all_but_in]
}

fn sshd(release: Release, options: &[&str]) -> Sshd {
    let builder = Sshd::builder().release(release);
    let add = |builder: ssh_pool_tests::SshdBuilder, option: &&str| builder.option(*option);
    options.iter().fold(builder, add).start()
}

/// A pool that goes to the server through a proxy, which may have any key.
fn through(proxy: &Proxy, sshd: &Sshd, timeouts: Timeouts) -> (Pool, Host) {
    let pool = builder(sshd, HostKeyPolicy::dangerous_accept_any()).timeouts(timeouts);
    let pool = pool.build().unwrap();
    let target = format!("{}@{}", sshd.user(), proxy.addr());
    let host = pool.host(target).unwrap();
    (pool, host)
}

/// What has happened to breakers so far.
fn changes(events: &mut Events) -> Vec<String> {
    std::iter::from_fn(|| events.try_next())
        .filter_map(|event| match event.kind {
            EventKind::BreakerOpened { error, .. } => Some(format!("opened: {}", error.phase())),
            EventKind::BreakerHalfOpen => Some("half-open".into()),
            EventKind::BreakerClosed => Some("closed".into()),
            _ => None,
        })
        .collect()
}

async fn all_fail(host: &Host, callers: usize) -> Vec<Error> {
    let mut running = JoinSet::new();
    for _ in 0..callers {
        running.spawn(host.command("true").output());
    }
    let results = running.join_all().await;
    results.into_iter().map(Result::unwrap_err).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_costs_its_first_callers_one_dial_and_is_noticed_when_it_ends() {
    for release in RELEASES {
        let sshd = sshd(release, &[]);
        let proxy = Proxy::to(sshd.addr());
        proxy.freeze();
        let connect = Duration::from_secs(8);
        let (pool, host) = through(&proxy, &sshd, Timeouts::default().connect(connect));
        let mut events = pool.events();
        let began = Instant::now();
        for error in all_fail(&host, 20).await {
            assert!(error.is_timeout(), "{error}");
        }
        let first = began.elapsed();
        assert!(first >= connect && first < SOON, "{first:?}");
        // It is back, but one that takes eight seconds to fail is left alone for two at least.
        proxy.thaw();
        let alone = connect + connect / 4;
        let caller = PacedCaller::new(SOON, Duration::from_millis(50));
        let asked = began.elapsed();
        let mut remembered = 0;
        while let Err(error) = host.command("true").output().await {
            assert!(error.is_timeout(), "{error}");
            remembered += 1;
            assert!(caller.comes_back().await, "{error}");
        }
        assert!(began.elapsed() >= alone, "{:?}", began.elapsed());
        // Who asks in that time is told at once. On a busy machine it may be over by then.
        assert!(remembered > 0 || asked >= alone, "{asked:?}");
        // Nobody has asked in vain.
        assert_eq!((proxy.connections(), sshd.accepted()), (2, 1));
        assert_eq!(host.status().breaker, Breaker::Closed);
        assert_eq!(
            changes(&mut events),
            ["opened: banner", "half-open", "closed"]
        );
        sshd.assert_not_banned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_whose_callers_have_gone_logs_in_and_earns_no_penalty() {
    for release in RELEASES {
        let sshd = sshd(release, &[]);
        let proxy = Proxy::to(sshd.addr());
        let mut unfinished = 0;
        for bytes in handshake(release) {
            let (pool, host) = through(&proxy, &sshd, Timeouts::default());
            proxy.script_next(1, [Step::from_server(bytes, Fault::FreezeAll)]);
            let callers: Vec<_> = (0..5)
                .map(|_| tokio::spawn(host.command("true").output()))
                .collect();
            assert!(eventually_async(SOON, || proxy.is_frozen()).await);
            for caller in callers {
                caller.abort();
                assert!(caller.await.unwrap_err().is_cancelled(), "{bytes}");
            }
            unfinished += usize::from(host.status().dials == 0);
            proxy.thaw();
            assert!(eventually_async(SOON, || host.status().dials == 1).await);
            pool.close().await;
        }
        // The last two are those of these very releases.
        assert!(unfinished >= 5, "{unfinished}");
        assert_eq!(sshd.accepted(), sshd.connections(), "{}", sshd.log());
        sshd.assert_no_penalty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_ends_in_mid_dial_leaves_one_unfinished_login_at_most() {
    for release in RELEASES {
        let sshd = sshd(release, &[]);
        let proxy = Proxy::to(sshd.addr());
        for (number, bytes) in handshake(release).into_iter().enumerate() {
            let before = proxy.connections();
            let (pool, host) = through(&proxy, &sshd, Timeouts::default());
            proxy.script_next(1, [Step::from_server(bytes, Fault::FreezeAll)]);
            let mut callers = JoinSet::new();
            for _ in 0..10 {
                let output = host.command("true").output();
                callers.spawn(async move { output.await.map(drop) });
                let host = host.clone();
                callers.spawn(async move { host.command("true").spawn().await.map(drop) });
            }
            assert!(eventually_async(SOON, || proxy.is_frozen()).await);
            if number % 2 == 0 {
                // Without waiting for the end, which may need the network.
                drop(pool.close());
            }
            callers.shutdown().await;
            let dials = usize::try_from(host.status().dials).unwrap();
            drop((pool, host));
            proxy.thaw();
            assert!(eventually_async(SOON, || proxy.open_connections() == 0).await);
            // Nobody dials any more. Until the first login there is one dial, whatever it is for.
            let unfinished = proxy.connections() - before - dials;
            let most = if dials == 0 { 1 } else { 4 };
            assert!(unfinished <= most, "{bytes}: {unfinished}");
        }
        sshd.assert_not_banned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_on_a_server_that_admits_one_stranger_at_a_time_completes_unpunished() {
    for release in RELEASES {
        let sshd = sshd(release, &["MaxStartups 1:100:1", "MaxSessions 2"]);
        // All at once: most of the time is queueing.
        let timeouts = Timeouts::default()
            .patience(Duration::ZERO)
            .acquire(4 * SOON);
        let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
        let host = pool.build().unwrap().host(sshd.target()).unwrap();
        let mut commands = JoinSet::new();
        for _ in 0..500 {
            commands.spawn(host.command("true").output());
        }
        for result in commands.join_all().await {
            result.expect("absorbed");
        }
        let status = host.status();
        assert!(status.dials <= 4, "{status:?}");
        sshd.assert_no_penalty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_identities_at_once_get_through_a_throttling_server_one_after_the_other() {
    for release in RELEASES {
        let sshd = sshd(release, &["MaxStartups 1:100:1"]);
        // The last one waits for all the others.
        let timeouts = Timeouts::default().acquire(4 * SOON);
        let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
        let pool = pool.build().unwrap();
        let dir = TempDir::new();
        let keys: Vec<_> = (0..12)
            .map(|number| {
                let name = format!("key-{number}");
                generate(dir.path(), &name, "ed25519", None, KeyFormat::OpenSsh)
            })
            .collect();
        keys.iter()
            .for_each(|key| sshd.authorize(&key.public_line()));
        let mut commands = JoinSet::new();
        for key in &keys {
            let target: Target = sshd.target().parse().unwrap();
            let target = target.identity(Identity::key_file(key.private()));
            let host = pool.host(target).unwrap();
            for _ in 0..5 {
                commands.spawn(host.command("true").output());
            }
        }
        for result in commands.join_all().await {
            result.expect("absorbed");
        }
        let hosts = pool.status().hosts;
        let failed: u64 = hosts.iter().map(|host| host.failed_dials).sum();
        // Those of the first moment, who could not know, and whoever came too close behind.
        assert!(failed <= 12, "{failed} of 12 identities: {}", sshd.log());
        sshd.assert_no_penalty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_insist_on_an_untrusted_host_get_nobody_banned() {
    for release in RELEASES {
        let sshd = sshd(release, &[]);
        let nothing = TempDir::new();
        let file = nothing.path().join("known_hosts");
        std::fs::write(&file, "").unwrap();
        let pool = builder(&sshd, HostKeyPolicy::known_hosts_file(&file));
        let pool = pool.build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let callers = PacedCaller::new(SOON, Duration::from_millis(20));
        let (began, span) = (Instant::now(), Duration::from_secs(4));
        let go_on = || began.elapsed() < span || sshd.connections() < 3;
        while go_on() && callers.comes_back().await {
            for error in all_fail(&host, 10).await {
                assert!(matches!(error, Error::HostKey { .. }), "{error}");
            }
        }
        // 0.1 s, 0.2 s, 0.4 s … with jitter.
        assert!((3..=9).contains(&sshd.connections()), "{}", sshd.log());
        sshd.assert_not_banned();
    }
}
