//! What a process and all below it use: processor time and memory (Linux).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Between two looks at the memory of a tree.
const INTERVAL: Duration = Duration::from_millis(10);
/// How often memory is looked at until it has settled, and for how long.
const SETTLING: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(3);

/// All live processes below that one. Unlike a look through all of `/proc` this costs next to
/// nothing, and can be done beside a measurement.
pub(crate) fn below(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(children(parent));
        next += 1;
    }
    found
}

/// See `/proc/pid/task/tid/children` in proc(5): each thread has children of its own.
fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| {
            let pids: Vec<u32> = line
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            pids
        })
        .collect()
}

/// Waits for children that have ended and that nobody will wait for: those of children that have
/// ended before them. Not to be called while a child of somebody else's may end.
pub(crate) fn reap() {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// The processor time, user and system, that this process and all below it have used so far: those
/// that have been [reaped](reap), and those that live.
pub(crate) fn processor_time() -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        let micros = usage.user_time() + usage.system_time();
        sum += Duration::from_micros(micros.num_microseconds().try_into()?);
    }
    // Masters are not waited for before they end.
    for pid in below(std::process::id()) {
        sum += live_time(pid).unwrap_or_default();
    }
    Ok(sum)
}

/// The processor time of all threads of a live process, to the nanosecond.
fn live_time(pid: u32) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let on_processor = line.split_whitespace().next()?.parse().ok()?;
        sum += Duration::from_nanos(on_processor);
    }
    Some(sum)
}

/// The resident set of a process, in KiB.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, "VmRSS:")
}

/// The largest resident set that this process has had so far, in KiB.
pub(crate) fn peak_resident() -> anyhow::Result<i64> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.max_rss())
}

/// The memory that this process shares with nobody, in KiB, once it does not change any more.
///
/// # Errors
///
/// Without `/proc/self/smaps_rollup` (Linux 4.14).
pub(crate) fn settled_private() -> anyhow::Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = private()?;
    loop {
        // Nobody tells when buffers are given back. Until then there is nothing to be done.
        std::thread::sleep(SETTLING);
        let now = private()?;
        if now == last || Instant::now() >= deadline {
            return Ok(now);
        }
        last = now;
    }
}

fn private() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let [clean, dirty] =
        ["Private_Clean:", "Private_Dirty:"].map(|name| field(&text, name).context(name));
    Ok(clean? + dirty?)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Watches the resident sets of a process and all below it, until it is asked.
#[derive(Debug)]
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    peak: mpsc::Receiver<u64>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn over(pid: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (sender, peak) = mpsc::channel();
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            loop {
                let tree = below(pid).into_iter().chain([pid]);
                peak = peak.max(tree.filter_map(resident).sum());
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Nobody tells when a process grows.
                std::thread::sleep(INTERVAL);
            }
            // Whoever does not ask does not want to know.
            let _ = sender.send(peak);
        });
        Self { over, peak, thread }
    }

    /// The largest sum seen, in KiB.
    pub(crate) fn peak(self) -> anyhow::Result<u64> {
        self.over.store(true, Ordering::Relaxed);
        let peak = self.peak.recv().context("the watch has ended early")?;
        // It has sent its last.
        let _ = self.thread.join();
        Ok(peak)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_tree_is_seen_with_its_grandchildren_and_their_memory() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'sleep 20; :' & echo; wait"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut tree = Vec::new();
        let whole = ssh_pool_tests::eventually(Duration::from_secs(10), || {
            tree = below(shell.id());
            tree.len() == 2
        });
        let sizes: Vec<u64> = tree.iter().copied().filter_map(resident).collect();
        let watch = Watch::over(shell.id());
        let alone = resident(shell.id()).unwrap();
        let peak = watch.peak().unwrap();
        for pid in tree.iter().chain([&shell.id()]) {
            ssh_pool_tests::procs::kill(*pid);
        }
        shell.wait().unwrap();
        assert!(whole, "{tree:?}");
        assert_eq!(sizes.len(), 2, "{tree:?}");
        assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
        assert!(peak > alone, "{peak} is no more than the shell's {alone}");
        assert!(below(shell.id()).is_empty());
    }

    #[test]
    fn a_live_child_is_in_the_processor_time() {
        let before = processor_time().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let counted = ssh_pool_tests::eventually(Duration::from_secs(20), || {
            live_time(child.id()).is_some_and(|time| time > Duration::from_millis(200))
        });
        let after = processor_time().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(counted);
        assert!(after - before >= Duration::from_millis(200));
    }
}
