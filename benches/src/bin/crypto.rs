//! What the cryptography behind the pool costs: cold connects, warm commands and throughput, on a
//! private sshd. Build it once with each backend to compare them:
//!
//! ```text
//! cargo run --release -p ssh-pool-benches --bin crypto
//! cargo run --release -p ssh-pool-benches --bin crypto --no-default-features --features aws-lc-rs
//! ```
//!
//! The fixtures bring russh with `ring` along for their embedded server, and russh prefers
//! aws-lc-rs where both are compiled in: so the second command does measure aws-lc-rs.

use std::time::{Duration, Instant};

use clap::Parser;
use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Sshd, TestUser};

/// Measures cold connects, warm commands and bulk data on a private sshd.
#[derive(Debug, Parser)]
struct Options {
    /// Fewer rounds and less data.
    #[arg(long)]
    quick: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let (rounds, mebibytes) = if options.quick { (5, 32) } else { (15, 512) };
    let sshd = Sshd::builder().user(TestUser::plain()).start();
    let pool = || {
        Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
            .identity(Identity::key_file(sshd.client_key()))
            .build()
    };

    let (mut cold, mut warm, mut down, mut up) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let pool = pool()?;
        let host = pool.host(sshd.target())?;
        cold.push(time(host.warm()).await?);
        for _ in 0..20 {
            warm.push(time(host.command("true").status()).await?);
        }
        pool.close().await;
    }
    let pool = pool()?;
    let host = pool.host(sshd.target())?;
    host.warm().await?;
    for _ in 0..rounds.min(5) {
        let line = format!("head -c {mebibytes}M /dev/zero");
        down.push(time(host.shell(line).status()).await?);
        let data = vec![0u8; mebibytes << 20];
        up.push(time(host.shell("cat >/dev/null").stdin(data).status()).await?);
    }
    pool.close().await;

    let backend = if cfg!(feature = "aws-lc-rs") {
        "aws-lc-rs"
    } else {
        "ring"
    };
    #[allow(clippy::cast_precision_loss, reason = "a few hundred mebibytes")]
    let rate = |times: Vec<Duration>| (mebibytes << 20) as f64 / 1e6 / median(times).as_secs_f64();
    println!("backend       {backend}");
    println!("cold connect  {:8.2} ms", median(cold).as_secs_f64() * 1e3);
    println!("warm command  {:8.2} ms", median(warm).as_secs_f64() * 1e3);
    println!("down          {:8.0} MB/s", rate(down));
    println!("up            {:8.0} MB/s", rate(up));
    Ok(())
}

async fn time<T>(
    work: impl Future<Output = Result<T, ssh_pool::Error>>,
) -> Result<Duration, ssh_pool::Error> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
