//! A load generator: many short commands at once, through one pool.
//!
//! ```text
//! storm --target deploy@web-1 -n 1000 -c 100         your server, your known_hosts and keys
//! storm --sshd -n 2000 -c 100 --json                 a private sshd with stock limits
//! storm --sshd --sshd-option "MaxSessions 2"         … with others
//! storm --dropbear
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use serde::Serialize;
use ssh_pool::{Host, HostKeyPolicy, Identity, Limits, Pool};
use ssh_pool_examples::{Timings, bar};
use ssh_pool_tests::{Dropbear, Sshd, TestUser};
use tokio::task::JoinSet;

/// Runs many short commands at once on one host and counts what happened.
#[derive(Debug, Parser)]
struct Options {
    /// A host of your own, as user@host:port.
    #[arg(long, required_unless_present_any = ["sshd", "dropbear"])]
    target: Option<String>,
    /// Start a private OpenSSH sshd for a user with a plain /bin/sh.
    #[arg(long, conflicts_with_all = ["target", "dropbear"])]
    sshd: bool,
    /// A line of its sshd_config, such as "MaxSessions 2". Repeatable.
    #[arg(long, requires = "sshd")]
    sshd_option: Vec<String>,
    /// Start a private dropbear.
    #[arg(long, conflicts_with_all = ["target", "sshd"])]
    dropbear: bool,
    /// Commands in all.
    #[arg(short, default_value_t = 1000)]
    n: usize,
    /// Commands at once.
    #[arg(short, default_value_t = 100)]
    c: usize,
    /// The command line.
    #[arg(long, default_value = "true")]
    command: String,
    /// Connections to the host, at most.
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    commands: usize,
    ok: usize,
    failed: usize,
    errors: BTreeMap<String, usize>,
    dials: u64,
    failed_dials: u64,
    opens: u64,
    refused_opens: u64,
    peak_connections: u32,
    learned_sessions: u32,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// The server, which ends when it is dropped.
enum Server {
    Yours,
    Sshd(Sshd),
    Dropbear(Dropbear),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let options = Options::parse();
    let server = start(&options);
    let (pool, host) = connect(&options, &server)?;
    let report = storm(&options, &host).await?;
    pool.close().await;

    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report:#?}");
    }
    Ok(if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn start(options: &Options) -> Server {
    if options.sshd {
        let builder = Sshd::builder().user(TestUser::plain());
        let with = options
            .sshd_option
            .iter()
            .fold(builder, |builder, line| builder.option(line));
        Server::Sshd(with.start())
    } else if options.dropbear {
        Server::Dropbear(Dropbear::start())
    } else {
        Server::Yours
    }
}

fn connect(options: &Options, server: &Server) -> anyhow::Result<(Pool, Host)> {
    let (target, policy, identity) = match server {
        Server::Sshd(sshd) => (
            sshd.target(),
            HostKeyPolicy::known_hosts_file(sshd.known_hosts()),
            Identity::key_file(sshd.client_key()),
        ),
        Server::Dropbear(dropbear) => (
            dropbear.target(),
            HostKeyPolicy::known_hosts_file(dropbear.known_hosts()),
            Identity::key_file(dropbear.client_key()),
        ),
        Server::Yours => {
            let target = options.target.clone().context("--target is missing")?;
            (target, HostKeyPolicy::known_hosts(), Identity::like_ssh())
        }
    };
    let limits = Limits::default().connections_per_host(options.connections);
    let pool = Pool::builder(policy)
        .identity(identity)
        .limits(limits)
        .build()?;
    let host = pool.host(target)?;
    Ok((pool, host))
}

async fn storm(options: &Options, host: &Host) -> anyhow::Result<Report> {
    let next = Arc::new(AtomicUsize::new(0));
    let bar = if options.json {
        indicatif::ProgressBar::hidden()
    } else {
        bar(options.n, "storm")
    };
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..options.c {
        let (next, host, bar) = (next.clone(), host.clone(), bar.clone());
        let (n, line) = (options.n, options.command.clone());
        callers.spawn(async move {
            let mut timings = Timings::default();
            let mut errors = BTreeMap::<String, usize>::new();
            while next.fetch_add(1, Ordering::Relaxed) < n {
                let began = Instant::now();
                match host.shell(&line).output().await {
                    Ok(output) if output.status.success() => timings.push(began.elapsed()),
                    Ok(output) => *errors.entry(output.status.to_string()).or_default() += 1,
                    Err(error) => {
                        let kind = format!("{} ({:?})", error.phase(), error.command_state());
                        if errors
                            .insert(kind.clone(), errors.get(&kind).map_or(1, |n| n + 1))
                            .is_none()
                        {
                            eprintln!("{error:#}");
                        }
                    }
                }
                bar.inc(1);
            }
            (timings, errors)
        });
    }
    let mut all = Timings::default();
    let mut errors = BTreeMap::<String, usize>::new();
    while let Some(result) = callers.join_next().await {
        let (timings, failed) = result?;
        all.extend(timings);
        for (kind, count) in failed {
            *errors.entry(kind).or_default() += count;
        }
    }
    bar.finish_and_clear();
    let status = host.status();
    Ok(Report {
        commands: options.n,
        ok: all.len(),
        failed: options.n - all.len(),
        errors,
        dials: status.dials,
        failed_dials: status.failed_dials,
        opens: status.opens,
        refused_opens: status.refused_opens,
        peak_connections: status.peak_connections,
        learned_sessions: status.learned_sessions,
        seconds: started.elapsed().as_secs_f64(),
        p50_ms: all.quantile_ms(0.5),
        p99_ms: all.quantile_ms(0.99),
    })
}
