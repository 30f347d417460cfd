use std::future::pending;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::{Instant, sleep};

use super::*;

/// Far longer than any of the time limits here, on a clock that jumps.
const FOREVER: Duration = Duration::from_secs(3600);

/// What an address does with a connection.
#[derive(Clone, Copy)]
enum Peer {
    AcceptsAfter(u64),
    RefusesAfter(u64),
    Swallows,
    NoDescriptors,
}

/// Any address will do, or one alone.
#[derive(Default)]
struct Choice {
    preferred: Option<SocketAddr>,
    required: Mutex<Option<SocketAddr>>,
    /// Another dial settles on this one while the first connection is made.
    settled: Mutex<Option<SocketAddr>>,
    unreachable: Mutex<Vec<SocketAddr>>,
}

impl AddressChoice for Choice {
    fn preferred(&self) -> Option<SocketAddr> {
        self.preferred
    }

    fn required(&self, _: &[SocketAddr]) -> Option<SocketAddr> {
        *self.required.lock().unwrap()
    }

    fn claim(&self, address: SocketAddr, _: &[SocketAddr]) -> Result<(), SocketAddr> {
        match self.settled.lock().unwrap().take() {
            Some(other) if other != address => {
                *self.required.lock().unwrap() = Some(other);
                Err(other)
            }
            _ => Ok(()),
        }
    }

    fn unreachable(&self, address: SocketAddr) {
        self.unreachable.lock().unwrap().push(address);
    }
}

fn v4(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 22))
}

fn v6(n: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 22))
}

/// Sockets that are open.
#[derive(Default)]
struct Sockets(AtomicU32);

struct Socket<'a>(&'a Sockets);

impl<'a> Socket<'a> {
    fn open(sockets: &'a Sockets) -> Self {
        sockets.0.fetch_add(1, Ordering::Relaxed);
        Self(sockets)
    }
}

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Connecting<'a> {
    peers: &'a [(SocketAddr, Peer)],
    choice: Choice,
    attempts: Attempts,
    sockets: Sockets,
    /// What was tried, and when.
    tried: Mutex<Vec<(SocketAddr, u128)>>,
    began: Instant,
}

impl<'a> Connecting<'a> {
    fn new(peers: &'a [(SocketAddr, Peer)]) -> Self {
        Self {
            peers,
            choice: Choice::default(),
            attempts: Attempts::default(),
            sockets: Sockets::default(),
            tried: Mutex::default(),
            began: Instant::now(),
        }
    }

    async fn open(&self, address: SocketAddr) -> io::Result<Socket<'_>> {
        let at = self.began.elapsed().as_millis();
        self.tried.lock().unwrap().push((address, at));
        let socket = Socket::open(&self.sockets);
        let known = self.peers.iter().find(|(known, _)| *known == address);
        match known.map(|(_, peer)| *peer) {
            Some(Peer::AcceptsAfter(ms)) => sleep(Duration::from_millis(ms)).await,
            Some(Peer::RefusesAfter(ms)) => {
                sleep(Duration::from_millis(ms)).await;
                return Err(ErrorKind::ConnectionRefused.into());
            }
            Some(Peer::NoDescriptors) => return Err(io::Error::from_raw_os_error(24)),
            Some(Peer::Swallows) | None => pending().await,
        }
        Ok(socket)
    }

    async fn connect(&self) -> Option<SocketAddr> {
        let resolved: Vec<_> = self.peers.iter().map(|(address, _)| *address).collect();
        let open = |address| self.open(address);
        let connected = connect(&resolved, &self.choice, &self.attempts, open);
        let connected = tokio::time::timeout(FOREVER, connected).await;
        let connected = connected.expect("a dial that has no end");
        let open = self.sockets.0.load(Ordering::Relaxed);
        assert_eq!(open, u32::from(connected.is_some()), "no other socket");
        connected.map(|(address, _)| address)
    }

    fn tried(&self) -> Vec<(SocketAddr, u128)> {
        self.tried.lock().unwrap().clone()
    }
}

#[test]
fn families_take_turns_and_the_resolver_says_which_is_first() {
    let resolved = [v6(1), v6(2), v6(3), v4(1), v4(2), v6(1)];
    let order = in_order(&resolved, None);
    assert_eq!(order, [v6(1), v4(1), v6(2), v4(2), v6(3)]);
    let order = in_order(&[v4(1), v6(1), v6(2)], None);
    assert_eq!(order, [v4(1), v6(1), v6(2)]);
}

#[test]
fn the_last_winner_comes_first_if_the_name_still_resolves_to_it() {
    let resolved = [v6(1), v4(1), v6(2)];
    assert_eq!(in_order(&resolved, Some(v6(2))), [v6(2), v6(1), v4(1)]);
    assert_eq!(in_order(&resolved, Some(v4(9))), [v6(1), v4(1), v6(2)]);
}

