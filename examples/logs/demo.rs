//! Log files that grow, for servers on this machine.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use ssh_pool_examples::Fleet;
use ssh_pool_tests::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Source;

/// A line in each file this often.
const PACE: Duration = Duration::from_millis(20);

/// Files that grow by numbered lines. They go away when this is dropped.
pub(crate) struct Growing {
    names: Vec<String>,
    /// Of each host.
    folders: Vec<TempDir>,
    stop: watch::Sender<bool>,
    writer: JoinHandle<std::io::Result<u64>>,
}

impl Growing {
    /// Files of these names for each host. Each begins with a few lines that are hard to show.
    pub(crate) fn start(fleet: &Fleet, names: &[&str]) -> anyhow::Result<Self> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let folders: Vec<TempDir> = fleet.members.iter().map(|_| TempDir::new()).collect();
        let mut files = Vec::new();
        for folder in &folders {
            for name in &names {
                let path = folder.path().join(name);
                let mut file = (OpenOptions::new().create(true).append(true))
                    .open(&path)
                    .with_context(|| format!("cannot make {}", path.display()))?;
                // Who logs in is not who writes.
                file.set_permissions(Permissions::from_mode(0o644))?;
                file.write_all(b"0 caf\xe9 \x1b[31mred\r\n")?;
                writeln!(file, "0 {}", "long ".repeat(20_000))?;
                files.push(file);
            }
        }
        let (stop, stopped) = watch::channel(false);
        Ok(Self {
            names,
            folders,
            stop,
            writer: tokio::spawn(grow(files, stopped)),
        })
    }

    /// What there is to follow.
    pub(crate) fn sources(&self, fleet: &Fleet) -> Vec<Source> {
        let mut sources = Vec::new();
        for (member, folder) in fleet.members.iter().zip(&self.folders) {
            for name in &self.names {
                let path: PathBuf = folder.path().join(name);
                sources.push(Source {
                    member: member.clone(),
                    file: path.display().to_string(),
                    label: format!("{} {name}", member.name),
                });
            }
        }
        sources
    }

    /// Stops the growth, and says what the last number in every file is.
    pub(crate) async fn finish(&mut self) -> anyhow::Result<u64> {
        self.stop.send_replace(true);
        Ok((&mut self.writer).await??)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn grow(mut files: Vec<File>, mut stop: watch::Receiver<bool>) -> std::io::Result<u64> {
    let mut pace = tokio::time::interval(PACE);
    let mut number = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(number),
            _ = pace.tick() => {}
        }
        number += 1;
        for file in &mut files {
            // In two pieces, as programs do that write without a buffer.
            write!(file, "{number} a line")?;
            writeln!(file, " of a log")?;
        }
    }
}
