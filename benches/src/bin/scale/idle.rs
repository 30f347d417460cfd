//! One command on each host, all at once, and then nothing but keepalives.

use std::time::{Duration, Instant};

use anyhow::ensure;
use ssh_pool::{Error, Host};
use ssh_pool_benches::report::names::{metric, unit};
use tokio::task::JoinSet;

use crate::measure::{Found, Plan, pool};
use crate::usage;

/// What the commands have left to do (closing channels, a host's next session) is over by then.
const SETTLED: Duration = Duration::from_secs(2);

#[allow(
    clippy::cast_precision_loss,
    reason = "counts and KiB are far below 2^52"
)]
pub(crate) async fn measure(plan: &Plan, window: Duration) -> anyhow::Result<Found> {
    let before = usage::resident_kib();
    let (pool, hosts) = pool(plan)?;
    let began = Instant::now();
    let failures = each(&hosts).await;
    let took = began.elapsed();

    tokio::time::sleep(SETTLED).await;
    let (idle_since, used) = (Instant::now(), usage::processor_time()?);
    tokio::time::sleep(window).await;
    let used = usage::processor_time()?.saturating_sub(used);
    let share = used.as_secs_f64() / idle_since.elapsed().as_secs_f64();

    let connections: u32 = pool
        .status()
        .hosts
        .iter()
        .map(|host| host.connections)
        .sum();
    ensure!(
        connections as usize + failures.len() >= hosts.len(),
        "{connections} connections are left of {}",
        hosts.len()
    );
    let resident = usage::resident_kib();
    let mut found = Found::default();
    found.add(metric::TIME, unit::MS, took.as_secs_f64() * 1e3);
    found.add(metric::FAILURES, unit::NONE, failures.len() as f64);
    found.add(metric::MEMORY, unit::MIB, resident / 1024.0);
    found.add(metric::PEAK_MEMORY, unit::MIB, usage::peak_kib()? / 1024.0);
    found.add(
        metric::PRIVATE_MEMORY,
        unit::MIB,
        usage::private_kib()? / 1024.0,
    );
    found.add(
        metric::IDLE_CONNECTION,
        unit::KIB,
        (resident - before) / f64::from(connections.max(1)),
    );
    found.add(metric::IDLE_CPU, unit::PERCENT, share * 100.0);
    found.add(metric::DESCRIPTORS, unit::NONE, usage::descriptors() as f64);
    found.failures = failures;
    pool.close().await;
    Ok(found)
}

/// Runs `true` on each host, all at once, and gives back what failed.
pub(crate) async fn each(hosts: &[Host]) -> Vec<String> {
    let mut commands: JoinSet<Result<(), String>> = JoinSet::new();
    for host in hosts {
        let host = host.clone();
        commands.spawn(async move { run(&host).await });
    }
    let ended = commands.join_all().await;
    ended.into_iter().filter_map(Result::err).collect()
}

/// Runs `true`. A failure comes without the host's name, so that equal ones can be counted.
pub(crate) async fn run(host: &Host) -> Result<(), String> {
    match host.command("true").output().await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(output.status.to_string()),
        Err(error) => Err(words(&error)),
    }
}

fn words(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{}: {}", error.phase(), cause.unwrap_or_default())
}
