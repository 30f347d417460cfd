//! Connections that grow old under load.

use std::time::{Duration, Instant};

use ssh_pool::{EventKind, Events, Pool, Retirement, Timeouts};
use ssh_pool_tests::{Release, Sshd, eventually_async};
use tokio::time::timeout;

use crate::{CONNECTIONS, Crew, SOON, assert_unpunished, builder, known, limits};

/// For what never ends.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long connections live, and how many retirements are waited for: a hundred, of connections
/// that are old from the beginning. For a closer look, two hundred after `SSH_POOL_TEST_LIFETIME`
/// milliseconds each.
fn scale() -> (Duration, usize) {
    let Ok(given) = std::env::var("SSH_POOL_TEST_LIFETIME") else {
        return (Duration::from_millis(50), 100);
    };
    let given = given.parse().unwrap();
    (Duration::from_millis(given), 200)
}

/// What a pool with all its connections says about itself until that many were retired: it never
/// has fewer, and never more than one more.
async fn watch(pool: &Pool, mut events: Events, retirements: usize) {
    let (mut retired, mut live) = (0, CONNECTIONS);
    let mut told = false;
    while retired < retirements {
        let event = events.next().await.unwrap();
        match event.kind {
            EventKind::Dialled { .. } => live += 1,
            EventKind::Retired {
                reason: Retirement::Lifetime,
            } => {
                // Its successor may have been the last that happened before we were told.
                live -= u32::from(told);
                retired += 1;
            }
            EventKind::Closed | EventKind::SessionRefused { .. } => continue,
            kind => panic!("{kind:?}"),
        }
        told = true;
        assert!(
            live >= CONNECTIONS,
            "retired before its successor was there"
        );
        let status = &pool.status().hosts[0];
        let all = status.connections + status.retiring + status.dialling;
        assert!(all <= CONNECTIONS + 1, "{status:?}");
    }
}

/// The most connections that were logged in at once, by a server's log. Each has a process of its
/// own, and when one writes that it ends, its successor may have written already: so there may have
/// been fewer.
fn most_at_once(log: &str) -> i32 {
    let change = |line: &str| match line {
        line if line.starts_with("Accepted ") && line.contains(" ssh2") => 1,
        line if line.starts_with("Received disconnect from ") => -1,
        _ => 0,
    };
    let sums = log.lines().scan(0, |open, line| {
        *open += change(line);
        Some(*open)
    });
    sums.max().unwrap_or(0)
}

async fn many_retirements(release: Release) {
    let sshd = Sshd::builder().release(release).start();
    let (lifetime, retirements) = scale();
    let timeouts = Timeouts::default()
        .lifetime(lifetime)
        .patience(Duration::ZERO)
        // An answer that comes late is no other reason for a retirement.
        .check(PATIENCE);
    let pool = builder(&sshd, known(&sshd)).limits(limits());
    let pool = pool.timeouts(timeouts).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let crew = Crew::start(&host, lifetime.mul_f64(1.2));
    let all = || host.status().connections == CONNECTIONS;
    assert!(eventually_async(SOON, all).await, "{:?}", host.status());
    let (events, began) = (pool.events(), Instant::now());
    timeout(PATIENCE, watch(&pool, events, retirements))
        .await
        .unwrap();
    let took = began.elapsed();
    let ran = crew.stop().await.len();
    // Unused connections of that age go, and nothing is dialled for nobody: closing the pool cuts no
    // login off.
    let at_rest = || {
        let status = host.status();
        status.connections + status.retiring + status.dialling == 0
    };
    assert!(eventually_async(SOON, at_rest).await, "{:?}", host.status());

    let status = host.status();
    let most = most_at_once(&sshd.log());
    println!(
        "{release:?}: {retirements} retirements after {lifetime:?} each in {took:?}; {ran} \
         commands; {} dials; at most {} connections, {most} by the server's log",
        status.dials, status.peak_connections
    );
    assert!(status.peak_connections <= CONNECTIONS + 1, "{status:?}");
    assert!(most >= 2, "{most}");
    assert_eq!(status.failed_dials, 0, "{status:?}");
    pool.close().await;
    let gone = || sshd.open_connections() == 0;
    assert!(eventually_async(SOON, gone).await, "{}", sshd.log());
    assert_unpunished(&sshd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_retirements_under_load_are_noticed_by_nobody() {
    many_retirements(Release::Installed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_retirements_under_load_are_noticed_by_nobody_nor_punished_by_openssh_10() {
    many_retirements(Release::Trixie).await;
}
