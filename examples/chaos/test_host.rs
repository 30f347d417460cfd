//! The servers, each behind a proxy of its own, and how they are broken and mended.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use ssh_pool_tests::{
    Dropbear, Embedded, Greeting, Proxy, Release, Side, Sshd, SshdBuilder, TestUser, procs,
};

use crate::fault::Fault;
use crate::host::{HostInfo, Kind};

/// One way, with what is broken.
const DELAY: Duration = Duration::from_millis(25);
/// sshd refuses a folder that others may write to, and only after the login.
const BAD_CHROOT: &str = "ChrootDirectory /tmp";
const LATE: Duration = Duration::from_millis(1200);

pub(crate) struct TestHost {
    pub(crate) info: HostInfo,
    // Before the server: the way to it ends first.
    proxy: Option<Proxy>,
    pub(crate) server: Server,
    /// Held from when it is broken to when it is mended.
    pub(crate) turn: Mutex<()>,
}

pub(crate) enum Server {
    Sshd(Sshd),
    Dropbear(Dropbear),
    Embedded(Embedded),
}

/// What has to be undone.
#[derive(Default)]
pub(crate) struct Broken {
    stopped: Vec<u32>,
    authorized: Option<String>,
}

impl Broken {
    fn pause(&self) {
        self.stopped.iter().copied().for_each(procs::pause);
    }
}

/// What servers send streams to.
pub(crate) struct Echo {
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
}

/// An sshd among the hosts: what is special about it.
struct Special {
    name: &'static str,
    option: Option<&'static str>,
    login_shell: Option<&'static str>,
}

const STOCK: Special = Special {
    name: "stock",
    option: None,
    login_shell: None,
};

const fn option(line: &'static str) -> Special {
    Special {
        name: line,
        option: Some(line),
        ..STOCK
    }
}

const fn login_shell(name: &'static str, path: &'static str) -> Special {
    Special {
        name,
        login_shell: Some(path),
        ..STOCK
    }
}

/// The sshds. The first [`NEW`] are OpenSSH 10.0 where that is there.
const SSHDS: [Special; 12] = [
    STOCK,
    option("MaxSessions 2"),
    STOCK,
    STOCK,
    login_shell("bash", "/bin/bash"),
    login_shell("fish", "/usr/bin/fish"),
    login_shell("tcsh", "/usr/bin/tcsh"),
    option("MaxSessions 2"),
    option("MaxSessions 2"),
    option("MaxSessions 1"),
    option("MaxStartups 2:30:4"),
    option("MaxStartups 2:30:4"),
];
const NEW: usize = 2;
const DROPBEARS: usize = 4;
const EMBEDDED: usize = 4;

/// All hosts; their ledgers are in `folder`.
pub(crate) async fn start(folder: &Path, echo: &Echo) -> anyhow::Result<Vec<TestHost>> {
    let new = Release::Trixie.is_there();
    let builders = SSHDS.iter().enumerate().map(|(number, special)| {
        let (release, kind) = if new && number < NEW {
            (Release::Trixie, Kind::Sshd10)
        } else {
            (Release::Installed, Kind::Sshd)
        };
        let mut builder = Sshd::builder().user(TestUser::plain()).release(release);
        if let Some(line) = special.option {
            builder = builder.option(line);
        }
        if let Some(shell) = special.login_shell {
            builder = builder.login_shell(shell);
        }
        (builder, format!("{kind} {}", special.name), kind)
    });
    let mut servers = start_all(builders.collect())?;
    for server in Embedded::builder().start_many(EMBEDDED).await {
        servers.push((
            Server::Embedded(server),
            "embedded".to_owned(),
            Kind::Embedded,
        ));
    }
    let known_hosts = folder.join("known_hosts");
    let (mut sites, mut lines) = (Vec::new(), String::new());
    for (number, (server, name, kind)) in servers.into_iter().enumerate() {
        let (addr, key) = server.identity();
        let proxy = Proxy::to(addr);
        lines += &proxy.known_hosts_line(&key);
        let ledger = folder.join(format!("ledger-{number}"));
        fs::File::create(&ledger).with_context(|| format!("cannot make {}", ledger.display()))?;
        TestUser::plain().own(&ledger);
        let info = HostInfo {
            name: format!("{number}, {name}"),
            kind,
            target: format!("{}@{}", server.user(), proxy.addr()),
            client_key: server.client_key(),
            known_hosts: known_hosts.clone(),
            ledger,
            tcp: (kind != Kind::Embedded).then_some(echo.tcp),
            unix: matches!(kind, Kind::Sshd | Kind::Sshd10).then(|| echo.unix.clone()),
        };
        let proxy = Some(proxy);
        sites.push(TestHost {
            info,
            proxy,
            server,
            turn: Mutex::new(()),
        });
    }
    fs::write(&known_hosts, lines).context("cannot write known_hosts")?;
    Ok(sites)
}

