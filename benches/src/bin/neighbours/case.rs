//! What may happen beside a healthy host.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Pool, Target};
use ssh_pool_tests::raw::{Act, At, KeyExchange, Payload, RawServer, Trick, number};
use ssh_pool_tests::{BlackHole, Proxy, Rate, Sshd, TempDir, TestUser, eventually_async};
use tokio::task::JoinSet;

/// A name for the report.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nothing,
    Shell(&'static str),
    Sizes,
    Chroot,
    FrozenUploads,
    Silence,
    ExitSignal,
    FiniteField,
    Output,
    Descriptors,
    HeldStreams,
}

pub(crate) const ALL: &[Case] = &[
    case("nothing at all", Kind::Nothing),
    case("accounts with fish", Kind::Shell("/usr/bin/fish")),
    case("accounts with tcsh", Kind::Shell("/usr/bin/tcsh")),
    case("strings that are too long, same host", Kind::Sizes),
    case("ChrootDirectory with wrong modes", Kind::Chroot),
    case("9 uploads, network frozen", Kind::FrozenUploads),
    case("an address that swallows packets", Kind::Silence),
    case("exit signals of 240 kB", Kind::ExitSignal),
    case("8 logins by finite fields", Kind::FiniteField),
    case("30 commands with 67 MB of output", Kind::Output),
    case("200 hosts and 64 descriptors", Kind::Descriptors),
    case("120 held children, same host", Kind::HeldStreams),
];

const fn case(name: &'static str, kind: Kind) -> Case {
    Case { name, kind }
}

const CALLERS: usize = 50;
/// How long callers try again who are refused each time.
const TIME: Duration = Duration::from_secs(5);

/// The servers of a case.
pub(crate) struct Place {
    kind: Kind,
    servers: Vec<Sshd>,
    raw: Option<RawServer>,
    hole: Option<BlackHole>,
    proxy: Option<Proxy>,
    /// Where a server's folder may not be.
    _root: Option<TempDir>,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> anyhow::Result<Self> {
        let mut place = Self {
            kind,
            servers: Vec::new(),
            raw: None,
            hole: None,
            proxy: None,
            _root: None,
        };
        let plain = || Sshd::builder().user(TestUser::plain());
        match kind {
            Kind::Nothing => {}
            Kind::Shell(shell) => place.servers.push(plain().login_shell(shell).start()),
            Kind::Sizes | Kind::HeldStreams | Kind::Output => place.servers.push(plain().start()),
            Kind::Chroot => {
                let root = TempDir::new();
                std::fs::set_permissions(root.path(), Permissions::from_mode(0o777))?;
                let option = format!("ChrootDirectory {}", root.path().display());
                place.servers.push(Sshd::builder().option(option).start());
                place._root = Some(root);
            }
            Kind::FrozenUploads => {
                let sshd = plain().start();
                place.proxy = Some(Proxy::to(sshd.addr()));
                place.servers.push(sshd);
            }
            Kind::Silence => place.hole = Some(BlackHole::new()),
            Kind::ExitSignal => place.raw = Some(with_long_exit_signal()),
            Kind::FiniteField => {
                let offered = [
                    "diffie-hellman-group-exchange-sha256,diffie-hellman-group18-sha512",
                    "diffie-hellman-group-exchange-sha256",
                    "diffie-hellman-group14-sha256",
                    "diffie-hellman-group18-sha512",
                ];
                for names in offered.iter().cycle().take(8) {
                    let option = format!("KexAlgorithms {names}");
                    place.servers.push(plain().option(option).start());
                }
            }
            Kind::Descriptors => place.servers.extend((0..4).map(|_| plain().start())),
        }
        if place.own_neighbour().is_none() {
            place.servers.iter().try_for_each(make_distant)?;
        }
        Ok(place)
    }

    /// The server of a case that has one.
    fn server(&self) -> anyhow::Result<&Sshd> {
        self.servers.first().context("the case has no server")
    }

    pub(crate) fn acquire(&self) -> Duration {
        Duration::from_secs(match self.kind {
            Kind::Descriptors => 20,
            _ => 30,
        })
    }

    /// The server whose other commands are measured, where it is that of the case.
    pub(crate) fn own_neighbour(&self) -> Option<&Sshd> {
        match self.kind {
            Kind::Sizes | Kind::HeldStreams => self.servers.first(),
            _ => None,
        }
    }

