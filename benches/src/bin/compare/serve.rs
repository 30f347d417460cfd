//! Very many servers, in a process of their own: `compare serve`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use ssh_pool_tests::Embedded;

use crate::descriptors;

/// The hidden argument; the number of servers follows.
pub(crate) const ARGUMENT: &str = "serve";

/// How to get to the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Servers {
    /// `address:port` of each.
    pub(crate) addresses: Vec<String>,
    /// The private key for all of them.
    pub(crate) key: PathBuf,
    /// The file with the host keys of all of them.
    pub(crate) known_hosts: PathBuf,
}

/// The servers, as their parent sees them. They end when this is dropped, and when their parent
/// ends: then their standard input does.
pub(crate) struct Farm {
    child: Child,
    servers: Servers,
}

impl Farm {
    /// Starts so many and waits until they listen.
    pub(crate) fn start(count: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(&program)
            .args([ARGUMENT, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let servers = serde_json::from_str(&line);
        let servers = servers.with_context(|| format!("no servers: {line:?}"))?;
        Ok(Self { child, servers })
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        match self.child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("the servers ended with {status}"),
            Err(error) => eprintln!("the servers are not waited for: {error}"),
        }
    }
}

/// What the program does as the servers: it starts them, says where they are, and ends with its
/// standard input.
pub(crate) fn main(count: &str) -> anyhow::Result<()> {
    let count: usize = count.parse().context("a number of servers")?;
    ensure!(count > 0, "at least one server");
    // A listener and a connection for each; three pipes and the process of each command.
    descriptors::want(6 * count as u64 + 100)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let servers = runtime.block_on(Embedded::builder().start_many(count));
    let first = servers.first().context("at least one server")?;
    let servers_are = Servers {
        addresses: (servers.iter().map(|server| server.addr().to_string())).collect(),
        key: first.client_key(),
        known_hosts: first.known_hosts(),
    };
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, &servers_are)?;
    stdout.write_all(b"\n")?;
    stdout.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