#[test]
fn a_name_with_hundreds_of_addresses_costs_a_dial_eight_sockets() {
    let resolved: Vec<_> = (0..200).map(v4).collect();
    let order = in_order(&resolved, Some(v4(150)));
    assert_eq!(order.len(), 8);
    assert_eq!(order.front(), Some(&v4(150)));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_swallows_packets_costs_250_ms() {
    let peers = [(v6(1), Peer::Swallows), (v4(1), Peer::AcceptsAfter(20))];
    let dial = Connecting::new(&peers);
    assert_eq!(dial.connect().await, Some(v4(1)));
    assert_eq!(dial.tried(), [(v6(1), 0), (v4(1), 250)]);
    assert_eq!(dial.began.elapsed(), Duration::from_millis(270));
    let unreachable = dial.choice.unreachable.lock().unwrap().clone();
    assert_eq!(unreachable, [], "it was only slower");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_slow_still_wins_over_one_that_never_answers() {
    let peers = [(v6(1), Peer::AcceptsAfter(900)), (v4(1), Peer::Swallows)];
    let dial = Connecting::new(&peers);
    assert_eq!(dial.connect().await, Some(v6(1)));
    assert_eq!(dial.began.elapsed(), Duration::from_millis(900));
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_starts_the_next_one_at_once() {
    let peers = [
        (v6(1), Peer::RefusesAfter(10)),
        (v4(1), Peer::RefusesAfter(5)),
        (v6(2), Peer::AcceptsAfter(1)),
    ];
    let dial = Connecting::new(&peers);
    assert_eq!(dial.connect().await, Some(v6(2)));
    assert_eq!(dial.tried(), [(v6(1), 0), (v4(1), 10), (v6(2), 15)]);
}

#[tokio::test(start_paused = true)]
async fn the_error_has_the_reason_of_each_address() {
    let peers = [
        (v6(1), Peer::RefusesAfter(300)),
        (v4(1), Peer::RefusesAfter(5)),
    ];
    let dial = Connecting::new(&peers);
    assert_eq!(dial.connect().await, None);
    let unreachable = dial.choice.unreachable.lock().unwrap().clone();
    assert_eq!(unreachable, [v4(1), v6(1)]);
    let failed = dial.attempts.take().unwrap();
    let refused = io::Error::from(ErrorKind::ConnectionRefused);
    assert_eq!(
        failed.to_string(),
        format!("[2001:db8::1]:22: {refused}, 192.0.2.1:22: {refused}")
    );
    let cause = crate::error::Cause::new(failed);
    assert_eq!(cause.io_error_kind(), Some(ErrorKind::ConnectionRefused));
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_dropped_closes_all_its_sockets_and_knows_what_it_tried() {
    let peers = [(v6(1), Peer::Swallows), (v4(1), Peer::Swallows)];
    let dial = Connecting::new(&peers);
    let gave_up = tokio::time::timeout(Duration::from_secs(10), dial.connect()).await;
    assert!(gave_up.is_err());
    assert_eq!(dial.sockets.0.load(Ordering::Relaxed), 0);
    assert_eq!(dial.attempts.unanswered(), [v6(1), v4(1)]);
    let failed = dial.attempts.take().unwrap().to_string();
    assert_eq!(
        failed,
        "[2001:db8::1]:22: no answer, 192.0.2.1:22: no answer"
    );
}

#[tokio::test(start_paused = true)]
async fn no_other_address_is_tried_while_one_is_required() {
    let peers = [
        (v6(1), Peer::AcceptsAfter(1)),
        (v4(1), Peer::RefusesAfter(5_000)),
    ];
    let dial = Connecting::new(&peers);
    *dial.choice.required.lock().unwrap() = Some(v4(1));
    assert_eq!(dial.connect().await, None);
    assert_eq!(dial.tried(), [(v4(1), 0)]);
}

#[tokio::test(start_paused = true)]
async fn the_others_are_tried_once_the_required_address_is_free() {
    let peers = [(v6(1), Peer::AcceptsAfter(1)), (v4(1), Peer::Swallows)];
    let dial = Connecting::new(&peers);
    *dial.choice.required.lock().unwrap() = Some(v4(1));
    let release = async {
        sleep(Duration::from_millis(600)).await;
        *dial.choice.required.lock().unwrap() = None;
    };
    let (address, ()) = tokio::join!(dial.connect(), release);
    assert_eq!(address, Some(v6(1)));
    assert_eq!(dial.tried(), [(v4(1), 0), (v6(1), 750)]);
}

#[tokio::test(start_paused = true)]
async fn a_dial_gives_way_to_the_address_that_another_dial_has_settled_on() {
    let peers = [
        (v6(1), Peer::AcceptsAfter(1)),
        (v4(1), Peer::AcceptsAfter(1)),
    ];
    let dial = Connecting::new(&peers);
    *dial.choice.settled.lock().unwrap() = Some(v4(1));
    assert_eq!(dial.connect().await, Some(v4(1)));
    assert_eq!(dial.tried(), [(v6(1), 0), (v4(1), 1)]);
}

#[tokio::test(start_paused = true)]
async fn want_of_descriptors_ends_the_search_and_is_not_the_address_fault() {
    let peers = [(v6(1), Peer::NoDescriptors), (v4(1), Peer::AcceptsAfter(1))];
    let dial = Connecting::new(&peers);
    assert_eq!(dial.connect().await, None);
    assert_eq!(dial.tried(), [(v6(1), 0)]);
    let unreachable = dial.choice.unreachable.lock().unwrap().clone();
    assert_eq!(unreachable, []);
    let failed = dial.attempts.take().unwrap();
    assert!(crate::error::Cause::new(failed).no_descriptors());
}
