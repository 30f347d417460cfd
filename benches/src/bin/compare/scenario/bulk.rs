//! A gigabyte in each direction, over a connection that is there.

use ssh_pool_benches::report::names::{metric, scenario, unit};
use std::time::Duration;

use super::{Job, warmed};
use crate::bench::{Bench, Case, Plan};
use crate::contender::Contender;
use crate::place::Place;
use crate::supervisor::Supervisor;
use crate::worker::Found;

const PLAN: Plan = Plan {
    scenario: scenario::BULK,
    metrics: &[(metric::RATE, unit::RATE)],
    limit: Duration::from_secs(120),
    watched: false,
};
const MEBIBYTE: u64 = 1 << 20;

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut supervisor = Supervisor::new();
    let bytes = bench.pick(64, 1024) * MEBIBYTE;
    for _ in 0..bench.rounds(1, 3) {
        for (same_cipher, cipher) in [(false, "default cipher"), (true, "same cipher")] {
            for (up, direction) in [(false, "down"), (true, "up")] {
                for contender in bench.drawn() {
                    let place = Place {
                        same_cipher,
                        ..supervisor.place()?
                    };
                    let case = Case {
                        setting: format!("{direction}, {cipher}"),
                        contender,
                        job: Job::Bulk { place, up, bytes },
                    };
                    bench.measure(&PLAN, case).await;
                }
            }
        }
    }
    Ok(())
}

pub(super) async fn work(
    contender: Contender,
    place: &Place,
    up: bool,
    bytes: u64,
) -> anyhow::Result<Found> {
    let session = warmed(contender, place, 3).await?;
    let took = match up {
        true => session.up(bytes).await?,
        false => session.down(bytes).await?,
    };
    session.close().await?;
    let mut found = Found::default();
    #[allow(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
    found.set(metric::RATE, bytes as f64 / 1e6 / took.as_secs_f64());
    Ok(found)
}
