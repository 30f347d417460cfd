//! `tail -F` on many hosts at once, over shared connections that come back when they are lost.
//!
//! ```text
//! logs                                            three servers of its own, with logs that grow
//! logs deploy@web-1 deploy@web-2 /var/log/syslog /srv/app/log      every file on every host
//! logs --lines 20 deploy@web-1 app.log            ends after 20 lines
//! logs --self-test                                checks itself
//! ```
//!
//! Ctrl-C ends every remote `tail`, then the connections; the exit code is 130, as for any program
//! that was interrupted. It is 1 if a file could not be followed, or a remote process not ended.
//! What happens to lines when a connection is lost is told at [`follow::Follower`].

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use ssh_pool::{Limits, Timeouts};
use ssh_pool_examples::{Fleet, Interrupts, Member};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

mod demo;
mod follow;
mod printer;
mod self_test;

use demo::Growing;
use follow::{Follower, Report};
use printer::{Full, QUEUE, Screen};

/// After the end, what is in the queue has this long to be shown.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Follows files on many hosts at once, as tail -F does. Without a host it starts three servers of
/// its own.
#[derive(Debug, Parser)]
#[command(name = "logs")]
struct Options {
    /// End after this many lines.
    #[arg(long)]
    lines: Option<u64>,
    /// Begin at the beginning of each file, not at its end.
    #[arg(long)]
    all: bool,
    /// Check itself, on servers of its own.
    #[arg(long, conflicts_with = "hosts_and_files")]
    self_test: bool,
    /// Hosts as user@host:port, then the files that are followed on each of them.
    #[arg(value_name = "HOST... FILE")]
    hosts_and_files: Vec<String>,
}

/// One file on one host.
struct Source {
    member: Member,
    file: String,
    label: String,
}

/// How it went.
#[derive(Debug)]
struct Summary {
    code: u8,
    reports: Vec<Report>,
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
    let (fleet, sources, growing) = if options.hosts_and_files.is_empty() {
        let fleet = Fleet::private(3, limits(1), timeouts())?;
        let growing = Growing::start(&fleet, &["app.log"])?;
        let sources = growing.sources(&fleet);
        (fleet, sources, Some(growing))
    } else {
        let (hosts, files) = split(&options.hosts_and_files).unwrap_or_else(|error| error.exit());
        let fleet = Fleet::of(hosts, limits(files.len()), timeouts())?;
        let sources = sources(&fleet, files);
        (fleet, sources, None)
    };
    let (screen, all) = (Screen::terminal(), options.all);
    let summary = run(&fleet, sources, all, options.lines, screen, &mut interrupts).await?;
    drop(growing);
    for report in &summary.reports {
        if let Some(problem) = &report.problem {
            eprintln!("{}: {problem}", report.label);
        }
    }
    Ok(ExitCode::from(summary.code))
}

/// A tail keeps its session for good, so there must be room for all of them: also on a server that
/// allows one session for each connection.
fn limits(files: usize) -> Limits {
    let files = u32::try_from(files).unwrap_or(u32::MAX);
    // What waits for a slow terminal, for each file.
    let stream_bytes = 1 << 20;
    Limits::default()
        .connections_per_host(files.clamp(4, 1024))
        .stream_bytes(stream_bytes)
}

fn timeouts() -> Timeouts {
    Timeouts::default()
        // No further connection only because opening many sessions takes a moment.
        .patience(Duration::from_secs(5))
        // At the end there is nothing to wait for but processes that have been killed.
        .drain(Duration::from_secs(5))
}

/// Hosts come first and have an `@`; so may files, but those have a `/` too, or can be given one.
fn split(arguments: &[String]) -> Result<(&[String], &[String]), clap::Error> {
    let is_host =
        |word: &String| word.starts_with("ssh://") || (word.contains('@') && !word.contains('/'));
    let hosts = arguments.iter().take_while(|word| is_host(word)).count();
    let (hosts, files) = arguments.split_at(hosts);
    let problem = if hosts.is_empty() {
        "name a host first, as user@host:port"
    } else if files.is_empty() {
        "name a file after the hosts"
    } else if files.iter().any(is_host) {
        "name all hosts first, then the files; a file with an @ is ./like@this"
    } else {
        return Ok((hosts, files));
    };
    Err(Options::command().error(ErrorKind::ValueValidation, problem))
}

fn sources(fleet: &Fleet, files: &[String]) -> Vec<Source> {
    let source = |member: &Member, file: &String| Source {
        member: member.clone(),
        file: file.clone(),
        label: match files.len() {
            1 => member.name.clone(),
            _ => format!("{} {file}", member.name),
        },
    };
    (fleet.members.iter())
        .flat_map(|member| files.iter().map(move |file| source(member, file)))
        .collect()
}

/// Follows everything until it is enough, and then leaves nothing behind.
async fn run(
    fleet: &Fleet,
    sources: Vec<Source>,
    all: bool,
    lines: Option<u64>,
    screen: Screen,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Summary> {
    let (queue, shown) = mpsc::channel(QUEUE);
    let mut screen = screen.show(shown, lines).context("no thread")?;
    let (stop, stopped) = watch::channel(false);
    let mut followers = JoinSet::new();
    for source in sources {
        let follower = Follower {
            host: source.member.host,
            file: source.file,
            label: source.label,
            screen: queue.clone(),
            stop: stopped.clone(),
            at: all.then_some(0),
        };
        followers.spawn(follower.run());
    }
    // The screen ends with the last follower.
    drop(queue);

    let (code, interrupted) = tokio::select! {
        code = interrupts.next() => (code, true),
        full = &mut screen => match full? {
            Full::Enough => (0, false),
            Full::Silence => (1, false),
            Full::Unread(error) if error.kind() == std::io::ErrorKind::BrokenPipe => (0, false),
            Full::Unread(error) => return Err(error).context("cannot show lines"),
        },
    };

    // All at once: the end takes as long as the slowest of them, and that is bounded.
    stop.send_replace(true);
    let end = async {
        let mut reports = Vec::new();
        while let Some(report) = followers.join_next().await {
            reports.push(report?);
        }
        fleet.pool.close().await;
        if interrupted && tokio::time::timeout(LAST_LINES, &mut screen).await.is_err() {
            eprintln!("the last lines have not been shown");
        }
        Ok::<_, tokio::task::JoinError>(reports)
    };
    let reports = tokio::select! {
        reports = end => reports?,
        // Asked again, it does not wait; what has been asked of the servers is on its way.
        code = interrupts.next() => {
            eprintln!("not waiting for the remote processes to end");
            return Ok(Summary { code, reports: Vec::new() });
        }
    };
    let failed = reports.iter().any(|report| report.problem.is_some());
    let code = if code == 0 { u8::from(failed) } else { code };
    Ok(Summary { code, reports })
}
