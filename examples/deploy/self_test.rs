//! Good versions and bad ones, lost connections and hosts: what is said, and what really is on the
//! hosts afterwards.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ssh_pool_examples::Interrupts;
use ssh_pool_tests::{eventually_async, procs};

use crate::demo::{BALLAST, Demo, Version};
use crate::losses::{any_moment, daemon_down, host_gone, interrupted, lost_in_build, lost_log};
use crate::summary::Outcome;
use crate::test_host::{Live, SOON, Shown, TestHost, check, line};

/// A host is logged in to once for commands and short requests, and once for each stream that is
/// open at the same time: an archive and its build.
const LOGINS: usize = 3;
/// What a deploy may take of our memory, above all connections of the first one.
const MEMORY: usize = 24 << 20;

pub(crate) async fn run_all(interrupts: &mut Interrupts, rounds: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut test_host = TestHost::start(interrupts)?;
    let test_host = &mut test_host;
    first(test_host).await.context("a first deploy")?;
    let live = second(test_host).await.context("a second version")?;
    for bad in BAD {
        let context = || format!("{:?}", bad.version);
        rolled_back(test_host, &bad, &live)
            .await
            .with_context(context)?;
    }
    no_build(test_host, &live).await.context("no build")?;
    no_revision(test_host, &live).await.context("no revision")?;
    lost_in_build(test_host, &live)
        .await
        .context("lost in a build")?;
    let cases = [
        (Version::LongBuild, "compiling", Outcome::Unchanged),
        (Version::Late, "waiting", Outcome::RolledBack),
    ];
    for (version, shown, outcome) in cases {
        let context = || format!("an interrupt of {version:?}");
        interrupted(test_host, version, shown, outcome, &live)
            .await
            .with_context(context)?;
    }
    any_moment(test_host, rounds).await.context("any moment")?;
    lost_log(test_host).await.context("a lost log")?;
    host_gone(test_host).await.context("a host that goes")?;
    daemon_down(test_host)
        .await
        .context("a daemon that is down")?;
    nothing_is_left(test_host).await.context("the end")?;
    println!("self-test: all is well, after {:.0?}", began.elapsed());
    Ok(())
}

const DEPLOYED: [Outcome; 2] = [Outcome::Deployed; 2];

async fn first(test_host: &mut TestHost<'_>) -> anyhow::Result<()> {
    let began = Instant::now();
    let (number, summary) = test_host.deploy(Version::Good, 2).await?;
    let took = began.elapsed();
    check(&summary, 0, &DEPLOYED, &["6/6", "shop-1 "])?;
    test_host.only_on_both(number)?;
    let one_by_one: Duration = summary.rows.iter().map(|row| row.took).sum();
    ensure!(took < one_by_one, "{took:?}, and {one_by_one:?} one by one");
    let logins = test_host.logins();
    println!(
        "ok  a first deploy on two hosts: {took:.1?} for both ({one_by_one:.1?} one by one), \
         logins: {logins:?}"
    );
    Ok(())
}

async fn second(test_host: &mut TestHost<'_>) -> anyhow::Result<Live> {
    let old = test_host.only_on_both(1)?;
    let number = test_host.demo.commit(Version::Large);
    let app = test_host.demo.app()?;
    let before = procs::resident_bytes();
    let mut most = before;
    let watch = async |_: &Demo, shown: &Shown| {
        let sent = eventually_async(SOON, || {
            most = most.max(procs::resident_bytes());
            shown.count(" | Step 1/5 : FROM base") == 2
        });
        ensure!(sent.await, "no build has begun");
        Ok(())
    };
    let summary = test_host.deploy_while(app, 2, watch).await?;
    check(&summary, 0, &DEPLOYED, &["shop-2 "])?;
    let memory = most - before;
    ensure!(
        memory < MEMORY,
        "{memory} bytes for two contexts of {BALLAST}"
    );
    let ids = test_host.only_on_both(number)?;
    ensure!(old.iter().all(|id| !ids.contains(id)), "the same container");
    let logins = test_host.logins();
    ensure!(
        logins.iter().all(|count| *count <= LOGINS),
        "logins: {logins:?}"
    );
    println!(
        "ok  a second version replaces the first: its files run, the old container and image are \
         gone; logins for both deploys: {logins:?}"
    );
    println!(
        "ok  its two contexts of {} MB took {:.1} MB of memory here",
        BALLAST / 1_000_000,
        f64::from(u32::try_from(memory)?) / 1e6
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

async fn rolled_back(test_host: &mut TestHost<'_>, bad: &Bad, live: &Live) -> anyhow::Result<()> {
    test_host.demo.commit(bad.version);
    let mut app = test_host.demo.app()?;
    if bad.version == Version::Late {
        app.patience = Duration::from_secs(3);
    }
    let nothing = async |_: &Demo, _: &Shown| Ok(());
    let summary = test_host.deploy_while(app, bad.hosts, nothing).await?;
    let outcomes = vec![Outcome::RolledBack; bad.hosts];
    let said = [
        bad.why,
        bad.log,
        "4/6",
        "rolled back: the old container runs",
    ];
    let text = check(&summary, 3, &outcomes, &said)?;
    live.is_untouched(test_host)?;
    println!("ok  rolled back, exit code 3: {}", line(&text, bad.why));
    Ok(())
}

async fn no_build(test_host: &mut TestHost<'_>, live: &Live) -> anyhow::Result<()> {
    let (_, summary) = test_host.deploy(Version::NoBuild, 2).await?;
    let said = ["returned a non-zero code: 9", "| no such header", "2/6"];
    let text = check(&summary, 1, &[Outcome::Unchanged; 2], &said)?;
    live.is_untouched(test_host)?;
    println!("ok  unchanged, exit code 1: {}", line(&text, "non-zero"));
    Ok(())
}

async fn no_revision(test_host: &mut TestHost<'_>, live: &Live) -> anyhow::Result<()> {
    // An option, if nobody took care.
    for revision in ["nowhere", "--all", "-h"] {
        let mut app = test_host.demo.app()?;
        app.revision = revision.to_owned();
        let summary = test_host.deploy_while(app, 2, async |_, _| Ok(())).await?;
        let said = ["git rev-parse: exit status: 128", "| fatal: ", "1/6"];
        check(&summary, 1, &[Outcome::Unchanged; 2], &said)?;
    }
    live.is_untouched(test_host)?;
    println!("ok  unchanged, exit code 1: a revision that is not there");
    Ok(())
}

async fn nothing_is_left(test_host: &TestHost<'_>) -> anyhow::Result<()> {
    println!(
        "ok  logins in all, for {} deploys and all the connections that were lost: {:?}",
        test_host.deploys,
        test_host.logins()
    );
    test_host.demo.fleet.pool.close().await;
    let idle = || {
        let mut servers = test_host.demo.fleet.servers.iter();
        servers
            .all(|server| server.open_connections() == 0 && server.session_processes().is_empty())
    };
    let idle = eventually_async(SOON, idle).await;
    ensure!(idle, "connections or processes are left");
    println!("ok  no connection and no process is left");
    Ok(())
}
