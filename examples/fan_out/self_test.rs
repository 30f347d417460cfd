//! Good deploys and broken ones, on servers of its own: what they return, say and leave.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use indicatif::ProgressDrawTarget;
use ssh_pool::Timeouts;
use ssh_pool_examples::{Fleet, Interrupts};
use ssh_pool_tests::{TempDir, eventually_async};

use crate::deploy::{RECEIVE, Release};
use crate::harm::{self, Harm};
use crate::summary::{Row, State, Summary};
use crate::{places, private, run, timeouts};

/// Long enough for anything that happens at all, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);
/// A pool that would wait longer than this test for a process that nobody has ended: none ends only
/// because its connection is closed.
fn patient() -> Timeouts {
    timeouts().drain(SOON * 10)
}

const CHECK: &str = "./app health";

pub(crate) async fn run_all(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    half_an_upload_is_none().context("half an upload")?;
    good(interrupts).await.context("a good deploy")?;
    // The pool of a fleet is closed after a deploy, as it is after a program's one deploy.
    let cases = [
        (
            Harm::Connect,
            0,
            State::Unchanged,
            "[phase: connect; command: not started]",
        ),
        (Harm::Upload, 0, State::Unchanged, "upload: exit status: 1"),
        (
            Harm::Install,
            1,
            State::Unchanged,
            "  | config: port=eighty is not a number",
        ),
        (Harm::Switch, 2, State::Unchanged, "switch: exit status: 1"),
        (Harm::Check, 3, State::Unhealthy, "  | in maintenance"),
        (
            Harm::Lost,
            1,
            State::Unchanged,
            "[phase: running; command: may have run]",
        ),
    ];
    for (harm, steps, state, said) in cases {
        broken(harm, steps, state, said, interrupts)
            .await
            .with_context(|| format!("--break-one={harm:?}"))?;
    }
    interrupted(interrupts).await.context("an interrupt")?;
    eprintln!("self-test: all is well");
    Ok(())
}

