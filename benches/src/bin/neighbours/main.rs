//! What the commands of a healthy host see of the trouble on other hosts of their pool, or of other
//! commands on their own.
//!
//! ```text
//! cargo run --release -p ssh-pool-benches --bin neighbours
//! cargo run --release -p ssh-pool-benches --bin neighbours -- --quick
//! ```
//!
//! A warm host runs `true`, one after the other, once alone and once for as long as a case lasts.
//! Reported: the slowest command of each, their ratio, and how many were lost, which must be none.
//! The slowest of many says as much about the machine as about the pool, so the ratio is the median
//! of several rounds, and the case happens once more beside the same commands in another process:
//! what they see too is the machine, which all servers share. The servers of a case are no machines of
//! their own either, so they run only while the processors are free.

mod case;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Target, Timeouts};
use ssh_pool_benches::stats;
use ssh_pool_tests::{Sshd, TestUser};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::case::{Case, Place};

/// The goal for the slowest command beside a case, in slowest commands without it.
const GOAL: f64 = 3.0;
/// A case that ends sooner is run again.
const SHORTEST: Duration = Duration::from_secs(3);

/// Measures what the commands of one host see of trouble elsewhere in their pool.
#[derive(Debug, Parser)]
struct Options {
    /// One round of each case.
    #[arg(long)]
    quick: bool,
    /// Rounds of each case.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only the cases whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Runs as that other process: target, key file, known_hosts file.
    #[arg(long, hide = true, num_args = 3)]
    apart: Option<Vec<String>>,
}

/// The commands of a healthy host.
#[derive(Debug, Default)]
struct Commands {
    slowest: Duration,
    ran: usize,
    lost: Vec<String>,
}

impl Commands {
    async fn run_one(&mut self, host: &Host) {
        let began = Instant::now();
        let result = host.command("true").output().await;
        self.slowest = self.slowest.max(began.elapsed());
        match result {
            Ok(output) if output.status.success() => self.ran += 1,
            Ok(output) => self.lost.push(output.status.to_string()),
            Err(error) => self.lost.push(error.to_string()),
        }
    }

    async fn run_for(host: &Host, time: Duration) -> Self {
        let (began, mut commands) = (Instant::now(), Self::default());
        while began.elapsed() < time {
            commands.run_one(host).await;
        }
        commands
    }

    /// Runs until `case` has ended, and returns what it said. On a task of its own: the callers of a
    /// case quote what they send, and that is not what is measured.
    async fn run_beside(
        host: &Host,
        case: impl Future<Output = anyhow::Result<String>>,
    ) -> anyhow::Result<(Self, String)> {
        let (stop, host) = (Arc::new(AtomicBool::new(false)), host.clone());
        let stopped = stop.clone();
        let commands = tokio::spawn(async move {
            let mut commands = Self::default();
            while !stopped.load(Ordering::Relaxed) {
                commands.run_one(&host).await;
            }
            commands
        });
        let said = case.await;
        stop.store(true, Ordering::Relaxed);
        Ok((commands.await?, said?))
    }
}

struct Round {
    alone: Commands,
    beside: Commands,
    /// The slowest command of another process beside the case.
    apart: Duration,
    said: String,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.beside.slowest.as_secs_f64() / self.alone.slowest.as_secs_f64()
    }
}

/// A pool of its own, as the case needs it, and a host with one warm connection.
fn pool_beside(place: &Place, healthy: &Sshd) -> anyhow::Result<(Pool, Host)> {
    let key = Identity::key_file(healthy.client_key());
    let known = HostKeyPolicy::known_hosts_file(healthy.known_hosts());
    let pool = Pool::builder(known)
        .identity(key)
        .timeouts(Timeouts::default().acquire(place.acquire()))
        .build()?;
    let target: Target = healthy.target().parse()?;
    let host = pool.host(target)?;
    Ok((pool, host))
}

