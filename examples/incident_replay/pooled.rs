//! The storm through ssh-pool.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use ssh_pool::{CommandState, Host, HostKeyPolicy, Identity, Pool, Timeouts};
use ssh_pool_examples::explain;
use ssh_pool_tests::{eventually_async, procs};

use crate::ledger::{Id, answers};
use crate::side::{Answer, Asked, Left};
use crate::test_host::TestHost;

/// How long what was lost may take to be closed.
const SOON: Duration = Duration::from_secs(5);

pub(crate) struct Pooled {
    pub(crate) test_host: TestHost,
    pool: Pool,
    host: Host,
    limit: Duration,
    /// The server's processes that are stopped at the moment.
    paused: Mutex<Vec<u32>>,
}

impl Pooled {
    pub(crate) fn start(limit: Duration) -> anyhow::Result<Self> {
        let test_host = TestHost::start()?;
        let known_hosts = test_host.sshd.dir().join("proxy_known_hosts");
        let line = (test_host.proxy).known_hosts_line(&test_host.sshd.host_public_key("ed25519"));
        std::fs::write(&known_hosts, line).context("cannot write known_hosts")?;
        // As much patience with a silent server as the other side has.
        let timeouts = Timeouts::default()
            .keepalive_interval(Duration::from_secs(1))
            .keepalive_misses(2)
            .drain(SOON);
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
            .identity(Identity::key_file(test_host.sshd.client_key()))
            .timeouts(timeouts)
            .build()?;
        let host = pool.host(format!(
            "{}@{}",
            test_host.sshd.user(),
            test_host.proxy.addr()
        ))?;
        Ok(Self {
            test_host,
            pool,
            host,
            limit,
            paused: Mutex::default(),
        })
    }

    /// All there is to it. Nothing is tried again here: what can be is the pool's affair.
    pub(crate) async fn ask(&self, id: Id) -> Asked {
        let mut command = self.host.script(self.test_host.ledger.script(id));
        // The same shell as on the other side, so that times can be compared.
        command.interpreter("bash -se").timeout(self.limit);
        let (answer, hung) = match command.output().await {
            Ok(output) if !output.status.success() => {
                (Answer::Failed(output.status.to_string()), false)
            }
            Ok(output) if answers(&output.stdout, id) => (Answer::Done, false),
            Ok(_) => (Answer::Wrong, false),
            Err(error) => {
                let answer = match error.command_state() {
                    CommandState::NotStarted => Answer::NotStarted(explain(&error)),
                    CommandState::Unknown => Answer::Unknown(explain(&error)),
                };
                (answer, error.is_timeout())
            }
        };
        Asked {
            answer,
            hung,
            ..Asked::default()
        }
    }

    /// The next commands find no connection.
    pub(crate) fn chill(&self) {
        self.host.evict();
    }

    pub(crate) fn pause(&self) {
        let paused = self.test_host.busiest_connection();
        paused.iter().copied().for_each(procs::pause);
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
    }

    pub(crate) fn resume(&self) {
        let paused =
            std::mem::take(&mut *self.paused.lock().unwrap_or_else(PoisonError::into_inner));
        paused.into_iter().for_each(procs::resume);
    }

    pub(crate) fn kill_busiest(&self) {
        let busiest = self.test_host.busiest_connection();
        busiest.into_iter().for_each(procs::kill);
    }

    /// Connections beyond those that the pool knows of.
    pub(crate) async fn left(&self) -> Left {
        let excess = || {
            let status = self.host.status();
            let known = status.connections + status.retiring + status.isolated + status.dialling;
            let known = usize::try_from(known).unwrap_or(usize::MAX);
            self.test_host
                .proxy
                .open_connections()
                .saturating_sub(known)
        };
        eventually_async(SOON, || excess() == 0).await;
        Left {
            stale: 0,
            behind: excess(),
        }
    }

    pub(crate) async fn end(&self) -> Left {
        self.resume();
        self.pool.close().await;
        Left {
            stale: 0,
            behind: self.test_host.open().await,
        }
    }
}
