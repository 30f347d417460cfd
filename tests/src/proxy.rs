//! A TCP proxy that breaks connections on demand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::background::Background;
use crate::relay::{Cut, Link, Relay};
use crate::script::{Frozen, Rate, Side, Step};

/// How a new connection is received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Greeting {
    /// Passed on to the server.
    #[default]
    Pass,
    /// Passed on after some lines of text, which a server may send before its banner (RFC 4253,
    /// section 4.2).
    Preamble(Vec<String>),
    /// Passed on after a while: the banner comes late.
    HoldBanner(Duration),
    /// A reset (RST) at once.
    Reset,
    /// An orderly end (FIN) at once.
    Fin,
    /// An answer in HTTP, then the end.
    Garbage,
    /// A line of text in the place of the banner, then the end: sshd beyond MaxStartups.
    Line(String),
    /// Nothing at all; the connection stays open.
    Silence,
    /// A banner, then nothing; the connection stays open.
    BannerOnly,
}

/// A proxy on loopback in front of one server. It runs on a thread of its own; dropping it closes
/// all its connections.
///
/// [`greet`](Self::greet) changes how new connections are received, and [`script`](Self::script)
/// what befalls each of them later. Delay, rate, freezing, memory and the cuts apply to the
/// connections there are; all but the cuts to later ones as well.
#[derive(Debug)]
pub struct Proxy {
    _background: Background,
    shared: Arc<Shared>,
    addr: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    greetings: Mutex<Plan<Greeting>>,
    scripts: Mutex<Plan<Arc<[Step]>>>,
    link: watch::Sender<Link>,
    /// Each change is for the connections of that moment.
    cut: watch::Sender<Option<Cut>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    forgotten: Arc<AtomicUsize>,
}

/// What new connections get.
#[derive(Debug, Default)]
struct Plan<T> {
    usual: T,
    /// How many times another one comes first.
    next: Option<(usize, T)>,
}

impl<T: Clone> Plan<T> {
    fn take(&mut self) -> T {
        match &mut self.next {
            Some((count @ 1.., first)) => {
                *count -= 1;
                first.clone()
            }
            _ => self.usual.clone(),
        }
    }
}

impl Proxy {
    /// Starts one in front of `server`; it listens when this returns.
    #[must_use]
    pub fn to(server: SocketAddr) -> Self {
        let background = Background::new("fault-proxy", 1);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        listener
            .set_nonblocking(true)
            .expect("make a socket non-blocking");
        let addr = listener.local_addr().expect("the address of a listener");
        let listener =
            background.enter(|| TcpListener::from_std(listener).expect("take a listener"));
        let shared = Arc::new(Shared {
            server,
            greetings: Mutex::default(),
            scripts: Mutex::default(),
            link: watch::Sender::new(Link::default()),
            cut: watch::Sender::new(None),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            forgotten: Arc::default(),
        });
        background.spawn(listen(listener, Arc::clone(&shared)));
        Self {
            _background: background,
            shared,
            addr,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// A known_hosts line for a server behind it, whose public key this is.
    #[must_use]
    pub fn known_hosts_line(&self, public_key: &str) -> String {
        crate::client::known_hosts_line(self.addr, public_key)
    }

    /// Receives new connections like this from now on.
    pub fn greet(&self, greeting: Greeting) {
        *locked(&self.shared.greetings) = Plan {
            usual: greeting,
            next: None,
        };
    }

    /// Receives the next `count` connections like this, and later ones as before.
    pub fn greet_next(&self, count: usize, greeting: Greeting) {
        locked(&self.shared.greetings).next = Some((count, greeting));
    }

    /// Does this to each later connection, step by step, from when it is passed on. A script
    /// without steps does nothing.
    pub fn script(&self, steps: impl Into<Vec<Step>>) {
        *locked(&self.shared.scripts) = Plan {
            usual: steps.into().into(),
            next: None,
        };
    }

    /// Does this to each of the next `count` connections, and to later ones what was done before.
    pub fn script_next(&self, count: usize, steps: impl Into<Vec<Step>>) {
        locked(&self.shared.scripts).next = Some((count, steps.into().into()));
    }

    /// Delays every byte by that time, in each direction; zero passes it on at once.
    pub fn delay(&self, one_way: Duration) {
        self.shared.link.send_modify(|link| link.delay = one_way);
    }

    /// Passes nothing on, neither data nor the end of a connection, until [`thaw`](Self::thaw).
    /// What is sent meanwhile waits, as it does when a cable is pulled.
    pub fn freeze(&self) {
        let frozen = Frozen::BOTH;
        self.shared.link.send_modify(|link| link.frozen = frozen);
    }

    /// The same for what this side sends; what the other one sends gets through.
    pub fn freeze_from(&self, side: Side) {
        self.shared.link.send_modify(|link| link.frozen.add(side));
    }

    /// Passes on what has waited, and what comes.
    pub fn thaw(&self) {
        let frozen = Frozen::default();
        self.shared.link.send_modify(|link| link.frozen = frozen);
    }

    /// Whether it is frozen in both directions, by a test or by a script.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.shared.link.borrow().frozen == Frozen::BOTH
    }

    /// Carries so many bytes a second; [`Rate::default`] sets no bound.
    pub fn throttle(&self, rate: Rate) {
        self.shared.link.send_modify(|link| link.rate = rate);
    }

    /// Forgets each connection on which nothing has passed for so long, as a NAT table does: see
    /// [`forget`](Self::forget). `None` forgets none by itself.
    pub fn remember_idle(&self, memory: Option<Duration>) {
        self.shared.link.send_modify(|link| link.memory = memory);
    }

    /// Resets (RST) the connections there are, on both sides.
    pub fn reset(&self) {
        self.cut(Cut::Reset);
    }

    /// Ends (FIN) the connections there are, on both sides.
    pub fn fin(&self) {
        self.cut(Cut::Fin);
    }

    /// Forgets the connections there are, as a NAT table does: nothing is passed on and nobody is
    /// told. The sockets stay open until the proxy is dropped. New connections are not concerned.
    pub fn forget(&self) {
        self.cut(Cut::Forget);
    }

    /// How many connections it has taken, whatever became of them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many it holds open, forgotten and silent ones included.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections it has forgotten.
    #[must_use]
    pub fn forgotten_connections(&self) -> usize {
        self.shared.forgotten.load(Ordering::SeqCst)
    }

    fn cut(&self, cut: Cut) {
        self.shared.cut.send_replace(Some(cut));
    }
}

fn locked<T>(plan: &Mutex<T>) -> MutexGuard<'_, T> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let relay = Relay {
            client,
            server: shared.server,
            link: shared.link.clone(),
            script: locked(&shared.scripts).take(),
            cut: shared.cut.subscribe(),
            forgotten: Arc::clone(&shared.forgotten),
        };
        let greeting = locked(&shared.greetings).take();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            relay.run(greeting).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}
