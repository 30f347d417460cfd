//! One host, as one caller may use it.

use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::command::{Command, CommandContext};
use crate::error::Error;
use crate::forward::{self, Forward};
use crate::group::Deadline;
use crate::host_pools::HostPools;
use crate::pool::Inner;
use crate::readiness::Readiness;
use crate::runtime::within;
use crate::status::HostStatus;
use crate::stream::Connect;
use crate::stream_group::StreamGroup;
use crate::target::Target;
use crate::waited::Waited;

/// A handle to one host of a [`Pool`](crate::Pool). Cheap to clone; making one dials nothing.
///
/// Connections are shared by all handles of a pool that agree on user, host, port, identity,
/// host-key policy, timeouts and limits, and with no other.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// # async fn example(pool: ssh_pool::Pool) -> Result<(), ssh_pool::Error> {
/// let host = pool.host("deploy@web-1:22")?;
/// host.warm().await?; // optional: log in now
/// let out = host.command("docker").args(["ps", "-q"]).output().await?;
/// println!("{}: {}", host.target(), out.stdout_lossy());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Host {
    target: Arc<Target>,
    pools: Arc<HostPools>,
    /// A pool lives as long as its hosts.
    _pool: Arc<Inner>,
    stream_group: Option<StreamGroup>,
}

/// Two handles are equal if they are of one pool, share their connections, and belong to the same
/// group, if any.
impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pools, &other.pools) && self.stream_group == other.stream_group
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.pools).hash(state);
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host")
            .field(self.pools.shared().name())
            .finish()
    }
}

impl Host {
    pub(crate) fn new(target: Target, pools: Arc<HostPools>, pool: Arc<Inner>) -> Self {
        Self {
            target: Arc::new(target),
            pools,
            _pool: pool,
            stream_group: None,
        }
    }

    /// What this handle was made from: account, host and port, and the settings of its own.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A handle to the same host whose streams belong to that group.
    #[must_use]
    pub fn in_group(&self, stream_group: &StreamGroup) -> Self {
        Self {
            stream_group: Some(stream_group.clone()),
            ..self.clone()
        }
    }

    /// The group that the streams of this handle belong to, if it has one.
    #[must_use]
    pub fn group(&self) -> Option<&StreamGroup> {
        self.stream_group.as_ref()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn pools(&self) -> &Arc<HostPools> {
        &self.pools
    }

    fn context(&self) -> CommandContext {
        let limits = self.pools.limits();
        CommandContext {
            pools: self.pools.clone(),
            stream_group: self.stream_group.clone(),
            output_limit: limits.output_bytes,
            stream_limit: limits.stream_bytes,
        }
    }

    /// A command of a program and arguments, each of which reaches it byte for byte.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::program(self.context(), program.as_ref())
    }

    /// A line for the remote shell, as it is: pipes, redirections and variables work.
    #[must_use]
    pub fn shell(&self, line: impl AsRef<OsStr>) -> Command {
        Command::line(self.context(), line.as_ref())
    }

    /// A script of any size, run by `sh -se` from its standard input: no limit of a command
    /// line's length applies, and it stops at the first command that fails. See
    /// [`Command::interpreter`] for another interpreter.
    #[must_use]
    pub fn script(&self, text: impl Into<Vec<u8>>) -> Command {
        Command::script(self.context(), text.into())
    }

