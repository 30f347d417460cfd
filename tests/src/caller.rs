//! A program with a pool, for tests that stop it (SIGSTOP): a test cannot stop itself.
//!
//! `ssh-pool-test-caller TARGET KEY KNOWN_HOSTS INTERVAL_MS MISSES CHECK_AFTER_MS CHECK_MS LONG`:
//! runs the shell line LONG, if it is not empty, and a command beside it; says `ready`; waits for a
//! line on stdin; runs the first command after that, and says what became of it. Then it says what
//! became of LONG, and how many dials there were.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test support: what goes wrong must fail the test"
)]

use std::time::Duration;

use ssh_pool::{Error, HostKeyPolicy, Identity, Output, Pool, Timeouts};
use tokio::io::AsyncBufReadExt;

#[tokio::main]
async fn main() {
    let [
        target,
        key,
        known_hosts,
        interval,
        misses,
        check_after,
        check,
        long,
    ] = arguments();
    let millis = |text: &str| Duration::from_millis(text.parse().expect("a number"));
    let timeouts = Timeouts::default()
        .keepalive_interval(millis(&interval))
        .keepalive_misses(misses.parse().expect("a number"))
        .check_after(millis(&check_after))
        .check(millis(&check));
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
        .identity(Identity::key_file(key))
        .timeouts(timeouts)
        .build()
        .expect("valid settings");
    let host = pool.host(target.as_str()).expect("a target");
    let long = (!long.is_empty()).then(|| tokio::spawn(host.shell(long).output()));
    host.command("true").output().await.expect("served");
    println!("ready");
    let mut go = String::new();
    let mut stdin = tokio::io::BufReader::new(tokio::io::stdin());
    stdin.read_line(&mut go).await.expect("a line");
    say("first", host.command("true").output().await);
    if let Some(long) = long {
        say("long", long.await.expect("no panic"));
    }
    println!("dials: {}", host.status().dials);
}

fn arguments<const N: usize>() -> [String; N] {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.try_into().expect("as many as it says above")
}

fn say(name: &str, result: Result<Output, Error>) {
    match result {
        Ok(output) => println!("{name}: {}", output.status),
        Err(error) => println!("{name}: {error}"),
    }
}