    /// Lets it happen once, and says what became of it.
    pub(crate) async fn run(&self, pool: &Pool) -> anyhow::Result<String> {
        match self.kind {
            Kind::Nothing => {
                tokio::time::sleep(TIME).await;
                Ok(String::new())
            }
            Kind::Shell(_) => {
                let host = host_of(pool, self.server()?)?;
                let mut results = Results::default();
                for _ in 0..4 {
                    results.add_all((0..5).map(|_| host.command("true").output()));
                    results.done().await?;
                }
                Ok(results.to_string())
            }
            Kind::Sizes => {
                let host = host_of(pool, self.server()?)?;
                let mut results = Results::default();
                let (value, argument) = ("v".repeat(140_000), "a".repeat(300_000));
                results.add_all((0..20).flat_map(|_| {
                    let with_value = host.command("true").env("FOO", &value).output();
                    let with_argument = host.command("true").arg(&argument).output();
                    [with_value, with_argument]
                }));
                results.done().await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(results.to_string())
            }
            Kind::Chroot => insist(host_of(pool, self.server()?)?).await,
            Kind::Silence => {
                let hole = self.hole.as_ref().map(BlackHole::addr);
                let addr = hole.context("the case has no black hole")?;
                let target = Target::new("nobody", addr.ip().to_string(), addr.port())?
                    .host_key_policy(HostKeyPolicy::dangerous_accept_any());
                insist(pool.host(target)?).await
            }
            Kind::FrozenUploads => self.upload(pool).await,
            Kind::ExitSignal => {
                let raw = self.raw.as_ref().context("the case has no server")?;
                let target: Target = raw.target().parse()?;
                let target = target
                    .identity(Identity::password("any"))
                    .host_key_policy(HostKeyPolicy::known_hosts_file(raw.known_hosts()));
                insist(pool.host(target)?).await
            }
            Kind::FiniteField => {
                let mut results = Results::default();
                for server in &self.servers {
                    let host = host_of(pool, server)?;
                    results.add_all([host.command("true").output()]);
                    // The next time is a login again.
                    host.evict();
                }
                results.done().await?;
                Ok(results.to_string())
            }
            Kind::Output => {
                let host = host_of(pool, self.server()?)?;
                let mut results = Results::default();
                // Resets the peak.
                std::fs::write("/proc/self/clear_refs", "5")?;
                let line = "head -c 67000000 /dev/zero";
                results.add_all((0..30).map(|_| host.shell(line).output()));
                results.done().await?;
                Ok(format!("{results}; {} MiB at most", peak_mebibytes()?))
            }
            Kind::Descriptors => self.with_few_descriptors(pool).await,
            Kind::HeldStreams => {
                let host = host_of(pool, self.server()?)?;
                let mut children = Vec::new();
                for _ in 0..120 {
                    children.push(host.command("cat").shared().spawn().await?);
                }
                let held = children.len();
                for mut child in children {
                    drop(child.stdin.take());
                    child.wait().await?;
                }
                Ok(format!("{held} held"))
            }
        }
    }

    async fn upload(&self, pool: &Pool) -> anyhow::Result<String> {
        let (sshd, proxy) = (self.server()?, self.proxy.as_ref());
        let proxy = proxy.context("the case has no proxy")?;
        let policy = sshd.dir().join("behind");
        let line = proxy.known_hosts_line(&sshd.host_public_key("ed25519"));
        std::fs::write(&policy, format!("{line}\n"))?;
        let target = Target::new(sshd.user(), "127.0.0.1", proxy.port())?
            .identity(Identity::key_file(sshd.client_key()))
            .host_key_policy(HostKeyPolicy::known_hosts_file(policy));
        let host = pool.host(target)?;
        proxy.thaw();
        host.warm().await?;
        let megabytes = 3 << 20;
        proxy.throttle(Rate {
            from_client: Some(megabytes),
            from_server: None,
        });
        let mut upload = host.shell("cat >/dev/null");
        upload.stdin(vec![0; 60_000_000]);
        let mut uploads = JoinSet::new();
        for _ in 0..9 {
            uploads.spawn(upload.output());
        }
        eventually_async(TIME, || host.status().running == 9).await;
        proxy.freeze();
        let began = Instant::now();
        let mut command = host.command("true");
        let result = command.timeout(Duration::from_secs(3)).output().await;
        let took = began.elapsed().as_secs_f64();
        proxy.reset();
        uploads.shutdown().await;
        Ok(match result {
            Ok(_) => "served".into(),
            Err(error) => format!("{} after {took:.1} s", kind_of(&error)),
        })
    }

