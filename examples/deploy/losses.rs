//! Interrupts, lost connections, hosts and daemons that go: which state a host ends in, and that it
//! is said.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ssh_pool_tests::{Dockerd, eventually_async};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::demo::{Demo, Version};
use crate::summary::Outcome;
use crate::test_host::{Live, SOON, Shown, TestHost, check, containers, docker, line};

/// About half of what is left of a deploy, and there are two hosts.
const SPAN: Duration = Duration::from_millis(1500);

pub(crate) async fn lost_in_build(test_host: &mut TestHost<'_>, live: &Live) -> anyhow::Result<()> {
    test_host.demo.commit(Version::LongBuild);
    let app = test_host.demo.app()?;
    let cut = async |demo: &Demo, shown: &Shown| {
        shown.wait("compiling", 1).await?;
        let server = demo.fleet.servers.first().context("no server")?;
        block_in_place(|| server.kill_connections());
        Ok(())
    };
    let summary = test_host.deploy_while(app, 1, cut).await?;
    let words = "[phase: running; command: may have run]";
    let text = check(&summary, 1, &[Outcome::Unchanged], &[words, "2/6"])?;
    live.is_untouched(test_host)?;
    println!("ok  unchanged, exit code 1: {}", line(&text, words));
    Ok(())
}

/// Of both hosts, when both have shown that line.
pub(crate) async fn interrupted(
    test_host: &mut TestHost<'_>,
    version: Version,
    at: &str,
    outcome: Outcome,
    live: &Live,
) -> anyhow::Result<()> {
    test_host.demo.commit(version);
    let app = test_host.demo.app()?;
    let press = async |_: &Demo, shown: &Shown| {
        shown.wait(at, 2).await?;
        // What Ctrl-C sends.
        let id = std::process::id().to_string();
        let status = Command::new("kill").args(["-INT", &id]).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    };
    let began = Instant::now();
    let summary = test_host.deploy_while(app, 2, press).await?;
    let text = check(&summary, 130, &[outcome; 2], &[": interrupted"])?;
    live.is_untouched(test_host)?;
    println!(
        "ok  {}, exit code 130: {}; after {:.1?}",
        outcome.word(),
        line(&text, ": interrupted"),
        began.elapsed()
    );
    Ok(())
}

/// The log is followed again, and the deploy goes on.
pub(crate) async fn lost_log(test_host: &mut TestHost<'_>) -> anyhow::Result<()> {
    let number = test_host.demo.commit(Version::Late);
    let app = test_host.demo.app()?;
    let cut = async |demo: &Demo, shown: &Shown| {
        shown.wait("| waiting", 1).await?;
        let server = demo.fleet.servers.first().context("no server")?;
        block_in_place(|| server.kill_connections());
        shown.wait("; it is followed again", 1).await?;
        let dockerd = demo.daemons.first().context("no daemon")?;
        let found = containers(dockerd)?;
        let new = found.iter().find(|one| one.contains("-candidate "));
        let new = new.and_then(|one| one.split(' ').next());
        let new = new.context("no candidate")?;
        docker(dockerd, &["exec", new, "sh", "-c", "echo yes > /tmp/well"])?;
        Ok(())
    };
    let summary = test_host.deploy_while(app, 1, cut).await?;
    let words = "; it is followed again";
    let text = check(&summary, 0, &[Outcome::Deployed], &[words, "6/6"])?;
    test_host.only(0, number)?;
    println!("ok  deployed all the same: {}", line(&text, words));
    Ok(())
}