/// What the server does when the connection is lost: its input just ends.
fn half_an_upload_is_none() -> anyhow::Result<()> {
    let folder = TempDir::new();
    for (size, whole) in [(5, false), (4, true)] {
        let mut receive = Command::new("sh")
            .args(["-ec", RECEIVE, "receive"])
            .arg(folder.path())
            .args(["r1", &size.to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdin = receive.stdin.take().context("no stdin")?;
        stdin.write_all(b"1234")?;
        drop(stdin);
        let status = receive.wait()?;
        let there = folder.path().join("releases/r1/app").exists();
        ensure!(
            (status.success(), there) == (whole, whole),
            "4 bytes of {size}: {status}, there: {there}"
        );
    }
    Ok(())
}

async fn deploy(
    fleet: &Fleet,
    folders: &[TempDir],
    release: Release,
    at_once: usize,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Summary> {
    let draw = ProgressDrawTarget::hidden();
    let places = places(fleet, folders);
    let deploy = run(fleet, places, release, at_once, draw, interrupts);
    let bounded = tokio::time::timeout(SOON, deploy);
    bounded.await.context("it did not end")?
}

/// What `current` leads to.
fn current(folder: &Path) -> Option<String> {
    let link = fs::read_link(folder.join("current")).ok()?;
    Some(link.display().to_string())
}

/// Everything is there, over one login each.
async fn good(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    let (fleet, folders) = private(5, patient())?;
    for folder in &folders {
        fs::write(folder.path().join("config"), "port=80\n")?;
        // What a deploy before this one has left.
        std::os::unix::fs::symlink("releases/old", folder.path().join("current"))?;
    }
    let mut release = Release::new(CHECK);
    let name = release.name.clone();
    // More than a window, so that it has to be fed.
    release.app.resize(5_000_000, b'\n');
    let app = release.app.clone();
    let summary = deploy(&fleet, &folders, release, 2, interrupts).await?;

    let text = summary.to_string();
    ensure!(summary.code() == 0, "exit code {}\n{text}", summary.code());
    ensure!(
        text.lines().count() == 7 && text.ends_with(": 5 hosts, 5 live\n"),
        "{text}"
    );
    for (row, folder) in summary.rows.iter().zip(&folders) {
        ensure!(row.steps.done == 4 && row.state() == State::Live, "{row:?}");
        let dir = folder.path();
        ensure!(current(dir) == Some(format!("releases/{name}")), "{row:?}");
        ensure!(
            fs::read(dir.join("current/app"))? == app,
            "{row:?}: another file"
        );
        ensure!(
            fs::read(dir.join("current/config"))? == b"port=80\n",
            "{row:?}: config"
        );
    }
    for server in &fleet.servers {
        ensure!(server.accepted() == 1, "{} logins", server.accepted());
    }
    Ok(())
}

/// The last host fails where it is made to, says so, and is the only one.
async fn broken(
    harm: Harm,
    steps: usize,
    state: State,
    said: &str,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    let (fleet, folders) = private(3, patient())?;
    let (server, folder) = (fleet.servers.last(), folders.last());
    let (server, folder) = (server.context("no server")?, folder.context("no folder")?);
    harm.prepare(server, folder)?;
    let release = Release::new(CHECK);
    let name = release.name.clone();
    let summary = tokio::select! {
        summary = deploy(&fleet, &folders, release, 8, interrupts) => summary?,
        never = harm::strike(Some(harm), Some(server)) => match never {},
    };

    let text = summary.to_string();
    ensure!(summary.code() == 1, "exit code {}\n{text}", summary.code());
    let last = summary.rows.last().context("no rows")?;
    ensure!(
        last.steps.done == steps && last.state() == state,
        "{text}\n{last:?}"
    );
    ensure!(text.contains(said), "\"{said}\" is not in\n{text}");
    let counts = format!("release {name}: 3 hosts, 2 live, 1 {}\n", state.short());
    ensure!(text.ends_with(&counts), "\"{counts}\" does not end\n{text}");
    let others: Vec<&Row> = summary
        .rows
        .iter()
        .filter(|row| row.failure.is_none())
        .collect();
    ensure!(others.len() == 2, "{text}");
    for (row, folder) in summary.rows.iter().zip(&folders) {
        let has_it = current(folder.path()) == Some(format!("releases/{name}"));
        let should = matches!(row.state(), State::Live | State::Unhealthy);
        ensure!(has_it == should, "{} has another release\n{text}", row.host);
    }
    Ok(())
}

/// No more hosts are busy at once than may be. After an interrupt nobody goes on, nobody begins, and
/// no remote process is left.
async fn interrupted(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    const AT_ONCE: usize = 2;
    let (fleet, folders) = private(3, patient())?;
    for folder in &folders {
        harm::hang(folder.path())?;
    }
    let hanging = || {
        fleet
            .servers
            .iter()
            .filter(|server| harm::hangs(server))
            .count()
    };
    let story = async {
        let begun = eventually_async(SOON, || hanging() == AT_ONCE).await;
        ensure!(begun, "{} scripts run", hanging());
        // What Ctrl-C sends.
        let id = std::process::id().to_string();
        let status = Command::new("kill").args(["-INT", &id]).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    };
    let release = Release::new(CHECK);
    let deploy = deploy(&fleet, &folders, release, AT_ONCE, interrupts);
    let (summary, ()) = tokio::try_join!(deploy, story)?;
    let text = summary.to_string();
    ensure!(
        summary.code() == 130,
        "exit code {}\n{text}",
        summary.code()
    );
    ensure!(
        text.matches("install: interrupted").count() == AT_ONCE
            && text.matches("not begun: interrupted").count() == 1,
        "{text}"
    );
    ensure!(text.ends_with(": 3 hosts, 0 live, 3 unchanged\n"), "{text}");
    let ended = eventually_async(SOON, || hanging() == 0).await;
    ensure!(ended, "{} scripts are left", hanging());
    Ok(())
}
