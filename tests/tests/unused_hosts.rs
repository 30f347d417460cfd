//! What hosts cost that a pool knows and nobody uses. In a test binary of its own, because it counts
//! this process's heap.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::alloc::System;

use cap::Cap;
use ssh_pool::{Host, HostKeyPolicy, Pool};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const HOSTS: usize = 10_000;
/// A target's name, an entry in the pool and an empty state.
const ENOUGH: usize = 4 << 10;

#[tokio::test]
async fn ten_thousand_hosts_that_nobody_uses_have_no_room_for_sessions_yet() {
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file("/dev/null"))
        .build()
        .unwrap();
    let before = HEAP.allocated();
    let hosts: Vec<Host> = (0..HOSTS)
        .map(|number| pool.host(format!("deploy@host-{number}")).unwrap())
        .collect();
    // Whoever looks at them uses nothing.
    assert!(hosts.iter().all(|host| host.status().waiting == 0));
    let each = (HEAP.allocated() - before) / HOSTS;
    assert!(each < ENOUGH, "{each} bytes for each host");
}