    /// A stream to a TCP port that the server connects to (RFC 4254, section 7.2; ssh's `-W`).
    /// `.await` it, or see [`Connect`].
    ///
    /// ```no_run
    /// # use ssh_pool_core as ssh_pool;
    /// # async fn query(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
    /// let mut stream = host.connect_tcp("localhost", 5432).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_tcp(&self, host: impl Into<String>, port: u16) -> Connect {
        self.connect((host, port).into())
    }

    /// A stream to a Unix socket on the server (OpenSSH's `direct-streamlocal@openssh.com`), such
    /// as `/var/run/docker.sock`. `.await` it, or see [`Connect`].
    pub fn connect_unix(&self, path: impl AsRef<Path>) -> Connect {
        self.connect(path.as_ref().into())
    }

    fn connect(&self, to: Address) -> Connect {
        let limit = self.pools.limits().stream_bytes;
        Connect::address(self.pools.clone(), to, limit).in_group(self.stream_group.clone())
    }

    /// A stream to a subsystem of the server (RFC 4254, section 6.5), such as `sftp`. It takes a
    /// session, as commands do. What it writes to standard error is thrown away. `.await` it, or
    /// see [`Connect`].
    pub fn subsystem(&self, name: impl Into<String>) -> Connect {
        let limit = self.pools.limits().stream_bytes;
        Connect::subsystem(self.pools.clone(), name.into(), limit)
            .in_group(self.stream_group.clone())
    }

    /// Listens on this machine, and connects what comes through the server to `to`: ssh's `-L`.
    /// Each connection gets a stream of its own, isolated, as from
    /// [`connect_tcp`](Host::connect_tcp); one that cannot be connected is closed, with a warning
    /// in the trace. The streams are a [`StreamGroup`]: that of this handle, or one of their own.
    ///
    /// An address is `(host, port)` or the path of a socket: see [`Address`]. An empty host listens on
    /// loopback, port 0 on any port: see [`Forward::address`]. A socket file is made, and removed when the
    /// forward is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`], and [`Error::InvalidInput`] for an impossible address. The server is not
    /// asked yet.
    pub async fn forward_local(
        &self,
        listen: impl Into<Address>,
        to: impl Into<Address>,
    ) -> Result<Forward, Error> {
        let limits = self.pools.limits();
        let forward = forward::local(
            self.pools.clone(),
            self.stream_group.clone(),
            listen.into(),
            to.into(),
            limits,
        );
        within(self.pools.shared().runtime(), forward).await
    }

    /// Listens on the server, and connects what comes to `to`, from this machine: ssh's `-R` (RFC
    /// 4254, section 7.1; for sockets OpenSSH's `streamlocal-forward@openssh.com`).
    ///
    /// The forward has a connection of its own. A stream of it that this side reads too slowly
    /// holds up the others of this forward, and nothing else. sshd decides which addresses may be
    /// listened on (`GatewayPorts`, `PermitListen`); port 0 is allocated by it: see
    /// [`Forward::address`]. sshd leaves the file of a Unix socket behind; with
    /// `StreamLocalBindUnlink yes` it may be listened on again.
    ///
    /// # Errors
    ///
    /// [`Error::ForwardRefused`] when the server does not listen, everything of a dial,
    /// [`Error::Timeout`], [`Error::Closed`], and [`Error::InvalidInput`] for an impossible
    /// address.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for the server, it may leave the server listening until its
    /// connection is closed; what connects there is refused.
    pub async fn forward_remote(
        &self,
        listen: impl Into<Address>,
        to: impl Into<Address>,
    ) -> Result<Forward, Error> {
        let limits = self.pools.limits();
        let forward = forward::remote(
            self.pools.clone(),
            self.stream_group.clone(),
            listen.into(),
            to.into(),
            limits,
        );
        within(self.pools.shared().runtime(), forward).await
    }

    /// Makes sure that there is a connection with a channel ready, so that the next command costs
    /// one round trip.
    ///
    /// # Errors
    ///
    /// Those of a dial, [`Error::Closed`], and [`Error::Timeout`] after `Timeouts::acquire`: where
    /// every session is busy it queues like a command.
    ///
    /// # Cancel safety
    ///
    /// A dial that was started goes on.
    pub async fn warm(&self) -> Result<(), Error> {
        let group = self.pools.shared();
        let deadline: Deadline = group.acquire_deadline(None);
        let mut waited = Waited::default();
        let warm = within(group.runtime(), group.warm(deadline, &mut waited)).await;
        warm.map_err(|error| error.having_waited(&waited))
    }

    /// Waits until this host can be used: for a machine that is being set up, which refuses
    /// connections, is silent, does not speak SSH, or does not know the account or its key yet. `.await` it, or see
    /// [`Readiness`]. `deadline` counts from the `.await`.
    ///
    /// ```no_run
    /// # use ssh_pool_core as ssh_pool;
    /// # async fn provision(host: ssh_pool::Host) -> Result<(), ssh_pool::Error> {
    /// use std::time::Duration;
    ///
    /// host.wait_until_ready(Duration::from_secs(300)).await?;
    /// host.command("cloud-init").args(["status", "--wait"]).output().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// At the deadline, what the last try that had come to an end has failed with, such as
    /// [`Error::Connect`] or [`Error::AuthRejected`]; [`Error::Timeout`] where that was silence, or none had
    /// ended. At once, what waiting does not mend: see [`Readiness`].
    pub fn wait_until_ready(&self, deadline: Duration) -> Readiness {
        Readiness::new(self.pools.clone(), deadline)
    }

    /// The same future, polled within the runtime of the pool, whatever polls it: for what the
    /// `ssh-pool` crate builds on this one.
    #[doc(hidden)]
    pub fn within<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        within(self.pools.shared().runtime(), future)
    }

    /// Replaces this host's connections: those there are finish their commands and take no new
    /// ones from this call on, nor does one that is being dialled. If something
    /// runs or waits there, another one is dialled at once; otherwise the next command does that.
    /// A remembered login failure and the learned session limit are forgotten.
    ///
    /// For what a login fixes: group memberships on the server, or keys that have been rotated.
    /// The file of `Identity::key_file` and known_hosts files are read for each dial, and the name is
    /// looked up: the address that was used last comes first, if the name still resolves to it.
    pub fn evict(&self) {
        self.pools.evict();
    }

    /// What is going on with this host, without asking it.
    #[must_use]
    pub fn status(&self) -> HostStatus {
        HostStatus::of(&self.pools)
    }
}
