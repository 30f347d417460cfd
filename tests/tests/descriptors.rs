//! When no file descriptors are left: a typed error, nobody blamed, and all is well once there are
//! some again. In a test binary of its own, because it takes all that this process may have.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::error::Error as StdError;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ssh_pool::{
    CommandState, Error, EventKind, Host, HostKeyPolicy, Identity, Phase, Pool, Retirement, Target,
    Timeouts,
};
use ssh_pool_tests::{Agent, Release, Sshd, TestUser, eventually_async};
use tokio::task::JoinSet;

/// Far longer than anything here takes: for things that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// As long as a caller waits for a descriptor that does not come.
const BRIEF: Duration = Duration::from_secs(1);

/// Every descriptor that this process may still open, but so many.
struct Hoard {
    _files: Vec<File>,
}

impl Hoard {
    fn all_but(free: usize) -> Self {
        let mut files = Vec::new();
        loop {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(24), "EMFILE: {error}");
                    break;
                }
            }
        }
        files.truncate(files.len() - free);
        Self { _files: files }
    }
}

/// Something that needs a descriptor in a dial.
struct Need {
    what: &'static str,
    host: Host,
    /// Descriptors that are left, for what comes before it.
    free: usize,
}

fn needs(pool: &Pool, sshd: &Sshd, agent: &Agent) -> Vec<Need> {
    let pem = std::fs::read_to_string(sshd.client_key()).expect("read a key");
    let pem = || Identity::key_pem(&pem);
    let file = || Identity::key_file(sshd.client_key());
    let agent = || Identity::agent_at(agent.socket());
    let several = Identity::several([file(), Identity::password("is not tried instead")]);
    let (any, known) = (
        HostKeyPolicy::dangerous_accept_any,
        HostKeyPolicy::known_hosts_file(sshd.known_hosts()),
    );
    let new = HostKeyPolicy::accept_new_file(sshd.dir().join("new"));
    // Each is a host of its own, which nobody has dialled yet.
    [
        ("a key file", "127.0.0.1", file(), any(), 0),
        ("the first of several", "127.0.0.1", several, any(), 0),
        ("known_hosts", "127.0.0.1", pem(), known, 0),
        ("where a new key is stored", "127.0.0.1", pem(), new, 1),
        ("an agent", "127.0.0.1", agent(), any(), 0),
        // A second descriptor is held for it from before the connection.
        ("an agent, for the login", "127.0.0.1", agent(), any(), 1),
        ("the socket", "127.0.0.1", pem(), any(), 0),
        ("the resolver", "localhost", pem(), any(), 0),
    ]
    .map(|(what, name, identity, policy, free)| {
        let target = Target::new(sshd.user(), name, sshd.port()).expect("target");
        let target = target.identity(identity).host_key_policy(policy);
        let host = pool.host(target).expect("host");
        Need { what, host, free }
    })
    .into()
}

fn names_the_cause(error: &Error) -> bool {
    std::iter::successors(error.source(), |error| (*error).source())
        .any(|error| error.to_string().contains("Too many open files"))
}

async fn closed_but(pool: &Pool, connections: usize) {
    let closed = || pool.status().connections == connections;
    assert!(
        eventually_async(PATIENCE, closed).await,
        "{:?}",
        pool.status()
    );
}

