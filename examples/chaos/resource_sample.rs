//! What this process needs: heap, tasks, descriptors, processor time.
//!
//! Memory is compared between two moments of calm, one early and one at the end, because under load
//! it is as large as what is under way, which is drawn at random. In a calm nobody calls, every
//! connection has been closed for being idle, and each host has been given a fresh one: whatever is
//! there more than in the calm before has been left behind by the storm. The heap is counted by the
//! allocator; what is resident depends on how the allocator packs it, and is shown only. What is
//! written down about the calls is in a file, and servers and proxies are another process.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use serde::Serialize;
use ssh_pool_tests::{eventually_async, procs};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::caller::{LIMIT, Scene};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// A second, on Linux.
const TICKS: f64 = 100.0;
const SAMPLES: usize = 15;
const BETWEEN: Duration = Duration::from_millis(100);

/// What there is at a moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct ResourceSample {
    pub(crate) heap: usize,
    pub(crate) resident: usize,
    pub(crate) tasks: usize,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl ResourceSample {
    pub(crate) fn now() -> Self {
        Self {
            heap: HEAP.allocated(),
            resident: procs::resident_bytes(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            descriptors: procs::open_files(),
            threads: procs::threads(),
        }
    }

    /// The medians over a second or two.
    async fn median() -> Self {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            samples.push(Self::now());
            sleep(BETWEEN).await;
        }
        let median = |of: fn(&Self) -> usize| {
            let mut values: Vec<_> = samples.iter().map(of).collect();
            values.sort_unstable();
            values.get(SAMPLES / 2).copied().unwrap_or_default()
        };
        Self {
            heap: median(|resource_sample| resource_sample.heap),
            resident: median(|resource_sample| resource_sample.resident),
            tasks: median(|resource_sample| resource_sample.tasks),
            descriptors: median(|resource_sample| resource_sample.descriptors),
            threads: median(|resource_sample| resource_sample.threads),
        }
    }
}

/// Waits for everybody to be through with what they do, and measures.
pub(crate) async fn calm(scene: &Scene, round: &str) -> anyhow::Result<ResourceSample> {
    let _alone = scene.gate.write().await;
    let unused = |(_, host): &(_, ssh_pool::Host)| {
        let status = host.status();
        status.connections + status.retiring + status.isolated + status.dialling == 0
    };
    let is_quiet = eventually_async(LIMIT, || scene.hosts.iter().all(unused)).await;
    if !is_quiet {
        let left = scene.hosts.iter().filter(|host| !unused(host));
        let left: Vec<_> = left.map(|(_, host)| host.status()).collect();
        anyhow::bail!("connections are not closed for being idle: {left:?}");
    }
    scene.roll_call(round).await?;
    let has_spare = |(_, host): &(_, ssh_pool::Host)| host.status().running == 0;
    eventually_async(LIMIT, || scene.hosts.iter().all(has_spare)).await;
    Ok(ResourceSample::median().await)
}

/// Seconds of processor time that this process has used, with all that it has waited for.
pub(crate) fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name stands in parentheses and may hold anything. See proc_pid_stat(5): utime, stime,
    // cutime and cstime are fields 14 to 17, and the first one after the name is the third.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = rest.split_whitespace().skip(11).take(4);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}