async fn round(case: &Case) -> anyhow::Result<Round> {
    let place = Place::new(case.kind)?;
    let alone = Sshd::builder().user(TestUser::plain()).start();
    let healthy = place.own_neighbour().unwrap_or(&alone);
    let (pool, host) = pool_beside(&place, healthy)?;
    host.warm().await?;
    // Caches, and the first commands of a connection.
    Commands::run_for(&host, Duration::from_millis(500)).await;
    let work = async {
        let began = Instant::now();
        loop {
            let said = place.run(&pool).await?;
            if began.elapsed() >= SHORTEST {
                return Ok(said);
            }
        }
    };
    let began = Instant::now();
    let (beside, said) = Commands::run_beside(&host, work).await?;
    let lasted = began.elapsed();
    let apart = apart(healthy, async { place.run(&pool).await.map(drop) }).await?;
    // Without the processes that the case has left.
    drop(pool);
    drop(place);
    let (_pool, host) = {
        let place = Place::new(case::Kind::Nothing)?;
        pool_beside(&place, &alone)?
    };
    host.warm().await?;
    Commands::run_for(&host, Duration::from_millis(500)).await;
    let alone = Commands::run_for(&host, lasted).await;
    Ok(Round {
        alone,
        beside,
        apart,
        said,
    })
}

/// Lets another process run commands on a server until `case` has ended; its slowest.
async fn apart(
    server: &Sshd,
    case: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Duration> {
    let mut other = tokio::process::Command::new(std::env::current_exe()?);
    other.arg("--apart").arg(server.target());
    other.arg(server.client_key()).arg(server.known_hosts());
    other.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = other.kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(other.stdout.take().context("stdout")?).lines();
    lines.next_line().await?.context("it is not ready")?;
    case.await?;
    drop(other.stdin.take());
    let micros = lines.next_line().await?.context("it has not ended")?;
    Ok(Duration::from_micros(micros.parse()?))
}

/// The other process: says when it is ready, and its slowest command when its input has ended.
async fn commands_apart(arguments: &[String]) -> anyhow::Result<()> {
    let [target, key, known_hosts] = arguments else {
        anyhow::bail!("three arguments")
    };
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
        .identity(Identity::key_file(key))
        .build()?;
    let host = pool.host(target.parse::<Target>()?)?;
    host.warm().await?;
    Commands::run_for(&host, Duration::from_millis(500)).await;
    println!("ready");
    let end = async {
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        Ok(String::new())
    };
    let (commands, _) = Commands::run_beside(&host, end).await?;
    ensure!(commands.lost.is_empty(), "lost: {:?}", commands.lost);
    println!("{}", commands.slowest.as_micros());
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let rounds = if options.quick { 1 } else { options.rounds };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if let Some(arguments) = &options.apart {
        return runtime.block_on(commands_apart(arguments));
    }
    let (mut lost, mut over) = (Vec::new(), Vec::new());
    println!(
        "| case | slowest alone | slowest beside it | ratio | the same in another process | lost | \
         the case itself |"
    );
    println!("|---|---|---|---|---|---|---|");
    for case in case::ALL {
        if (options.only.as_ref()).is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        let results = (0..rounds).map(|_| runtime.block_on(round(case)));
        let results: Vec<Round> = results
            .collect::<anyhow::Result<_>>()
            .with_context(|| case.name)?;
        let median = |value: &dyn Fn(&Round) -> f64| {
            let values: Vec<f64> = results.iter().map(value).collect();
            stats::median(&values).unwrap_or(f64::NAN)
        };
        let alone = median(&|round| round.alone.slowest.as_secs_f64() * 1e3);
        let beside = median(&|round| round.beside.slowest.as_secs_f64() * 1e3);
        let apart = median(&|round| round.apart.as_secs_f64() * 1e3);
        let ratio = median(&Round::ratio);
        let gone = results.iter().flat_map(|round| &round.beside.lost);
        let gone: Vec<_> = gone.cloned().collect();
        let ran: usize = results.iter().map(|round| round.beside.ran).sum();
        let said = results.last().map_or("", |round| round.said.as_str());
        println!(
            "| {} | {alone:.1} ms | {beside:.1} ms | {ratio:.2} × | {apart:.1} ms | {} of {ran} | \
             {said} |",
            case.name,
            gone.len(),
        );
        if ratio > GOAL {
            over.push(case.name);
        }
        lost.extend(gone);
    }
    ensure!(lost.is_empty(), "commands were lost: {lost:#?}");
    if !over.is_empty() {
        println!("\nslower than {GOAL} ×: {}", over.join(", "));
    }
    Ok(())
}
