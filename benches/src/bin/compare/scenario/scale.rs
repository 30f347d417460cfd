//! A thousand hosts in one process, and ten thousand targets of which a hundred are in use.
//!
//! Only ssh-pool is measured: the others have no notion of many hosts. The servers are a process of
//! their own.

mod idle;
mod working;

use std::time::Duration;

use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Pool};
use ssh_pool_benches::report::names::{metric, scenario, setting, unit};
use tokio::task::JoinSet;

pub(super) use self::idle::measure as idle;
pub(super) use self::working::measure as working;
use super::Job;
use crate::bench::{Bench, Case, Plan};
use crate::contender::Contender;
use crate::descriptors;
use crate::serve::{Farm, Servers};

const IDLE: Plan = Plan {
    scenario: scenario::SCALE,
    metrics: &[
        (metric::TIME, unit::MS),
        (metric::FAILURES, unit::NONE),
        (metric::MEMORY, unit::MIB),
        (metric::PEAK_MEMORY, unit::MIB),
        (metric::PRIVATE_MEMORY, unit::MIB),
        (metric::IDLE_CONNECTION, unit::KIB),
        (metric::IDLE_CPU, unit::PERCENT),
        (metric::DESCRIPTORS, unit::NONE),
    ],
    limit: Duration::from_secs(180),
    watched: false,
};
const WORKING: Plan = Plan {
    scenario: scenario::SCALE,
    metrics: &[
        (metric::P50, unit::MS),
        (metric::P90, unit::MS),
        (metric::P99, unit::MS),
        (metric::CPU, unit::S),
        (metric::FAILURES, unit::NONE),
        (metric::MEMORY, unit::MIB),
        (metric::DESCRIPTORS, unit::NONE),
    ],
    limit: Duration::from_secs(180),
    watched: false,
};

const HOSTS: usize = 1_000;
const TARGETS: usize = 10_000;
const BUSY: usize = 100;

pub(super) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.contenders.contains(&Contender::Pool) {
        return Ok(());
    }
    eprintln!("scale: {HOSTS} servers are started");
    let farm = Farm::start(HOSTS)?;
    // Keepalives are sent every 15 s: the longer window sees each connection's three times.
    let window = Duration::from_secs(bench.pick(16, 45));
    let work = Duration::from_secs(bench.pick(3, 15));
    for _ in 0..bench.rounds(1, 3) {
        let servers = farm.servers().clone();
        let job = Job::ManyIdle { servers, window };
        measure(bench, &IDLE, setting::THOUSAND_HOSTS, job).await;
        for (setting, targets) in [
            (setting::HUNDRED_TARGETS, BUSY),
            (setting::MANY_TARGETS, TARGETS),
        ] {
            let job = Job::ManyTargets {
                servers: farm.servers().clone(),
                targets,
                busy: BUSY,
                window: work,
            };
            measure(bench, &WORKING, setting, job).await;
        }
    }
    Ok(())
}

async fn measure(bench: &mut Bench, plan: &Plan, setting: &str, job: Job) {
    let case = Case {
        setting: setting.to_owned(),
        contender: Contender::Pool,
        job,
    };
    bench.measure(plan, case).await;
}

/// A pool that knows so many targets. There may be more of them than servers: the same address with
/// another user is another target.
fn pool(servers: &Servers, targets: usize) -> anyhow::Result<(Pool, Vec<Host>)> {
    descriptors::want(servers.addresses.len() as u64 + 100)?;
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(&servers.known_hosts))
        .identity(Identity::key_file(&servers.key))
        .build()?;
    let hosts = (0..)
        .flat_map(|user| {
            let addresses = servers.addresses.iter();
            addresses.map(move |address| format!("user{user}@{address}"))
        })
        .take(targets)
        .map(|target| pool.host(target))
        .collect::<Result<_, _>>()?;
    Ok((pool, hosts))
}

/// Runs `true` on each host, all at once, and gives back what failed.
async fn each(hosts: &[Host]) -> Vec<String> {
    let mut commands: JoinSet<Result<(), String>> = JoinSet::new();
    for host in hosts {
        let host = host.clone();
        commands.spawn(async move { succeed(&host).await });
    }
    let ended = commands.join_all().await;
    ended.into_iter().filter_map(Result::err).collect()
}

/// Runs `true`. A failure comes without the host's name, so that equal ones can be counted.
async fn succeed(host: &Host) -> Result<(), String> {
    match host.command("true").output().await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(output.status.to_string()),
        Err(error) => Err(words(&error)),
    }
}

fn words(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("{}: {}", error.phase(), cause.unwrap_or_default())
}
