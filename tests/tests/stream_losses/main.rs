//! Connections that go away under children, streams and forwards: everybody is told, nobody is
//! told that all went well, and nothing is left of it. In a test binary of its own, because it
//! counts this process's descriptors and tasks.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ssh_pool::{CommandState, Error, Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{Proxy, Sshd, TestUser, eventually_async, procs};
use tokio::time::timeout;

mod children;
mod forwards;
mod servers;
mod streams;

/// One test at a time: what is counted belongs to the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// Far longer than anything here takes: for things that would otherwise hang.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// A peer that is silent for four seconds is gone: more than a busy machine is silent.
const KEEPALIVE: (Duration, usize) = (Duration::from_millis(200), 20);

pub(crate) struct Place {
    pub(crate) sshd: Sshd,
    pub(crate) proxy: Proxy,
    pub(crate) host: Host,
}

/// What this process holds.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    files: usize,
    tasks: usize,
}

impl Holdings {
    fn now() -> Self {
        Self {
            files: procs::open_files(),
            tasks: tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
        }
    }
}

impl Place {
    /// A stock sshd behind a proxy.
    fn new() -> Self {
        let sshd = Sshd::builder().user(TestUser::plain()).start();
        let proxy = Proxy::to(sshd.addr());
        let known = sshd.dir().join("known_behind_proxy");
        let line = proxy.known_hosts_line(&sshd.host_public_key("ed25519"));
        std::fs::write(&known, line).unwrap();
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known))
            .identity(Identity::key_file(sshd.client_key()))
            .limits(Limits::default().connections_per_host(1))
            .timeouts(
                Timeouts::default()
                    .keepalive_interval(KEEPALIVE.0)
                    .keepalive_misses(KEEPALIVE.1),
            )
            .in_current_runtime()
            .build()
            .unwrap();
        let host = pool
            .host(format!("{}@{}", sshd.user(), proxy.addr()))
            .unwrap();
        Self { sshd, proxy, host }
    }

    /// The pool runs commands, of both kinds.
    async fn works(&self) {
        let status = self.host.command("true").status();
        assert!(timeout(SOON, status).await.unwrap().unwrap().success());
        let mut child = self.host.command("true").spawn().await.unwrap();
        assert!(
            timeout(SOON, child.wait())
                .await
                .unwrap()
                .unwrap()
                .success()
        );
    }
}

/// Runs a test that breaks all connections: when no other one runs, on a runtime of its own.
/// Afterwards the pool works as before, and this process holds no more than before.
pub(crate) fn leaves_nothing(test: impl AsyncFnOnce(&Place)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let place = Place::new();
        place.works().await;
        let before = Holdings::now();
        test(&place).await;
        place.works().await;
        let nothing = || {
            let now = Holdings::now();
            now.files <= before.files && now.tasks <= before.tasks
        };
        let none = eventually_async(SOON, nothing).await;
        assert!(none, "{before:?} has become {:?}", Holdings::now());
    });
}

/// The inner error of a stream that was cut off by the loss of its connection.
pub(crate) fn assert_lost(cut: &io::Error) {
    let inner = cut.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(error @ Error::ConnectionLost { .. }) = inner else {
        panic!("{cut:?}")
    };
    assert_eq!(error.command_state(), CommandState::Unknown, "{error:?}");
}

/// Waits until a count goes no further. It does not stand still below `least`: there whoever counts
/// only waits for a processor.
pub(crate) async fn stands_still(least: usize, count: impl Fn() -> usize) {
    let (mut last, mut looks) = (0, 0);
    let still = || {
        let now = count();
        let same = now == last && now >= least;
        looks = if same { looks + 1 } else { 0 };
        last = now;
        // Half a second of looks.
        looks >= 100
    };
    assert!(eventually_async(SOON, still).await, "{last}");
}
