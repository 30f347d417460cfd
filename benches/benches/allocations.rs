//! How often a warm command asks for memory, and where: [`Command::output`] over a server in this
//! process that answers at once.
//!
//! ```text
//! cargo bench -p ssh-pool-benches --features internals --bench allocations
//! ```
//!
//! [`Command::output`]: ssh_pool::Command::output

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use ssh_pool::{Host, Limits};
use ssh_pool_core::internals;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const COMMANDS: u32 = 200;

/// What is of interest in a profile of dhat.
#[derive(Deserialize)]
struct Profile {
    #[serde(rename = "pps")]
    places: Vec<Place>,
    #[serde(rename = "ftbl")]
    frames: Vec<String>,
}

#[derive(Deserialize)]
struct Place {
    #[serde(rename = "tbk")]
    blocks: u32,
    #[serde(rename = "tb")]
    bytes: u32,
    #[serde(rename = "fs")]
    frames: Vec<usize>,
}

impl Profile {
    /// The innermost line of the core; the instant server is not the pool.
    fn culprit(&self, place: &Place) -> String {
        let frames = place.frames.iter().filter_map(|at| self.frames.get(*at));
        let mut ours = frames.filter_map(|frame| in_core(frame));
        match ours.next() {
            None => "(elsewhere)".into(),
            Some(line) if line.contains("internals/") => "(the instant server)".into(),
            Some(line) => line.into(),
        }
    }
}

/// The line of a frame, if it is one of the core: dhat shows the last parts of its path.
fn in_core(frame: &str) -> Option<&str> {
    let (_, line) = frame.rsplit_once('(')?;
    let path = line.split(':').next()?;
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let there = [crates.join("ssh-pool-core"), crates]
        .iter()
        .any(|folder| folder.join(path).is_file());
    there.then(|| line.trim_end_matches(')'))
}

async fn run(host: &Host, commands: u32) -> anyhow::Result<()> {
    for _ in 0..commands {
        let mut command = host.command("docker");
        command.args(["ps", "-q"]).output().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn spares(host: &Host, times: u32) -> anyhow::Result<()> {
    for _ in 0..times {
        drop(internals::checkout(host).await?);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let pool = internals::pool(Limits::default())?;
    let host = pool.host("deploy@host-1:22")?;
    run(&host, COMMANDS).await?;

    let file = std::env::temp_dir().join(format!("ssh-pool-dhat-{}.json", std::process::id()));
    let profiler = dhat::Profiler::builder().file_name(&file).build();
    spares(&host, COMMANDS).await?;
    let unused = dhat::HeapStats::get().total_blocks;
    run(&host, COMMANDS).await?;
    drop(profiler);
    let profile = read(&file)?;

    println!(
        "checkout and return of a spare: {} allocations in {COMMANDS}",
        unused
    );
    let mut culprits: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for place in &profile.places {
        let sum = culprits.entry(profile.culprit(place)).or_default();
        sum.0 += place.blocks;
        sum.1 += place.bytes;
    }
    let each = |count: u32| f64::from(count) / f64::from(COMMANDS);
    let mut culprits: Vec<_> = culprits.into_iter().collect();
    culprits.sort_by_key(|(_, (blocks, _))| std::cmp::Reverse(*blocks));
    let all: u32 = culprits.iter().map(|(_, (blocks, _))| blocks).sum();
    let server = culprits.iter().find(|(name, _)| name.starts_with("(the"));
    let server = server.map_or(0, |(_, (blocks, _))| *blocks);
    println!(
        "a warm command: {:.1} allocations, and {:.1} of the instant server",
        each(all - server),
        each(server)
    );
    for (name, (blocks, bytes)) in culprits {
        println!("{:>7.2} {:>8.0} bytes  {name}", each(blocks), each(bytes));
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Profile> {
    let text = std::fs::read(file)?;
    std::fs::remove_file(file)?;
    Ok(serde_json::from_slice(&text)?)
}
