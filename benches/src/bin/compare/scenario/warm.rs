//! Sequential `true` over a connection that is there.

use std::time::{Duration, Instant};

use ssh_pool_benches::report::names::{metric, scenario, unit};
use ssh_pool_benches::stats::quantile;

use super::{Job, since, warmed};
use crate::bench::{Bench, Case, Plan};
use crate::contender::Contender;
use crate::place::Place;
use crate::supervisor::Supervisor;
use crate::worker::Found;

const PLAN: Plan = Plan {
    scenario: scenario::WARM,
    metrics: &[
        (metric::P50, unit::MS),
        (metric::P90, unit::MS),
        (metric::P99, unit::MS),
    ],
    limit: Duration::from_secs(120),
    watched: false,
};

/// From this round trip on a quick run measures all at once: they only wait.
const LONG: u64 = 40;
/// A new ssh has nothing that could be warm, and takes ten times as long.
const FEWER: usize = 10;

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut supervisor = Supervisor::new();
    // Round trips in ms, and the commands: before measuring, and measured.
    let lines: [(u64, usize, usize); 4] = bench.pick(
        [(0, 20, 100), (10, 3, 15), (40, 2, 6), (100, 2, 4)],
        [(0, 20, 300), (10, 20, 60), (40, 10, 30), (100, 10, 20)],
    );
    for _ in 0..bench.rounds(1, 5) {
        for (milliseconds, warm_up, commands) in lines {
            let mut cases = Vec::new();
            for contender in bench.drawn() {
                let new = contender == Contender::NewSsh;
                let job = Job::Warm {
                    place: supervisor.behind(Duration::from_millis(milliseconds), false)?,
                    warm_up: if new { 1 } else { warm_up },
                    commands: if new {
                        commands.div_ceil(FEWER)
                    } else {
                        commands
                    },
                };
                cases.push(Case {
                    setting: format!("{milliseconds} ms"),
                    contender,
                    job,
                });
            }
            bench.measure_all(&PLAN, cases, milliseconds >= LONG).await;
        }
    }
    Ok(())
}

pub(super) async fn work(
    contender: Contender,
    place: &Place,
    warm_up: usize,
    commands: usize,
) -> anyhow::Result<Found> {
    let session = warmed(contender, place, warm_up).await?;
    let mut times = Vec::with_capacity(commands);
    for _ in 0..commands {
        let began = Instant::now();
        session.succeed("true").await?;
        times.push(since(began));
    }
    session.close().await?;
    let mut found = Found::default();
    for (metric, at) in [(metric::P50, 0.5), (metric::P90, 0.9), (metric::P99, 0.99)] {
        if let Some(time) = quantile(&times, at) {
            found.set(metric, time);
        }
    }
    Ok(found)
}
