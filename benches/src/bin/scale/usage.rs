//! What this process uses.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use ssh_pool_tests::procs;

/// Kibibytes of memory that are this process's alone, as the kernel counts pages.
pub(crate) fn private_kib() -> anyhow::Result<f64> {
    let map = fs::read_to_string("/proc/self/smaps_rollup").context("read the memory map")?;
    let sum = map
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .sum();
    Ok(sum)
}

/// Kibibytes of memory that are resident.
pub(crate) fn resident_kib() -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let bytes = procs::resident_bytes() as f64;
    bytes / 1024.0
}

/// The most that was resident so far, in kibibytes.
pub(crate) fn peak_kib() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52 KiB")]
    Ok(usage.max_rss() as f64)
}

/// Processor time so far, in the process and for it in the kernel.
pub(crate) fn processor_time() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = |value: TimeVal| {
        let micros = value.tv_sec() * 1_000_000 + value.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// Open descriptors.
pub(crate) fn descriptors() -> usize {
    procs::open_files()
}
