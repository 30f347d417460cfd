//! The limits of a whole pool, on real servers.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Limits, Pool, Stdio, Stream};
use ssh_pool_tests::{Embedded, Release, Sshd, TestUser, eventually_async, moment, procs};
use support::{SOON, builder, known};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// Between two looks, so that those who are looked at have a processor.
const PAUSE: Duration = Duration::from_millis(1);

/// The most connections to these ports that were there at once, looked at all the time. The
/// kernel's list is no picture of one moment: one connection may be read before it ends, and its
/// successor after that. What is in two lists was there at the moment between them.
struct Watch {
    /// It ends when this is gone, also by a test that fails.
    wanted: Arc<()>,
    watching: std::thread::JoinHandle<usize>,
}

impl Watch {
    fn start(ports: Vec<u16>) -> Self {
        let wanted = Arc::new(());
        let still = Arc::downgrade(&wanted);
        let watching = std::thread::spawn(move || {
            let mut most = 0;
            loop {
                // Before the look, so that the last one sees what is left in the end.
                let wanted = still.strong_count() > 0;
                let before = procs::connections_to(&ports);
                let now = procs::connections_to(&ports);
                most = most.max(now.intersection(&before).count());
                if !wanted {
                    return most;
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { wanted, watching }
    }

    fn most(self) -> usize {
        drop(self.wanted);
        self.watching.join().expect("no panic")
    }
}

/// Commands on all hosts, one host after the other, then all at once.
async fn in_turn_and_at_once(hosts: &[Host]) {
    for _ in 0..3 {
        for host in hosts {
            host.command("true").output().await.expect("in turn");
        }
    }
    let mut commands = JoinSet::new();
    for (number, host) in hosts.iter().cycle().take(8 * hosts.len()).enumerate() {
        let command = host.command("echo").arg(number.to_string()).output();
        commands.spawn(async move { (number, command.await.expect("at once")) });
    }
    while let Some(done) = commands.join_next().await {
        let (number, output) = done.expect("no panic");
        assert_eq!(output.stdout, format!("{number}\n").into_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hosts_are_served_over_two_connections() {
    let servers = Embedded::builder().start_many(5).await;
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(servers[0].known_hosts()))
        .identity(Identity::key_pem(servers[0].client_key_pem()))
        .limits(Limits::default().connections(2))
        .build()
        .expect("valid settings");
    let hosts: Vec<Host> = (servers.iter())
        .map(|server| pool.host(server.target()).expect("target"))
        .collect();
    let watch = Watch::start(servers.iter().map(Embedded::port).collect());
    in_turn_and_at_once(&hosts).await;
    let most = watch.most();
    assert_eq!(most, 2);
    assert!(pool.status().connections <= 2, "{:?}", pool.status());
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_at_a_time_serves_several_real_servers() {
    let servers = [Release::Installed, Release::Trixie].map(|release| {
        let builder = Sshd::builder().user(TestUser::plain()).release(release);
        builder.start()
    });
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .limits(Limits::default().connections(1))
        .build()
        .expect("valid settings");
    let hosts: Vec<Host> = (servers.iter())
        .map(|sshd| {
            let target: ssh_pool::Target = sshd.target().parse().expect("target");
            let identity = Identity::key_file(sshd.client_key());
            pool.host(target.identity(identity)).expect("host")
        })
        .collect();
    let watch = Watch::start(servers.iter().map(Sshd::port).collect());
    in_turn_and_at_once(&hosts).await;
    assert_eq!(watch.most(), 1);
    pool.close().await;
    for sshd in servers {
        assert!(!sshd.log().contains("penalty"), "{}", sshd.log());
    }
}

const KIB: usize = 1 << 10;
/// What one command writes, of which the pool below keeps no two.
const OUTPUT: usize = 600 * KIB;
const LIMIT: usize = 1 << 20;

struct Stage {
    _sshd: Sshd,
    pool: Pool,
    host: Host,
    gate: PathBuf,
}

impl Stage {
    fn new(release: Release) -> Self {
        let sshd = Sshd::builder()
            .user(TestUser::plain())
            .release(release)
            .start();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(sshd.dir(), open).expect("chmod");
        let limits = Limits::default().buffered_bytes(LIMIT);
        let pool = builder(&sshd, known(&sshd)).limits(limits).build();
        let pool = pool.expect("valid settings");
        Self {
            host: pool.host(sshd.target()).expect("target"),
            gate: sshd.dir().join("gate"),
            _sshd: sshd,
            pool,
        }
    }

    /// Writes that, then waits for the gate.
    fn line(&self, bytes: usize) -> String {
        let gate = self.gate.display();
        format!("head -c {bytes} /dev/zero; until [ -e {gate} ]; do sleep 0.02; done")
    }

    async fn holds(&self, bytes: usize) {
        // What is allocated and not filled is an eighth at most.
        let held = || {
            let held = self.pool.status().buffered_bytes;
            (bytes..=bytes + bytes / 8).contains(&held)
        };
        let status = || self.pool.status();
        assert!(
            eventually_async(SOON, held).await,
            "{bytes}: {:?}",
            status()
        );
    }
}

async fn who_comes_last_is_cut_off(release: Release) {
    let stage = Stage::new(release);
    let first = tokio::spawn(stage.host.shell(stage.line(OUTPUT)).output());
    stage.holds(OUTPUT).await;

    // A command, and a shared stream whose reader does not read.
    let too_much = stage.host.shell(stage.line(OUTPUT)).output().await;
    let error = too_much.expect_err("more than the pool keeps");
    let limits = matches!(
        error,
        Error::OutputLimit {
            stream: Stream::Stdout,
            limit: LIMIT,
            ..
        }
    );
    assert!(limits, "{error:?}");
    assert!(
        error.to_string().contains("Limits::buffered_bytes"),
        "{error}"
    );
    stage.holds(OUTPUT).await;
    let line = stage.line(OUTPUT);
    let mut child = stage
        .host
        .shell(line)
        .shared()
        .spawn()
        .await
        .expect("started");
    let mut stdout = child.stdout.take().expect("piped");
    let error = child.wait().await.expect_err("more than the pool keeps");
    assert!(
        matches!(error, Error::OutputLimit { limit: LIMIT, .. }),
        "{error:?}"
    );
    let mut read = Vec::new();
    let cut = stdout.read_to_end(&mut read).await.expect_err("cut off");
    assert!(cut.to_string().contains("Limits::buffered_bytes"), "{cut}");
    assert!(!read.is_empty() && read.len() <= LIMIT - OUTPUT);
    stage.holds(OUTPUT).await;

    // What is thrown away is not kept.
    let discarded = stage.host.shell(format!("head -c {LIMIT} /dev/zero"));
    let status = { discarded }.status().await.expect("ran");
    assert!(status.success());
    let isolated = || async {
        let mut command = stage.host.shell(format!("head -c {LIMIT} /dev/zero"));
        command.stdin(Stdio::null()).spawn().await.expect("started")
    };
    let kept = isolated().await.wait_with_output().await;
    let error = kept.expect_err("more than the pool keeps");
    assert!(
        matches!(error, Error::OutputLimit { limit: LIMIT, .. }),
        "{error:?}"
    );
    // What holds its peer back is refused nothing.
    let mut child = isolated().await;
    let mut read = Vec::new();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_to_end(&mut read).await.expect("all of it");
    assert_eq!(read.len(), LIMIT);
    assert!(child.wait().await.expect("ran").success());

    std::fs::write(&stage.gate, "").expect("open the gate");
    let output = first.await.expect("no panic").expect("undisturbed");
    assert_eq!(output.stdout.len(), OUTPUT);
    stage.holds(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_keeps_so_much_output_and_no_more() {
    for release in [Release::Installed, Release::Trixie] {
        who_comes_last_is_cut_off(release).await;
    }
}

async fn all_comes_back(release: Release) {
    let stage = Stage::new(release);
    std::fs::write(&stage.gate, "").expect("open the gate");
    let mut commands = JoinSet::new();
    for number in 0..100 {
        let bytes = [KIB, 100 * KIB, 2 * LIMIT][number % 3];
        let host = stage.host.clone();
        let line = stage.line(bytes);
        commands.spawn(async move {
            match number % 5 {
                // Dropped while it waits, writes or ends.
                0 | 1 => {
                    let moment = moment(Duration::from_millis(60));
                    drop(tokio::time::timeout(moment, host.shell(line).output()).await);
                }
                // Read in part.
                2 => {
                    let child = host.shell(line).shared().spawn().await;
                    let mut child = child.expect("started");
                    let mut stdout = child.stdout.take().expect("piped");
                    // Nothing, where the others have all that the pool may keep.
                    drop(stdout.read_exact(&mut [0; 700]).await);
                }
                // Run to its end, which for some is the pool's limit.
                _ => match host.shell(line).output().await {
                    Ok(output) => assert_eq!(output.stdout.len(), bytes),
                    Err(error) => assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}"),
                },
            }
        });
    }
    while let Some(done) = commands.join_next().await {
        done.expect("no panic");
    }
    stage.holds(0).await;
    let whole = stage.host.shell(stage.line(LIMIT - KIB)).output().await;
    assert_eq!(whole.expect("all of it is free").stdout.len(), LIMIT - KIB);
    stage.holds(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_commands_their_bytes_are_given_back() {
    for release in [Release::Installed, Release::Trixie] {
        all_comes_back(release).await;
    }
}
