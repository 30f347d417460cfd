//! One command on each of a hundred hosts at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ssh_pool_benches::report::names::{metric, scenario, unit};
use tokio::task::JoinSet;

use super::{Answer, Job, ask, close_all, since, tally};
use crate::bench::{Bench, Case, Plan};
use crate::contender::{Client, Contender, Session};
use crate::place::Place;
use crate::supervisor::Supervisor;
use crate::worker::Found;

const PLAN: Plan = Plan {
    scenario: scenario::FLEET,
    metrics: &[
        (metric::TIME, unit::MS),
        (metric::FAILURES, unit::NONE),
        (metric::NOISE, unit::NONE),
    ],
    limit: Duration::from_secs(120),
    watched: false,
};

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut supervisor = Supervisor::new();
    let hosts = bench.pick(10, 100);
    eprintln!("fleet: {hosts} servers are started");
    let fleet = supervisor.fleet(hosts)?;
    for _ in 0..bench.rounds(1, 5) {
        for (setting, warm) in [("cold", false), ("warm", true)] {
            for contender in bench.drawn() {
                if warm && contender == Contender::NewSsh {
                    // It has nothing that could be warm.
                    continue;
                }
                let case = Case {
                    setting: setting.to_owned(),
                    contender,
                    job: Job::Fleet {
                        places: supervisor.places(&fleet)?,
                        warm,
                    },
                };
                bench.measure(&PLAN, case).await;
            }
        }
    }
    Ok(())
}

pub(super) async fn work(
    contender: Contender,
    places: Vec<Place>,
    warm: bool,
) -> anyhow::Result<Found> {
    let client = Arc::new(Client::new(contender, places.first().context("a host")?)?);
    let mut waiting = Vec::new();
    for place in places {
        let mut session = None;
        if warm {
            let opened = client.open(&place).await?;
            opened.succeed("true").await?;
            session = Some(opened);
        }
        waiting.push((place, session));
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (id, (place, session)) in waiting.into_iter().enumerate() {
        let client = Arc::clone(&client);
        tasks.spawn(async move {
            let session = match session {
                Some(session) => session,
                None => match client.open(&place).await {
                    Ok(session) => session,
                    Err(error) => return (None, Answer::failed(format!("{error:#}"))),
                },
            };
            let answer = ask(&session, id).await;
            (Some(session), answer)
        });
    }
    let ended: Vec<(Option<Session>, Answer)> = tasks.join_all().await;
    let time = since(began);
    let mut found = Found::default();
    let (sessions, answers): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    close_all(sessions.into_iter().flatten(), &mut found).await;
    tally(answers, time, &mut found);
    Ok(found)
}
