//! From nothing to the first result, and the round trips that it takes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ssh_pool_benches::report::names::{metric, scenario, unit};
use ssh_pool_benches::stats::median;
use ssh_pool_tests::CountedLine;

use super::{Job, since};
use crate::bench::{Bench, Case, Plan};
use crate::contender::{Contender, Session};
use crate::place::Place;
use crate::supervisor::Supervisor;
use crate::worker::Found;

/// For the stage alone: seconds since 1970.
const ANSWERED: &str = "answered";
const PLAN: Plan = Plan {
    scenario: scenario::COLD,
    metrics: &[(metric::TIME, unit::MS)],
    limit: Duration::from_secs(120),
    watched: false,
};
/// On a line where they are counted, and not timed.
const TRIPS: Plan = Plan {
    metrics: &[(metric::ROUND_TRIPS, unit::NONE)],
    ..PLAN
};

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut supervisor = Supervisor::new();
    let lines = bench.pick([(0, 3), (40, 2)], [(0, 10), (40, 10)]);
    for _ in 0..bench.rounds(1, 5) {
        for (milliseconds, times) in lines {
            for contender in bench.drawn() {
                let line = Duration::from_millis(milliseconds);
                let place = supervisor.behind(line, true)?;
                let case = Case {
                    setting: format!("{milliseconds} ms"),
                    contender,
                    job: Job::Cold { place, times },
                };
                bench.measure(&PLAN, case).await;
            }
        }
    }
    // They are the same each time.
    for contender in bench.drawn() {
        let line = CountedLine::to(supervisor.sshd().addr()).await;
        let place = supervisor.at(line.addr())?;
        let case = Case {
            setting: "100 ms".to_owned(),
            contender,
            job: Job::Trips { place },
        };
        let add = |found: &mut Found| {
            let answered = found.value(ANSWERED).map(Duration::from_secs_f64);
            let trips = answered.and_then(|time| line.round_trips(UNIX_EPOCH + time));
            if let Some(trips) = trips {
                found.set(metric::ROUND_TRIPS, trips.into());
            }
        };
        bench.measure_with(&TRIPS, case, add).await;
    }
    Ok(())
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
        found.set(metric::TIME, time);
    }
    Ok(found)
}

/// One connect and one command: when it was answered. What follows is the end of the connection,
/// which is no part of it.
pub(super) async fn answered(contender: Contender, place: &Place) -> anyhow::Result<Found> {
    let session = Session::open(contender, place).await?;
    session.succeed("true").await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    session.close().await?;
    let mut found = Found::default();
    found.set(ANSWERED, now.as_secs_f64());
    Ok(found)
}