/// The servers that are processes, side by side: most of their start is waiting.
fn start_all(
    sshds: Vec<(SshdBuilder, String, Kind)>,
) -> anyhow::Result<Vec<(Server, String, Kind)>> {
    std::thread::scope(|scope| {
        let mut starting = Vec::new();
        for (builder, name, kind) in sshds {
            starting.push(scope.spawn(move || (Server::Sshd(builder.start()), name, kind)));
        }
        for _ in 0..DROPBEARS {
            let start = || {
                (
                    Server::Dropbear(Dropbear::start()),
                    "dropbear".into(),
                    Kind::Dropbear,
                )
            };
            starting.push(scope.spawn(start));
        }
        let started = starting.into_iter().map(|start| {
            let started = start.join();
            started.map_err(|_| anyhow::anyhow!("a server does not start, see above"))
        });
        started.collect()
    })
}

impl Server {
    fn identity(&self) -> (SocketAddr, String) {
        match self {
            Self::Sshd(sshd) => (sshd.addr(), sshd.host_public_key("ed25519")),
            Self::Dropbear(dropbear) => (dropbear.addr(), dropbear.host_public_key().to_owned()),
            Self::Embedded(embedded) => (embedded.addr(), embedded.host_key().to_owned()),
        }
    }

    fn user(&self) -> String {
        match self {
            Self::Sshd(sshd) => sshd.user().to_owned(),
            Self::Dropbear(dropbear) => dropbear.user().to_owned(),
            Self::Embedded(embedded) => embedded.user().to_owned(),
        }
    }

    fn client_key(&self) -> PathBuf {
        match self {
            Self::Sshd(sshd) => sshd.client_key().to_owned(),
            Self::Dropbear(dropbear) => dropbear.client_key().to_owned(),
            Self::Embedded(embedded) => embedded.client_key(),
        }
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        match self {
            Self::Sshd(sshd) => sshd.open_connections(),
            Self::Dropbear(dropbear) => dropbear.children().len(),
            Self::Embedded(embedded) => embedded.open_connections(),
        }
    }

    /// What runs below it.
    pub(crate) fn processes(&self) -> Vec<String> {
        let lines = |found: Vec<(u32, String)>| found.into_iter().map(|(_, line)| line).collect();
        match self {
            Self::Sshd(sshd) => lines(sshd.session_processes()),
            Self::Dropbear(dropbear) => lines(dropbear.session_processes()),
            Self::Embedded(embedded) => {
                vec!["a command of the embedded server".to_owned(); embedded.running()]
            }
        }
    }

    /// How many logins it has seen succeed, and how many fail.
    pub(crate) fn logins(&self) -> (usize, usize) {
        match self {
            Self::Sshd(sshd) => (sshd.accepted(), sshd.auth_failures()),
            Self::Dropbear(dropbear) => (dropbear.accepted(), dropbear.auth_failures()),
            Self::Embedded(embedded) => (embedded.accepted(), embedded.auth_failures()),
        }
    }

    /// How often sshd 10.0 has noted a penalty, and how often it has refused a connection for one.
    pub(crate) fn penalties(&self) -> (usize, usize) {
        let Self::Sshd(sshd) = self else {
            return (0, 0);
        };
        let log = sshd.log();
        let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        (count("penalty of"), count("penalty: "))
    }

    fn children(&self) -> Vec<u32> {
        match self {
            Self::Sshd(sshd) => sshd.children(),
            Self::Dropbear(dropbear) => dropbear.children(),
            Self::Embedded(_) => Vec::new(),
        }
    }

