//! What `Child::kill` and a time-out say, and that nothing keeps them from ending a command, on
//! dropbear: it signals the login shell alone, so the pool ends commands by scripts.

use std::time::Duration;

use ssh_pool::{Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{BlackHole, Dropbear, eventually_async, procs};

use crate::SOON;

const GRACE: Duration = Duration::from_millis(500);

fn pool(dropbear: &Dropbear, limits: Limits) -> (Pool, Host) {
    // Longer than a kill may take.
    let timeouts = Timeouts::default().kill_grace(GRACE).connect(3 * SOON);
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(dropbear.known_hosts()))
        .identity(Identity::key_file(dropbear.client_key()))
        .timeouts(timeouts)
        .limits(limits)
        .build()
        .unwrap();
    let host = pool.host(dropbear.target()).unwrap();
    (pool, host)
}

/// The processes whose command line has this in it.
fn left(dropbear: &Dropbear, text: &str) -> Vec<(u32, String)> {
    let mut left = dropbear.session_processes();
    left.retain(|(pid, line)| line.contains(text) && procs::is_alive(*pid));
    left
}

/// Waits until all of these are there.
async fn start(dropbear: &Dropbear, texts: &[&str]) {
    for text in texts {
        let there = eventually_async(SOON, || !left(dropbear, text).is_empty()).await;
        assert!(there, "{text}: {:?}", dropbear.session_processes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_ended_while_dials_of_dead_hosts_take_all_handshakes_of_the_pool() {
    let dropbear = Dropbear::start();
    let dead = BlackHole::new();
    let (pool, host) = pool(&dropbear, Limits::default().handshakes(2));
    let mut child = host.shell("sleep 4801; sleep 4801").spawn().await.unwrap();
    start(&dropbear, &["sleep 4801"]).await;
    let dials: Vec<_> = ["127.0.0.1", "localhost"]
        .map(|name| {
            pool.host(format!("{name}:{}", dead.addr().port()).as_str())
                .unwrap()
        })
        .map(|host| tokio::spawn(async move { host.command("true").output().await }))
        .into();
    let dialling = || {
        let hosts = pool.status().hosts;
        hosts.iter().map(|host| host.dialling).sum::<u32>() == 2
    };
    assert!(
        eventually_async(SOON, dialling).await,
        "{:?}",
        pool.status()
    );
    child.kill().await.unwrap();
    assert!(left(&dropbear, "4801").is_empty());
    for dial in dials {
        dial.abort();
    }
}
