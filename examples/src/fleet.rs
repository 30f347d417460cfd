//! The hosts that an example works on: yours, or servers of its own.

use ssh_pool::{Host, HostKeyPolicy, Identity, Limits, Pool, Target, Timeouts};
use ssh_pool_tests::{Sshd, TestUser};

/// A pool, and the hosts in it.
#[derive(Debug)]
pub struct Fleet {
    /// All connections.
    pub pool: Pool,
    /// The hosts, in order.
    pub members: Vec<Member>,
    /// Private servers, one for each host, which end when they are dropped.
    pub servers: Vec<Sshd>,
}

/// One host.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it is called in front of people.
    pub name: String,
    /// Who is logged in to, and as whom.
    pub target: Target,
    /// Its handle.
    pub host: Host,
}

impl Fleet {
    /// Hosts of your own, known and logged in to as ssh does without a configuration. Nothing is
    /// dialled yet.
    ///
    /// # Errors
    ///
    /// [`ssh_pool::Error::InvalidInput`] for a malformed target.
    pub fn of(
        targets: &[String],
        limits: Limits,
        timeouts: Timeouts,
    ) -> Result<Self, ssh_pool::Error> {
        let pool = Pool::builder(HostKeyPolicy::known_hosts()) // an unknown host key is refused
            .identity(Identity::like_ssh()) // the agent, then the default key files
            .limits(limits)
            .timeouts(timeouts)
            .build()?;
        let members = targets.iter().map(|target| {
            let name = target.clone();
            let target: Target = target.parse()?;
            Ok(Member {
                name,
                host: pool.host(target.clone())?,
                target,
            })
        });
        let members = members.collect::<Result<_, ssh_pool::Error>>()?;
        Ok(Self {
            pool,
            members,
            servers: Vec::new(),
        })
    }

    /// `count` private servers on loopback, for a user with a plain `/bin/sh`: `web-1`, `web-2`…
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of). A server that does not start is a panic that says why.
    pub fn private(
        count: usize,
        limits: Limits,
        timeouts: Timeouts,
    ) -> Result<Self, ssh_pool::Error> {
        let start = |_| Sshd::builder().user(TestUser::plain()).start();
        Self::on((0..count).map(start), limits, timeouts)
    }

    /// Private servers that have been started already: `web-1`, `web-2`…
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn on(
        servers: impl IntoIterator<Item = Sshd>,
        limits: Limits,
        timeouts: Timeouts,
    ) -> Result<Self, ssh_pool::Error> {
        let mut fleet = Self::of(&[], limits, timeouts)?;
        for (number, server) in (1..).zip(servers) {
            // Each has keys of its own, which replace the pool's identity and host-key policy.
            let target = Target::try_from(server.target())?
                .identity(Identity::key_file(server.client_key()))
                .host_key_policy(HostKeyPolicy::known_hosts_file(server.known_hosts()));
            fleet.members.push(Member {
                name: format!("web-{number}"),
                host: fleet.pool.host(target.clone())?,
                target,
            });
            fleet.servers.push(server);
        }
        Ok(fleet)
    }
}
