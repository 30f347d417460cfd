//! Good versions and bad ones, lost connections and hosts: what is said, and what really is on the
//! hosts afterwards.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ssh_pool_examples::Interrupts;
use ssh_pool_tests::eventually_async;
use tokio::task::block_in_place;

use crate::demo::{Demo, Version};
use crate::stage::{Lines, SOON, Stage, containers, docker};
use crate::summary::{Outcome, Summary};

/// A host is logged in to once for commands and short requests, and once for each stream that is
/// open at the same time: an archive and its build.
const LOGINS: usize = 3;

pub(crate) async fn run_all(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut stage = Stage::start(interrupts)?;
    first(&mut stage).await.context("a first deploy")?;
    let live = second(&mut stage).await.context("a second version")?;
    for bad in BAD {
        let context = || format!("{:?}", bad.version);
        rolled_back(&mut stage, &bad, &live)
            .await
            .with_context(context)?;
    }
    no_build(&mut stage, &live).await.context("no build")?;
    no_revision(&mut stage, &live)
        .await
        .context("no revision")?;
    lost_in_build(&mut stage, &live)
        .await
        .context("lost in a build")?;
    interrupted(
        &mut stage,
        Version::LongBuild,
        "compiling",
        Outcome::Unchanged,
        &live,
    )
    .await
    .context("an interrupt in a build")?;
    interrupted(
        &mut stage,
        Version::Late,
        "waiting",
        Outcome::RolledBack,
        &live,
    )
    .await
    .context("an interrupt while waiting")?;
    let number = lost_log(&mut stage).await.context("a lost log")?;
    host_gone(&mut stage, number)
        .await
        .context("a host that goes")?;
    daemon_down(&mut stage)
        .await
        .context("a daemon that is down")?;
    nothing_is_left(stage).await.context("the end")?;
    println!("self-test: all is well, after {:.0?}", began.elapsed());
    Ok(())
}

/// The exit code, what became of each host, and that it is said.
fn check(
    summary: &Summary,
    code: u8,
    outcomes: &[Outcome],
    said: &[&str],
) -> anyhow::Result<String> {
    let text = summary.to_string();
    ensure!(
        summary.code() == code,
        "exit code {}\n{text}",
        summary.code()
    );
    let found: Vec<Outcome> = summary.rows.iter().map(|row| row.outcome).collect();
    ensure!(found == outcomes, "{found:?}\n{text}");
    for words in said {
        ensure!(text.contains(words), "\"{words}\" is not in\n{text}");
    }
    Ok(text)
}

/// The line of a summary that has these words.
fn line<'a>(text: &'a str, words: &str) -> &'a str {
    let found = text.lines().find(|line| line.contains(words));
    found.unwrap_or_default().trim()
}

const DEPLOYED: [Outcome; 2] = [Outcome::Deployed; 2];

async fn first(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let began = Instant::now();
    let (number, summary) = stage.deploy(Version::Good, 2).await?;
    let took = began.elapsed();
    check(&summary, 0, &DEPLOYED, &["6/6", "shop-1 "])?;
    stage.only_on_both(number)?;
    let one_by_one: Duration = summary.rows.iter().map(|row| row.took).sum();
    ensure!(took < one_by_one, "{took:?}, and {one_by_one:?} one by one");
    let logins = stage.logins();
    println!(
        "ok  a first deploy on two hosts: {took:.1?} for both ({one_by_one:.1?} one by one), \
         logins: {logins:?}"
    );
    Ok(())
}

/// The containers that are live until further notice, and their version.
struct Live {
    ids: [String; 2],
    number: u32,
}

impl Live {
    /// The same containers run, and nothing else.
    fn is_untouched(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        let now = stage.only_on_both(self.number)?;
        ensure!(now == self.ids, "other containers: {now:?}");
        Ok(())
    }
}

async fn second(stage: &mut Stage<'_>) -> anyhow::Result<Live> {
    let old = stage.only_on_both(1)?;
    let (number, summary) = stage.deploy(Version::Good, 2).await?;
    check(&summary, 0, &DEPLOYED, &["shop-2 "])?;
    let ids = stage.only_on_both(number)?;
    ensure!(old.iter().all(|id| !ids.contains(id)), "the same container");
    let logins = stage.logins();
    ensure!(
        logins.iter().all(|count| *count <= LOGINS),
        "logins: {logins:?}"
    );
    println!(
        "ok  a second version replaces the first: its files run, the old container and image are \
         gone; logins for both deploys: {logins:?}"
    );
    Ok(Live { ids, number })
}

