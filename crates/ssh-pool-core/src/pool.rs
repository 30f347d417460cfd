//! The pool: which host is which, and the end of everything.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::algorithms::Algorithms;
use crate::buffered::Buffered;
use crate::error::Error;
use crate::event::{Events, Reporter};
use crate::group::{
    Budgets, ConnectionGroup, GroupConfig, GroupKind, GroupTimeouts, SharedBreaker,
};
use crate::host::Host;
use crate::host_key::HostKeyPolicy;
use crate::host_pools::HostPools;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::maintenance;
use crate::runtime;
use crate::status::PoolStatus;
use crate::target::Target;
use crate::timeouts::Timeouts;
use crate::transport::{self, Endpoint, PhaseCell, Transport};

/// Who may share a connection: callers for whom all of this is equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    user: String,
    host: String,
    port: u16,
    identity: Identity,
    policy: HostKeyPolicy,
    limits: Arc<Limits>,
    timeouts: Arc<Timeouts>,
    algorithms: Arc<Algorithms>,
}

/// A pool of SSH connections that live in this process. Cheap to clone; the clones are one pool.
///
/// Nothing is stored on disk: no socket, no pid file, no lock. When the last handle, host and
/// running command are gone, so is every connection.
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// use ssh_pool::{HostKeyPolicy, Pool};
///
/// # async fn example() -> Result<(), ssh_pool::Error> {
/// let pool = Pool::builder(HostKeyPolicy::known_hosts()).build()?;
/// for name in ["web-1", "web-2"] {
///     let uptime = pool.host(name)?.command("uptime").output().await?;
///     print!("{name}: {}", uptime.stdout_lossy());
/// }
/// pool.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("hosts", &self.inner.map().len())
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    policy: HostKeyPolicy,
    identity: Identity,
    algorithms: Arc<Algorithms>,
    limits: Arc<Limits>,
    timeouts: Arc<Timeouts>,
    transport: Arc<dyn Transport>,
    runtime: Handle,
    budgets: Budgets,
    buffered: Arc<Buffered>,
    /// Of hosts without a connection group.
    no_phase: Arc<PhaseCell>,
    reporter: Arc<Reporter>,
    hosts: Mutex<HashMap<Key, Arc<HostPools>>>,
    closed: AtomicBool,
}

/// Settings of a [`Pool`].
///
/// ```no_run
/// # use ssh_pool_core as ssh_pool;
/// use std::time::Duration;
/// use ssh_pool::{HostKeyPolicy, Identity, Limits, Pool, Timeouts};
///
/// # async fn example() -> Result<(), ssh_pool::Error> {
/// let pool = Pool::builder(HostKeyPolicy::known_hosts())
///     .identity(Identity::key_file("/etc/deploy/id_ed25519"))
///     .limits(Limits::default().connections_per_host(2))
///     .timeouts(Timeouts::default().connect(Duration::from_secs(5)))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PoolBuilder {
    policy: HostKeyPolicy,
    identity: Identity,
    algorithms: Algorithms,
    limits: Limits,
    timeouts: Timeouts,
    in_current_runtime: bool,
}

impl PoolBuilder {
    /// Who we are, unless a [`Target`] says otherwise. Default: [`Identity::like_ssh`].
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Which algorithms to use, unless a [`Target`] says otherwise. Default: [`Algorithms::default`].
    #[must_use]
    pub fn algorithms(mut self, algorithms: Algorithms) -> Self {
        self.algorithms = algorithms;
        self
    }

    /// How much of everything. Default: [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long for everything. Default: [`Timeouts::default`].
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// The tasks of the pool run in the tokio runtime that [`build`](Self::build) is called in, and
    /// end with it: running commands are then lost with their connections, and every further call
    /// gets [`Error::RuntimeEnded`]. That runtime has to be polled for anything to go on, so one on a
    /// single thread serves no caller outside of it.
    ///
    /// Default: they run on threads of this library's own, which all pools of the process share.
    #[must_use]
    pub fn in_current_runtime(mut self) -> Self {
        self.in_current_runtime = true;
        self
    }

