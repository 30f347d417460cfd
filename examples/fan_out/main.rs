//! A deploy to many hosts: upload a file, run a script, switch a symlink, check the health.
//!
//! ```text
//! fan_out                                       four servers of its own
//! fan_out --break-one                           … one of which fails; --break-one=lost and others
//! fan_out deploy@web-1 deploy@web-2 --dir srv/app --file target/release/app --check './app --version'
//! fan_out --self-test                           checks itself
//! ```
//!
//! A step that fails stops its host, and no other. The summary says of every host how far it came
//! and which release it has now. The exit code is 0 only if all of them have the new one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use indicatif::{MultiProgress, ProgressDrawTarget};
use ssh_pool::{Limits, Timeouts};
use ssh_pool_examples::{Fleet, Interrupts, Member, bar};
use ssh_pool_tests::TempDir;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

mod deploy;
mod harm;
mod self_test;
mod summary;

use deploy::{Progress, Release, STEPS};
use harm::Harm;
use summary::{Failure, Row, Summary};

/// Deploys a file to many hosts. Without a host it starts servers of its own.
#[derive(Debug, Parser)]
#[command(name = "fan_out")]
struct Options {
    /// Hosts as user@host:port.
    #[arg(requires = "dir")]
    targets: Vec<String>,
    /// The folder on the hosts that gets `releases` and `current`; a relative one is below the
    /// login folder.
    #[arg(long, requires = "targets")]
    dir: Option<String>,
    /// The file to deploy, as `app`. Default: a small script.
    #[arg(long)]
    file: Option<PathBuf>,
    /// A shell script that is run on each host with the folder and the release's name. Default:
    /// one that makes the file executable, and checks and copies DIR/config if there is one.
    #[arg(long)]
    script: Option<PathBuf>,
    /// The health check, a shell line that is run in DIR/current.
    #[arg(long, default_value = "./app health")]
    check: String,
    /// Hosts at once.
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// How many servers of its own.
    #[arg(long, default_value_t = 4, conflicts_with = "targets")]
    hosts: usize,
    /// Have the last server of its own fail at a step.
    #[arg(long, value_name = "STEP", conflicts_with = "targets")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "install")]
    break_one: Option<Harm>,
    /// Check itself, on servers of its own.
    #[arg(long, conflicts_with_all = ["targets", "break_one"])]
    self_test: bool,
}

/// One host, and the folder on it.
struct Place {
    member: Member,
    dir: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    // Before anything is started that would have to be ended.
    let mut interrupts = Interrupts::new()?;
    if options.self_test {
        self_test::run_all(&mut interrupts).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut release = Release::new(&options.check);
    if let Some(path) = &options.file {
        release.app = read(path)?;
    }
    if let Some(path) = &options.script {
        release.script = read(path)?;
    }
    let draw = ProgressDrawTarget::stderr(); // shown only on a terminal
    let summary = if let Some(dir) = options.dir {
        let fleet = Fleet::of(&options.targets, limits(), timeouts())?;
        let places = (fleet.members.iter())
            .map(|member| Place {
                member: member.clone(),
                dir: dir.clone(),
            })
            .collect();
        run(
            &fleet,
            places,
            release,
            options.at_once,
            draw,
            &mut interrupts,
        )
        .await?
    } else {
        let (fleet, folders) = private(options.hosts, timeouts())?;
        if let (Some(harm), Some(server), Some(folder)) =
            (options.break_one, fleet.servers.last(), folders.last())
        {
            harm.prepare(server, folder)?;
        }
        let places = places(&fleet, &folders);
        let deploy = run(
            &fleet,
            places,
            release,
            options.at_once,
            draw,
            &mut interrupts,
        );
        tokio::select! {
            summary = deploy => summary?,
            harmed = harm::strike(options.break_one, fleet.servers.last()) => match harmed {},
        }
    };
    print!("{summary}");
    Ok(ExitCode::from(summary.code()))
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The steps of a deploy write little: what writes more than this is broken.
fn limits() -> Limits {
    Limits::default().output_bytes(1 << 20)
}

fn timeouts() -> Timeouts {
    // After an interrupt there is nothing to wait for but processes that have been told to end.
    Timeouts::default().drain(Duration::from_secs(5))
}

/// Servers of its own, and a folder for each of them.
fn private(hosts: usize, timeouts: Timeouts) -> anyhow::Result<(Fleet, Vec<TempDir>)> {
    let fleet = Fleet::private(hosts, limits(), timeouts)?;
    let folders = harm::folders(hosts);
    Ok((fleet, folders))
}

fn places(fleet: &Fleet, folders: &[TempDir]) -> Vec<Place> {
    (fleet.members.iter().zip(folders))
        .map(|(member, folder)| Place {
            member: member.clone(),
            dir: folder.path().display().to_string(),
        })
        .collect()
}

/// Deploys to all places, `at_once` at a time, and closes the pool.
async fn run(
    fleet: &Fleet,
    places: Vec<Place>,
    release: Release,
    at_once: usize,
    draw: ProgressDrawTarget,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Summary> {
    anyhow::ensure!(at_once > 0, "--at-once must be at least 1");
    let bars = MultiProgress::with_draw_target(draw);
    let release = Arc::new(release);
    let room = Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)));
    let (stop, stopped) = watch::channel(false);
    let mut deploys = JoinSet::new();
    for (number, place) in places.into_iter().enumerate() {
        let bar = bars.add(bar(STEPS.len(), &place.member.name));
        let (room, release) = (room.clone(), release.clone());
        let (mut stopped, interrupted) = (stopped.clone(), stopped.clone());
        deploys.spawn(async move {
            let name = place.member.name.clone();
            let mut progress = Progress::new(name.clone(), bar.clone());
            let mut began = None;
            let work = async {
                // It closes only with the last of us.
                let _permit = room.acquire().await.ok();
                // An interrupted host may have made room before this one has heard of it.
                if *interrupted.borrow() {
                    return Err(Failure::Interrupted);
                }
                began = Some(Instant::now());
                deploy::run(&place.member.host, &place.dir, &release, &mut progress).await
            };
            // Dropped in the middle, the pool ends the remote process.
            let failure = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => Some(Failure::Interrupted),
                done = work => done.err(),
            };
            let row = Row {
                host: name,
                steps: progress.done(),
                took: began.map(|began| began.elapsed()),
                failure,
            };
            bar.abandon_with_message(format!("{} {}", row.host, row.state().short()));
            (number, row)
        });
    }

    let mut code = None;
    let mut rows = Vec::new();
    loop {
        tokio::select! {
            row = deploys.join_next() => match row {
                Some(row) => rows.push(row?),
                None => break,
            },
            interrupted = interrupts.next(), if code.is_none() => {
                code = Some(interrupted);
                stop.send_replace(true);
            }
        }
    }
    // Waits for processes that have been told to end.
    fleet.pool.close().await;
    rows.sort_by_key(|(number, _)| *number);
    Ok(Summary {
        release: release.name.clone(),
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        interrupted: code,
    })
}
