//! A host of its own: a private dockerd behind a private sshd.

use std::fmt;

use anyhow::Context as _;
use ssh_pool::{Host, Limits, Timeouts};
use ssh_pool_examples::{Fleet, Member};
use ssh_pool_tests::{Dockerd, Sshd, TestUser};

/// How the pool gets from the server to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A stream to its socket.
    Stream,
    /// `docker system dial-stdio`, for this server opens no streams to sockets.
    DialStdio,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Stream => "stream",
            Way::DialStdio => "dial-stdio",
        })
    }
}

pub(crate) struct TestHost {
    pub(crate) fleet: Fleet,
    pub(crate) dockerd: Dockerd,
}

impl TestHost {
    pub(crate) fn start(way: Way) -> anyhow::Result<Self> {
        let mut sshd = Sshd::builder().user(TestUser::plain());
        if way == Way::DialStdio {
            sshd = sshd.option("AllowStreamLocalForwarding no");
        }
        let fleet = Fleet::on([sshd.start()], Limits::default(), Timeouts::default())?;
        Ok(Self {
            fleet,
            dockerd: Dockerd::start(),
        })
    }

    /// The host.
    pub(crate) fn host(&self) -> anyhow::Result<&Host> {
        Ok(&self.member()?.host)
    }

    /// The host, and how it is called.
    pub(crate) fn member(&self) -> anyhow::Result<&Member> {
        self.fleet.members.first().context("no host")
    }

    /// How many connections have logged in.
    pub(crate) fn logins(&self) -> usize {
        self.fleet.servers.iter().map(Sshd::accepted).sum()
    }

    /// The processes of `docker system dial-stdio` on the server.
    pub(crate) fn processes(&self) -> usize {
        let all = self.fleet.servers.iter().flat_map(Sshd::session_processes);
        all.filter(|(_, line)| line.starts_with("docker ") && line.ends_with("dial-stdio"))
            .count()
    }
}
