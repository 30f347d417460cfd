//! Ports for servers that open their own socket.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range the kernel gives to outgoing connections (32768 and up by default), so that a
/// server can be stopped and started without a client's own port taking its place.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address that was free a moment ago, and that no outgoing connection takes. Another
/// process may be faster: try again then.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn free() -> SocketAddr {
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Test processes that run side by side start far apart.
        let start = std::process::id().wrapping_mul(2_654_435_761) >> 8;
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("the range lies below 65536");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no free port on loopback from {FIRST} on, {COUNT} tried");
}
