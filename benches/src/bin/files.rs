//! Files: ssh-pool beside stock `sftp` and `scp`, on a private sshd, with the same cipher.
//!
//! ```text
//! cargo run --release -p ssh-pool-benches --bin files
//! cargo run --release -p ssh-pool-benches --bin files -- --quick
//! ```
//!
//! One large file up and down, and a tree of small files over a line with a delay. Each run is a
//! process or a pool of its own, with a login of its own; `ssh-pool, warm` has logged in before.
//! The order is drawn anew for each round. Both sides are in memory (`/dev/shm`), where there is
//! one: disks are not what is compared. Each copy is compared with its original.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use ssh_pool::sftp::SftpExt;
use ssh_pool::{Host, HostKeyPolicy, Identity, Pool};
use ssh_pool_benches::order::shuffled;
use ssh_pool_benches::stats;
use ssh_pool_tests::{Proxy, Sshd, TestUser, noise};

const CIPHER: &str = "aes256-gcm@openssh.com";
/// In each direction: 20 ms for a round trip.
const DELAY: Duration = Duration::from_millis(10);
const SMALL: usize = 4 << 10;

/// Measures transfers of files, side by side.
#[derive(Debug, Parser)]
struct Options {
    /// Less data and fewer files: about 30 s.
    #[arg(long)]
    quick: bool,
    /// Size of the large file.
    #[arg(long)]
    mebibytes: Option<usize>,
    /// Rounds of it.
    #[arg(long)]
    rounds: Option<usize>,
    /// Files of the tree; 0: no tree.
    #[arg(long)]
    files: Option<usize>,
    /// Where the files lie.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Writes the result there, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the result there, as a table.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Pool,
    Warm,
    Sftp,
    Scp,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Pool => "ssh-pool",
            Self::Warm => "ssh-pool, warm",
            Self::Sftp => "sftp",
            Self::Scp => "scp",
        }
    }
}

/// What took how long.
struct Row {
    what: String,
    tool: Tool,
    times: Vec<Duration>,
    bytes: usize,
}

/// A server and how it is reached.
struct Place {
    sshd: Sshd,
    addr: SocketAddr,
    known_hosts: PathBuf,
    /// Both are removed in the end.
    local: Folder,
    remote: Folder,
}

struct Folder(PathBuf);

