//! From nothing to the first result, and the round trips that it takes.

use std::time::{Duration, Instant};

use ssh_pool_benches::stats::median;

use super::{Job, since};
use crate::bench::{Bench, Case, Plan};
use crate::contender::{Contender, Session};
use crate::place::Place;
use crate::stage::Stage;
use crate::worker::Found;

const PLAN: Plan = Plan {
    scenario: "cold",
    metrics: &[("time", "ms")],
    limit: Duration::from_secs(120),
    watched: false,
};
/// A line so long that nothing but round trips matters.
const TRIPS: Plan = Plan {
    metrics: &[("time", "ms"), ("round trips", "")],
    ..PLAN
};
const FAR: Duration = Duration::from_millis(100);

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut stage = Stage::new();
    let times = bench.pick(3, 10);
    for _ in 0..bench.rounds(2, 5) {
        for milliseconds in [0, 40] {
            for contender in bench.drawn() {
                let line = Duration::from_millis(milliseconds);
                let case = Case {
                    setting: format!("{milliseconds} ms"),
                    contender,
                    job: Job::Cold {
                        place: stage.behind(line, true)?,
                        times,
                    },
                };
                bench.measure(&PLAN, case).await;
            }
        }
        for contender in bench.drawn() {
            let near = bench.last("cold", "0 ms", contender, "time");
            let case = Case {
                setting: format!("{} ms", FAR.as_millis()),
                contender,
                job: Job::Cold {
                    place: stage.behind(FAR, true)?,
                    times: bench.pick(1, 3),
                },
            };
            let add = |found: &mut Found| {
                if let (Some(near), Some(far)) = (near, found.value("time")) {
                    found.set("round trips", round_trips(near, far));
                }
            };
            bench.measure_with(&TRIPS, case, add).await;
        }
    }
    Ok(())
}

/// How often one side had to wait for the other: what a long line adds, in lengths of that line.
/// Halves are real, since both sides begin with their banners; what is below is noise.
fn round_trips(near: f64, far: f64) -> f64 {
    let added = (far - near) / super::milliseconds(FAR);
    (added * 2.0).round() / 2.0
}

pub(super) async fn work(
    contender: Contender,
    place: &Place,
    times: usize,
) -> anyhow::Result<Found> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let session = Session::open(contender, place).await?;
        session.succeed("true").await?;
        taken.push(since(began));
        session.close().await?;
    }
    let mut found = Found::default();
    if let Some(time) = median(&taken) {
        found.set("time", time);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_what_a_long_line_adds() {
        assert!((round_trips(20.0, 920.0) - 9.0).abs() < 1e-9);
        // The machine was slower meanwhile.
        assert!((round_trips(20.0, 935.0) - 9.0).abs() < 1e-9);
        assert!((round_trips(20.0, 575.0) - 5.5).abs() < 1e-9);
    }
}
