//! A host that swallows every packet.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Far longer than loopback takes to connect, also on a busy machine: the kernel does it by itself.
const FULL: Duration = Duration::from_millis(500);
const MOST: usize = 100;

/// A listener whose queue is full and whom nobody asks: the kernel drops whatever more comes, as a
/// firewall does (Linux).
#[derive(Debug)]
pub struct BlackHole {
    addr: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens one.
    ///
    /// # Panics
    ///
    /// When its queue does not fill up.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it opens sockets")]
    pub fn new() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Opens one on this address of loopback.
    ///
    /// # Panics
    ///
    /// When its queue does not fill up, or when the address is taken.
    #[must_use]
    pub fn at(addr: SocketAddr) -> Self {
        let domain = Domain::for_address(addr);
        let listener = Socket::new(domain, Type::STREAM, None).expect("make a socket");
        listener.bind(&addr.into()).expect("bind a socket");
        listener.listen(0).expect("listen");
        let addr = listener.local_addr().expect("the address of a listener");
        let addr = addr.as_socket().expect("an internet address");
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, FULL) {
            queue.push(stream);
            assert!(queue.len() < MOST, "the queue of a listener has no end");
        }
        Self {
            addr,
            _listener: listener,
            _queue: queue,
        }
    }

    /// Where nobody answers.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
