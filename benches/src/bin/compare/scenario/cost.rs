//! What the client pays: processor time and memory.

use std::time::Duration;

use anyhow::Context;
use ssh_pool_benches::report::names::{metric, scenario, unit};

use super::{Job, warmed};
use crate::bench::{Bench, Case, Plan};
use crate::contender::{Client, Contender};
use crate::place::Place;
use crate::supervisor::Supervisor;
use crate::usage;
use crate::worker::Found;

const SETTING: &str = "1,000 commands";
const THOUSAND: f64 = 1000.0;
const PLAN: Plan = Plan {
    scenario: scenario::COST,
    metrics: &[(metric::CPU, unit::S), (metric::PEAK_MEMORY, unit::MIB)],
    limit: Duration::from_secs(240),
    watched: true,
};
const IDLE: Plan = Plan {
    metrics: &[(metric::IDLE_CONNECTION, unit::KIB)],
    watched: false,
    ..PLAN
};
const MASTER: Plan = Plan {
    metrics: &[(metric::MASTER, unit::KIB)],
    ..IDLE
};
/// A new ssh costs so much that a few of the commands tell as much.
const FEWER: usize = 20;
/// The first connections pay for what all have in common; they are not counted.
const FIRST: usize = 5;

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut supervisor = Supervisor::new();
    let commands = bench.pick(200, 1000);
    let rounds = bench.rounds(1, 5);
    for _ in 0..rounds {
        for contender in bench.drawn() {
            let new = contender == Contender::NewSsh;
            let job = Job::Cost {
                place: supervisor.place()?,
                warm_up: if new { 1 } else { 20 },
                commands: if new { commands / FEWER } else { commands },
            };
            bench.measure(&PLAN, case(contender, job)).await;
        }
        for contender in bench.drawn() {
            if contender.has_master() {
                let place = supervisor.place()?;
                let job = Job::Master { place };
                bench.measure(&MASTER, case(contender, job)).await;
            }
        }
    }
    let places = supervisor.crowd(bench.pick(25, 100))?;
    for _ in 0..rounds {
        for contender in bench.drawn() {
            if contender.has_master() || contender == Contender::NewSsh {
                continue;
            }
            let places = places.clone();
            let job = Job::Idle { places };
            bench.measure(&IDLE, case(contender, job)).await;
        }
    }
    Ok(())
}

fn case(contender: Contender, job: Job) -> Case {
    Case {
        setting: SETTING.to_owned(),
        contender,
        job,
    }
}

/// Processor time of commands one after the other: ours, and that of all processes below us.
pub(super) async fn work(
    contender: Contender,
    place: &Place,
    warm_up: usize,
    commands: usize,
) -> anyhow::Result<Found> {
    let session = warmed(contender, place, warm_up).await?;
    usage::reap();
    let before = usage::processor_time()?;
    for _ in 0..commands {
        session.succeed("true").await?;
    }
    usage::reap();
    let spent = usage::processor_time()?.saturating_sub(before);
    session.close().await?;
    let mut found = Found::default();
    #[allow(clippy::cast_precision_loss, reason = "a count of commands")]
    found.set(
        metric::CPU,
        spent.as_secs_f64() * THOUSAND / commands as f64,
    );
    Ok(found)
}

/// Memory of connections that have run a command each and are idle now.
pub(super) async fn idle(contender: Contender, places: &[Place]) -> anyhow::Result<Found> {
    let client = Client::new(contender, places.first().context("a host")?)?;
    let mut sessions = Vec::new();
    let mut before = 0;
    for place in places {
        if sessions.len() == FIRST {
            before = usage::settled_private()?;
        }
        let session = client.open(place).await?;
        session.succeed("true").await?;
        sessions.push(session);
    }
    let after = usage::settled_private()?;
    let mut found = Found::default();
    let counted = sessions.len().saturating_sub(FIRST);
    #[allow(clippy::cast_precision_loss, reason = "KiB are far below 2^52")]
    found.set(
        metric::IDLE_CONNECTION,
        after.saturating_sub(before) as f64 / counted as f64,
    );
    for session in sessions {
        session.close().await?;
    }
    Ok(found)
}

/// The resident set of the process that holds the connection.
pub(super) async fn master(contender: Contender, place: &Place) -> anyhow::Result<Found> {
    let session = warmed(contender, place, 1).await?;
    let below = usage::below(std::process::id());
    let sizes = below.into_iter().filter_map(usage::resident);
    let size = sizes.max().context("there is no master")?;
    session.close().await?;
    let mut found = Found::default();
    #[allow(clippy::cast_precision_loss, reason = "KiB are far below 2^52")]
    found.set(metric::MASTER, size as f64);
    Ok(found)
}
