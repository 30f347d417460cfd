//! Whether a connection is still there, on real servers behind a proxy: what runs on one that is
//! not fails together and in time, what has not begun goes elsewhere, and nothing fails on one
//! that was only out of reach for a moment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ssh_pool::{EventKind, Events, Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{Proxy, Release, Sshd, eventually_async};

mod ended;
mod frozen;
mod quiet;
mod stopped;

/// Long enough for anything that happens at all, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const RELEASES: [Release; 2] = [Release::Installed, Release::Trixie];

/// Keepalives that find out soon, and before anything else does. A server that lives may take four
/// seconds to answer, as on a busy machine.
pub(crate) fn keepalives() -> Timeouts {
    Timeouts::default()
        .keepalive_interval(Duration::from_millis(500))
        .keepalive_misses(8)
        .check(SOON)
}

/// A server, a proxy before it, and a pool that goes through the proxy.
pub(crate) struct Scene {
    pub(crate) sshd: Sshd,
    pub(crate) proxy: Proxy,
    pub(crate) pool: Pool,
    pub(crate) host: Host,
    pub(crate) events: Events,
}

impl Scene {
    pub(crate) fn new(release: Release, limits: Limits, timeouts: Timeouts) -> Self {
        Self::before(Sshd::builder().release(release).start(), limits, timeouts)
    }

    /// Before that server.
    pub(crate) fn before(sshd: Sshd, limits: Limits, timeouts: Timeouts) -> Self {
        let proxy = Proxy::to(sshd.addr());
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known(&sshd, &proxy)))
            .identity(Identity::key_file(sshd.client_key()))
            .limits(limits)
            .timeouts(timeouts)
            .build()
            .unwrap();
        let events = pool.events();
        let host = pool.host(target(&sshd, &proxy)).unwrap();
        Self {
            sshd,
            proxy,
            pool,
            host,
            events,
        }
    }

    /// How many processes run that command on the server.
    pub(crate) fn running(&self, command: &str) -> usize {
        let processes = self.sshd.session_processes();
        (processes.iter())
            .filter(|(_, line)| line == command)
            .count()
    }

    /// The one connection there is was quiet for so long.
    pub(crate) async fn quiet_for(&self, time: Duration) {
        let quiet = || {
            let connections = self.host.status().each_connection;
            (connections.iter()).all(|connection| connection.last_heard >= time)
        };
        assert!(eventually_async(SOON, quiet).await, "{self:?}");
    }

    /// What has happened since the last look.
    pub(crate) fn happened(&mut self) -> Vec<EventKind> {
        let events = std::iter::from_fn(|| self.events.try_next());
        events.map(|event| event.kind).collect()
    }

    /// The next death of a connection, and how many were on it.
    pub(crate) async fn death(&mut self) -> u32 {
        loop {
            let event = tokio::time::timeout(SOON, self.events.next()).await;
            match event.expect("in time").expect("the pool lives").kind {
                EventKind::Died { lost, .. } => return lost,
                other => drop(other),
            }
        }
    }
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}\n{}", self.host.status(), self.sshd.log())
    }
}

/// A known_hosts file for a server behind a proxy.
pub(crate) fn known(sshd: &Sshd, proxy: &Proxy) -> PathBuf {
    let path = sshd.dir().join("proxy_known_hosts");
    let line = proxy.known_hosts_line(&sshd.host_public_key("ed25519"));
    std::fs::write(&path, format!("{line}\n")).unwrap();
    path
}

pub(crate) fn target(sshd: &Sshd, proxy: &Proxy) -> String {
    format!("{}@{}", sshd.user(), proxy.addr())
}

/// A shell line that runs until there is that file.
pub(crate) fn until(file: &Path) -> String {
    format!("until test -e {}; do sleep 0.5; done", file.display())
}

/// How many of them run.
pub(crate) fn waiting_for(file: &Path, sshd: &Sshd) -> usize {
    let line = until(file);
    let processes = sshd.session_processes();
    (processes.iter())
        .filter(|(_, command)| command.contains(&line))
        .count()
}

/// Whether a connection died.
pub(crate) fn is_death(event: &EventKind) -> bool {
    matches!(event, EventKind::Died { .. })
}
