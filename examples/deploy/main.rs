//! What a small platform does to bring an app to its hosts: fetch, build, start, check, switch; and
//! back, if it is not well.
//!
//! ```text
//! deploy                                        two hosts of its own, two good versions
//! deploy --then=exits                           … the second of which is broken; see --help
//! deploy --repo ssh://git@git.example.org/shop.git deploy@web-1 deploy@web-2
//! deploy --self-test                            checks itself
//! ```
//!
//! On every host at once, over one pool:
//!
//! 1. `git` on the host fetches the repository: a mirror, cloned the first time.
//! 2. `git archive` of the wanted commit goes from there, as a stream through here, to the Docker
//!    daemon of the same host, which builds the image. Nothing is pushed or pulled.
//! 3. A new container starts beside the old one.
//! 4. Its log is followed until Docker says that it is healthy (`HEALTHCHECK`, or `--check`).
//! 5. It is renamed, which makes it the live one, and the old one is stopped and removed.
//!
//! When a step fails, or somebody presses Ctrl-C, the host is looked at and brought back: whatever
//! has happened, it has one live container, the old or the new one, and no leftovers. Containers
//! and images know by their label and name what they are (see `containers.rs`), so this also holds
//! for what a deploy has left that could not clear up, when the next one begins. A second Ctrl-C
//! leaves it to that one.
//!
//! What is asked twice is what changes nothing, or is the same done twice: lists, removing by id.
//! A build, a new container, its start and the switch are asked for once. The pool repeats none of
//! them either, for a request that may have been received may have been done; when an answer is lost
//! the host is looked at.
//!
//! Exit codes: 0, every host has the new container; 1, some host failed before any of its containers
//! was touched; 3, some host was rolled back; 4, some host went away in the middle; 130 and 143,
//! interrupted. The worst one counts.

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use futures_util::future::join_all;
use indicatif::{MultiProgress, ProgressDrawTarget};
use ssh_pool::{Limits, Timeouts};
use ssh_pool_examples::{Fleet, Interrupts, bar};
use tokio::sync::watch;

mod answer;
mod app;
mod containers;
mod context;
mod daemon;
mod demo;
mod deploy;
mod failure;
mod health;
mod image;
mod losses;
mod progress;
mod self_test;
mod source;
mod summary;
mod test_host;

use app::App;
use demo::{Demo, Version};
use deploy::{Deploy, Place};
use progress::{Progress, STEPS, Screen};
use summary::Summary;

/// Deploys an app from a git repository to Docker on many hosts. Without a host it starts two of
/// its own.
#[derive(Debug, Parser)]
#[command(name = "deploy")]
struct Options {
    /// Hosts as user@host:port; the user may use git and Docker there.
    #[arg(requires = "repo")]
    targets: Vec<String>,
    /// The repository, as the hosts reach it. There is a Dockerfile in it.
    #[arg(long, requires = "targets")]
    repo: Option<String>,
    /// What to deploy: a branch, a tag or a commit.
    #[arg(long, default_value = "HEAD")]
    revision: String,
    /// What the app is called on the hosts: its containers, images and the folder deploy/NAME.git
    /// in the login folder. Default: as the repository.
    #[arg(long)]
    name: Option<String>,
    /// A shell line that is run in the container every second, in the place of the Dockerfile's
    /// HEALTHCHECK.
    #[arg(long)]
    check: Option<String>,
    /// How many seconds a new container has to become healthy.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// The socket of the Docker daemon on the hosts. Default: the usual one.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// The second version for hosts of its own.
    #[arg(long, value_name = "VERSION", conflicts_with = "targets")]
    #[arg(default_value = "good")]
    then: Version,
    /// Check itself, on hosts of its own.
    #[arg(long, conflicts_with = "targets")]
    self_test: bool,
    /// How often the self-test cuts connections at a random moment.
    #[arg(long, default_value_t = 2, requires = "self_test")]
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    // Before anything is started that would have to be ended.
    let mut interrupts = Interrupts::new()?;
    if options.self_test {
        self_test::run_all(&mut interrupts, options.rounds).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let shown = bars.clone();
    let screen: Screen = Arc::new(move |line| shown.suspend(|| eprintln!("{line}")));
    let (fleet, summary) = if let Some(repo) = &options.repo {
        let app = of_options(&options, repo)?;
        let fleet = Fleet::of(&options.targets, limits(), timeouts())?;
        let places = (fleet.members.iter())
            .map(|member| Place {
                member: member.clone(),
                socket: options.socket.clone(),
                dir: format!("deploy/{}.git", app.name),
            })
            .collect();
        let summary = run(places, app, screen, &bars, &mut interrupts).await?;
        (fleet, summary)
    } else {
        let mut demo = tokio::task::block_in_place(Demo::start)?;
        let mut deploy = async |version| {
            demo.commit(version);
            run(
                demo.places(),
                demo.app()?,
                screen.clone(),
                &bars,
                &mut interrupts,
            )
            .await
        };
        let mut summary = deploy(Version::Good).await?;
        if summary.code() == 0 {
            println!("{summary}");
            summary = deploy(options.then).await?;
        }
        // Its servers end before it does.
        demo.fleet.pool.close().await;
        print!("{summary}");
        return Ok(ExitCode::from(summary.code()));
    };
    // Waits for processes that have been told to end.
    fleet.pool.close().await;
    print!("{summary}");
    Ok(ExitCode::from(summary.code()))
}

fn of_options(options: &Options, repo: &str) -> anyhow::Result<App> {
    let last = repo.trim_end_matches('/').rsplit(['/', ':']).next();
    let last = last.map(|last| last.trim_end_matches(".git"));
    let name = options.name.as_deref().or(last).context("no name")?;
    let mut app = App::new(name, repo, &options.revision)?;
    app.check = options.check.clone();
    app.patience = Duration::from_secs(options.patience);
    Ok(app)
}

/// git and the rest write little: what writes more than this is broken. What is long are streams.
fn limits() -> Limits {
    Limits::default().output_bytes(1 << 20)
}

fn timeouts() -> Timeouts {
    Timeouts::default()
        // A host that has gone and is not back by then is given up.
        .acquire(Duration::from_secs(10))
        // After an interrupt there is nothing to wait for but processes that were told to end.
        .drain(Duration::from_secs(5))
}

/// Deploys to all places at once. The pool stays open.
async fn run(
    places: Vec<Place>,
    app: App,
    screen: Screen,
    bars: &MultiProgress,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Summary> {
    let (count, counted) = watch::channel(0);
    let deploys = places.iter().map(|place| {
        let name = place.member.name.clone();
        let bar = bars.add(bar(STEPS.len(), &name));
        let progress = Progress::new(name, bar, screen.clone());
        let (app, counted) = (&app, counted.clone());
        async move { Deploy::new(place, app, &progress, counted).run().await }
    });
    // In one task: all that they do here is wait.
    let mut deploys = pin!(join_all(deploys));
    let mut code = None;
    let rows = loop {
        tokio::select! {
            rows = deploys.as_mut() => break rows,
            // The first one brings the hosts back; the second one leaves them as they are.
            interrupted = interrupts.next() => {
                code.get_or_insert(interrupted);
                count.send_modify(|count| *count += 1);
            }
        }
    };
    Ok(Summary {
        rows,
        interrupted: code,
    })
}
