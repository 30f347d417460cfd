//! What the suites that run the pool on real servers share.

use std::time::Duration;

use ssh_pool::{HostKeyPolicy, Identity, Pool, PoolBuilder};
use ssh_pool_tests::{Release, Sshd};

/// Long enough for anything that happens at all, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// For what holds on every OpenSSH. Since 9.8 it punishes those who do not log in.
#[allow(
    dead_code,
    reason = "not every suite needs more than the installed one"
)]
pub(crate) const RELEASES: [Release; 2] = [Release::Installed, Release::Trixie];

/// Settings of a pool that logs in to this server with the key that may.
pub(crate) fn builder(sshd: &Sshd, policy: HostKeyPolicy) -> PoolBuilder {
    Pool::builder(policy).identity(Identity::key_file(sshd.client_key()))
}

/// The policy that knows all of the server's host keys.
pub(crate) fn known(sshd: &Sshd) -> HostKeyPolicy {
    HostKeyPolicy::known_hosts_file(sshd.known_hosts())
}
