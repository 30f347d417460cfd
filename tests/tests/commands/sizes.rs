//! What a server does not take is refused before it is sent: it would end the connection, with the
//! commands of others.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ssh_pool::{
    Command, CommandState, Error, Host, HostKeyPolicy, Identity, Limits, Pool, Pty, Stdio,
};
use ssh_pool_tests::{Dropbear, Embedded, Release, Sshd};
use tokio::task::JoinSet;

use crate::support::RELEASES;
use crate::{builder, known};

/// The longest string that dropbear takes.
const DROPBEAR: usize = 9_000;
/// The longest that Linux executes.
const EXECVE: usize = 128 * 1024 - 1;
/// The longest that is sent to OpenSSH.
const OPENSSH: usize = 255 * 1024;
/// The longest that is sent to a server of another kind.
const ANY: usize = 31 * 1024;

/// A server, and a pool with one shared connection to it.
struct Site {
    name: String,
    _server: Box<dyn std::any::Any>,
    pool: Pool,
    host: Host,
}

fn limits() -> Limits {
    Limits::default().connections_per_host(1)
}

fn dropbear(release: Release) -> (Dropbear, Pool, Host) {
    let dropbear = Dropbear::builder().release(release).start();
    let policy = HostKeyPolicy::known_hosts_file(dropbear.known_hosts());
    let pool = Pool::builder(policy)
        .identity(Identity::key_file(dropbear.client_key()))
        .limits(limits())
        .build()
        .unwrap();
    let host = pool.host(dropbear.target()).unwrap();
    (dropbear, pool, host)
}

fn dropbears() -> Vec<Site> {
    let site = |release| {
        let (server, pool, host) = dropbear(release);
        Site {
            name: format!("dropbear, {release:?}"),
            _server: Box::new(server),
            pool,
            host,
        }
    };
    RELEASES.map(site).into()
}

fn sshds() -> Vec<Site> {
    let site = |release| {
        let sshd = Sshd::builder()
            .release(release)
            .option("AcceptEnv *")
            .start();
        let pool = builder(&sshd, known(&sshd)).limits(limits()).build();
        let pool = pool.unwrap();
        let host = pool.host(sshd.target()).unwrap();
        Site {
            name: format!("OpenSSH, {release:?}"),
            _server: Box::new(sshd),
            pool,
            host,
        }
    };
    RELEASES.map(site).into()
}

/// A command line of this length that prints one character.
fn line(host: &Host, length: usize) -> Command {
    let (begin, end) = ("echo k #", "x".repeat(length - "echo k #".len()));
    host.shell(format!("{begin}{end}"))
}

/// A variable that takes this much of an environment.
fn variable(host: &Host, length: usize) -> Command {
    let mut command = host.shell("echo ${#A}");
    command.env("A", "v".repeat(length - "A=".len())).verbatim();
    command
}

fn terminal(host: &Host, length: usize) -> Command {
    let mut command = host.command("true");
    command.pty(Pty::default().term("t".repeat(length)));
    command
}

fn assert_refused(error: &Error, length: usize, limit: usize, story: &str) {
    let Error::InvalidInput { reason, .. } = error else {
        panic!("{story}: {error:?}")
    };
    for number in [length, limit] {
        assert!(reason.contains(&number.to_string()), "{story}: {reason}");
    }
    assert_eq!(error.command_state(), CommandState::NotStarted, "{story}");
    assert!(!error.is_transient(), "{story}");
}

/// Eight tasks that run one command after the other, and count those that were lost.
struct Neighbours {
    tasks: JoinSet<Vec<Error>>,
    over: Arc<AtomicBool>,
}

impl Neighbours {
    fn of(host: &Host) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (host, over) = (host.clone(), over.clone());
            tasks.spawn(async move {
                let mut lost = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    match host.shell("sleep 0.05; echo k").output().await {
                        Ok(output) => assert_eq!(output.stdout, b"k\n"),
                        Err(error) => lost.push(error),
                    }
                }
                lost
            });
        }
        Self { tasks, over }
    }

    async fn lost(self) -> Vec<Error> {
        self.over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.concat()
    }
}