/// Nobody knows what is there, and so it is said. The next deploy clears up.
pub(crate) async fn host_gone(test_host: &mut TestHost<'_>) -> anyhow::Result<()> {
    test_host.demo.commit(Version::Late);
    let app = test_host.demo.app()?;
    let stop = async |demo: &Demo, shown: &Shown| {
        shown.wait("| waiting", 1).await?;
        let server = demo.fleet.servers.first().context("no server")?;
        // Its connections would live on.
        block_in_place(|| {
            server.stop();
            server.kill_connections();
        });
        Ok(())
    };
    let summary = test_host.deploy_while(app, 1, stop).await?;
    let said = ["not cleared up: ", "[request: not sent]", "unknown: "];
    let text = check(&summary, 4, &[Outcome::Unknown], &said)?;
    let left = containers(test_host.daemon(0)?)?;
    ensure!(left.len() == 2, "left: {left:?}");
    println!("ok  unknown, exit code 4: {}", line(&text, said[0]));

    let server = test_host.server(0)?;
    block_in_place(|| server.restart());
    // The next deploy is another process, which remembers no failure.
    let member = test_host.demo.fleet.members.first().context("no host")?;
    member.host.evict();
    let old = left.iter().find(|one| !one.contains("-candidate "));
    let (number, summary) = test_host.deploy(Version::Good, 1).await?;
    let words = "an earlier deploy had left 2 things to put right";
    check(&summary, 0, &[Outcome::Deployed], &[words])?;
    let new = test_host.only(0, number)?;
    ensure!(
        old.is_some_and(|old| !old.starts_with(&new)),
        "the old container"
    );
    println!("ok  the next deploy: {words}");
    Ok(())
}

/// Whenever the connections are lost, in the middle of a request that makes or changes something
/// too: each host ends with the container that it says it has.
pub(crate) async fn any_moment(test_host: &mut TestHost<'_>, rounds: usize) -> anyhow::Result<()> {
    let mut ends = BTreeMap::new();
    for round in 0..rounds {
        let before = [test_host.version(0)?, test_host.version(1)?];
        let number = test_host.demo.commit(Version::Good);
        let app = test_host.demo.app()?;
        let cut = async |demo: &Demo, shown: &Shown| {
            // Most of the time it builds. What comes then has its own rounds.
            if round % 2 == 0 {
                shown
                    .wait("Step 5/5 : LABEL ssh-pool.deploy=shop", 2)
                    .await?;
            }
            for server in &demo.fleet.servers {
                sleep(SPAN.mul_f64(fastrand::f64())).await;
                block_in_place(|| server.kill_connections());
            }
            Ok(())
        };
        let summary = test_host.deploy_while(app, 2, cut).await?;
        for (host, (row, before)) in summary.rows.iter().zip(before).enumerate() {
            let version = match row.outcome {
                Outcome::Deployed => number,
                Outcome::Unchanged | Outcome::RolledBack => before,
                Outcome::Unknown => bail!("the server is up\n{summary}"),
            };
            let only = test_host.only(host, version);
            only.with_context(|| format!("{}\n{summary}", row.host))?;
            *ends.entry(row.outcome.word()).or_insert(0) += 1;
        }
    }
    println!("ok  connections lost at any moment, and each host is what it says: {ends:?}");
    Ok(())
}

/// One host fails alone, and says what is wrong with it.
pub(crate) async fn daemon_down(test_host: &mut TestHost<'_>) -> anyhow::Result<()> {
    let version = test_host.version(1)?;
    let before = test_host.only(1, version)?;
    block_in_place(|| test_host.daemon(1).map(Dockerd::stop))?;
    let (number, summary) = test_host.deploy(Version::Good, 2).await?;
    let words = "no Docker daemon at ";
    let outcomes = [Outcome::Deployed, Outcome::Unchanged];
    let text = check(&summary, 1, &outcomes, &[words, "[request: not sent]"])?;
    test_host.only(0, number)?;
    println!("ok  the other host, exit code 1: {}", line(&text, words));

    block_in_place(|| test_host.daemon(1).map(Dockerd::restart))?;
    let back = eventually_async(SOON, || {
        test_host.only(1, version).is_ok_and(|now| now == before)
    })
    .await;
    ensure!(
        back,
        "what was live does not come back: {:?}",
        test_host.only(1, version)
    );
    println!("ok  what is live comes back with its daemon");
    Ok(())
}