    fn listener(&self) -> Option<u32> {
        match self {
            Self::Sshd(sshd) => Some(sshd.pid()),
            Self::Dropbear(dropbear) => Some(dropbear.pid()),
            Self::Embedded(_) => None,
        }
    }

    fn kill_connections(&self) {
        match self {
            Self::Sshd(sshd) => sshd.kill_connections(),
            Self::Dropbear(dropbear) => dropbear.kill_connections(),
            Self::Embedded(_) => {}
        }
    }

    fn sshd(&self) -> anyhow::Result<&Sshd> {
        match self {
            Self::Sshd(sshd) => Ok(sshd),
            _ => anyhow::bail!("only an sshd is broken like that"),
        }
    }
}

impl TestHost {
    fn proxy(&self) -> anyhow::Result<&Proxy> {
        self.proxy
            .as_ref()
            .context("the way to this host has been closed")
    }

    /// The way to it is gone, and with it what has been forgotten there.
    pub(crate) fn close_way(&mut self) {
        self.proxy = None;
    }

    /// Breaks it. Blocks for as long as that takes.
    pub(crate) fn strike(&self, fault: Fault) -> anyhow::Result<Broken> {
        let proxy = self.proxy()?;
        let mut broken = Broken::default();
        match fault {
            Fault::Delay => proxy.delay(DELAY),
            Fault::Hiccup | Fault::Freeze => proxy.freeze(),
            Fault::FreezeServer => proxy.freeze_from(Side::Server),
            Fault::FreezeClient => proxy.freeze_from(Side::Client),
            Fault::Reset => proxy.reset(),
            Fault::Fin => proxy.fin(),
            Fault::Forget => proxy.forget(),
            Fault::Silence => greet(proxy, Greeting::Silence),
            Fault::BannerOnly => greet(proxy, Greeting::BannerOnly),
            Fault::Garbage => greet(proxy, Greeting::Garbage),
            Fault::Throttled => greet(proxy, Greeting::Line("Exceeded MaxStartups".into())),
            Fault::HeldBanner => greet(proxy, Greeting::HoldBanner(LATE)),
            Fault::Preamble => {
                greet(
                    proxy,
                    Greeting::Preamble(vec!["welcome".into(), "to chaos".into()]),
                );
            }
            Fault::Refused => greet(proxy, Greeting::Reset),
            Fault::Restart | Fault::Down => {
                let sshd = self.server.sshd()?;
                sshd.stop();
                sshd.kill_connections();
                if fault == Fault::Restart {
                    sshd.restart();
                }
            }
            Fault::Reload => self.server.sshd()?.restart(),
            Fault::Kill => self.server.kill_connections(),
            Fault::Stop => {
                broken.stopped = self.server.children();
                broken.pause();
            }
            Fault::Deaf => {
                broken.stopped = self.server.listener().into_iter().collect();
                broken.pause();
                proxy.reset();
            }
            Fault::KeyRefused => {
                let path = authorized_keys(self.server.sshd()?);
                broken.authorized = Some(fs::read_to_string(&path)?);
                fs::write(&path, "")?;
                proxy.reset();
            }
            Fault::BadChroot => {
                let sshd = self.server.sshd()?;
                sshd.restart_with(&[BAD_CHROOT]);
                sshd.kill_connections();
            }
        }
        Ok(broken)
    }

    pub(crate) fn mend(&self, fault: Fault, broken: Broken) -> anyhow::Result<()> {
        let proxy = self.proxy()?;
        proxy.delay(Duration::ZERO);
        proxy.thaw();
        proxy.greet(Greeting::Pass);
        broken.stopped.into_iter().for_each(procs::resume);
        if let Some(text) = broken.authorized {
            fs::write(authorized_keys(self.server.sshd()?), text)?;
        }
        match fault {
            Fault::Down => self.server.sshd()?.restart(),
            Fault::BadChroot => self.server.sshd()?.restart_with(&[]),
            _ => {}
        }
        Ok(())
    }
}

fn authorized_keys(sshd: &Sshd) -> PathBuf {
    Path::new(sshd.dir()).join("authorized_keys")
}

/// Nobody is greeted before somebody has to connect.
fn greet(proxy: &Proxy, greeting: Greeting) {
    proxy.greet(greeting);
    proxy.reset();
}
