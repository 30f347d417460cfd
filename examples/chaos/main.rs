//! A soak: twenty hosts that break in every way of a catalogue, fifty callers who use them all the
//! time, and one pool in between. What each caller was told is held against what the servers wrote
//! down.
//!
//! ```text
//! chaos --minutes 10 --seed 1        servers of its own: sshd (two of them 10.0), dropbear, embedded
//! chaos --quick                      about a minute, and as strict
//! chaos --quick --seed 7 --verbose   shows beforehand which fault strikes where and when
//! ```
//!
//! Which faults strike when, and what each caller does, is drawn from the seed; threads and networks
//! do the rest, so two runs of a seed are alike and not the same. Every command appends its id to a
//! ledger on its server before it does anything else.
//!
//! The exit code is 1 if a promise is broken, and what broke it is shown: see `judge.rs`.
//!
//! It needs root, OpenSSH's server and dropbear. OpenSSH 10.0 is used where scripts/test has made
//! its root.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use ssh_pool::{HostKeyPolicy, Identity, Pool, Target, Timeouts};
use ssh_pool_examples::Interrupts;
use ssh_pool_tests::{TempDir, eventually_async};
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

mod caller;
mod fault;
mod host;
mod judge;
mod ledger;
mod record;
mod report;
mod resource_sample;
mod schedule;
mod server_process;
mod supervisor;
mod test_host;
mod watch;
mod work;

use caller::Scene;
use host::HostInfo;
use judge::{Counters, Evidence};
use record::Journal;
use report::Report;
use resource_sample::ResourceSample;
use server_process::ServerProcess;

/// Breaks twenty hosts in every way while fifty callers use them through one pool, and holds what
/// the callers were told against what the servers wrote down.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Options {
    /// How long.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    minutes: u64,
    /// About a minute, and as strict.
    #[arg(long, conflicts_with = "minutes")]
    quick: bool,
    /// Decides which faults strike when, and what callers do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Those who use the hosts.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    callers: u16,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Show all faults beforehand.
    #[arg(long)]
    verbose: bool,
    /// Be the servers; their ledgers are in this folder.
    #[arg(long, hide = true)]
    supervisor: Option<PathBuf>,
}

