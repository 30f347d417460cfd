//! Key exchanges: which of them is used, and what it costs the other connections.

use std::time::{Duration, Instant};

use ssh_pool::{Host, Limits, Pool, Target, Timeouts};
use ssh_pool_tests::{Sshd, TestUser};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{SOON, builder, known};

const LOGINS: usize = 8;

fn sshd(key_exchanges: &str) -> Sshd {
    Sshd::builder()
        .user(TestUser::plain())
        .option(format!("KexAlgorithms {key_exchanges}"))
        .option("LogLevel DEBUG1")
        .start()
}

fn pool(sshd: &Sshd) -> Pool {
    let builder = builder(sshd, known(sshd));
    let slow = Timeouts::default().connect(3 * SOON).acquire(3 * SOON);
    // Some key exchanges after the first, too.
    let limits = Limits::default().rekey_bytes(64 << 10);
    let builder = builder.timeouts(slow).limits(limits);
    // Where a test can see what it costs.
    builder.in_current_runtime().build().unwrap()
}

async fn output_of(host: &Host) -> usize {
    let output = host.shell("head -c 100000 /dev/zero").output().await;
    output.expect("ran").stdout.len()
}

#[tokio::test]
async fn a_server_that_offers_only_a_nist_curve_is_logged_in_to() {
    for curve in [
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
    ] {
        let sshd = sshd(curve);
        let host = pool(&sshd).host(sshd.target()).unwrap();
        assert_eq!(output_of(&host).await, 100_000, "{curve}");
    }
}

#[tokio::test]
async fn a_curve_is_preferred_to_a_finite_field() {
    let sshd = sshd(
        "diffie-hellman-group-exchange-sha256,diffie-hellman-group18-sha512,ecdh-sha2-nistp256",
    );
    let host = pool(&sshd).host(sshd.target()).unwrap();
    assert_eq!(output_of(&host).await, 100_000);
    let log = sshd.log();
    assert!(log.contains("kex: algorithm: ecdh-sha2-nistp256"), "{log}");
    assert!(!log.contains("kex: algorithm: diffie-hellman"), "{log}");
}

#[tokio::test]
async fn every_finite_field_group_is_logged_in_to() {
    for group in [
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group18-sha512",
        "diffie-hellman-group-exchange-sha256",
    ] {
        let sshd = sshd(group);
        let pool = pool(&sshd);
        let host = pool.host(sshd.target()).unwrap();
        assert_eq!(host.status().dials, 0);
        assert_eq!(output_of(&host).await, 100_000, "{group}");
        assert_eq!((host.status().dials, sshd.connections()), (1, 1), "{group}");
        let closed = tokio::time::timeout(SOON, pool.close()).await;
        closed.unwrap_or_else(|_| panic!("{group}: closing hangs"));
    }
}

/// Processor time of this thread, which is the whole runtime of the test.
fn spent() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let running = times.split_whitespace().next().unwrap();
    Duration::from_nanos(running.parse().unwrap())
}

/// Runs `true` on a warm host until these servers have been logged in to. Returns the processor time
/// that this thread spent at most in one such command and all that ran beside it, and the time that
/// the slowest one took.
async fn busiest(warm: &Host, servers: &[Sshd]) -> (Duration, Duration) {
    warm.command("true").output().await.unwrap();
    let mut logins = JoinSet::new();
    for sshd in servers {
        let host = pool(sshd).host(sshd.target()).unwrap();
        logins.spawn(async move { output_of(&host).await });
    }
    let (mut busiest, mut slowest) = (Duration::ZERO, Duration::ZERO);
    let mut done = 0;
    while done < servers.len() {
        let (began, before) = (Instant::now(), spent());
        let output = warm.command("true").output().await;
        assert!(output.expect("no command is lost").status.success());
        slowest = slowest.max(began.elapsed());
        busiest = busiest.max(spent() - before);
        while let Some(length) = logins.try_join_next() {
            assert_eq!(length.unwrap(), 100_000);
            done += 1;
        }
    }
    (busiest, slowest)
}

// On one thread, where any computation delays everything else.
#[tokio::test]
async fn logins_by_a_finite_field_hold_up_no_other_host() {
    let warm = Sshd::builder().user(TestUser::plain()).start();
    let host = pool(&warm).host(warm.target()).unwrap();
    let servers = |key_exchanges: &[&str]| -> Vec<Sshd> {
        let each = key_exchanges.iter().cycle().take(LOGINS);
        each.map(|names| sshd(names)).collect()
    };
    let curves = busiest(&host, &servers(&["curve25519-sha256"])).await;
    let finite_fields = servers(&[
        "diffie-hellman-group-exchange-sha256,diffie-hellman-group18-sha512",
        "diffie-hellman-group-exchange-sha256",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group18-sha512",
    ]);
    let finite_fields = busiest(&host, &finite_fields).await;
    println!(
        "busiest and slowest `true` beside curves: {curves:?}, finite fields: {finite_fields:?}"
    );
    // One computation in group 18 takes 250 ms or more.
    let most = 2 * curves.0 + Duration::from_millis(100);
    assert!(finite_fields.0 < most, "{finite_fields:?} after {curves:?}");
}

/// Passes on nothing but the server's identification until the client has proposed key exchanges.
async fn silent_until_asked(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut byte = [0];
    while byte != *b"\n" {
        from_server.read_exact(&mut byte).await?;
        to_client.write_all(&byte).await?;
    }
    byte = [0];
    while byte != *b"\n" {
        from_client.read_exact(&mut byte).await?;
        to_server.write_all(&byte).await?;
    }
    from_client.read_exact(&mut byte).await?;
    to_server.write_all(&byte).await?;
    let to_server = tokio::io::copy(&mut from_client, &mut to_server);
    let to_client = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::try_join!(to_server, to_client).map(drop)
}

#[tokio::test]
async fn a_server_that_waits_for_our_proposal_is_logged_in_to() {
    let sshd = Sshd::builder().user(TestUser::plain()).start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = sshd.addr();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.unwrap();
            tokio::spawn(silent_until_asked(client, server));
        }
    });
    let policy = ssh_pool::HostKeyPolicy::dangerous_accept_any();
    let pool = builder(&sshd, policy).build().unwrap();
    let target = Target::new(sshd.user(), "127.0.0.1", port).unwrap();
    let host = pool.host(target).unwrap();
    assert_eq!(output_of(&host).await, 100_000);
    assert_eq!(sshd.connections(), 1);
}
