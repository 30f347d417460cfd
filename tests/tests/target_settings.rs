//! Timeouts and limits of one target, beside those of its pool.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ssh_pool::{Error, Limits, Phase, StreamGroup, Target, Timeouts};
use ssh_pool_tests::{BlackHole, Sshd, eventually_async};

#[path = "support/mod.rs"]
mod support;

use support::{SOON, builder, known};

fn target(sshd: &Sshd) -> Target {
    sshd.target().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_target_hold_for_it_alone() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let limits = Limits::default()
        .connections_per_host(1)
        .sessions_per_connection(2);
    let small = pool
        .host(target(&sshd).limits(limits.output_bytes(10)))
        .unwrap();
    let usual = pool.host(target(&sshd)).unwrap();
    assert_ne!(small, usual);

    let mut command = small.command("echo");
    let error = command
        .arg("more than ten bytes")
        .output()
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::OutputLimit { limit: 10, .. }),
        "{error:?}"
    );
    let mut command = usual.command("echo");
    assert!(command.arg("more than ten bytes").output().await.is_ok());

    // Four at once need no more than two sessions.
    let all = (0..4).map(|_| small.command("true").status());
    for status in futures_util::future::join_all(all).await {
        assert!(status.unwrap().success());
    }
    let status = small.status();
    assert_eq!((status.connections_limit, status.peak_connections), (1, 1));
    assert_eq!(status.learned_sessions, 2);
    assert_eq!(usual.status().connections_limit, 4);
    assert_eq!(pool.status().hosts.len(), 2);
    assert_eq!(
        sshd.accepted(),
        2,
        "no connection is shared: {}",
        sshd.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeouts_of_a_target_hold_for_it_alone() {
    let (sshd, hole) = (Sshd::start(), BlackHole::new());
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let brief = Duration::from_millis(300);
    let silent = Target::new("me", hole.addr().ip().to_string(), hole.addr().port());
    let timeouts = Timeouts::default().connect(brief).acquire(brief);
    let silent = pool.host(silent.unwrap().timeouts(timeouts)).unwrap();
    let began = Instant::now();
    let error = silent.command("true").status().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_ne!(error.phase(), Phase::Running);
    assert!(began.elapsed() < SOON / 2, "not the 10 s of the pool");

    // An idle connection of the one is closed, that of the other is kept.
    let timeouts = Timeouts::default().idle(Duration::from_millis(200));
    let hasty = pool.host(target(&sshd).timeouts(timeouts)).unwrap();
    let usual = pool.host(target(&sshd)).unwrap();
    for host in [&hasty, &usual] {
        assert!(host.command("true").status().await.unwrap().success());
    }
    let closed = eventually_async(SOON, || hasty.status().connections == 0).await;
    assert!(closed, "{:?}", hasty.status());
    assert_eq!(usual.status().connections, 1);
}

#[tokio::test]
async fn what_a_target_cannot_have_is_refused_by_name() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    for (name, limits) in [
        ("handshakes", Limits::default().handshakes(1)),
        (
            "handshakes_per_host",
            Limits::default().handshakes_per_host(1),
        ),
        ("login_burst", Limits::default().login_burst(1)),
        ("connections", Limits::default().connections(1)),
        ("queued_commands", Limits::default().queued_commands(1)),
        ("buffered_bytes", Limits::default().buffered_bytes(1)),
        ("rekey_bytes", Limits::default().rekey_bytes(1)),
    ] {
        let error = pool.host(target(&sshd).limits(limits)).unwrap_err();
        let Error::InvalidInput {
            what: "limits",
            reason,
        } = error
        else {
            panic!("{error:?}")
        };
        assert!(reason.starts_with(&format!("{name} ")), "{reason}");
    }
    let never = Timeouts::default().connect(Duration::ZERO);
    let error = pool.host(target(&sshd).timeouts(never)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidInput {
                what: "timeouts",
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_host_is_what_it_was_made_from_and_can_be_a_key() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    assert_eq!(host.target(), &target(&sshd));
    // Settings that are those of the pool make no other host.
    let same = target(&sshd)
        .limits(Limits::default())
        .timeouts(Timeouts::default());
    let same = pool.host(same).unwrap();
    let other = pool
        .host(Target::new("other", "127.0.0.1", sshd.port()).unwrap())
        .unwrap();
    let group = StreamGroup::new();
    assert_eq!(host, same);
    assert_ne!(host, other);
    assert_ne!(host, host.in_group(&group));
    assert_eq!(host.in_group(&group), same.in_group(&group));
    let elsewhere = builder(&sshd, known(&sshd)).build().unwrap();
    assert_ne!(host, elsewhere.host(sshd.target()).unwrap());

    #[allow(
        clippy::mutable_key_type,
        reason = "a host is compared by its pool and its target, which do not change"
    )]
    let mut seen = HashMap::new();
    for host in [&host, &same, &other] {
        *seen.entry(host.clone()).or_insert(0) += 1;
    }
    assert_eq!((seen[&host], seen[&other]), (2, 1));
}
