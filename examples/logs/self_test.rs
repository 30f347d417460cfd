//! Everything that the program promises, checked on servers of its own.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ssh_pool::Timeouts;
use ssh_pool_examples::{Fleet, Interrupts};
use ssh_pool_tests::{Sshd, TempDir, eventually_async};

use crate::demo::Growing;
use crate::printer::Screen;
use crate::{Source, Summary, limits, run, timeouts};

/// Long enough for anything that happens at all, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);
const FILES: [&str; 2] = ["app.log", "access.log"];

/// A pool that would wait longer than this test for a process that nobody has ended: none ends only
/// because its connection is closed.
fn patient() -> Timeouts {
    timeouts().drain(SOON * 10)
}

/// What has been shown, by label. Behind it there is no terminal.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<u8>>>);

impl Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seen {
    fn text(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&all).into_owned()
    }

    /// The lines of each label.
    fn lines(&self) -> BTreeMap<String, Vec<String>> {
        let mut lines = BTreeMap::<_, Vec<_>>::new();
        for line in self.text().lines() {
            if let Some((label, rest)) = line.split_once(": ") {
                lines
                    .entry(label.to_owned())
                    .or_default()
                    .push(rest.to_owned());
            }
        }
        lines
    }

    /// The last number of each label.
    fn last(&self) -> BTreeMap<String, u64> {
        let last = |lines: Vec<String>| lines.last().and_then(|line| number(line)).unwrap_or(0);
        (self.lines().into_iter())
            .map(|(label, lines)| (label, last(lines)))
            .collect()
    }
}

fn number(line: &str) -> Option<u64> {
    line.split(' ').next()?.parse().ok()
}

/// The remote processes that follow something.
fn tails(servers: &[Sshd]) -> Vec<String> {
    (servers.iter())
        .flat_map(Sshd::session_processes)
        .map(|(_, line)| line)
        .filter(|line| line.contains("tail -c"))
        .collect()
}

/// Sends this process what Ctrl-C sends.
fn interrupt() -> anyhow::Result<()> {
    let id = std::process::id().to_string();
    let status = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status()?;
    ensure!(status.success(), "kill: {status}");
    Ok(())
}

async fn bounded(
    program: impl Future<Output = anyhow::Result<Summary>>,
) -> anyhow::Result<Summary> {
    let ended = tokio::time::timeout(SOON * 2, program).await;
    ended.context("it did not end")?
}

pub(crate) async fn run_all(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    follows_over_a_lost_connection(interrupts)
        .await
        .context("following, losing, interrupting")?;
    ends_after_so_many_lines(interrupts)
        .await
        .context("--lines")?;
    a_slow_terminal_costs_no_line(interrupts)
        .await
        .context("a slow terminal")?;
    eprintln!("self-test: all is well");
    Ok(())
}

/// Lines of all hosts arrive, one connection is lost in the middle, and Ctrl-C ends it all.
async fn follows_over_a_lost_connection(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    let fleet = Fleet::private(3, limits(FILES.len()), patient())?;
    let mut growing = Growing::start(&fleet, &FILES)?;
    let sources = growing.sources(&fleet);
    let labels: Vec<String> = sources.iter().map(|source| source.label.clone()).collect();
    let (seen, notes) = (Seen::default(), Seen::default());
    let screen = Screen {
        lines: Box::new(seen.clone()),
        notes: Box::new(notes.clone()),
    };
    let program = bounded(run(&fleet, sources, true, None, screen, interrupts));
    let story = async {
        let beyond = |label: &String, number| seen.last().get(label) > Some(&number);
        let all = eventually_async(SOON, || labels.iter().all(|label| beyond(label, 10))).await;
        ensure!(all, "no lines of some: {:?}", seen.last());
        for server in &fleet.servers {
            let (connections, target) = (server.accepted(), server.target());
            ensure!(connections == 1, "{connections} connections to {target}");
        }

        let before = seen.last();
        let victim = fleet.servers.get(1).context("no second server")?;
        tokio::task::block_in_place(|| victim.kill_connections());
        let on = eventually_async(SOON, || {
            labels
                .iter()
                .all(|label| beyond(label, before.get(label).unwrap_or(&0) + 20))
        });
        ensure!(
            on.await,
            "not followed any more: {:?}, {}",
            seen.last(),
            notes.text()
        );
        ensure!(
            victim.accepted() == 2,
            "{} logins after one loss",
            victim.accepted()
        );
        let told = notes.text();
        for told_of in [
            "web-2 app.log: ",
            "web-2 access.log: ",
            "connection was lost",
            "following again",
        ] {
            ensure!(
                told.contains(told_of),
                "\"{told_of}\" was not said:\n{told}"
            );
        }
        ensure!(!told.contains("web-1"), "a neighbour felt it:\n{told}");

        // From here on nothing is written, so that no tail ends because its pipe has gone.
        let last = growing.finish().await?;
        let come = eventually_async(SOON, || seen.last().values().all(|number| *number == last));
        ensure!(come.await, "lines are missing: {:?} of {last}", seen.last());
        check_lines(&seen, last)?;
        // Those of the lost connection ended when they wrote to nobody.
        let six = eventually_async(SOON, || tails(&fleet.servers).len() >= labels.len()).await;
        ensure!(six, "tails: {:?}", tails(&fleet.servers));
        interrupt()
    };
    let (summary, ()) = tokio::try_join!(program, story)?;
    let Summary { code, reports } = summary;
    ensure!(code == 130, "exit code {code}");
    ensure!(reports.len() == labels.len(), "{reports:?}");
    for report in &reports {
        // The server has said that its process has ended.
        ensure!(report.problem.is_none(), "{report:?}");
        let lost = report.label.starts_with("web-2");
        ensure!((report.restarts > 0) == lost, "{report:?}");
    }
    nothing_is_left(&fleet).await
}

