//! A line on which round trips are counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Long beside anything that a client or a server has to think about: what one of them sends after
/// something has arrived is taken for an answer to it.
const ONE_WAY: Duration = Duration::from_millis(50);
const CHUNK: usize = 64 << 10;

/// A line to a server, for one client, of 100 ms. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct CountedLine {
    addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// Who knows the end of how many round trips. Times depend on the machine; this does not.
#[derive(Debug)]
struct Seen {
    client: u32,
    server: u32,
    /// When the client has learned of each.
    history: Vec<(SystemTime, u32)>,
}

impl Seen {
    /// A client that has connected has waited once, for the server's half of TCP's handshake.
    fn connected() -> Self {
        Self {
            client: 1,
            server: 1,
            history: Vec::new(),
        }
    }

    /// What the server says now ends one round trip more than what it has heard of.
    fn answer(&self) -> u32 {
        self.server + 1
    }

    fn reached_server(&mut self, trips: u32) {
        self.server = self.server.max(trips);
    }

    fn reached_client(&mut self, trips: u32, now: SystemTime) {
        if trips > self.client {
            self.client = trips;
            self.history.push((now, trips));
        }
    }

    fn until(&self, time: SystemTime) -> Option<u32> {
        let mut before = self.history.iter().filter(|(at, _)| *at <= time);
        Some(before.next_back()?.1)
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl CountedLine {
    /// Opens it. Who calls gives the runtime that it lives in.
    ///
    /// # Panics
    ///
    /// When there is no free port on loopback.
    #[must_use]
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port on loopback");
        let addr = listener.local_addr().expect("a listener has an address");
        let seen = Arc::new(Mutex::new(Seen::connected()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self { addr, seen, task }
    }

    /// Where its client connects to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many round trips had come to their end by then, TCP's handshake included; none if nothing
    /// had come.
    #[must_use]
    pub fn round_trips(&self, until: SystemTime) -> Option<u32> {
        lock(&self.seen).until(until)
    }
}

impl Drop for CountedLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection. What fails ends it, as its two sides will notice.
async fn carry(client: TcpStream, server: SocketAddr, seen: Arc<Mutex<Seen>>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        flow(from_client, to_server, Direction::Up, &seen),
        flow(from_server, to_client, Direction::Down, &seen),
    );
}

async fn flow(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    seen: &Mutex<Seen>,
) {
    let (sender, mut waiting) = mpsc::unbounded_channel::<(Instant, u32, Vec<u8>)>();
    let reading = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            match from.read_buf(&mut chunk).await {
                Ok(1..) => {}
                // The end travels by the channel's end.
                Ok(0) | Err(_) => return,
            }
            let trips = match direction {
                Direction::Up => lock(seen).client,
                Direction::Down => lock(seen).answer(),
            };
            if sender
                .send((Instant::now() + ONE_WAY, trips, chunk))
                .is_err()
            {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, trips, chunk)) = waiting.recv().await {
            sleep_until(due).await;
            // Before it is passed on: an answer to it may come at once.
            match direction {
                Direction::Up => lock(seen).reached_server(trips),
                Direction::Down => lock(seen).reached_client(trips, SystemTime::now()),
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side may be gone, which is as good.
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_an_answer_costs_a_round_trip_and_what_needs_none_costs_none() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        let echo = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let (mut from, mut to) = stream.split();
            // Unasked, as a banner.
            to.write_all(b"!").await.unwrap();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        let line = CountedLine::to(addr).await;
        let mut client = TcpStream::connect(line.addr()).await.unwrap();
        // Along with the banner: TCP's handshake and one more.
        client.write_all(b"a").await.unwrap();
        let mut two = [0; 2];
        client.read_exact(&mut two).await.unwrap();
        assert_eq!(line.round_trips(SystemTime::now()), Some(2));
        let then = SystemTime::now();
        // Two in one flight.
        client.write_all(b"b").await.unwrap();
        client.write_all(b"c").await.unwrap();
        client.read_exact(&mut two).await.unwrap();
        assert_eq!(line.round_trips(SystemTime::now()), Some(3));
        client.write_all(b"d").await.unwrap();
        client.read_exact(&mut two[..1]).await.unwrap();
        assert_eq!(line.round_trips(SystemTime::now()), Some(4));
        assert_eq!(
            line.round_trips(then),
            Some(2),
            "what came later is not counted"
        );
        drop(client);
        echo.await.unwrap();
    }
}