/// A version that is not well, how many hosts get it, and what is said of it.
struct Bad {
    version: Version,
    hosts: usize,
    why: &'static str,
    log: &'static str,
}

const BAD: [Bad; 3] = [
    Bad {
        version: Version::Exits,
        hosts: 2,
        why: "it has ended with exit code 7",
        log: "| no database",
    },
    Bad {
        version: Version::Unhealthy,
        hosts: 1,
        why: "its check says",
        log: "| waiting",
    },
    Bad {
        version: Version::Late,
        hosts: 1,
        why: "not healthy after 3s",
        log: "| waiting",
    },
];

async fn rolled_back(stage: &mut Stage<'_>, bad: &Bad, live: &Live) -> anyhow::Result<()> {
    stage.demo.commit(bad.version);
    let mut app = stage.demo.app()?;
    if bad.version == Version::Late {
        app.patience = Duration::from_secs(3);
    }
    let nothing = async |_: &Demo, _: &Lines| Ok(());
    let summary = stage.deploy_while(app, bad.hosts, nothing).await?;
    let outcomes = vec![Outcome::RolledBack; bad.hosts];
    let said = [
        bad.why,
        bad.log,
        "4/6",
        "rolled back: the old container runs",
    ];
    let text = check(&summary, 3, &outcomes, &said)?;
    live.is_untouched(stage)?;
    println!("ok  rolled back, exit code 3: {}", line(&text, bad.why));
    Ok(())
}

async fn no_build(stage: &mut Stage<'_>, live: &Live) -> anyhow::Result<()> {
    let (_, summary) = stage.deploy(Version::NoBuild, 2).await?;
    let said = ["returned a non-zero code: 9", "| no such header", "2/6"];
    let text = check(&summary, 1, &[Outcome::Unchanged; 2], &said)?;
    live.is_untouched(stage)?;
    println!("ok  unchanged, exit code 1: {}", line(&text, "non-zero"));
    Ok(())
}

async fn no_revision(stage: &mut Stage<'_>, live: &Live) -> anyhow::Result<()> {
    // An option, if nobody took care.
    for revision in ["nowhere", "--all", "-h"] {
        let mut app = stage.demo.app()?;
        app.revision = revision.to_owned();
        let summary = stage.deploy_while(app, 2, async |_, _| Ok(())).await?;
        let said = ["git rev-parse: exit status: 128", "| fatal: ", "1/6"];
        check(&summary, 1, &[Outcome::Unchanged; 2], &said)?;
    }
    live.is_untouched(stage)?;
    println!("ok  unchanged, exit code 1: a revision that is not there");
    Ok(())
}

async fn lost_in_build(stage: &mut Stage<'_>, live: &Live) -> anyhow::Result<()> {
    stage.demo.commit(Version::LongBuild);
    let app = stage.demo.app()?;
    let cut = async |demo: &Demo, lines: &Lines| {
        lines.wait("compiling", 1).await?;
        let server = demo.fleet.servers.first().context("no server")?;
        block_in_place(|| server.kill_connections());
        Ok(())
    };
    let summary = stage.deploy_while(app, 1, cut).await?;
    let words = "[phase: running; command: may have run]";
    let text = check(&summary, 1, &[Outcome::Unchanged], &[words, "2/6"])?;
    live.is_untouched(stage)?;
    println!("ok  unchanged, exit code 1: {}", line(&text, words));
    Ok(())
}

/// Of both hosts, when both have shown that line.
async fn interrupted(
    stage: &mut Stage<'_>,
    version: Version,
    shown: &str,
    outcome: Outcome,
    live: &Live,
) -> anyhow::Result<()> {
    stage.demo.commit(version);
    let app = stage.demo.app()?;
    let press = async |_: &Demo, lines: &Lines| {
        lines.wait(shown, 2).await?;
        // What Ctrl-C sends.
        let id = std::process::id().to_string();
        let status = Command::new("kill").args(["-INT", &id]).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    };
    let began = Instant::now();
    let summary = stage.deploy_while(app, 2, press).await?;
    let text = check(&summary, 130, &[outcome; 2], &[": interrupted"])?;
    live.is_untouched(stage)?;
    println!(
        "ok  {}, exit code 130: {}; after {:.1?}",
        outcome.word(),
        line(&text, ": interrupted"),
        began.elapsed()
    );
    Ok(())
}

