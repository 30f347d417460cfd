//! The failures that ssh-pool was made for, replayed: a storm of deploys through OpenSSH's
//! connection sharing, as the deploy platform Coolify drives it, and through ssh-pool, with the same
//! faults at the same moments.
//!
//! ```text
//! incident_replay                           20 rounds of 60 commands at once, on servers of its own
//! incident_replay --quick                   every fault once, in a minute or two
//! incident_replay --coolify 4.1.0           an older one, whose workers have no lock
//! incident_replay --only pool --seed 7      one side, with other moments
//! ```
//!
//! Each side has a stock sshd, and a proxy on the way to it. Each command writes its id to a ledger
//! on the server when it begins, so what ran twice or never is counted there. A fault strikes when
//! as many commands run as the seed says. What is replayed of Coolify, and what
//! not, is in `coolify.rs`.
//!
//! The exit code is 1 if ssh-pool does not keep what it promises: no command fails without having
//! started, runs twice or hangs, and nothing stays behind. OpenSSH's column is what it is.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use serde::Serialize;
use ssh_pool_examples::Interrupts;

mod coolify;
mod fault;
mod ledger;
mod masters;
mod pooled;
mod side;
mod storm;
mod table;
mod tally;
mod test_host;

use coolify::{Coolify, Release};
use fault::Fault;
use pooled::Pooled;
use side::{Answer, Left, Side};
use storm::{Plan, Round};
use table::Table;
use tally::Tally;

/// Replays a storm of deploys with faults, through OpenSSH's connection sharing and through
/// ssh-pool, and counts what became of the commands.
#[derive(Debug, Parser)]
#[command(name = "incident_replay")]
struct Options {
    /// Rounds; each has one of seven faults, in turn.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Commands at once.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=500))]
    at_once: u16,
    /// Seconds that a command may take.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(5..=600))]
    limit: u64,
    /// Every fault once, with 16 commands and a limit of 12 s.
    #[arg(long, conflicts_with_all = ["rounds", "at_once", "limit"])]
    quick: bool,
    /// Decides when the faults strike.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which Coolify is replayed.
    #[arg(long, value_enum, default_value_t)]
    coolify: Release,
    /// Replay one side alone.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Write all counts to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    Pool,
    Openssh,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    rounds: usize,
    at_once: usize,
    limit_seconds: u64,
    seed: u64,
    coolify: String,
    sides: &'a [Tally],
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.at_once, options.limit) = (7, 16, 12);
    }
    // Before anything is started that would have to be ended.
    let mut interrupts = Interrupts::new()?;
    let sides = start(&options)?;
    let outcome = tokio::select! {
        rounds = storm(&options, &sides) => Ok(rounds?),
        code = interrupts.next() => Err(code),
    };
    // Processes and servers end in any case: with the sides, when this returns.
    let rounds = match outcome {
        Ok(rounds) => rounds,
        Err(code) => {
            eprintln!("interrupted; ending what was started");
            for side in &sides {
                side.abandon().await;
            }
            return Ok(ExitCode::from(code));
        }
    };
    let mut tallies = Vec::new();
    for (side, rounds) in sides.iter().zip(&rounds) {
        tallies.push(tally(side, rounds).await?);
    }
    report(&options, &tallies)
}

fn start(options: &Options) -> anyhow::Result<Vec<Arc<Side>>> {
    let limit = Duration::from_secs(options.limit);
    let mut sides = Vec::new();
    if options.only != Some(Only::Pool) {
        sides.push(Arc::new(Side::OpenSsh(Coolify::start(
            options.coolify,
            limit,
        )?)));
    }
    if options.only != Some(Only::Openssh) {
        sides.push(Arc::new(Side::Pool(Pooled::start(limit)?)));
    }
    Ok(sides)
}

/// All rounds, of each side in turn: never both at once, for they share this machine.
async fn storm(options: &Options, sides: &[Arc<Side>]) -> anyhow::Result<Vec<Vec<Round>>> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut rounds: Vec<Vec<Round>> = sides.iter().map(|_| Vec::new()).collect();
    let at_once = usize::from(options.at_once);
    for round in 0..usize::from(options.rounds) {
        let plan = Plan {
            round,
            fault: Fault::of(round),
            at_once,
            // One connection has ten sessions, and OpenSSH seldom has all of them in use.
            under_way: random.usize(3..=7),
            limit: Duration::from_secs(options.limit),
        };
        let mut turns: Vec<_> = sides.iter().zip(&mut rounds).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (side, rounds) in turns {
            let done = storm::run(side, plan).await?;
            eprintln!(
                "round {:2}, {:20}: {:8} {:3} of {} done in {:.1} s",
                round + 1,
                plan.fault,
                side.name(),
                done.done(),
                at_once,
                done.took.as_secs_f64(),
            );
            rounds.push(done);
        }
    }
    Ok(rounds)
}

async fn tally(side: &Side, rounds: &[Round]) -> anyhow::Result<Tally> {
    let left: Left = side.end().await;
    let test_host = side.test_host();
    anyhow::ensure!(
        test_host.is_quiet().await,
        "commands of {} do not end: {:?}",
        side.name(),
        test_host.sshd.session_processes()
    );
    // An error that should not be has to be seen in full.
    for (id, asked, _) in rounds.iter().flat_map(|round| &round.asked) {
        if let (Side::Pool(_), Answer::NotStarted(text)) = (side, &asked.answer) {
            eprintln!("{id} was not started: {text}");
        }
    }
    Ok(Tally::of(
        side.name(),
        rounds,
        &test_host.ledger.starts(),
        left,
    ))
}

fn report(options: &Options, tallies: &[Tally]) -> anyhow::Result<ExitCode> {
    let report = Report {
        rounds: options.rounds.into(),
        at_once: options.at_once.into(),
        limit_seconds: options.limit,
        seed: options.seed,
        coolify: options.coolify.to_string(),
        sides: tallies,
    };
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!(
        "{} rounds of {} commands at once, limit {} s, seed {}; OpenSSH as Coolify {} drives it\n",
        report.rounds, report.at_once, report.limit_seconds, report.seed, report.coolify,
    );
    println!("{}", Table(tallies));
    let mut code = ExitCode::SUCCESS;
    for tally in tallies {
        if tally.total.not_struck > 0 {
            let rounds = tally.total.not_struck;
            println!(
                "{}: {rounds} rounds were over before their fault could strike",
                tally.side
            );
        }
        let broken = tally.total.broken();
        match tally.side {
            "ssh-pool" if !broken.is_empty() => {
                println!("ssh-pool BREAKS ITS PROMISE: {}", broken.join(", "));
                code = ExitCode::FAILURE;
            }
            "ssh-pool" => println!("ssh-pool keeps its promise"),
            _ if broken.is_empty() => println!("OpenSSH: nothing went wrong this time"),
            _ => {}
        }
    }
    Ok(code)
}
