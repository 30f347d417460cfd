//! The network freezes, in both directions or in one, at every packet of everything that the pool
//! does; a server stops taking, stops sending, or never ends a change of keys. Each call ends by
//! its deadline and the stated grace.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::time::{Duration, Instant};

use ssh_pool::{Host, HostKeyPolicy, Identity, Pool, Timeouts};
use ssh_pool_tests::{Proxy, Sshd};

mod grid;
mod load;
mod recorder;
mod rekey;
mod work;

/// `Command::timeout`: how much longer than its deadline a call takes at most, beside
/// `Timeouts::kill_grace`.
const GRACE: Duration = Duration::from_secs(14);
/// For a machine that is busy with other tests. With the rest it is below the minute after which
/// keepalives find a dead connection, so they are no help here.
const SLACK: Duration = Duration::from_secs(25);
/// Far longer than anything takes before the fault.
const SOON: Duration = Duration::from_secs(60);

/// A pool that goes to a server through a proxy.
struct Site {
    proxy: Proxy,
    pool: Pool,
    host: Host,
}

impl Site {
    fn new(sshd: &Sshd, timeouts: Timeouts) -> Self {
        let proxy = Proxy::to(sshd.addr());
        let (pool, host) = pool(sshd, &proxy.addr().to_string(), timeouts);
        Self { proxy, pool, host }
    }
}

fn pool(sshd: &Sshd, address: &str, timeouts: Timeouts) -> (Pool, Host) {
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::key_file(sshd.client_key()))
        .timeouts(timeouts)
        .build()
        .unwrap();
    let host = pool.host(format!("{}@{address}", sshd.user())).unwrap();
    (pool, host)
}

/// Runs `call`, which has to end in that time.
async fn ends<T>(story: &str, most: Duration, call: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let ended = tokio::time::timeout(most + SLACK, call).await;
    ended.unwrap_or_else(|_| panic!("{story}: still pending after {:?}", began.elapsed()))
}

/// One that takes many connections that have not logged in: those of frozen dials.
fn patient_sshd() -> Sshd {
    Sshd::builder().option("MaxStartups 1000").start()
}