/// The log is followed again, and the deploy goes on.
async fn lost_log(stage: &mut Stage<'_>) -> anyhow::Result<u32> {
    let number = stage.demo.commit(Version::Late);
    let app = stage.demo.app()?;
    let cut = async |demo: &Demo, lines: &Lines| {
        lines.wait("| waiting", 1).await?;
        let server = demo.fleet.servers.first().context("no server")?;
        block_in_place(|| server.kill_connections());
        lines.wait("; it is followed again", 1).await?;
        let dockerd = demo.daemons.first().context("no daemon")?;
        let found = containers(dockerd)?;
        let new = found.iter().find(|one| one.contains("-candidate "));
        let new = new.and_then(|one| one.split(' ').next());
        let new = new.context("no candidate")?;
        docker(dockerd, &["exec", new, "sh", "-c", "echo yes > /tmp/well"])?;
        Ok(())
    };
    let summary = stage.deploy_while(app, 1, cut).await?;
    let words = "; it is followed again";
    let text = check(&summary, 0, &[Outcome::Deployed], &[words, "6/6"])?;
    stage.only(0, number)?;
    println!("ok  deployed all the same: {}", line(&text, words));
    Ok(number)
}

/// Nobody knows what is there, and so it is said. The next deploy clears up.
async fn host_gone(stage: &mut Stage<'_>, before: u32) -> anyhow::Result<()> {
    stage.demo.commit(Version::Late);
    let app = stage.demo.app()?;
    let stop = async |demo: &Demo, lines: &Lines| {
        lines.wait("| waiting", 1).await?;
        let server = demo.fleet.servers.first().context("no server")?;
        // Its connections would live on.
        block_in_place(|| {
            server.stop();
            server.kill_connections();
        });
        Ok(())
    };
    let summary = stage.deploy_while(app, 1, stop).await?;
    let said = ["not cleared up: ", "[request: not sent]", "unknown: "];
    let text = check(&summary, 4, &[Outcome::Unknown], &said)?;
    let left = containers(stage.daemon(0)?)?;
    ensure!(left.len() == 2, "left: {left:?}");
    println!("ok  unknown, exit code 4: {}", line(&text, said[0]));

    let server = stage.server(0)?;
    block_in_place(|| server.restart());
    // The next deploy is another process, which remembers no failure.
    let member = stage.demo.fleet.members.first().context("no host")?;
    member.host.evict();
    let old = left.iter().find(|one| !one.contains("-candidate "));
    let (number, summary) = stage.deploy(Version::Good, 1).await?;
    let words = "an earlier deploy had left 2 things to put right";
    check(&summary, 0, &[Outcome::Deployed], &[words])?;
    let new = stage.only(0, number)?;
    ensure!(
        old.is_some_and(|old| !old.starts_with(&new)) && number > before,
        "the old container"
    );
    println!("ok  the next deploy: {words}");
    Ok(())
}

/// One host fails alone, and says what is wrong with it.
async fn daemon_down(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let before = stage.only(1, 2)?;
    block_in_place(|| stage.daemon(1).map(ssh_pool_tests::Dockerd::stop))?;
    let (number, summary) = stage.deploy(Version::Good, 2).await?;
    let words = "no Docker daemon at ";
    let outcomes = [Outcome::Deployed, Outcome::Unchanged];
    let text = check(&summary, 1, &outcomes, &[words, "[request: not sent]"])?;
    stage.only(0, number)?;
    println!("ok  the other host, exit code 1: {}", line(&text, words));

    block_in_place(|| stage.daemon(1).map(ssh_pool_tests::Dockerd::restart))?;
    let back = eventually_async(SOON, || stage.only(1, 2).is_ok_and(|now| now == before)).await;
    ensure!(
        back,
        "what was live does not come back: {:?}",
        stage.only(1, 2)
    );
    println!("ok  what is live comes back with its daemon");
    Ok(())
}

async fn nothing_is_left(stage: Stage<'_>) -> anyhow::Result<()> {
    println!(
        "ok  logins in all, for {} deploys and three times all connections lost: {:?}",
        stage.deploys,
        stage.logins()
    );
    stage.demo.fleet.pool.close().await;
    let idle = || {
        let mut servers = stage.demo.fleet.servers.iter();
        servers
            .all(|server| server.open_connections() == 0 && server.session_processes().is_empty())
    };
    let idle = eventually_async(SOON, idle).await;
    ensure!(idle, "connections or processes are left");
    println!("ok  no connection and no process is left");
    Ok(())
}