    async fn with_few_descriptors(&self, pool: &Pool) -> anyhow::Result<String> {
        let mut hosts = Vec::new();
        for (number, server) in self.servers.iter().cycle().take(200).enumerate() {
            // Hosts that share no connection: each has a known_hosts file of its own.
            let file = server.dir().join(format!("known_hosts_{number}"));
            std::fs::copy(server.known_hosts(), &file)?;
            let target = Target::new(server.user(), "127.0.0.1", server.port())?
                .identity(Identity::key_file(server.client_key()))
                .host_key_policy(HostKeyPolicy::known_hosts_file(file));
            hosts.push(pool.host(target)?);
        }
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let open = std::fs::read_dir("/proc/self/fd")?.count();
        setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(open)? + 64, hard)?;
        let mut results = Results::default();
        results.add_all(hosts.iter().map(|host| host.command("true").output()));
        let done = results.done().await;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        done?;
        Ok(results.to_string())
    }
}

/// Lets a server have the processors only while nothing else wants them. It stands for another
/// machine: what its logins and commands cost there is nothing that the pool could save a
/// neighbour.
fn make_distant(server: &Sshd) -> anyhow::Result<()> {
    let mut chrt = Command::new("chrt");
    chrt.args(["--idle", "--pid", "0", &server.pid().to_string()]);
    let status = chrt.status()?;
    ensure!(status.success(), "chrt: {status}");
    Ok(())
}

fn host_of(pool: &Pool, server: &Sshd) -> anyhow::Result<Host> {
    let target: Target = server.target().parse()?;
    let target = target
        .identity(Identity::key_file(server.client_key()))
        .host_key_policy(HostKeyPolicy::known_hosts_file(server.known_hosts()));
    Ok(pool.host(target)?)
}

/// Many callers who try again at once.
async fn insist(host: Host) -> anyhow::Result<String> {
    let until = Instant::now() + TIME;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let host = host.clone();
        callers.spawn(async move {
            let mut said = Vec::new();
            while Instant::now() < until {
                let call = host.command("true").output();
                // A host that says nothing keeps its callers waiting.
                let left = until.saturating_duration_since(Instant::now());
                match tokio::time::timeout(left, call).await {
                    Ok(Ok(_)) => said.push("served".to_owned()),
                    Ok(Err(error)) => said.push(kind_of(&error)),
                    Err(_) => said.push("cancelled".to_owned()),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            said
        });
    }
    let mut results = Results::default();
    while let Some(said) = callers.join_next().await {
        said?.into_iter().for_each(|said| results.count(said));
    }
    Ok(format!("{results}; {} logins", host.status().dials))
}

/// Sends an exit signal whose name is far too long.
fn with_long_exit_signal() -> RawServer {
    // The exit status is the first request of the server's.
    let exit = At::Every(number::CHANNEL_REQUEST);
    let signal = Trick::on_channel(exit, |on| {
        let signal = Payload::new(number::CHANNEL_REQUEST)
            .number(on.client)
            .string("exit-signal")
            .byte(0)
            .string("\u{1b}".repeat(240_000))
            .byte(0)
            .string("")
            .string("");
        vec![Act::from(signal)]
    });
    RawServer::with_tricks(KeyExchange::default(), vec![signal])
}

fn kind_of(error: &Error) -> String {
    let debug = format!("{error:?}");
    let end = debug.find([' ', '(', '{']).unwrap_or(debug.len());
    debug.get(..end).unwrap_or(&debug).to_owned()
}

fn peak_mebibytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.unwrap_or("0").parse::<u64>()? >> 10)
}

/// What became of calls, by kind.
#[derive(Default)]
struct Results {
    counts: BTreeMap<String, usize>,
    calls: JoinSet<Result<(), Error>>,
}

impl Results {
    fn count(&mut self, what: String) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn add_all<T: 'static>(
        &mut self,
        calls: impl IntoIterator<Item: Future<Output = Result<T, Error>> + Send + 'static>,
    ) {
        for call in calls {
            self.calls.spawn(async move { call.await.map(drop) });
        }
    }

    async fn done(&mut self) -> anyhow::Result<()> {
        while let Some(result) = self.calls.join_next().await {
            let what = match result? {
                Ok(()) => "served".to_owned(),
                Err(error) => kind_of(&error),
            };
            self.count(what);
        }
        Ok(())
    }
}

impl std::fmt::Display for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (what, count)) in self.counts.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{count} {what}")?;
        }
        Ok(())
    }
}
