//! A private server with repositories.

use ssh_pool::git::Git;
use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_tests::{Repos, Sshd, TestUser};

/// It ends when this is dropped.
pub(crate) struct Demo {
    pub(crate) server: Sshd,
    pub(crate) repos: Repos,
    pub(crate) pool: Pool,
    pub(crate) git: Git,
}

impl Demo {
    /// An sshd on loopback, for a user with a plain `/bin/sh`.
    pub(crate) fn start() -> Result<Self, ssh_pool::Error> {
        let user = TestUser::plain();
        let server = Sshd::builder().user(user.clone()).start();
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(server.known_hosts()))
            .identity(Identity::key_file(server.client_key()))
            .build()?;
        Ok(Self {
            git: Git::new(&pool).allow(server.target())?,
            repos: Repos::new(&user),
            pool,
            server,
        })
    }

    pub(crate) fn url(&self, name: &str) -> String {
        self.repos.url(&self.server.target(), name)
    }
}