/// What the last round is called.
const LAST: &str = "last";
/// Before the first fault everybody connects.
const HEAD: Duration = Duration::from_secs(2);
/// After the last one everybody recovers.
const TAIL: Duration = Duration::from_secs(8);
const QUICK: Duration = Duration::from_secs(55);
/// Memory is looked at first then, or after a third of the time.
const EARLY: Duration = Duration::from_secs(120);
/// What was closed may take so long to be gone.
const SOON: Duration = Duration::from_secs(10);
const KILL_GRACE: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(folder) = &options.supervisor {
        supervisor::run(folder).await?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything is started that would have to be ended.
    let mut interrupts = Interrupts::new()?;
    let report = tokio::select! {
        report = soak(&options) => report?,
        code = interrupts.next() => {
            eprintln!("interrupted; ending what was started");
            return Ok(ExitCode::from(code));
        }
    };
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(match report.is_kept() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The settings of the pool: short, so that much happens in little time, and long enough for a
/// machine that is busy with other things.
fn timeouts() -> Timeouts {
    Timeouts::default()
        .connect(Duration::from_secs(8))
        .acquire(Duration::from_secs(25))
        .keepalive_interval(Duration::from_secs(1))
        .keepalive_misses(3)
        .idle(Duration::from_secs(4))
        .lifetime(Duration::from_secs(45))
        .limit_recovery(Duration::from_secs(20))
        .auth_cooldown(Duration::from_secs(3))
        .kill_grace(KILL_GRACE)
        .drain(DRAIN)
}

fn build(hosts: &[HostInfo]) -> anyhow::Result<(Pool, Vec<(HostInfo, ssh_pool::Host)>)> {
    let known_hosts = &hosts.first().context("there are no hosts")?.known_hosts;
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
        .timeouts(timeouts())
        .in_current_runtime()
        .build()?;
    let handles = hosts.iter().map(|info| {
        let target: Target = info.target.parse()?;
        let target = target.identity(Identity::key_file(&info.client_key));
        Ok((info.clone(), pool.host(target)?))
    });
    let handles = handles.collect::<Result<_, ssh_pool::Error>>()?;
    Ok((pool, handles))
}

async fn soak(options: &Options) -> anyhow::Result<Report> {
    let began = Instant::now();
    let folder = TempDir::new();
    let (mut server_process, hosts) =
        tokio::task::block_in_place(|| ServerProcess::start(folder.path()))?;
    let before = ResourceSample::now();
    let (pool, handles) = build(&hosts)?;
    let targets = hosts.iter().map(|info| info.target.clone()).collect();
    let listener = tokio::spawn(watch::listen(pool.events(), targets));
    let scene = Arc::new(Scene {
        hosts: handles,
        journal: Journal::new(folder.path())?,
        kill_grace: KILL_GRACE,
        gate: RwLock::new(()),
        over: AtomicBool::new(false),
        pulse: AtomicU64::new(0),
    });
    let unguarded = Arc::new(AtomicBool::new(false));
    let guard = watch::guard(scene.clone(), unguarded.clone());

    let (early, late) = storm(options, &mut server_process, &scene).await?;

    let counters: Vec<_> = (scene.hosts.iter())
        .map(|(_, host)| Counters::of(&host.status()))
        .collect();
    unguarded.store(true, Ordering::Relaxed);
    guard.join().ok();
    let closing = timeout(DRAIN + SOON, pool.close()).await;
    drop(pool);
    let scene = Arc::into_inner(scene).context("a caller still has the hosts")?;
    let Scene {
        hosts: handles,
        journal,
        ..
    } = scene;
    drop(handles);
    let told = timeout(SOON, listener)
        .await
        .context("the pool is not gone")??;
    let is_as_before = || {
        let now = ResourceSample::now();
        now.tasks <= before.tasks && now.descriptors <= before.descriptors + JOURNAL
    };
    eventually_async(SOON, is_as_before).await;
    let mut after = ResourceSample::now();
    after.descriptors = after.descriptors.saturating_sub(JOURNAL);
    let of_pool = resource_sample::processor_seconds();
    let ended = tokio::task::block_in_place(|| server_process.end())?;
    let ledgers = hosts.iter().map(|info| ledger::read(&info.ledger));
    let evidence = Evidence {
        ledgers: ledgers.collect::<anyhow::Result<_>>()?,
        records: journal.read()?,
        hosts,
        struck: ended.struck,
        unstruck: ended.failed,
        counters,
        told,
        left: ended.left,
        kill_grace: KILL_GRACE,
        is_closed: closing.is_ok(),
        before,
        early,
        late,
        after,
        last_round: LAST,
    };
    let used = (of_pool, resource_sample::processor_seconds());
    Ok(Report::of(
        &evidence,
        options.seed,
        began.elapsed().as_secs_f64(),
        used,
    ))
}

/// The descriptor of the journal.
const JOURNAL: usize = 1;

/// Two storms, and what the process needs after each.
async fn storm(
    options: &Options,
    server_process: &mut ServerProcess,
    scene: &Arc<Scene>,
) -> anyhow::Result<(ResourceSample, ResourceSample)> {
    let whole = if options.quick {
        QUICK
    } else {
        Duration::from_secs(60 * options.minutes)
    };
    let first = EARLY.min(whole / 3);
    let mut random = fastrand::Rng::with_seed(options.seed);
    let kinds: Vec<_> = scene.hosts.iter().map(|(info, _)| info.kind).collect();
    let mut callers = JoinSet::new();
    for number in 0..usize::from(options.callers) {
        callers.spawn(scene.clone().live(number, random.fork()));
    }
    let mut gauges = Vec::new();
    for (round, length) in [("early", first), (LAST, whole.saturating_sub(first))] {
        let faults = schedule::draw(&mut random, &kinds, HEAD, length.saturating_sub(TAIL));
        if options.verbose {
            for strike in &faults {
                eprintln!("{round}: {strike}");
            }
        }
        server_process.begin(faults)?;
        tokio::select! {
            () = sleep(length) => {}
            // None ends before it is told to, unless this program is wrong.
            Some(caller) = callers.join_next() => caller??,
        }
        if round == LAST {
            scene.over.store(true, Ordering::Relaxed);
        }
        gauges.push(resource_sample::calm(scene, round).await?);
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    let [early, late] = gauges
        .try_into()
        .map_err(|_| anyhow::anyhow!("two storms"))?;
    Ok((early, late))
}
