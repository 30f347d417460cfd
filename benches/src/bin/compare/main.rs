//! ssh-pool beside what people use today, on this machine, in one run.
//!
//! ```text
//! cargo run --release --bin compare -- --quick
//! cargo run --release --bin compare -- --only warm,burst --markdown table.md
//! ```
//!
//! All contenders connect to one private sshd with stock settings, with the same key, and check
//! its host key. Each has the settings that its documentation calls good (`TCP_NODELAY` for those on
//! russh). Each measurement is made in a process of its own, in an order that is drawn anew
//! for each round, so that ratios can be formed within a round. Failures are counted, and quoted.

mod bench;
mod contender;
mod descriptors;
mod place;
mod scenario;
mod serve;
mod supervisor;
mod usage;
mod worker;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use nix::sys::prctl;
use ssh_pool_benches::report::Report;
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::Bench;
use crate::contender::Contender;
use crate::scenario::Scenario;

/// Measures ssh-pool beside ControlMaster, the openssh crate, async-ssh2-tokio, russh and ssh.
///
/// It starts SSH servers of its own on loopback, and needs sshd, ssh and ssh-keygen. As root it logs
/// in as a user with a plain shell, whom it makes; otherwise as you. Figures go to standard output,
/// progress to standard error. The exit code is 1 if ssh-pool has failed a command or has hung; it
/// says nothing about who was faster.
#[derive(Debug, Parser)]
struct Options {
    /// Fewer commands, rounds and bytes: two minutes at most. Good for a look, not for a figure.
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, in this order.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Only these contenders.
    #[arg(long, value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Rounds of each scenario: 5, of bulk and scale 3, with --quick 1.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Writes everything that was found there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the tables there, as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draws plots there, as SVG.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    // Not among the options: nobody is meant to use these.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [worker::ARGUMENT] => {
            worker::main()?;
            return Ok(ExitCode::SUCCESS);
        }
        [serve::ARGUMENT, count] => {
            serve::main(count)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let options = Options::parse();
    // What a killed worker has started comes to us, and not to init.
    prctl::set_child_subreaper(true)?;
    let mut bench = Bench {
        began: Instant::now(),
        quick: options.quick,
        rounds: options.rounds,
        contenders: or_all(&options.contenders, &Contender::ALL),
        report: Report {
            command: command_line(),
            machine: supervisor::machine(),
            ..Report::default()
        },
        ours_failed: false,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let scenarios = or_all(&options.only, Scenario::value_variants());
        let mut end = signal(SignalKind::terminate())?;
        tokio::select! {
            result = all(&scenarios, &mut bench) => result,
            // Whatever runs is ended by being dropped.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = end.recv() => bail!("ended from outside"),
        }
    });
    drop(runtime);
    // The servers are gone. What is left was below a worker that somebody has killed.
    worker::end_all_below();
    // Also what an interrupted run has found so far.
    show(&bench.report, &options)?;
    result?;
    Ok(if bench.ours_failed {
        eprintln!("ssh-pool has failed: see the notes");
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn all(scenarios: &[Scenario], bench: &mut Bench) -> anyhow::Result<()> {
    for scenario in scenarios {
        scenario.run(bench).await?;
    }
    Ok(())
}

fn or_all<T: Clone>(chosen: &[T], all: &[T]) -> Vec<T> {
    if chosen.is_empty() { all } else { chosen }.to_vec()
}

/// As somebody would type it.
fn command_line() -> String {
    let mut words = vec!["cargo run --release --bin compare".to_owned()];
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some() {
        words.push("--".to_owned());
    }
    words.extend(arguments);
    words.join(" ")
}

/// Prints what was found, and writes it where it was asked for.
fn show(report: &Report, options: &Options) -> anyhow::Result<()> {
    println!("{}\n{}", report.markdown(), report.goals_table());
    if let Some(file) = &options.json {
        fs::write(file, report.json()?).with_context(|| format!("write {}", file.display()))?;
    }
    if let Some(file) = &options.markdown {
        fs::write(file, report.markdown()).with_context(|| format!("write {}", file.display()))?;
    }
    if let Some(folder) = &options.plots {
        for plot in report.plots(folder)? {
            eprintln!("drawn: {}", plot.display());
        }
    }
    Ok(())
}
