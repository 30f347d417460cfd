//! Some hosts run a command each, again and again, while the pool knows many more.

use std::time::{Duration, Instant};

use ssh_pool::Host;
use ssh_pool_benches::report::names::{metric, unit};
use ssh_pool_benches::stats::quantile;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::idle::{each, run};
use crate::measure::{Found, Plan, pool};
use crate::usage;

#[allow(
    clippy::cast_precision_loss,
    reason = "counts and KiB are far below 2^52"
)]
pub(crate) async fn measure(
    plan: &Plan,
    window: Duration,
    every: Duration,
) -> anyhow::Result<Found> {
    let (pool, hosts) = pool(plan)?;
    let busy: Vec<Host> = hosts.iter().take(plan.busy).cloned().collect();
    let mut failures = each(&busy).await;

    let (began, used) = (Instant::now(), usage::processor_time()?);
    let mut workers = JoinSet::new();
    for (index, host) in (0_u32..).zip(&busy) {
        // Spread over the interval: a burst is another measurement.
        let offset = every * index / u32::try_from(busy.len().max(1))?;
        workers.spawn(work(host.clone(), offset, every, window));
    }
    let (mut latencies, mut count) = (Vec::new(), 0_usize);
    for (times, failed) in workers.join_all().await {
        count += times.len() + failed.len();
        latencies.extend(times.iter().map(|time| time.as_secs_f64() * 1e3));
        failures.extend(failed);
    }
    let used = usage::processor_time()?.saturating_sub(used);
    eprintln!(
        "  {count} commands in {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let mut found = Found::default();
    for (name, rank) in [(metric::P50, 0.5), (metric::P90, 0.9), (metric::P99, 0.99)] {
        if let Some(value) = quantile(&latencies, rank) {
            found.add(name, unit::MS, value);
        }
    }
    let thousands = count.max(1) as f64 / 1e3;
    found.add(metric::CPU, unit::S, used.as_secs_f64() / thousands);
    found.add(metric::FAILURES, unit::NONE, failures.len() as f64);
    found.add(metric::MEMORY, unit::MIB, usage::resident_kib() / 1024.0);
    found.add(metric::DESCRIPTORS, unit::NONE, usage::descriptors() as f64);
    found.failures = failures;
    pool.close().await;
    drop(hosts);
    Ok(found)
}

/// One host's commands: how long each took, and what failed.
async fn work(
    host: Host,
    offset: Duration,
    every: Duration,
    window: Duration,
) -> (Vec<Duration>, Vec<String>) {
    let begin = tokio::time::Instant::now();
    let mut ticks = interval_at(begin + offset, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    while begin.elapsed() < window {
        ticks.tick().await;
        let began = Instant::now();
        match run(&host).await {
            Ok(()) => times.push(began.elapsed()),
            Err(words) => failed.push(words),
        }
    }
    (times, failed)
}