impl Folder {
    fn new(root: &Path) -> anyhow::Result<Self> {
        let name = format!("ssh-pool-bench-{:016x}", RandomState::new().hash_one(0));
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

impl Place {
    fn pool(&self) -> anyhow::Result<(Pool, Host)> {
        let policy = HostKeyPolicy::known_hosts_file(&self.known_hosts);
        let pool = Pool::builder(policy)
            .identity(Identity::key_file(self.sshd.client_key()))
            .build()?;
        let host = pool.host(format!("{}@{}", self.sshd.user(), self.addr))?;
        Ok((pool, host))
    }

    /// `sftp` or `scp` with what ssh needs.
    fn stock(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-q", "-F", "none", "-c", CIPHER, "-P"]);
        command.arg(self.addr.port().to_string()).arg("-i");
        command.arg(self.sshd.client_key());
        for option in [
            "IdentityAgent=none",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
        ] {
            command.args(["-o", option]);
        }
        let known = format!("UserKnownHostsFile={}", self.known_hosts.display());
        command.args(["-o", &known]).stdout(Stdio::null());
        command
    }

    fn target(&self) -> String {
        format!("{}@{}", self.sshd.user(), self.addr.ip())
    }

    /// One copy of a file: how long it took.
    async fn copy(&self, tool: Tool, up: bool, warm: &Host) -> anyhow::Result<Duration> {
        let (local, remote) = match up {
            true => (self.local.join("file"), self.remote.join("copy")),
            false => (self.local.join("copy"), self.remote.join("file")),
        };
        let copy = if up { &remote } else { &local };
        if copy.exists() {
            fs::remove_file(copy)?;
        }
        let sftp = match tool {
            Tool::Warm => Some(warm.sftp().await?),
            _ => None,
        };
        let began = Instant::now();
        match tool {
            Tool::Pool | Tool::Warm => {
                let fresh = match sftp {
                    Some(_) => None,
                    None => Some(self.pool()?),
                };
                let sftp = match (sftp, &fresh) {
                    (Some(sftp), _) => sftp,
                    (None, Some((_, host))) => host.sftp().await?,
                    (None, None) => anyhow::bail!("no session"),
                };
                match up {
                    true => sftp.upload(&local, &remote).await?,
                    false => sftp.download(&remote, &local).await?,
                };
            }
            Tool::Sftp => {
                let batch = batch(&self.local, &local, &remote, up)?;
                let mut command = self.stock("sftp");
                command.arg("-b").arg(&batch).arg(self.target());
                run(command)?;
            }
            Tool::Scp => {
                let there = format!("{}:{}", self.target(), remote.display());
                let mut command = self.stock("scp");
                match up {
                    true => command.arg(&local).arg(there),
                    false => command.arg(there).arg(&local),
                };
                run(command)?;
            }
        }
        let took = began.elapsed();
        let same = fs::read(self.local.join("file"))? == fs::read(copy)?;
        ensure!(same, "{}: the copy differs", tool.name());
        Ok(took)
    }

    /// One copy of the tree.
    async fn copy_tree(&self, tool: Tool) -> anyhow::Result<Duration> {
        let (local, remote) = (self.local.join("tree"), self.remote.join("tree"));
        if remote.exists() {
            fs::remove_dir_all(&remote)?;
        }
        let began = Instant::now();
        if tool == Tool::Pool {
            let (_pool, host) = self.pool()?;
            host.sftp().await?.upload_dir(&local, &remote).await?;
        } else {
            let mut command = self.stock("scp");
            command.arg("-r").arg(&local);
            command.arg(format!("{}:{}", self.target(), remote.display()));
            run(command)?;
        }
        let took = began.elapsed();
        for entry in fs::read_dir(&local)? {
            let original = entry?.path();
            let name = original.file_name().context("a file has a name")?;
            let same = fs::read(&original)? == fs::read(remote.join(name))?;
            ensure!(same, "{}: {} differs", tool.name(), original.display());
        }
        Ok(took)
    }
}

/// The commands for `sftp -b`.
fn batch(folder: &Folder, local: &Path, remote: &Path, up: bool) -> anyhow::Result<PathBuf> {
    let batch = folder.join("batch");
    let line = match up {
        true => format!("put {} {}\n", local.display(), remote.display()),
        false => format!("get {} {}\n", remote.display(), local.display()),
    };
    fs::write(&batch, line)?;
    Ok(batch)
}

fn run(mut command: Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn median(times: &[Duration]) -> f64 {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    stats::median(&seconds).unwrap_or_default()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let defaults = if options.quick {
        (32, 3, 50)
    } else {
        (200, 9, 2000)
    };
    let mebibytes = options.mebibytes.unwrap_or(defaults.0);
    let rounds = options.rounds.unwrap_or(defaults.1);
    let files = options.files.unwrap_or(defaults.2);
    let memory = PathBuf::from("/dev/shm");
    let root = match &options.folder {
        Some(folder) => folder.clone(),
        None if memory.is_dir() => memory,
        None => std::env::temp_dir(),
    };

    let user = TestUser::plain();
    let sshd = Sshd::builder().user(user.clone()).start();
    let mut place = Place {
        addr: sshd.addr(),
        known_hosts: sshd.known_hosts(),
        sshd,
        local: Folder::new(&root)?,
        remote: Folder::new(&root)?,
    };
    user.own(&place.remote.0);
    let mut rows = Vec::new();
    large(&place, mebibytes, rounds, &mut rows).await?;
    if files > 0 {
        tree(&mut place, files, &mut rows).await?;
    }
    report(&options, &rows)
}

async fn large(
    place: &Place,
    mebibytes: usize,
    rounds: usize,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let bytes = noise(mebibytes << 20, 1);
    fs::write(place.local.join("file"), &bytes)?;
    fs::write(place.remote.join("file"), &bytes)?;
    let tools = [Tool::Pool, Tool::Warm, Tool::Sftp, Tool::Scp];
    let first = rows.len();
    for up in [true, false] {
        let what = format!("{mebibytes} MiB {}", if up { "up" } else { "down" });
        rows.extend(tools.map(|tool| Row {
            what: what.clone(),
            tool,
            times: Vec::new(),
            bytes: bytes.len(),
        }));
    }
    let (_pool, host) = place.pool()?;
    host.warm().await?;
    for round in 0..=rounds {
        let runs = [true, false].into_iter();
        let runs = runs.flat_map(|up| tools.map(|tool| (up, tool)));
        for (index, (up, tool)) in shuffled(runs.enumerate().collect()) {
            let took = place.copy(tool, up, &host).await?;
            // The first round warms everything up.
            if round > 0
                && let Some(row) = rows.get_mut(first + index)
            {
                row.times.push(took);
            }
        }
    }
    Ok(())
}

async fn tree(place: &mut Place, files: usize, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let folder = place.local.join("tree");
    fs::create_dir(&folder)?;
    for number in 0..files {
        fs::write(
            folder.join(format!("{number}")),
            noise(SMALL, number as u64),
        )?;
    }
    let proxy = Proxy::to(place.sshd.addr());
    proxy.delay(DELAY);
    let known_hosts = place.local.join("known_hosts");
    let key = place.sshd.host_public_key("ed25519");
    fs::write(&known_hosts, proxy.known_hosts_line(&key))?;
    place.addr = proxy.addr();
    place.known_hosts = known_hosts;
    let what = format!("{files} files of 4 KiB up, 20 ms");
    for (tool, runs) in [(Tool::Pool, 3), (Tool::Scp, 1)] {
        let mut times = Vec::new();
        for _ in 0..runs {
            times.push(place.copy_tree(tool).await?);
        }
        rows.push(Row {
            what: what.clone(),
            tool,
            times,
            bytes: files * SMALL,
        });
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a few hundred mebibytes")]
fn report(options: &Options, rows: &[Row]) -> anyhow::Result<()> {
    let mut table = String::from("| | | seconds | MB/s | × ssh-pool |\n|---|---|---:|---:|---:|\n");
    let mut json = Vec::new();
    for row in rows {
        let seconds = median(&row.times);
        let own = rows.iter().find(|other| other.what == row.what);
        let own = own.map_or(seconds, |own| median(&own.times));
        let rate = row.bytes as f64 / 1e6 / seconds;
        table += &format!(
            "| {} | {} | {seconds:.3} | {rate:.0} | {:.2} |\n",
            row.what,
            row.tool.name(),
            seconds / own
        );
        let times: Vec<f64> = row.times.iter().map(Duration::as_secs_f64).collect();
        json.push(serde_json::json!({
            "what": row.what,
            "tool": row.tool.name(),
            "seconds": times,
            "median": seconds,
            "megabytes_per_second": rate,
            "times_ssh_pool": seconds / own,
        }));
    }
    print!("{table}");
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&json)?)?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, table)?;
    }
    Ok(())
}
