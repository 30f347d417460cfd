//! Servers that let us in and are of no use: how many logins they see, and what callers hear.

use std::time::{Duration, Instant};

use ssh_pool::{Breaker, CommandState, Error, Host, HostKeyPolicy, Identity, Limits, Phase, Pool};
use ssh_pool_tests::{Embedded, EndsAt, Release, Sshd, TempDir};
use tokio::task::JoinSet;

use crate::{RELEASES, SOON, builder, known};

/// How long callers insist, in seconds. The long form: `SSH_POOL_TEST_LOGIN_SECONDS=60`.
const SECONDS: &str = "SSH_POOL_TEST_LOGIN_SECONDS";
const CALLERS: usize = 50;

fn time() -> Duration {
    let seconds = std::env::var(SECONDS).map_or(10, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

/// A server on which sshd ends each connection after its login: root owns the folder, and anybody may
/// write to it.
fn wrong_chroot(release: Release) -> (Sshd, TempDir) {
    use std::os::unix::fs::PermissionsExt;
    let root = TempDir::new();
    let modes = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(root.path(), modes).unwrap();
    let option = format!("ChrootDirectory {}", root.path().display());
    let sshd = Sshd::builder().release(release).option(option).start();
    (sshd, root)
}

/// The most logins that an address sees in that time, as `Limits::login_burst` states it.
fn budget(time: Duration) -> usize {
    // Shared and isolated connections, one for each, and as many handshakes.
    let up = 4 + 16 + 1 + 4;
    let seconds = usize::try_from(time.as_secs()).unwrap() + 1;
    up + up * seconds / 30 + 128 + 2 * seconds
}

/// Callers of every kind who try again at once. What they heard.
async fn insist(host: &Host, time: Duration) -> Vec<Error> {
    let until = Instant::now() + time;
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let host = host.clone();
        callers.spawn(async move {
            let mut errors = Vec::new();
            while Instant::now() < until {
                let result = match number % 5 {
                    0 => host.command("true").output().await.map(drop),
                    1 => host.command("true").idempotent().output().await.map(drop),
                    2 => host.command("true").spawn().await.map(drop),
                    3 => host.connect_tcp("localhost", 9).await.map(drop),
                    _ => host.connect_tcp("localhost", 9).shared().await.map(drop),
                };
                errors.push(result.unwrap_err());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            errors
        });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

/// The error of a connection that came to nothing.
fn assert_says_why(error: &Error) {
    let Error::ClosedAfterLogin {
        attempts, reason, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert!(*attempts > 0 && !reason.is_empty(), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(reason) && text.contains("ChrootDirectory"),
        "{text}"
    );
    assert!(!text.contains("network"), "{text}");
    assert_eq!(error.phase(), Phase::Channel);
    assert_eq!(error.command_state(), CommandState::NotStarted);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_on_a_wrong_chroot_costs_three_logins_and_its_error_says_why() {
    for release in RELEASES {
        let (sshd, _root) = wrong_chroot(release);
        let host = crate::pool(&sshd).host(sshd.target()).unwrap();
        let error = host.command("true").output().await.unwrap_err();
        assert_says_why(&error);
        let Error::ClosedAfterLogin {
            attempts, reason, ..
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!((*attempts, sshd.accepted()), (3, 3), "{}", sshd.log());
        // FIN, or RST if the request for a session was on its way.
        let seen = ["the server closed the connection", "reset by peer"];
        assert!(seen.iter().any(|words| reason.contains(words)), "{reason}");
        let refused = "bad ownership or modes for chroot directory";
        assert!(sshd.log().contains(refused), "{}", sshd.log());
        assert!(matches!(host.status().breaker, Breaker::Open { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_who_insist_on_a_wrong_chroot_stay_within_the_login_budget() {
    let time = time();
    for release in RELEASES {
        let (sshd, _root) = wrong_chroot(release);
        let healthy = Sshd::builder().release(release).start();
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let neighbour: ssh_pool::Target = healthy.target().parse().unwrap();
        let neighbour = (neighbour.identity(Identity::key_file(healthy.client_key())))
            .host_key_policy(known(&healthy));
        let neighbour = pool.host(neighbour).unwrap();
        neighbour.warm().await.unwrap();
        let insisting = insist(&host, time);
        let served = async {
            let until = Instant::now() + time;
            let mut served = 0;
            while Instant::now() < until {
                let output = neighbour.command("true").output().await;
                assert!(output.expect("nothing is lost").status.success());
                served += 1;
            }
            served
        };
        let (errors, served) = tokio::join!(insisting, served);
        let accepted = sshd.accepted();
        println!(
            "{release:?}: {accepted} logins in {time:?} for {} calls, {served} commands beside them",
            errors.len()
        );
        errors.iter().for_each(assert_says_why);
        assert!(errors.len() > CALLERS && served > 10);
        assert!(accepted >= 3 && accepted <= budget(time), "{accepted}");
        // The breaker keeps them far below that: after nine a pause of five seconds, then longer ones.
        assert!(accepted <= 20, "{accepted}: {}", sshd.log());
        assert_eq!(healthy.accepted(), 1);
        healthy.assert_not_banned();
    }
}

/// A pool for a server that is inside this process.
fn pool_for(server: &Embedded, limits: Limits) -> (Pool, Host) {
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(server.known_hosts()))
        .identity(Identity::key_file(server.client_key()))
        .limits(limits)
        .build()
        .unwrap();
    let host = pool.host(server.target()).unwrap();
    (pool, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_on_the_first_open_is_left_alone_for_longer_each_time() {
    let server = Embedded::builder().ends_at(EndsAt::Open).start().await;
    let (_pool, host) = pool_for(&server, Limits::default());
    let errors = insist(&host, Duration::from_secs(5)).await;
    errors.iter().for_each(assert_says_why);
    assert!(
        (3..=12).contains(&server.accepted()),
        "{}",
        server.accepted()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_on_each_command_sees_no_more_logins_than_the_budget() {
    let server = Embedded::builder().ends_at(EndsAt::Exec).start().await;
    let (_pool, host) = pool_for(&server, Limits::default().login_burst(10));
    let (began, time) = (Instant::now(), Duration::from_secs(5));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let host = host.clone();
        callers.spawn(async move {
            while began.elapsed() < time {
                let error = host.command("true").output().await.unwrap_err();
                assert!(matches!(error, Error::ConnectionLost { .. }), "{error:?}");
            }
        });
    }
    callers.join_all().await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    // Four shared connections up at once, and as many handshakes.
    let most = 8 + 8 * seconds / 30 + 10 + 2 * seconds;
    assert!(server.accepted() <= most, "{} of {most}", server.accepted());
    assert!(began.elapsed() < time + 2 * SOON);
}
