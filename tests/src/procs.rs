//! What `/proc` knows: the processes below a server, and what this process itself holds (Linux).

use std::collections::{HashMap, HashSet};
use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A process, told apart from a later one with the same id by the time it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    started: u64,
}

impl Process {
    /// The live process with that id.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self {
            pid,
            started: stat.started,
        })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }
}

/// The live processes started by `pid`, directly.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = live()
        .filter(|(_, stat)| stat.parent == pid)
        .map(|(pid, _)| pid)
        .collect();
    found.sort_unstable();
    found
}

/// All live processes below these, parents before their children.
#[must_use]
pub fn descendants(of: &[u32]) -> Vec<u32> {
    let mut below: HashMap<u32, Vec<u32>> = HashMap::new();
    for (child, stat) in live() {
        below.entry(stat.parent).or_default().push(child);
    }
    let mut found: Vec<u32> = of
        .iter()
        .filter_map(|pid| below.remove(pid))
        .flatten()
        .collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(below.remove(&parent).unwrap_or_default());
        next += 1;
    }
    found
}

/// The live processes whose environment, as they were started, holds exactly `entry`
/// (`NAME=value`). Processes of other users are seen by root alone.
#[must_use]
pub fn with_environment(entry: &str) -> Vec<u32> {
    live()
        .map(|(pid, _)| pid)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == entry.as_bytes())
            })
        })
        .collect()
}

/// The live processes whose command line holds `text`; see [`command_line`].
#[must_use]
pub fn with_command_line(text: &str) -> Vec<u32> {
    live()
        .map(|(pid, _)| pid)
        .filter(|pid| command_line(*pid).is_some_and(|line| line.contains(text)))
        .collect()
}

/// Whether the process runs. One that has ended and was not waited for does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    Stat::read(pid).is_some()
}

/// Whether a live process waits for something (state S), such as a reader of what it writes.
#[must_use]
pub fn waits(pid: u32) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.waits)
}

/// The short name of a live process, as in `ps -o comm`.
#[must_use]
pub fn name(pid: u32) -> Option<String> {
    Stat::read(pid).map(|stat| stat.name)
}

/// The command line of a live process, joined by spaces. sshd writes its state there.
#[must_use]
pub fn command_line(pid: u32) -> Option<String> {
    Stat::read(pid)?;
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = raw
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    Some(words.join(" "))
}

/// Stops a process where it stands (SIGSTOP): it keeps its sockets and answers nothing.
pub fn pause(pid: u32) {
    send_signal(pid, Signal::SIGSTOP);
}

/// Lets a [paused](pause) process go on (SIGCONT).
pub fn resume(pid: u32) {
    send_signal(pid, Signal::SIGCONT);
}

/// Kills a process (SIGKILL).
pub fn kill(pid: u32) {
    send_signal(pid, Signal::SIGKILL);
}

/// How many file descriptors this process has open.
#[must_use]
pub fn open_files() -> usize {
    // The descriptor that reads the folder is in the listing.
    entries("/proc/self/fd").saturating_sub(1)
}

/// How many threads this process has.
#[must_use]
pub fn threads() -> usize {
    entries("/proc/self/task")
}

/// The established connections to these ports of the loopback: the inodes of their clients'
/// sockets, which no other socket has at the same time.
#[must_use]
pub fn connections_to(ports: &[u16]) -> HashSet<u64> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/self/net/tcp").expect("read /proc/self/net/tcp");
    let inode = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let (remote, state) = (fields.next()?, fields.next()?);
        // Behind queues, timers, retransmissions, the user and probes.
        let inode: u64 = fields.nth(5)?.parse().ok()?;
        let (_, port) = remote.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (ports.contains(&port) && state == ESTABLISHED).then_some(inode)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// How much memory of this process is resident, in bytes.
#[must_use]
pub fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let kibibytes: usize = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .expect("VmRSS in /proc/self/status");
    kibibytes * 1024
}

/// Sends a signal to one process; one that has gone is no error.
pub(crate) fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id fits an i32");
    // Zero and below address whole groups, among them our own.
    assert!(pid > 0, "{pid} is not a process");
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("list {folder}: {e}"))
        .count()
}

fn live() -> impl Iterator<Item = (u32, Stat)> {
    fs::read_dir("/proc")
        .expect("list /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?)))
}

struct Stat {
    name: String,
    waits: bool,
    parent: u32,
    started: u64,
}

impl Stat {
    /// `None` for a process that has ended, waited for or not. See proc_pid_stat(5).
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything, parentheses too.
        let (_, rest) = text.split_once('(')?;
        let (name, rest) = rest.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let state = *fields.first()?;
        if matches!(state, "Z" | "X") {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            waits: state == "S",
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}
