//! A server, the fault proxy in front of it, and a pool that goes through the proxy.

use std::fs;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Limits, Pool, Timeouts};
use ssh_pool_tests::{Dropbear, Proxy, Release, Sshd, TestUser, eventually_async};
use tokio::task::JoinSet;

/// Far longer than anything here takes: for what would otherwise hang.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What a test is about, on each server that it concerns.
pub(crate) struct Setting {
    options: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    dropbear: bool,
    counted: bool,
}

/// A server that is really there.
pub(crate) enum Server {
    Sshd(Sshd),
    Dropbear(Dropbear),
}

pub(crate) struct Place {
    pub(crate) server: Server,
    pub(crate) proxy: Proxy,
    pub(crate) pool: Pool,
    pub(crate) host: Host,
}

impl Setting {
    pub(crate) fn new() -> Self {
        Self {
            options: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            dropbear: false,
            counted: false,
        }
    }

    /// A line of sshd's configuration.
    pub(crate) fn option(mut self, line: impl Into<String>) -> Self {
        self.options.push(line.into());
        self
    }

    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// On dropbear as well.
    pub(crate) fn dropbear(mut self) -> Self {
        self.dropbear = true;
        self
    }

    /// The fault itself looks to sshd like a client that does not log in: that counts, and must not
    /// come to a ban.
    pub(crate) fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    /// Runs a test on each release of OpenSSH, at the same time. Afterwards the pool holds nothing
    /// that it should not, and sshd has punished nobody.
    ///
    /// Each on a runtime of its own: servers start and stop without minding who else is there.
    pub(crate) async fn on_each(self, test: impl AsyncFn(&Place) + Sync) {
        let start_sshd = |release| {
            let builder = Sshd::builder().user(TestUser::plain()).release(release);
            let options = self.options.iter().cloned();
            let sshd = options.fold(builder, |builder, line| builder.option(line));
            Server::Sshd(sshd.start())
        };
        let on = |start: &dyn Fn() -> Server| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { self.on(start(), &test).await });
        };
        std::thread::scope(|scope| {
            for release in Release::ALL {
                scope.spawn(move || on(&|| start_sshd(release)));
            }
            if self.dropbear {
                scope.spawn(|| on(&|| Server::Dropbear(Dropbear::start())));
            }
        });
    }

    async fn on(&self, server: Server, test: &impl AsyncFn(&Place)) {
        let place = self.place(server);
        let ran = async {
            test(&place).await;
            place.is_at_rest().await;
            if let Server::Sshd(sshd) = &place.server {
                if self.counted {
                    sshd.assert_not_banned();
                } else {
                    sshd.assert_no_penalty();
                }
            }
        };
        if let Err(panic) = AssertUnwindSafe(ran).catch_unwind().await {
            let (name, log) = (place.server.name(), place.server.log());
            eprintln!("this was on {name}, whose log says:\n{log}");
            eprintln!("and the pool is at {:#?}", place.pool.status());
            resume_unwind(panic);
        }
    }

    fn place(&self, server: Server) -> Place {
        let proxy = server.proxy();
        let known_hosts = server.known_hosts();
        fs::write(&known_hosts, server.known_hosts_lines(&proxy)).unwrap();
        let (user, key) = match &server {
            Server::Sshd(sshd) => (sshd.user(), sshd.client_key()),
            Server::Dropbear(dropbear) => (dropbear.user(), dropbear.client_key()),
        };
        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(known_hosts))
            .identity(Identity::key_file(key))
            .limits(self.limits.clone())
            .timeouts(self.timeouts.clone())
            .build()
            .unwrap();
        let host = pool.host(format!("{user}@{}", proxy.addr())).unwrap();
        Place {
            server,
            proxy,
            pool,
            host,
        }
    }
}

impl Server {
    fn proxy(&self) -> Proxy {
        Proxy::to(match self {
            Self::Sshd(sshd) => sshd.addr(),
            Self::Dropbear(dropbear) => dropbear.addr(),
        })
    }

    /// What it is known by, with and without the proxy.
    fn known_hosts_lines(&self, proxy: &Proxy) -> String {
        let (key, direct) = match self {
            Self::Sshd(sshd) => (sshd.host_public_key("ed25519"), sshd.known_hosts()),
            Self::Dropbear(dropbear) => {
                let key = dropbear.host_public_key().to_owned();
                (key, dropbear.known_hosts())
            }
        };
        proxy.known_hosts_line(&key) + &fs::read_to_string(direct).unwrap()
    }

