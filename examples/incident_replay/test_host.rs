//! A server, the way to it, and what breaks on both. Each contender has one of its own.

use std::time::Duration;

use ssh_pool_tests::{Proxy, Sshd, TestUser, eventually_async, procs};

use crate::ledger::Ledger;

/// How long what was set off may take to be over.
const SOON: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct TestHost {
    // The clients go through the proxy, so it goes before the server.
    pub(crate) proxy: Proxy,
    pub(crate) sshd: Sshd,
    pub(crate) ledger: Ledger,
}

impl TestHost {
    /// A stock sshd for a user with a plain `/bin/sh`.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let user = TestUser::plain();
        let ledger = Ledger::new(&user)?;
        let sshd = Sshd::builder().user(user).start();
        Ok(Self {
            proxy: Proxy::to(sshd.addr()),
            sshd,
            ledger,
        })
    }

    /// Kills (SIGKILL) what serves the connections.
    pub(crate) fn kill_connections(&self) {
        tokio::task::block_in_place(|| self.sshd.kill_connections());
    }

    /// The server's processes for the connection with the most commands.
    pub(crate) fn busiest_connection(&self) -> Vec<u32> {
        // A monitor for each connection; below it the process that runs as the user, and below that
        // the commands.
        let below = |monitor| (procs::descendants(&[monitor]), monitor);
        let connections = procs::children(self.sshd.pid()).into_iter().map(below);
        let Some((mut found, monitor)) = connections.max_by_key(|(below, _)| below.len()) else {
            return Vec::new();
        };
        found.retain(|pid| procs::name(*pid).is_some_and(|name| name.starts_with("sshd")));
        found.push(monitor);
        found
    }

    /// A restart that takes the connections along, as a reboot does.
    pub(crate) fn restart(&self) {
        tokio::task::block_in_place(|| {
            self.sshd.stop();
            self.sshd.kill_connections();
            self.sshd.restart();
        });
    }

    /// Waits until no command runs: the ledger is complete then. `false` when one does not end.
    pub(crate) async fn is_quiet(&self) -> bool {
        let runs = |(_, line): &(u32, String)| line.contains("bash -se");
        eventually_async(SOON, || !self.sshd.session_processes().iter().any(runs)).await
    }

    /// How many connections are still there when all should be gone.
    pub(crate) async fn open(&self) -> usize {
        let open = || {
            self.sshd
                .open_connections()
                .max(self.proxy.open_connections())
        };
        eventually_async(SOON, || open() == 0).await;
        open()
    }
}
