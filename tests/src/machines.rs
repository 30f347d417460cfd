//! Two machines that answer to one name, one after the other.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, PoolBuilder};

use crate::{Names, Sshd, SshdBuilder, TempDir, free_address};

/// Two servers with one port and one account, at two addresses.
#[derive(Debug)]
pub struct Machines {
    /// At 127.0.0.2.
    pub old: Sshd,
    /// At 127.0.0.1, which the C library prefers where the name has both addresses: it is nearer.
    pub new: Sshd,
    folder: TempDir,
}

impl Machines {
    /// The name that both may have.
    pub const NAME: &'static str = "two.test";

    /// Two stock servers.
    #[must_use]
    pub fn start() -> Self {
        Self::of(Sshd::builder(), Sshd::builder())
    }

    /// Two servers with these settings.
    ///
    /// # Panics
    ///
    /// When one of them does not start.
    #[must_use]
    pub fn of(old: SshdBuilder, new: SshdBuilder) -> Self {
        let port = free_address().port();
        let at = |last: u8| SocketAddr::from(([127, 0, 0, last], port));
        let old = old.listen(at(2)).start();
        let new = new.listen(at(1)).start();
        let key = fs::read_to_string(old.client_key().with_extension("pub"));
        new.authorize_only(&key.expect("the client's public key"));
        Self {
            old,
            new,
            folder: TempDir::new(),
        }
    }

    /// From now on the name leads to these.
    pub fn resolve(&self, names: &Names, to: &[&Sshd]) {
        let addresses: Vec<_> = to.iter().map(|sshd| sshd.addr().ip()).collect();
        names.resolve(Self::NAME, &addresses);
    }

    /// Settings of a pool that knows both, and logs in to either.
    ///
    /// # Panics
    ///
    /// When the file of the host keys cannot be written.
    #[must_use]
    pub fn builder(&self) -> PoolBuilder {
        let port = self.old.port();
        let known_hosts = self.folder.path().join("known_hosts");
        let keys = [&self.old, &self.new].map(|sshd| sshd.host_public_key("ed25519"));
        let lines = keys.map(|key| format!("[{}]:{port} {}\n", Self::NAME, key.trim_end()));
        fs::write(&known_hosts, lines.concat()).expect("write known_hosts");
        Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
            .in_current_runtime()
            .identity(Identity::key_file(self.old.client_key()))
    }

    /// The host of that name.
    ///
    /// # Panics
    ///
    /// When the pool is closed.
    #[must_use]
    pub fn host(&self, pool: &Pool) -> Host {
        let target = format!("{}@{}:{}", self.old.user(), Self::NAME, self.old.port());
        pool.host(target).expect("a target")
    }

    /// A folder of this test alone.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
