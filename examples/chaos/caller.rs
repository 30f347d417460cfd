//! Fifty of these use the pool: they run, stream, cancel, time out, and now and then do worse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use ssh_pool::Host;
use tokio::sync::RwLock;
use tokio::time::{sleep, timeout};

use crate::host::{ALLOWANCE, HostInfo, millis, now};
use crate::record::{Journal, Record, StreamState};
use crate::work::{Answer, Way, Work};

/// What a call usually takes: longer than any fault, and than `Timeouts::acquire`.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
/// How often an idempotent command is tried, at most.
const TRIES: u32 = 3;
/// Milliseconds that a caller does nothing for, on average.
const THINK: u64 = 800;
/// Commands at once, now and then.
const BURST: usize = 20;

/// What the callers share.
pub(crate) struct Scene {
    pub(crate) hosts: Vec<(HostInfo, Host)>,
    pub(crate) journal: Journal,
    pub(crate) kill_grace: Duration,
    /// Held for reading during a call: whoever has it for writing is alone with the pool.
    pub(crate) gate: RwLock<()>,
    pub(crate) over: AtomicBool,
    /// Something has happened.
    pub(crate) pulse: AtomicU64,
}

/// One call, drawn beforehand.
#[derive(Debug, Clone, Copy)]
struct Draw {
    way: Way,
    sleep: u64,
    limit: Duration,
    /// The caller goes away after this.
    cut: Option<Duration>,
}

enum Act {
    Call(Draw),
    Burst(Draw),
    Evict,
}

/// How often each is drawn, of the sum of all.
const WAYS: [(Way, u32); 12] = [
    (Way::Output, 24),
    (Way::Idempotent, 16),
    (Way::Status, 8),
    (Way::Script, 8),
    (Way::Stdin, 8),
    (Way::Big, 3),
    (Way::Isolated, 6),
    (Way::Shared, 8),
    (Way::Slow, 2),
    (Way::Tcp, 6),
    (Way::Unix, 5),
    (Way::Warm, 3),
];

fn draw(random: &mut fastrand::Rng, info: &HostInfo) -> Act {
    let mut ways: Vec<(Way, u32)> = WAYS.to_vec();
    ways.retain(|(way, _)| match way {
        Way::Tcp => info.tcp.is_some(),
        Way::Unix => info.unix.is_some(),
        _ => true,
    });
    let mut left = random.u32(0..ways.iter().map(|(_, weight)| weight).sum());
    let drawn = ways.iter().find(|(_, weight)| {
        let found = left < *weight;
        left = left.saturating_sub(*weight);
        found
    });
    let mut draw = Draw {
        way: drawn.map_or(Way::Output, |(way, _)| *way),
        // Most are over soon, and some are there when a fault strikes.
        sleep: match random.u8(0..20) {
            0..10 => random.u64(0..20),
            10..18 => random.u64(20..300),
            _ => random.u64(500..2_500),
        },
        limit: LIMIT,
        cut: None,
    };
    match random.u8(0..100) {
        0..12 => draw.cut = Some(Duration::from_millis(random.u64(0..300))),
        12..20 if draw.way.is_command() => {
            draw.limit = Duration::from_millis(random.u64(30..500));
            draw.sleep = random.u64(300..900);
        }
        20 => return Act::Evict,
        21 => {
            return Act::Burst(Draw {
                way: Way::Output,
                ..draw
            });
        }
        _ => {}
    }
    Act::Call(draw)
}

impl Scene {
    /// One caller, from the beginning to the end. An error is one of this program.
    pub(crate) async fn live(
        self: Arc<Self>,
        number: usize,
        mut random: fastrand::Rng,
    ) -> anyhow::Result<()> {
        let mut calls = 0;
        loop {
            sleep(Duration::from_millis(random.u64(0..2 * THINK))).await;
            let _open = self.gate.read().await;
            if self.over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let host = random.usize(0..self.hosts.len());
            let Some((info, handle)) = self.hosts.get(host) else {
                return Ok(());
            };
            let mut next = || {
                calls += 1;
                format!("{number}-{calls}")
            };
            match draw(&mut random, info) {
                Act::Evict => handle.evict(),
                Act::Call(draw) => self.call(host, next(), draw).await?,
                Act::Burst(draw) => {
                    let calls = (0..BURST).map(|_| self.call(host, next(), draw));
                    try_join_all(calls).await?;
                }
            }
        }
    }

    /// A command on every host, which has to succeed: the names of those where it does not.
    pub(crate) async fn roll_call(&self, round: &str) -> anyhow::Result<()> {
        let draw = Draw {
            way: Way::Output,
            sleep: 0,
            limit: LIMIT,
            cut: None,
        };
        let calls =
            (0..self.hosts.len()).map(|host| self.call(host, format!("{round}-{host}"), draw));
        try_join_all(calls).await?;
        Ok(())
    }

    async fn call(&self, host: usize, id: String, draw: Draw) -> anyhow::Result<()> {
        let Some((info, handle)) = self.hosts.get(host) else {
            return Ok(());
        };
        let (began, clock) = (now(), Instant::now());
        let work = Work {
            host: handle,
            info,
            id: &id,
            way: draw.way,
            sleep: draw.sleep,
            limit: draw.limit,
        };
        // The call has a limit of its own, which the pool keeps. This one is for when it does not.
        let longest = draw.limit + self.kill_grace + ALLOWANCE;
        let answer = match timeout(draw.cut.unwrap_or(longest), work.run()).await {
            Ok(answer) => answer,
            Err(_) => Answer {
                stream_state: draw.cut.map_or(StreamState::Hung, |_| StreamState::Dropped),
                attempts: TRIES,
                timed_out: false,
                blame: None,
                text: draw.cut.is_none().then(|| format!("{:?}", handle.status())),
            },
        };
        let took = millis(clock.elapsed());
        self.pulse.fetch_add(1, Ordering::Relaxed);
        self.journal.write(&Record {
            id,
            host,
            way: draw.way,
            stream_state: answer.stream_state,
            // Whatever the pool says, nothing else may be tried twice.
            attempts: match draw.way {
                Way::Idempotent => answer.attempts.min(TRIES),
                _ => 1,
            },
            timed_out: answer.timed_out,
            blame: answer.blame,
            began,
            ended: now(),
            took,
            limit: millis(draw.limit),
            text: answer.text,
        })
    }
}
