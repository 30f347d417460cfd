//! Scale: a thousand hosts in one process, and ten thousand targets of which a hundred are in use.
//!
//! ```text
//! cargo run --release -p ssh-pool-benches --bin scale
//! cargo run --release -p ssh-pool-benches --bin scale -- --quick
//! ```
//!
//! The servers are a process of their own, and so is each pool that is measured: its memory and its
//! processor time are those of the library, the runtime and nothing else.

mod child;
mod idle;
mod measure;
mod serve;
mod usage;
mod working;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use ssh_pool_benches::order::shuffled;
use ssh_pool_benches::report::Report;
use ssh_pool_benches::report::names::setting;

use crate::measure::{Findings, Plan, Task};
use crate::serve::Fleet;

/// Measures memory, processor time and descriptors of a pool with many hosts.
#[derive(Debug, Parser)]
struct Options {
    /// One round with short windows: about a minute.
    #[arg(long)]
    quick: bool,
    /// Servers, and so hosts, of the first part.
    #[arg(long, default_value_t = 1_000)]
    hosts: usize,
    /// Targets of the second part.
    #[arg(long, default_value_t = 10_000)]
    targets: usize,
    /// How many of them are in use.
    #[arg(long, default_value_t = 100)]
    busy: usize,
    /// Rounds; each measures every part once, in a drawn order.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds in which nothing is done: two or more times the keepalive interval.
    #[arg(long)]
    idle_seconds: Option<u64>,
    /// Seconds between keepalives; 15 is the library's default.
    #[arg(long, default_value_t = 15)]
    keepalive_seconds: u64,
    /// Writes the result there, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the result there, as tables.
    #[arg(long)]
    markdown: Option<PathBuf>,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What this program is when it starts itself.
#[derive(Debug, Clone, Copy, Subcommand)]
enum Child {
    /// The servers.
    #[command(hide = true)]
    Serve {
        /// How many.
        count: usize,
    },
    /// The pool that is measured.
    #[command(hide = true)]
    Measure,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    match options.child {
        Some(Child::Serve { count }) => serve::run(count),
        Some(Child::Measure) => measure::run(),
        None => compare(&options),
    }
}

fn compare(options: &Options) -> anyhow::Result<()> {
    let (rounds, idle, work) = if options.quick {
        (1, 30, 5)
    } else {
        (3, 45, 15)
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let keepalive = Duration::from_secs(options.keepalive_seconds);
    let idle = Duration::from_secs(options.idle_seconds.unwrap_or(idle));
    let fleet = Fleet::start(options.hosts.max(options.busy))?;
    let plan = |targets, task| Plan {
        place: fleet.place().clone(),
        targets,
        busy: options.busy,
        keepalive,
        task,
    };
    let work = Task::Work {
        window: Duration::from_secs(work),
        every: Duration::from_secs(1),
    };
    let parts = [
        (
            setting::THOUSAND_HOSTS,
            plan(options.hosts, Task::Idle { window: idle }),
        ),
        (setting::HUNDRED_TARGETS, plan(options.busy, work)),
        (setting::MANY_TARGETS, plan(options.targets, work)),
    ];
    let mut findings = Findings::default();
    for round in 1..=rounds {
        for (setting, plan) in shuffled(parts.iter().collect()) {
            eprintln!("round {round} of {rounds}: {setting}");
            let found = child::ask(&["measure"], plan)?;
            findings.add(setting, found);
        }
    }
    fleet.stop()?;

    let report = Report {
        command: command(),
        machine: machine(keepalive),
        ..findings.report(&parts.each_ref().map(|(setting, _)| *setting))
    };
    println!("{}\n{}", report.markdown(), report.goals_table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        std::fs::write(path, report.markdown())
            .with_context(|| format!("write {}", path.display()))?;
    }
    ensure!(report.notes.is_empty(), "commands have failed, see above");
    Ok(())
}

/// How people run it again.
fn command() -> String {
    let mut words = vec!["cargo run --release -p ssh-pool-benches --bin scale".to_owned()];
    let given: Vec<String> = std::env::args().skip(1).collect();
    if !given.is_empty() {
        words.push("--".to_owned());
        words.extend(given);
    }
    words.join(" ")
}

fn machine(keepalive: Duration) -> Vec<(String, String)> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    [
        ("Linux", kernel.trim().to_owned()),
        ("processors", processors.to_string()),
        ("keepalives every", format!("{} s", keepalive.as_secs())),
    ]
    .map(|(what, value)| (what.to_owned(), value))
    .to_vec()
}