async fn story(release: Release) {
    let sshd = Sshd::builder()
        .user(TestUser::plain())
        .release(release)
        .start();
    std::fs::set_permissions(sshd.dir(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let agent = Agent::start();
    agent.add(sshd.client_key());
    let pool = Pool::builder(HostKeyPolicy::known_hosts_file(sshd.known_hosts()))
        .identity(Identity::key_file(sshd.client_key()))
        .build()
        .expect("valid settings");
    let busy = pool.host(sshd.target()).expect("target");
    let gate = sshd.dir().join("gate");
    let line = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    let running = tokio::spawn(busy.shell(line).output());
    assert!(eventually_async(PATIENCE, || busy.status().running == 1).await);

    let needs = needs(&pool, &sshd, &agent);
    for Need { what, host, free } in &needs {
        let hoard = Hoard::all_but(*free);
        let began = Instant::now();
        let mut command = host.command("true");
        let error = command.timeout(BRIEF).output().await.expect_err(what);
        assert!(began.elapsed() >= BRIEF, "{what}: not waited for");
        let meanwhile = busy.command("true").output().await;
        drop(hoard);
        assert!(
            matches!(error, Error::Descriptors { .. }),
            "{what}: {error:?}"
        );
        assert_eq!(error.phase(), Phase::Connect, "{what}");
        assert_eq!(error.command_state(), CommandState::NotStarted, "{what}");
        assert!(error.is_transient(), "{what}");
        // A resolver does not always say what it lacked.
        assert!(
            *what == "the resolver" || names_the_cause(&error),
            "{what}: {error:?}"
        );
        meanwhile.unwrap_or_else(|error| panic!("{what}: on a live connection: {error}"));

        let output = host.command("true").output().await;
        output.unwrap_or_else(|error| panic!("{what}: there are descriptors again: {error:?}"));
        host.evict();
        closed_but(&pool, 1).await;
    }

    // Idle connections make room, and nobody sees that there was none.
    std::fs::write(&gate, "").expect("open the gate");
    running.await.expect("no panic").expect("undisturbed");
    let mut events = pool.events();
    let socket = needs.iter().find(|need| need.what == "the socket");
    let socket = &socket.expect("it is listed").host;
    let hoard = Hoard::all_but(0);
    let output = socket.command("true").output().await;
    drop(hoard);
    output.expect("another connection has made room");
    let made_room = std::iter::from_fn(|| events.try_next()).any(|event| {
        let reason = Retirement::MadeRoom;
        matches!(event.kind, EventKind::Retired { reason: why } if why == reason)
    });
    assert!(made_room && busy.status().connections == 0);

    pool.close().await;
    // OpenSSH 10.0 counts logins that are broken off, and lets us in.
    assert!(!sshd.log().contains("drop connection"), "{}", sshd.log());
}

/// A test takes what others need: one at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn want_of_descriptors_is_waited_for_told_as_that_and_passes_with_it() {
    let _turn = TURN.lock().await;
    for release in [Release::Installed, Release::Trixie] {
        story(release).await;
    }
}

const HOSTS: usize = 80;
/// Descriptors for their connections, which is not enough for all at once.
const LEFT: usize = 48;

/// Hosts that share no connection, on a few servers: each has a known_hosts file of its own.
fn many_hosts(pool: &Pool, servers: &[Sshd]) -> Vec<Host> {
    let host = |(number, sshd): (usize, &Sshd)| {
        let file = sshd.dir().join(format!("known_hosts_{number}"));
        std::fs::copy(sshd.known_hosts(), &file).expect("copy");
        let target = Target::new(sshd.user(), "127.0.0.1", sshd.port()).expect("target");
        let target = target
            .identity(Identity::key_file(sshd.client_key()))
            .host_key_policy(HostKeyPolicy::known_hosts_file(file));
        pool.host(target).expect("host")
    };
    let servers = servers.iter().cycle().take(HOSTS);
    servers.enumerate().map(host).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_hosts_than_descriptors_wait_for_one_another_and_none_fails() {
    let _turn = TURN.lock().await;
    let servers: Vec<Sshd> = (0..4)
        .map(|_| Sshd::builder().user(TestUser::plain()).start())
        .collect();
    let pool = Pool::builder(HostKeyPolicy::known_hosts())
        .timeouts(Timeouts::default().acquire(PATIENCE))
        .build()
        .expect("valid settings");
    let mut events = pool.events();
    let gate = servers[0].dir().join("gate");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(servers[0].dir(), open).expect("chmod");
    let hosts = many_hosts(&pool, &servers);
    let hoard = Hoard::all_but(LEFT);
    let began = Instant::now();
    let mut commands = JoinSet::new();
    for host in &hosts {
        let line = format!("until [ -e {} ]; do sleep 0.1; done", gate.display());
        commands.spawn(host.shell(line).output());
    }
    // All that can be had run, and the others wait, longer than for a failure that may pass.
    let tried = |host: &Host| host.status().failed_dials >= 12;
    let waited = eventually_async(PATIENCE, || hosts.iter().any(tried)).await;
    assert!(waited, "{:?}", pool.status());
    while let Some(event) = events.try_next() {
        if let EventKind::DialFailed { error, .. } = &event.kind {
            assert!(matches!(error, Error::Descriptors { .. }), "{error:?}");
        }
    }
    let neighbour = hosts.iter().find(|host| host.status().running == 1);
    let neighbour = neighbour.expect("one runs").command("true").output().await;
    assert!(neighbour.expect("on a live connection").status.success());

    // This takes no descriptor.
    std::fs::create_dir(&gate).expect("open the gate");
    while let Some(output) = commands.join_next().await {
        let output = output.expect("no panic").expect("waited for a descriptor");
        assert!(output.status.success());
    }
    drop(hoard);
    let seconds = began.elapsed().as_secs();
    let failed: u64 = hosts.iter().map(|host| host.status().failed_dials).sum();
    println!("{failed} dials without a descriptor in {seconds} s");
    // The first five pauses are shorter than half a second, at least.
    let most = HOSTS as u64 * (5 + 2 * seconds);
    assert!(failed <= most, "{failed} in {seconds} s");
    pool.close().await;
}
