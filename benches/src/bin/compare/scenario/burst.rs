//! 200 commands, 50 at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ssh_pool_benches::report::names::{metric, scenario, unit};
use tokio::task::JoinSet;

use super::{Job, ask, close_all, since, tally, warmed};
use crate::bench::{Bench, Case, Plan};
use crate::contender::{Contender, Session};
use crate::place::Place;
use crate::supervisor::Supervisor;
use crate::worker::Found;

const PLAN: Plan = Plan {
    scenario: scenario::BURST,
    metrics: &[
        (metric::TIME, unit::MS),
        (metric::FAILURES, unit::NONE),
        (metric::NOISE, unit::NONE),
        (metric::LOGINS, unit::NONE),
    ],
    limit: Duration::from_secs(240),
    watched: false,
};
const COMMANDS: usize = 200;
const AT_ONCE: usize = 50;

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    // Without a delay: what is compared is what a server's limits do to each.
    let mut supervisor = Supervisor::new();
    for _ in 0..bench.rounds(1, 5) {
        for (setting, warm_up) in [("cold", 0), ("warm", 20)] {
            for contender in bench.drawn() {
                if warm_up > 0 && contender == Contender::NewSsh {
                    // It has nothing that could be warm.
                    continue;
                }
                let case = Case {
                    setting: setting.to_owned(),
                    contender,
                    job: Job::Burst {
                        place: supervisor.place()?,
                        warm_up,
                        commands: COMMANDS,
                        at_once: AT_ONCE,
                    },
                };
                let before = supervisor.sshd().accepted();
                let add = |found: &mut Found| {
                    let logins = supervisor.sshd().accepted() - before;
                    #[allow(clippy::cast_precision_loss, reason = "a count of logins")]
                    found.set(metric::LOGINS, logins as f64);
                };
                bench.measure_with(&PLAN, case, add).await;
            }
        }
    }
    Ok(())
}

pub(super) async fn work(
    contender: Contender,
    place: &Place,
    warm_up: usize,
    commands: usize,
    at_once: usize,
) -> anyhow::Result<Found> {
    let mut began = Instant::now();
    let session = if warm_up == 0 {
        Session::open(contender, place).await?
    } else {
        let session = warmed(contender, place, warm_up).await?;
        began = Instant::now();
        session
    };
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (session, next) = (session.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id >= commands {
                    return answers;
                }
                answers.push(ask(&session, id).await);
            }
        });
    }
    let answers = tasks.join_all().await;
    let time = since(began);
    let mut found = Found::default();
    close_all([session], &mut found).await;
    tally(answers.into_iter().flatten().collect(), time, &mut found);
    Ok(found)
}