async fn a_request_beside_eight_busy_tasks(request: impl AsyncFn(&Host) -> Error, length: usize) {
    for release in RELEASES {
        let (server, pool, host) = dropbear(release);
        host.warm().await.unwrap();
        let neighbours = Neighbours::of(&host);
        let error = request(&host).await;
        assert_refused(&error, length, DROPBEAR, &format!("{release:?}"));
        let lost = neighbours.lost().await;
        assert!(lost.is_empty(), "{release:?}: {lost:?}");
        assert_eq!(server.accepted(), 1, "{}", server.log());
        pool.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_dropbear_cannot_take_is_refused_and_costs_no_neighbour_a_command() {
    let value = "v".repeat(40_000);
    // As one command line, `export FOO=…; true`.
    let length = "export FOO=; true".len() + value.len();
    let request = async |host: &Host| {
        let mut command = host.command("true");
        command.env("FOO", &value).output().await.unwrap_err()
    };
    a_request_beside_eight_busy_tasks(request, length).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_that_dropbear_cannot_take_is_refused_and_costs_no_neighbour_a_command() {
    let argument = "a".repeat(12_000);
    let request = async |host: &Host| {
        let mut command = host.command("echo");
        command.arg(&argument).output().await.unwrap_err()
    };
    a_request_beside_eight_busy_tasks(request, "echo ".len() + argument.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_runs_up_to_the_limit_of_its_server_and_is_refused_above_it() {
    let limits = [(dropbears(), DROPBEAR), (sshds(), EXECVE)];
    for (sites, limit) in limits {
        for Site {
            name, pool, host, ..
        } in &sites
        {
            // Also where the pool's own mark does not fit.
            for length in (limit - 200..limit).step_by(10).chain([limit]) {
                let output = line(host, length).output().await;
                let output = output.unwrap_or_else(|error| panic!("{name}, {length}: {error:?}"));
                assert_eq!(output.stdout, b"k\n", "{name}, {length}: {output:?}");
                assert_eq!(output.stderr, b"", "{name}, {length}");
            }
            let story = format!("{name}, the line");
            let error = line(host, limit + 1).output().await.unwrap_err();
            assert_refused(&error, limit + 1, limit, &story);
            let error = line(host, limit + 1).spawn().await.unwrap_err();
            assert_refused(&error, limit + 1, limit, &story);
            let mut script = host.script("cat\n");
            let script = script.arg("a".repeat(limit)).output().await.unwrap_err();
            assert!(matches!(script, Error::InvalidInput { .. }), "{script:?}");
            // What no Linux executes is refused before anything is connected.
            let isolated = u64::from(limit < EXECVE);
            assert_eq!(dials(pool), 1 + isolated, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_string_goes_out_up_to_the_limit_of_its_server_and_is_refused_above_it() {
    for (sites, limit, variables, terminals) in [
        (dropbears(), DROPBEAR, DROPBEAR, 200),
        (sshds(), OPENSSH, EXECVE, EXECVE - "TERM=".len()),
    ] {
        for Site {
            name, pool, host, ..
        } in &sites
        {
            // Nobody says no to a variable; dropbear takes none.
            let output = variable(host, variables).output().await.unwrap();
            let taken = variables - "A=".len();
            let said = if name.starts_with("dropbear") {
                "0\n".to_owned()
            } else {
                format!("{taken}\n")
            };
            assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{name}");
            let error = variable(host, variables + 1).output().await.unwrap_err();
            assert_refused(&error, variables + 1, variables, &format!("{name}, env"));

            terminal(host, terminals).output().await.unwrap();
            let error = terminal(host, terminals + 1).output().await.unwrap_err();
            assert_refused(&error, terminals + 1, terminals, &format!("{name}, pty"));

            let text = |length| "s".repeat(length);
            let subsystem = |length| host.subsystem(text(length)).shared().into_future();
            let error = subsystem(limit).await.unwrap_err();
            let refused = matches!(error, Error::SubsystemRefused { .. });
            assert!(refused, "{name}: {error:?}");
            let error = subsystem(limit + 1).await.unwrap_err();
            assert_refused(&error, limit + 1, limit, &format!("{name}, subsystem"));

            let tcp = |length| host.connect_tcp(text(length), 1).shared().into_future();
            let error = tcp(limit).await.unwrap_err();
            assert!(matches!(error, Error::StreamRefused { .. }), "{error:?}");
            let error = tcp(limit + 1).await.unwrap_err();
            assert_refused(&error, limit + 1, limit, &format!("{name}, host"));

            let unix = |length| {
                let path = Path::new(&text(length)).to_owned();
                host.connect_unix(path).shared().into_future()
            };
            let error = unix(limit).await.unwrap_err();
            assert!(matches!(error, Error::StreamRefused { .. }), "{error:?}");
            let error = unix(limit + 1).await.unwrap_err();
            assert_refused(&error, limit + 1, limit, &format!("{name}, path"));

            assert_eq!(dials(pool), 1, "{name}: no connection was lost");
            let listen = host.forward_remote((text(limit + 1), 0), ("127.0.0.1", 1));
            let error = listen.await.unwrap_err();
            assert_refused(&error, limit + 1, limit, &format!("{name}, listener"));
            let output = host.shell("echo k").output().await.unwrap();
            assert_eq!(output.stdout, b"k\n", "{name}");
            assert_eq!(dials(pool), 2, "{name}: one of them isolated");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_for_a_server_of_an_unknown_kind_goes_out_on_a_connection_of_its_own() {
    let server = Embedded::start().await;
    let policy = HostKeyPolicy::known_hosts_file(server.known_hosts());
    let pool = Pool::builder(policy)
        .identity(Identity::key_file(server.client_key()))
        .limits(limits())
        .build()
        .unwrap();
    let host = pool.host(server.target()).unwrap();
    for (length, connections) in [(ANY, 1), (ANY + 1, 2), (EXECVE, 2)] {
        let mut command = line(&host, length);
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        assert_eq!(output.stdout, b"k\n", "{length}");
        assert_eq!(server.connections(), connections, "{length}");
    }
    let error = host.connect_tcp("h".repeat(ANY + 1), 1).await.unwrap_err();
    assert_refused(&error, ANY + 1, ANY, "a host name");
}

fn dials(pool: &Pool) -> u64 {
    let status = pool.status();
    status.hosts.iter().map(|host| host.dials).sum()
}
