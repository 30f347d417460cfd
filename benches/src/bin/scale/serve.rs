//! The servers, in a process of their own.

use std::io::Read;
use std::path::PathBuf;
use std::process::Child;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use ssh_pool_tests::Embedded;

use crate::child;

/// How to get to the servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    /// `address:port` of each.
    pub(crate) addresses: Vec<String>,
    /// The private key for all of them.
    pub(crate) key: PathBuf,
    /// The file with the host keys of all of them.
    pub(crate) known_hosts: PathBuf,
}

/// The servers, as their parent sees them.
pub(crate) struct Fleet {
    child: Child,
    place: Place,
}

impl Fleet {
    /// Starts so many and waits until they listen.
    pub(crate) fn start(count: usize) -> anyhow::Result<Self> {
        let mut child = child::start(&["serve", &count.to_string()])?;
        let output = child.stdout.take().context("stdout is a pipe")?;
        let place = child::answer(output)?;
        Ok(Self { child, place })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Ends them. They also end when their parent does, for then their stdin is at its end.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the servers ended with {status}");
        Ok(())
    }
}

/// The child: starts the servers, says where they are, and ends with its stdin.
pub(crate) fn run(count: usize) -> anyhow::Result<()> {
    // A listener and a connection for each; three pipes and the process of each command.
    child::want_descriptors(6 * count as u64 + 100)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let servers = runtime.block_on(Embedded::builder().start_many(count));
    let first = servers.first().context("at least one server")?;
    child::say(&Place {
        addresses: servers
            .iter()
            .map(|server| server.addr().to_string())
            .collect(),
        key: first.client_key(),
        known_hosts: first.known_hosts(),
    })?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
