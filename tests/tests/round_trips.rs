//! What a command costs on a slow line, in round trips: counted, for times depend on the machine.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::time::SystemTime;

use ssh_pool::{Host, HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{CountedLine, Sshd};

/// TCP's handshake 1, its versions and key exchange 2, the service 1, a key that would do and its
/// signature 2, a channel 1, the command 1.
const COLD: u32 = 8;

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

async fn run(host: &Host, line: &CountedLine) -> u32 {
    let output = host.command("true").output().await.unwrap();
    assert!(output.status.success());
    line.round_trips(SystemTime::now()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_command_costs_one_round_trip() {
    let sshd = Sshd::start();
    let line = CountedLine::to(sshd.addr()).await;
    let (pool, host) = behind(&line, &sshd).await;
    let first = run(&host, &line).await;
    assert!(first <= COLD, "{first} round trips to the first result");
    for number in 1..=10 {
        assert_eq!(run(&host, &line).await - first, number, "command {number}");
    }
    pool.close().await;
}