    /// Makes the pool. Nothing is dialled.
    ///
    /// It may be built and used in any runtime, in several at once, and outside of one: its
    /// connections outlive the runtime of a caller, so it may be kept in a `static`.
    ///
    /// It does not outlive a `fork`: a child process has none of its threads, and a call on it waits
    /// for ever there. A pool that is built in the child has threads of its own.
    ///
    /// ```no_run
    /// # use ssh_pool_core as ssh_pool;
    /// use std::sync::LazyLock;
    ///
    /// use ssh_pool::{HostKeyPolicy, Pool};
    ///
    /// static POOL: LazyLock<Pool> = LazyLock::new(|| {
    ///     let pool = Pool::builder(HostKeyPolicy::known_hosts()).build();
    ///     pool.expect("settings that are in range")
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a limit or timeout out of range, a pinned key or PEM text that
    /// cannot be read, an unknown algorithm, when the threads of the first pool cannot be started, or for
    /// [`in_current_runtime`](Self::in_current_runtime) where there is none.
    pub fn build(self) -> Result<Pool, Error> {
        let runtime = match self.in_current_runtime {
            true => current_runtime()?,
            false => runtime::own().map_err(|error| Error::InvalidInput {
                what: "moment for a pool",
                reason: format!("its threads cannot be started: {error}"),
            })?,
        };
        self.build_in(runtime, Arc::<transport::Russh>::default())
    }

    /// On another transport, in the runtime of the caller.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn build_on(self, transport: Arc<dyn Transport>) -> Result<Pool, Error> {
        self.build_in(current_runtime()?, transport)
    }

    fn build_in(self, runtime: Handle, transport: Arc<dyn Transport>) -> Result<Pool, Error> {
        let Self {
            policy,
            identity,
            algorithms,
            limits,
            timeouts,
            in_current_runtime: _,
        } = self;
        limits.validate()?;
        timeouts.validate()?;
        policy.validate()?;
        identity.validate()?;
        transport::check_identity(&identity)?;
        transport::check_algorithms(&algorithms)?;
        #[cfg(feature = "metrics")]
        crate::metrics::describe();
        let inner = Arc::new(Inner {
            budgets: Budgets::new(&limits),
            buffered: Arc::new(Buffered::new(limits.buffered_bytes)),
            no_phase: Arc::default(),
            policy,
            identity,
            algorithms: Arc::new(algorithms),
            limits: Arc::new(limits),
            timeouts: Arc::new(timeouts),
            transport,
            runtime: runtime.clone(),
            reporter: Arc::default(),
            hosts: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let limiter = inner.budgets.limiter().clone();
        runtime.spawn(maintenance::run(Arc::downgrade(&inner), limiter));
        Ok(Pool { inner })
    }
}

fn current_runtime() -> Result<Handle, Error> {
    Handle::try_current().map_err(|_| Error::InvalidInput {
        what: "place for a pool",
        reason: "its tasks are to run in the current tokio runtime, and there is none here".into(),
    })
}

impl Pool {
    /// Settings for a new pool. How host keys are trusted is the one choice without a default.
    #[must_use]
    pub fn builder(policy: HostKeyPolicy) -> PoolBuilder {
        PoolBuilder {
            policy,
            identity: Identity::like_ssh(),
            algorithms: Algorithms::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            in_current_runtime: false,
        }
    }

    /// A handle to a host: `user@host:port`, `ssh://user@host:port` or a [`Target`]. Dials
    /// nothing, so it also works for a host that is down.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a malformed target, an unreadable pin or PEM text or an unknown
    /// algorithm in it, a timeout or limit of it that is out of range, or a limit that only a pool has;
    /// [`Error::Closed`] after
    /// [`close`](Pool::close).
    pub fn host<T>(&self, target: T) -> Result<Host, Error>
    where
        T: TryInto<Target>,
        T::Error: Into<Error>,
    {
        let target: Target = target.try_into().map_err(Into::into)?;
        target
            .own_policy()
            .map_or(Ok(()), HostKeyPolicy::validate)?;
        if let Some(identity) = target.own_identity() {
            identity.validate()?;
            transport::check_identity(identity)?;
        }
        target.own_timeouts().map_or(Ok(()), Timeouts::validate)?;
        if let Some(limits) = target.own_limits() {
            limits.validate()?;
            limits.check_within(&self.inner.limits)?;
        }
        target
            .own_algorithms()
            .map_or(Ok(()), transport::check_algorithms)?;
        let pools = self.inner.pools(&target)?;
        Ok(Host::new(target, pools, self.inner.clone()))
    }

    /// What the pool is doing.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let limits = &self.inner.limits;
        let mut hosts: Vec<crate::HostStatus> = (self.inner.hosts().iter())
            .map(|pools| crate::HostStatus::of(pools))
            .collect();
        hosts.sort_by(|a, b| a.target.cmp(&b.target));
        let Inner {
            budgets, buffered, ..
        } = &*self.inner;
        PoolStatus {
            hosts,
            waiting: budgets.queue().waiting(),
            waiting_limit: limits.queued_commands,
            connections: budgets.limiter().used(),
            connections_limit: limits.connections,
            buffered_bytes: buffered.bytes(),
            buffered_bytes_limit: limits.buffered_bytes,
        }
    }

    /// What happens to the connections of this pool from now on: see [`Event`](crate::Event). For
    /// the moment itself, without history, see [`status`](Pool::status).
    ///
    /// ```no_run
    /// # use ssh_pool_core as ssh_pool;
    /// # fn watch(pool: ssh_pool::Pool) {
    /// use ssh_pool::EventKind;
    ///
    /// let mut events = pool.events();
    /// tokio::spawn(async move {
    ///     while let Some(event) = events.next().await {
    ///         match event.kind {
    ///             EventKind::Died { .. } | EventKind::DialFailed { .. } => {
    ///                 eprintln!("{}: {}", event.target, event.kind);
    ///             }
    ///             _ => {} // more kinds may come
    ///         }
    ///     }
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.reporter.listen()
    }

    /// Closes the pool: from this call on, new and queued work gets [`Error::Closed`]. Running
    /// commands finish, for up to `Timeouts::drain`; then the connections say goodbye, and a command
    /// that still ran gets [`Error::ConnectionLost`].
    ///
    /// Handles are not waited for: a detached process is left to itself, and streams, SFTP sessions
    /// and forwards end when no command runs any more and they have been quiet for a second.
    ///
    /// The returned future waits for that. It is cancel safe: dropping it stops the waiting, not
    /// the closing.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        self.inner.closed.store(true, Ordering::SeqCst);
        let hosts = self.inner.hosts();
        hosts.iter().for_each(|pools| pools.close());
        hosts.iter().for_each(|pools| pools.stop());
        let drain = self.inner.timeouts.drain;
        let closing = self.inner.runtime.spawn(async move {
            let all = futures_util::future::join_all(hosts.iter().map(|pools| pools.drained()));
            if tokio::time::timeout(drain, all).await.is_err() {
                tracing::warn!("commands still ran when the drain timeout of the pool passed");
                hosts.iter().for_each(|pools| pools.close_control());
                hosts.iter().for_each(|pools| pools.stop_control());
                futures_util::future::join_all(hosts.iter().map(|pools| pools.disconnect_all()))
                    .await;
            }
        });
        async move {
            // The task neither panics nor is aborted while the runtime lives.
            closing.await.ok();
        }
    }

    /// While this is there, tasks are started where the pool's run: for the `ssh-pool` crate.
    #[doc(hidden)]
    #[must_use]
    pub fn enter(&self) -> impl Sized + '_ {
        self.inner.runtime.enter()
    }
}