    fn known_hosts(&self) -> PathBuf {
        let dir = match self {
            Self::Sshd(sshd) => sshd.dir(),
            Self::Dropbear(dropbear) => dropbear.dir(),
        };
        dir.join("known_behind_proxy")
    }

    fn name(&self) -> String {
        match self {
            Self::Sshd(sshd) => format!("OpenSSH {:?}", sshd.release()),
            Self::Dropbear(_) => "dropbear".to_owned(),
        }
    }

    pub(crate) fn log(&self) -> String {
        match self {
            Self::Sshd(sshd) => sshd.log(),
            Self::Dropbear(dropbear) => dropbear.log(),
        }
    }

    /// How many connections have logged in.
    pub(crate) fn accepted(&self) -> usize {
        match self {
            Self::Sshd(sshd) => sshd.accepted(),
            Self::Dropbear(dropbear) => dropbear.accepted(),
        }
    }

    /// Whether a process with that command line runs on it.
    pub(crate) fn runs(&self, command: &str) -> bool {
        let processes = match self {
            Self::Sshd(sshd) => sshd.session_processes(),
            Self::Dropbear(dropbear) => dropbear.session_processes(),
        };
        processes.iter().any(|(_, line)| line == command)
    }

    /// Waits until it does, or does not.
    pub(crate) async fn comes_to(&self, runs: bool, command: &str) {
        let there = eventually_async(SOON, || self.runs(command) == runs).await;
        assert!(there, "{command}");
    }
}

impl Place {
    pub(crate) fn sshd(&self) -> &Sshd {
        match &self.server {
            Server::Sshd(sshd) => sshd,
            Server::Dropbear(_) => panic!("this is for sshd alone"),
        }
    }

    /// The file that the pool knows the server by: as it is behind the proxy.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.server.known_hosts()
    }

    /// How many connections have been made, and how many dials have failed.
    pub(crate) fn dials(&self) -> (u64, u64) {
        let status = self.host.status();
        (status.dials, status.failed_dials)
    }

    pub(crate) async fn serves(&self) {
        let status = self.host.command("true").status().await;
        assert!(status.unwrap().success());
    }

    /// The server is there again. The last failure answers for a moment longer, and a login that
    /// is too slow, on a busy machine, is another one.
    pub(crate) async fn recovers(&self) {
        let deadline = Instant::now() + SOON;
        while let Err(error) = self.host.command("true").status().await {
            assert!(Instant::now() < deadline, "{error}");
        }
    }

    /// So many commands, of which none is served before all of them wait.
    pub(crate) async fn all_at_once(&self, count: usize) -> Vec<Result<(), Error>> {
        self.proxy.freeze();
        let commands = tokio::spawn(all(self.host.clone(), count));
        let wait = || self.host.status().waiting == count;
        assert!(eventually_async(SOON, wait).await);
        self.proxy.thaw();
        commands.await.unwrap()
    }

    /// Waits until nothing is under way, and nobody waits.
    pub(crate) async fn is_at_rest(&self) {
        let rest = || {
            let status = self.host.status();
            let busy = status.running + status.opening + status.dialling + status.isolated_busy;
            busy == 0 && status.waiting + status.isolated_waiting == 0
        };
        let rests = eventually_async(SOON, rest).await;
        assert!(rests, "{:#?}", self.host.status());
    }

    /// The proxy holds no socket any more.
    pub(crate) async fn is_disconnected(&self) {
        let gone = eventually_async(SOON, || self.proxy.open_connections() == 0).await;
        assert!(gone, "{} sockets", self.proxy.open_connections());
    }
}

/// So many commands at once, and what became of each.
pub(crate) async fn all(host: Host, count: usize) -> Vec<Result<(), Error>> {
    let mut commands = JoinSet::new();
    for _ in 0..count {
        commands.spawn(host.command("true").output());
    }
    let ended = commands.join_all().await;
    let good = |output: ssh_pool::Output| assert!(output.status.success());
    ended.into_iter().map(|result| result.map(good)).collect()
}
