//! One measurement in a process of its own.
//!
//! The program runs itself again, as `compare worker`: what to do comes in on its standard input,
//! what it found goes out on its standard output, both in JSON. So nobody pays for what another
//! one has left in memory, and a contender that hangs is killed without harm to the rest.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use ssh_pool_benches::report::names::metric;
use ssh_pool_tests::{eventually, procs};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::contender::Contender;
use crate::scenario::Job;
use crate::usage::{self, Watch};

/// The hidden argument.
pub(crate) const ARGUMENT: &str = "worker";
/// How long masters may take to end once they are asked to.
const PATIENCE: Duration = Duration::from_secs(5);
const KIB_PER_MIB: f64 = 1024.0;

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) contender: Contender,
    pub(crate) job: Job,
}

/// What it has found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Metrics and their values.
    pub(crate) values: Vec<(String, f64)>,
    /// Why commands have failed, one entry for each.
    pub(crate) failures: Vec<String>,
    /// Lines on standard error that nobody asked for.
    pub(crate) noise: Vec<String>,
}

impl Found {
    pub(crate) fn value(&self, metric: &str) -> Option<f64> {
        let mut values = self.values.iter();
        Some(values.find(|(name, _)| name == metric)?.1)
    }

    pub(crate) fn set(&mut self, metric: &str, value: f64) {
        self.values.push((metric.to_owned(), value));
    }
}

/// Ends a worker and whatever is below it.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        let Some(pid) = self.0.id() else {
            return;
        };
        // While the worker lives, what detaches itself from its parent is still below it.
        let gone = eventually(PATIENCE, || kill_below(pid));
        if !gone {
            eprintln!("processes below {pid} survive");
        }
        procs::kill(pid);
    }
}

/// Ends all processes below this one.
pub(crate) fn end_all_below() {
    let gone = eventually(PATIENCE, || {
        usage::reap();
        kill_below(std::process::id())
    });
    if !gone {
        eprintln!("processes of a worker survive");
    }
}

/// Kills all below a process: whether there was nothing left.
fn kill_below(pid: u32) -> bool {
    let left: Vec<u32> = usage::below(pid)
        .into_iter()
        .filter(|pid| procs::is_alive(*pid))
        .collect();
    left.iter().copied().for_each(procs::kill);
    left.is_empty()
}

/// Lets a worker do it. With `watched`, its peak memory is among the values: the resident sets of
/// the whole tree, in MiB.
///
/// # Errors
///
/// What the worker says when it fails, or that it took longer than the limit.
pub(crate) async fn run(spec: Spec, limit: Duration, watched: bool) -> anyhow::Result<Found> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(ARGUMENT)
        .env_remove("SSH_AUTH_SOCK")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut leash = Leash(command.spawn()?);
    let child = &mut leash.0;
    let pid = child.id().context("a process that runs")?;
    let mut stdin = child.stdin.take().context("a worker has a stdin")?;
    let mut stdout = child.stdout.take().context("a worker has a stdout")?;
    let mut stderr = child.stderr.take().context("a worker has a stderr")?;
    let watch = watched.then(|| Watch::over(pid));
    let (mut found, mut words) = (Vec::new(), Vec::new());
    let work = async {
        stdin.write_all(&serde_json::to_vec(&spec)?).await?;
        drop(stdin);
        tokio::try_join!(
            tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut found),
            tokio::io::AsyncReadExt::read_to_end(&mut stderr, &mut words),
        )?;
        anyhow::Ok(child.wait().await?)
    };
    let ended = timeout(limit, work).await;
    let peak = watch.map(Watch::peak).transpose()?;
    let Ok(status) = ended else {
        bail!("no end after {} s", limit.as_secs());
    };
    let status = status?;
    if !status.success() {
        let words = String::from_utf8_lossy(&words);
        match words.trim().lines().last() {
            Some(line) => bail!("{}", line.trim_start_matches("Error: ")),
            None => bail!("{status}"),
        }
    }
    let mut found: Found = serde_json::from_slice(&found)?;
    if let Some(peak) = peak {
        #[allow(clippy::cast_precision_loss, reason = "KiB are far below 2^52")]
        found.set(metric::PEAK_MEMORY, peak as f64 / KIB_PER_MIB);
    }
    Ok(found)
}

/// What the program does as a worker.
pub(crate) fn main() -> anyhow::Result<()> {
    // Masters of ssh detach themselves; here they stay, to be counted and to be ended.
    prctl::set_child_subreaper(true)?;
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let spec: Spec = serde_json::from_slice(&text).context("a spec in JSON")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let mut end = signal(SignalKind::terminate())?;
        // On a thread of the runtime, as in a server; that of `block_on` would be woken each time.
        let work = tokio::spawn(spec.job.work(spec.contender));
        tokio::select! {
            found = work => found?,
            _ = end.recv() => bail!("ended from outside"),
        }
    });
    drop(runtime);
    let mut asked = false;
    let gone = eventually(PATIENCE, || {
        usage::reap();
        // Who has been asked to end gets the time to; after an error nobody was asked.
        asked |= found.is_err();
        match asked {
            true => kill_below(std::process::id()),
            false => usage::below(std::process::id()).is_empty(),
        }
    });
    if !gone {
        kill_below(std::process::id());
        usage::reap();
    }
    let found = match found {
        // One line, for a note.
        Err(error) => bail!("{}", format!("{error:#}").replace('\n', " ")),
        Ok(found) => found,
    };
    std::io::stdout().write_all(&serde_json::to_vec(&found)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_hangs_ends_with_all_below_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'sleep 20; :' & echo; wait"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id().unwrap();
        let mut line = [0];
        let mut stdout = child.stdout.take().unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut line)
            .await
            .unwrap();
        // From here on all of it ends, also when this test fails.
        let leash = Leash(child);
        let mut tree = Vec::new();
        let sleeps = eventually(PATIENCE, || {
            tree = usage::below(pid);
            tree.len() == 2
        });
        assert!(sleeps, "{tree:?}");
        drop(leash);
        tree.push(pid);
        let gone = eventually(PATIENCE, || !tree.iter().any(|pid| procs::is_alive(*pid)));
        assert!(gone, "{tree:?}");
    }

    #[test]
    fn a_spec_survives_the_way_to_its_worker() {
        let place = crate::place::Place {
            addr: ([127, 0, 0, 1], 2222).into(),
            user: "somebody".into(),
            key: "/key".into(),
            known_hosts: "/known hosts".into(),
            folder: "/f".into(),
            same_cipher: true,
        };
        for contender in Contender::ALL {
            let job = Job::Warm {
                place: place.clone(),
                warm_up: 1,
                commands: 2,
            };
            let spec = Spec { contender, job };
            let text = serde_json::to_vec(&spec).unwrap();
            assert_eq!(serde_json::from_slice::<Spec>(&text).unwrap(), spec);
        }
    }
}
