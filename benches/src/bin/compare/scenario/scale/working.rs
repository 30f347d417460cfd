//! Some hosts run a command each, again and again, while the pool knows many more.

use std::time::{Duration, Instant};

use anyhow::Context;
use ssh_pool::Host;
use ssh_pool_benches::report::names::metric;
use ssh_pool_benches::stats::quantile;
use ssh_pool_tests::procs;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::{each, pool, succeed};
use crate::serve::Servers;
use crate::usage;
use crate::worker::Found;

/// Between two commands on one host.
const EVERY: Duration = Duration::from_secs(1);

#[allow(
    clippy::cast_precision_loss,
    reason = "counts and KiB are far below 2^52"
)]
pub(crate) async fn measure(
    servers: &Servers,
    targets: usize,
    busy: usize,
    window: Duration,
) -> anyhow::Result<Found> {
    let (pool, hosts) = pool(servers, targets)?;
    let busy: Vec<Host> = hosts.iter().take(busy).cloned().collect();
    let mut failures = each(&busy).await;

    let used = usage::processor_time()?;
    let mut workers = JoinSet::new();
    for (index, host) in (0_u32..).zip(&busy) {
        // Spread over the interval: a burst is another measurement.
        let offset = EVERY * index / u32::try_from(busy.len().max(1))?;
        workers.spawn(work(host.clone(), offset, window));
    }
    let (mut latencies, mut count) = (Vec::new(), 0_usize);
    for (times, failed) in workers.join_all().await {
        count += times.len() + failed.len();
        latencies.extend(times.iter().map(|time| time.as_secs_f64() * 1e3));
        failures.extend(failed);
    }
    let used = usage::processor_time()?.saturating_sub(used);

    let mut found = Found::default();
    for (name, rank) in [(metric::P50, 0.5), (metric::P90, 0.9), (metric::P99, 0.99)] {
        if let Some(value) = quantile(&latencies, rank) {
            found.set(name, value);
        }
    }
    let thousands = count.max(1) as f64 / 1e3;
    found.set(metric::CPU, used.as_secs_f64() / thousands);
    found.set(metric::FAILURES, failures.len() as f64);
    let resident = usage::resident(std::process::id()).context("this process has a size")?;
    found.set(metric::MEMORY, resident as f64 / 1024.0);
    found.set(metric::DESCRIPTORS, procs::open_files() as f64);
    found.failures = failures;
    pool.close().await;
    drop(hosts);
    Ok(found)
}

/// One host's commands: how long each took, and what failed.
async fn work(host: Host, offset: Duration, window: Duration) -> (Vec<Duration>, Vec<String>) {
    let begin = tokio::time::Instant::now();
    let mut ticks = interval_at(begin + offset, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    while begin.elapsed() < window {
        ticks.tick().await;
        let began = Instant::now();
        match succeed(&host).await {
            Ok(()) => times.push(began.elapsed()),
            Err(words) => failed.push(words),
        }
    }
    (times, failed)
}
