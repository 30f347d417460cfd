//! One command on each host, all at once, and then nothing but keepalives.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ssh_pool_benches::report::names::metric;
use ssh_pool_tests::procs;

use super::{each, pool};
use crate::serve::Servers;
use crate::usage;
use crate::worker::Found;

/// What the commands have left to do (closing channels, a host's next session) is over by then.
const SETTLED: Duration = Duration::from_secs(2);
const KIB_PER_MIB: f64 = 1024.0;

#[allow(
    clippy::cast_precision_loss,
    reason = "counts and KiB are far below 2^52"
)]
pub(crate) async fn measure(servers: &Servers, window: Duration) -> anyhow::Result<Found> {
    let before = resident()?;
    let (pool, hosts) = pool(servers, servers.addresses.len())?;
    let began = Instant::now();
    let failures = each(&hosts).await;
    let took = began.elapsed();

    tokio::time::sleep(SETTLED).await;
    let (idle_since, used) = (Instant::now(), usage::processor_time()?);
    tokio::time::sleep(window).await;
    let used = usage::processor_time()?.saturating_sub(used);
    let share = used.as_secs_f64() / idle_since.elapsed().as_secs_f64();

    let connections: u32 = (pool.status().hosts.iter())
        .map(|host| host.connections)
        .sum();
    ensure!(
        connections as usize + failures.len() >= hosts.len(),
        "{connections} connections are left of {}",
        hosts.len()
    );
    let resident = resident()?;
    let mut found = Found::default();
    for (metric, value) in [
        (metric::TIME, took.as_secs_f64() * 1e3),
        (metric::FAILURES, failures.len() as f64),
        (metric::MEMORY, resident / KIB_PER_MIB),
        (
            metric::PEAK_MEMORY,
            usage::peak_resident()? as f64 / KIB_PER_MIB,
        ),
        (
            metric::PRIVATE_MEMORY,
            usage::settled_private()? as f64 / KIB_PER_MIB,
        ),
        (
            metric::IDLE_CONNECTION,
            (resident - before) / f64::from(connections.max(1)),
        ),
        (metric::IDLE_CPU, share * 100.0),
        (metric::DESCRIPTORS, procs::open_files() as f64),
    ] {
        found.set(metric, value);
    }
    found.failures = failures;
    pool.close().await;
    Ok(found)
}

/// In KiB.
#[allow(clippy::cast_precision_loss, reason = "KiB are far below 2^52")]
fn resident() -> anyhow::Result<f64> {
    let size = usage::resident(std::process::id()).context("this process has a size")?;
    Ok(size as f64)
}
