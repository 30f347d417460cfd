//! What a command costs on a slow line, in round trips: counted, for times depend on the machine.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::time::{Duration, SystemTime};

use ssh_pool::{Host, HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{CountedLine, Sshd, eventually_async};

/// TCP's handshake 1, its versions and key exchange 2, the service 1, the method `none` 1, a key that
/// would do and its signature 2, a channel 1, the command 1: as ssh.
const COLD: u32 = 9;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn behind(line: &CountedLine, sshd: &Sshd) -> (Pool, Host) {
    let policy = HostKeyPolicy::pinned(sshd.host_public_key("ed25519"));
    let pool = Pool::builder(policy)
        .identity(Identity::key_file(sshd.client_key()))
        .build()
        .unwrap();
    let host = pool
        .host(format!("{}@{}", sshd.user(), line.addr()))
        .unwrap();
    (pool, host)
}

/// What one command costs.
async fn run(host: &Host, line: &CountedLine) -> u32 {
    let count = || line.round_trips(SystemTime::now());
    let before = count().unwrap_or(0);
    let output = host.command("true").output().await.unwrap();
    assert!(output.status.success());
    count().unwrap() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_command_costs_one_round_trip() {
    let sshd = Sshd::start();
    let line = CountedLine::to(sshd.addr()).await;
    let (pool, host) = behind(&line, &sshd).await;
    let first = run(&host, &line).await;
    assert!(first <= COLD, "{first} round trips to the first result");
    for number in 1..=10 {
        // Its channel was asked for along with the command before, or on a busy machine after it:
        // then it comes a round trip later, which is no part of what a warm command costs.
        let ready = || host.status().spare == 1;
        assert!(eventually_async(PATIENCE, ready).await, "command {number}");
        assert_eq!(run(&host, &line).await, 1, "command {number}");
    }
    pool.close().await;
}
