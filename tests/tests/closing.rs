//! The end of a pool that is as busy as it can be. In a test binary of its own, because it counts
//! this process's descriptors and tasks.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use ssh_pool::{ChannelStream, Child, Error, Host, HostKeyPolicy, Identity, Pool, Stdio};
use ssh_pool_tests::{Release, Sshd, TempDir, eventually_async, procs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Far longer than anything here takes: for things that would otherwise hang.
const SOON: Duration = Duration::from_secs(60);
const RUNNING: usize = 40;
const QUEUED: usize = 100;
/// Of each of four kinds: children and streams, isolated and shared.
const LONG_LIVED: usize = 3;

/// What this process holds.
#[derive(Debug, Clone, Copy)]
struct Holdings {
    files: usize,
    tasks: usize,
}

impl Holdings {
    fn now() -> Self {
        let metrics = tokio::runtime::Handle::current().metrics();
        Self {
            files: procs::open_files(),
            tasks: metrics.num_alive_tasks(),
        }
    }
}

/// Says what it has been told, to as many as will connect, on threads of its own.
fn echo(guests: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(guests) {
            let mut stream: TcpStream = stream.unwrap();
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                std::io::copy(&mut stream, &mut back).ok();
            });
        }
    });
    port
}

/// Where commands wait, and what they have entered.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let folder = TempDir::new();
        fs::write(folder.path().join("ledger"), "").unwrap();
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(folder.path().join("ledger"), anybody).unwrap();
        Self(folder)
    }

    /// A command that enters its name, waits until the gate is open, and says a thousand lines.
    fn line(&self, name: &str) -> String {
        let (gate, ledger) = (self.file("open"), self.file("ledger"));
        format!(
            "echo {name} >>{}; until test -e {}; do sleep 0.05; done; seq -f '{name} %04g' 1000",
            ledger.display(),
            gate.display()
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn entered(&self) -> usize {
        let ledger = fs::read_to_string(self.file("ledger")).unwrap();
        ledger.lines().count()
    }

    fn open(&self) {
        fs::write(self.file("open"), "").unwrap();
    }
}

fn assert_said(stdout: &[u8], name: &str) {
    let expected: String = (1..=1000).map(|n| format!("{name} {n:04}\n")).collect();
    assert_eq!(String::from_utf8_lossy(stdout), expected);
}

async fn spawned(host: &Host, site: &Site) -> Vec<Child> {
    let mut children = Vec::new();
    for number in 0..2 * LONG_LIVED {
        let mut command = host.shell(site.line(&format!("child-{number}")));
        command.stdin(Stdio::null());
        if number < LONG_LIVED {
            command.shared();
        }
        children.push(command.spawn().await.unwrap());
    }
    children
}

async fn streams(host: &Host) -> Vec<ChannelStream> {
    let port = echo(2 * LONG_LIVED);
    let mut streams = Vec::new();
    for number in 0..2 * LONG_LIVED {
        let connect = host.connect_tcp("127.0.0.1", port);
        let connect = if number < LONG_LIVED {
            connect.shared()
        } else {
            connect
        };
        streams.push(connect.await.unwrap());
    }
    streams
}

/// Asks, and is answered.
async fn talk(stream: &mut ChannelStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; text.len()];
    let answered = timeout(SOON, stream.read_exact(&mut answer)).await;
    answered.unwrap().unwrap();
    assert_eq!(answer, text.as_bytes());
}

async fn closes_under_load(release: Release) {
    let sshd = Sshd::builder().release(release).start();
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::key_file(sshd.client_key()))
        // Its tasks are counted.
        .in_current_runtime()
        .build()
        .unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let site = Site::new();
    let children = spawned(&host, &site).await;
    let streams = streams(&host).await;

    let mut commands = JoinSet::new();
    // Those that begin first run; the shared children have taken some of the sessions.
    let begin = RUNNING - LONG_LIVED;
    for number in 0..begin + QUEUED {
        let name = format!("command-{number}");
        let output = host.shell(site.line(&name)).output();
        commands.spawn(async move { (name, output.await) });
    }
    let full = || {
        let status = host.status();
        (status.running as usize, status.waiting) == (RUNNING, QUEUED)
            && site.entered() == begin + 2 * LONG_LIVED
    };
    assert!(eventually_async(SOON, full).await, "{:?}", host.status());

    let closing = tokio::spawn(pool.close());
    for _ in 0..QUEUED {
        let (name, result) = commands.join_next().await.unwrap().unwrap();
        assert!(matches!(result, Err(Error::Closed { .. })), "{name}");
    }
    let refused = host.command("true").output().await;
    assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");
    let refused = host.command("true").spawn().await.map(drop);
    assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");
    let refused = host.connect_tcp("127.0.0.1", 1).await.map(drop);
    assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");

    // What runs goes on: streams that are open, children, and commands.
    for mut stream in streams {
        talk(&mut stream, "goodbye").await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        timeout(SOON, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rest, b"");
    }
    site.open();
    for (number, child) in children.into_iter().enumerate() {
        let output = timeout(SOON, child.wait_with_output()).await.unwrap();
        assert_said(&output.unwrap().stdout, &format!("child-{number}"));
    }
    while let Some(done) = commands.join_next().await {
        let (name, result) = done.unwrap();
        assert_said(&result.unwrap().stdout, &name);
    }
    timeout(SOON, closing).await.unwrap().unwrap();

    assert_eq!(site.entered(), begin + 2 * LONG_LIVED, "no queued one ran");
    let gone = || sshd.open_connections() == 0;
    assert!(eventually_async(SOON, gone).await, "{}", sshd.log());
    let server = sshd.session_processes();
    assert!(
        server.iter().all(|(pid, _)| *pid == sshd.pid()),
        "{server:?}"
    );
    assert!(!sshd.log().to_lowercase().contains("penalt"));
}

#[test]
fn closing_under_load_lets_all_that_runs_finish_and_nothing_survives() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for release in [Release::Installed, Release::Trixie] {
            let before = Holdings::now();
            closes_under_load(release).await;
            let nothing = || {
                let now = Holdings::now();
                now.files <= before.files && now.tasks <= before.tasks
            };
            let none = eventually_async(SOON, nothing).await;
            let now = Holdings::now();
            assert!(none, "{release:?}: {before:?} has become {now:?}");
        }
    });
}