/// Every line once and in order, also those around the loss, and those that are hard to show.
fn check_lines(seen: &Seen, last: u64) -> anyhow::Result<()> {
    for (label, lines) in seen.lines() {
        let mut lines = lines.iter();
        let (odd, long) = (lines.next(), lines.next());
        let odd = odd.map(String::as_str);
        ensure!(
            odd == Some("0 caf\u{fffd} \\u{1b}[31mred"),
            "{label}: {odd:?}"
        );
        let long = long.context("no long line")?;
        ensure!(
            long.ends_with("bytes more)") && long.len() < 20_000,
            "{label}: {}",
            long.len()
        );
        for expected in 1..=last {
            let line = lines.next();
            ensure!(
                line == Some(&format!("{expected} a line of a log")),
                "{label}: {line:?} in the place of {expected}"
            );
        }
        ensure!(lines.next().is_none(), "{label}: too many lines");
    }
    Ok(())
}

async fn nothing_is_left(fleet: &Fleet) -> anyhow::Result<()> {
    let ended = eventually_async(SOON, || tails(&fleet.servers).is_empty()).await;
    ensure!(ended, "left behind: {:?}", tails(&fleet.servers));
    let idle = || fleet.servers.iter().all(|s| s.open_connections() == 0);
    let gone = eventually_async(SOON, idle).await;
    ensure!(gone, "connections are still open");
    Ok(())
}

async fn ends_after_so_many_lines(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    let fleet = Fleet::private(1, limits(1), patient())?;
    let growing = Growing::start(&fleet, &["app.log"])?;
    let seen = Seen::default();
    let screen = Screen {
        lines: Box::new(seen.clone()),
        notes: Box::new(io::sink()),
    };
    let sources = growing.sources(&fleet);
    let summary = bounded(run(&fleet, sources, false, Some(7), screen, interrupts)).await?;
    let lines = seen.text().lines().count();
    ensure!(
        (summary.code, lines) == (0, 7),
        "{summary:?}, {lines} lines"
    );
    nothing_is_left(&fleet).await
}

/// A terminal that takes nothing before its gate is opened.
struct Held {
    gate: Option<Receiver<()>>,
    seen: Seen,
}

impl Held {
    fn new(seen: Seen) -> (Self, SyncSender<()>) {
        let (open, gate) = sync_channel(1);
        let gate = Some(gate);
        (Self { gate, seen }, open)
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = self.gate.take() {
            // A gate whose other end has gone is open too.
            gate.recv().ok();
        }
        self.seen.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// While nothing is shown, no more is kept than a cap; later every line is there.
async fn a_slow_terminal_costs_no_line(interrupts: &mut Interrupts) -> anyhow::Result<()> {
    const LINES: u64 = 150_000;
    let fleet = Fleet::private(1, limits(1), patient())?;
    let folder = TempDir::new();
    let path = folder.path().join("big.log");
    let text: String = (1..=LINES)
        .map(|number| format!("{number} {:64}\n", ""))
        .collect();
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    let member = fleet.members.first().context("no member")?.clone();
    let sources = vec![Source {
        member,
        file: path.display().to_string(),
        label: "web-1".into(),
    }];
    let seen = Seen::default();
    let (held, open) = Held::new(seen.clone());
    let screen = Screen {
        lines: Box::new(held),
        notes: Box::new(io::sink()),
    };
    let program = bounded(run(&fleet, sources, true, Some(LINES), screen, interrupts));
    let server = fleet.servers.first().context("no server")?;
    let story = async {
        let begun = eventually_async(SOON, || server.accepted() > 0).await;
        ensure!(begun, "it never began");
        // The pool ends a tail that has more to say than is kept. It comes back when it is read.
        let cut = eventually_async(SOON, || {
            let host = fleet.members.first().map(|member| member.host.status());
            tails(&fleet.servers).is_empty()
                && host.is_some_and(|status| status.commands >= 2 && status.running == 0)
        });
        ensure!(cut.await, "tails: {:?}", tails(&fleet.servers));
        ensure!(seen.text().is_empty(), "the gate is open");
        open.send(()).context("no terminal")
    };
    let (summary, ()) = tokio::try_join!(program, story)?;
    ensure!(summary.code == 0, "{summary:?}");
    ensure!(
        summary.reports.iter().any(|report| report.restarts > 0),
        "{summary:?}"
    );
    let numbers: Vec<u64> = (seen.lines().remove("web-1").unwrap_or_default().iter())
        .filter_map(|line| number(line))
        .collect();
    ensure!(
        numbers.iter().copied().eq(1..=LINES),
        "{} of {LINES} lines, or not in order",
        numbers.len()
    );
    nothing_is_left(&fleet).await
}