impl Inner {
    /// The runtime has ended that this pool was to run in: nothing will be answered any more.
    pub(crate) fn runtime_ended(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let hosts = self.hosts();
        hosts.iter().for_each(|pools| pools.close());
        hosts.iter().for_each(|pools| pools.close_control());
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Key, Arc<HostPools>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shortest time after which a connection may have to be closed.
    pub(crate) fn shortest_timeout(&self) -> Duration {
        let hosts = self.map();
        let hosts = hosts.values().map(|pools| pools.timeouts());
        let shortest = |timeouts: &Timeouts| timeouts.idle.min(timeouts.lifetime);
        hosts
            .map(shortest)
            .fold(shortest(&self.timeouts), Duration::min)
    }

    pub(crate) fn hosts(&self) -> Vec<Arc<HostPools>> {
        self.map().values().cloned().collect()
    }

    fn pools(&self, target: &Target) -> Result<Arc<HostPools>, Error> {
        let key = Key {
            user: target.user().to_owned(),
            host: target.host().to_owned(),
            port: target.port(),
            identity: target.own_identity().unwrap_or(&self.identity).clone(),
            policy: target.own_policy().unwrap_or(&self.policy).clone(),
            limits: or_own(&self.limits, target.own_limits()),
            timeouts: or_own(&self.timeouts, target.own_timeouts()),
            algorithms: or_own(&self.algorithms, target.own_algorithms()),
        };
        let mut map = self.map();
        // Checked under the lock that `close` takes to see the hosts: none slips through.
        if self.closed.load(Ordering::SeqCst) {
            let target = target.to_string();
            return Err(Error::closed(target, &self.runtime));
        }
        if let Some(pools) = map.get(&key) {
            return Ok(pools.clone());
        }
        let pools = Arc::new(self.new_pools(target, &key));
        map.insert(key, pools.clone());
        Ok(pools)
    }

    fn new_pools(&self, target: &Target, key: &Key) -> HostPools {
        let Key {
            limits, timeouts, ..
        } = key;
        let endpoint = Endpoint {
            name: target.to_string().into(),
            user: key.user.clone(),
            host: key.host.clone(),
            port: key.port,
            identity: key.identity.clone(),
            policy: key.policy.clone(),
            algorithms: key.algorithms.clone(),
            connect_timeout: timeouts.connect,
            agent_timeout: timeouts.agent,
            hello_timeout: Duration::MAX,
            // Each group has one of its own.
            phase_cell: self.no_phase.clone(),
            keepalive_interval: timeouts.keepalive_interval,
            keepalive_misses: timeouts.keepalive_misses,
            auth_attempts: limits.auth_attempts,
            auth_cooldown: timeouts.auth_cooldown,
            rekey: (limits.rekey_bytes, timeouts.rekey),
            isolated: false,
            buffered: Some(self.buffered.clone()),
            reporter: Some(self.reporter.clone()),
        };
        let config = GroupConfig {
            connections: limits.connections_per_host,
            held_connections: limits.isolated_per_host,
            urgent_connections: limits.grouped_per_host,
            sessions: limits.sessions_per_connection,
            streams: limits.streams_per_connection,
            handshakes: limits.handshakes_per_host,
            expand_after: timeouts.patience,
            idle: timeouts.idle,
            recovery: timeouts.limit_recovery,
            drain: timeouts.drain,
            check: timeouts.check,
            idle_each: false,
        };
        let group_timeouts = GroupTimeouts {
            acquire: timeouts.acquire,
            lifetime: timeouts.lifetime,
            kill_grace: timeouts.kill_grace,
            check_after: timeouts.check_after,
            check: timeouts.check,
        };
        let (isolated, grouped) = (limits.isolated_per_host, limits.grouped_per_host);
        let budget = self.budgets.of(&key.host, key.port);
        let breaker = SharedBreaker::default();
        let (transport, runtime) = (self.transport.clone(), self.runtime.clone());
        let reporter = self.reporter.clone();
        HostPools::new(limits.clone(), timeouts.clone(), move |kind| {
            let (mut endpoint, mut config) = (endpoint.clone(), config.clone());
            let mut budget = budget.clone();
            match kind {
                GroupKind::Shared => {}
                GroupKind::Isolated | GroupKind::Grouped => {
                    endpoint.isolated = true;
                    config.connections = isolated;
                    config.held_connections = 0;
                    config.urgent_connections = 0;
                    config.sessions = 1;
                    config.idle_each = true;
                    // A busy connection is not worth waiting for: what runs there may never end.
                    config.expand_after = Duration::ZERO;
                    if kind == GroupKind::Grouped {
                        config.connections = grouped;
                        budget = budget.for_stream_groups();
                    }
                }
                GroupKind::Control => {
                    config.connections = 1;
                    config.held_connections = 0;
                    config.urgent_connections = 0;
                    budget = budget.for_control();
                }
            }
            ConnectionGroup::new(
                endpoint,
                transport.clone(),
                config,
                group_timeouts.clone(),
                budget,
                breaker.clone(),
                reporter.clone(),
                runtime.clone(),
            )
        })
    }

    /// Drops the hosts that have no handles and nothing to remember, so that a pool which has met
    /// many does not keep them all.
    pub(crate) fn forget_unused(&self) {
        self.map()
            .retain(|_, pools| Arc::strong_count(pools) > 1 || !pools.is_unused());
    }
}

/// The pool's settings, unless a target has other ones.
fn or_own<T: Clone + PartialEq>(pool: &Arc<T>, own: Option<&T>) -> Arc<T> {
    match own {
        Some(own) if *own != **pool => Arc::new(own.clone()),
        _ => pool.clone(),
    }
}
