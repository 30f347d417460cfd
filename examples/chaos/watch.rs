//! Who watches: the reader of the pool's events, and whoever notices that nothing happens any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use ssh_pool::{EventKind, Events};

use crate::caller::Scene;
use crate::host::millis;
use crate::judge::Counters;

/// Nothing may be silent for so long: a call has ended, or is late.
const SILENCE: Duration = Duration::from_secs(60);

/// A connection that has died.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) host: usize,
    pub(crate) at: u64,
    pub(crate) cause: String,
    pub(crate) lost: u32,
}

/// What the pool has told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// How often which kind of event.
    pub(crate) counts: HashMap<&'static str, u64>,
    /// What it has told of each host.
    pub(crate) counters: HashMap<usize, Counters>,
    pub(crate) deaths: Vec<Death>,
    pub(crate) missed: u64,
}

/// Reads events until the pool is gone. `targets` are those of the hosts, in order.
pub(crate) async fn listen(mut events: Events, targets: Vec<String>) -> Told {
    let mut told = Told::default();
    while let Some(event) = events.next().await {
        let host = targets.iter().position(|target| **target == *event.target);
        let host = host.unwrap_or(usize::MAX);
        let counters = told.counters.entry(host).or_default();
        let what = match event.kind {
            EventKind::Dialled { .. } => {
                counters.dials += 1;
                "dialled"
            }
            EventKind::DialFailed { .. } => {
                counters.failed_dials += 1;
                "dial failed"
            }
            EventKind::SessionRefused { .. } => {
                counters.refused_opens += 1;
                "session refused"
            }
            EventKind::LimitLearned { .. } => "limit learned",
            EventKind::Retired { .. } => "retired",
            EventKind::Closed => "closed",
            EventKind::Died { cause, lost } => {
                told.deaths.push(Death {
                    host,
                    at: millis(event.at.duration_since(UNIX_EPOCH).unwrap_or_default()),
                    cause: cause.to_string(),
                    lost,
                });
                "died"
            }
            EventKind::Missed { events } => {
                told.missed += events;
                "missed"
            }
            _ => "other",
        };
        *told.counts.entry(what).or_default() += 1;
    }
    told
}

/// Ends the process when no call has ended for too long: then the runtime itself stands still, and
/// nobody else would say so. Ends when `over` is true.
pub(crate) fn guard(scene: Arc<Scene>, over: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pulse = u64::MAX;
        let step = Duration::from_millis(200);
        let mut silent = Duration::ZERO;
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(step);
            let now = scene.pulse.load(Ordering::Relaxed);
            silent = if now == pulse {
                silent + step
            } else {
                Duration::ZERO
            };
            pulse = now;
            if silent > SILENCE {
                eprintln!("HANGS: no call has ended for {SILENCE:?}");
                for (info, host) in &scene.hosts {
                    eprintln!("{}: {:?}", info.name, host.status());
                }
                // The stage ends with its input.
                std::process::exit(1);
            }
        }
    })
}
