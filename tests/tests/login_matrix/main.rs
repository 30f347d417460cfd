//! Logins beside ssh itself: every set of key files, with every agent, to servers that want every method.
//!
//! Each row is two logins with the same home folder, the same agent and the same password: one by `ssh`,
//! one by a pool with `Identity::like_ssh`. Both get in, or neither does, unless [`DIFFERENCES`] says why.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in tests, which does not reach the helpers beside them"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use ssh_pool_tests::Home;

use agents::Agents;
use keys::{KEY_SETS, KeySet, Stock};
use servers::{Server, Servers};

mod agents;
mod keys;
mod servers;

/// How many logins are made at once, by each of the two.
const AT_ONCE: usize = 4;

/// Fewer would be no matrix.
const LEAST_ROWS: usize = 400;

/// Rows in which the verdicts differ.
struct Difference {
    keys: Option<&'static str>,
    agent: Option<&'static str>,
    server: Option<&'static str>,
    pool_gets_in: bool,
    /// Stated in the documentation of the pool.
    why: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        keys: Some("ed25519 with CRLF"),
        agent: None,
        server: None,
        pool_gets_in: true,
        why: "ssh reads no line ends of Windows in OpenSSH's own format; the pool does",
    },
    Difference {
        keys: Some("ed25519 with a byte order mark"),
        agent: None,
        server: None,
        pool_gets_in: true,
        why: "ssh reads a byte order mark in PEM and PKCS#8 only; the pool in each format",
    },
    Difference {
        keys: None,
        agent: Some("holds nine others"),
        server: Some("dropbear"),
        pool_gets_in: false,
        why: "dropbear takes ten attempts, and the pool makes Limits::auth_attempts, which are five",
    },
];

impl Difference {
    fn explains(&self, row: &Row) -> bool {
        let is = |named: Option<&str>, value: &str| named.is_none_or(|named| named == value);
        is(self.keys, row.keys)
            && is(self.agent, row.agent)
            && is(self.server, row.server)
            && (row.pool, row.ssh) == (self.pool_gets_in, !self.pool_gets_in)
    }
}

/// One login of each.
struct Row {
    keys: &'static str,
    agent: &'static str,
    server: &'static str,
    ssh: bool,
    pool: bool,
    /// What the pool said.
    said: String,
}

impl Row {
    fn describe(&self) -> String {
        let Self {
            keys,
            agent,
            server,
            ssh,
            said,
            ..
        } = self;
        let ssh = if *ssh { "in" } else { "out" };
        format!("{server}, {keys}, agent {agent}: ssh {ssh}, pool {said}\n")
    }
}

/// Everything that logins are made of.
struct Bench {
    servers: Servers,
    agents: Agents,
    stock: Stock,
}

impl Bench {
    fn start() -> Self {
        let stock = Stock::new();
        Self {
            servers: Servers::start(&stock),
            agents: Agents::start(&stock),
            stock,
        }
    }

    /// The rows of one set of keys.
    fn rows(&self, set: &'static KeySet) -> Vec<Row> {
        let home = Home::new();
        (set.lay_out)(&self.stock, &home.ssh());
        self.servers.write_known_hosts(&home.ssh());
        let mut rows = Vec::new();
        for (agent, socket) in self.agents.all() {
            let servers: Vec<_> = (self.servers.all())
                .filter(|server| !server.is_for_few || (set.is_common && agent.is_common))
                .collect();
            let command = |program: &Path| {
                let mut command = home.command(program);
                if let Some(socket) = &socket {
                    command.env("SSH_AUTH_SOCK", socket);
                }
                command
            };
            let pool = self.pool(command, &servers);
            for (server, said) in servers.iter().zip(pool) {
                rows.push(Row {
                    keys: set.name,
                    agent: agent.name,
                    server: server.name,
                    ssh: self.ssh(command(Path::new("ssh")), server),
                    pool: said == "in",
                    said,
                });
            }
        }
        rows
    }

    fn ssh(&self, mut ssh: Command, server: &Server) -> bool {
        ssh.args(["-F", "none", "-o", "NumberOfPasswordPrompts=1", "-p"])
            .arg(server.port.to_string())
            .arg(format!("{}@127.0.0.1", server.user))
            .arg("true")
            .env("SSH_ASKPASS", self.servers.askpass())
            .env("SSH_ASKPASS_REQUIRE", "force");
        ssh.stdin(Stdio::null()).output().unwrap().status.success()
    }

    /// What the pool says of each server.
    fn pool(&self, command: impl Fn(&Path) -> Command, servers: &[&Server]) -> Vec<String> {
        let mut login = command(env!("CARGO_BIN_EXE_ssh-pool-test-login").as_ref());
        login.args(["login", "5"]);
        for server in servers {
            login.arg(format!("{}@127.0.0.1:{}", server.user, server.port));
        }
        login.env("PASSWORD", self.servers.password());
        let output = login.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let said: Vec<_> = said.lines().map(str::to_owned).collect();
        assert_eq!(
            said.len(),
            servers.len(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

#[test]
fn a_pool_gets_in_where_ssh_gets_in_and_nowhere_else() {
    let bench = Bench::start();
    let left = Mutex::new(KEY_SETS.iter());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(set) = left.lock().unwrap().next() else {
                        return;
                    };
                    let found = bench.rows(set);
                    rows.lock().unwrap().extend(found);
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    let (same, other): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.ssh == row.pool);
    let explained = |row: &&Row| DIFFERENCES.iter().any(|known| known.explains(row));
    let (documented, unexpected): (Vec<&Row>, Vec<&Row>) = other.into_iter().partition(explained);
    let listed: String = unexpected.iter().map(|row| row.describe()).collect();
    assert!(unexpected.is_empty(), "{listed}");
    for known in DIFFERENCES {
        let occurs = documented.iter().any(|row| known.explains(row));
        assert!(occurs, "no difference any more: {}", known.why);
    }
    let successes = same.iter().filter(|row| row.ssh).count();
    println!(
        "{} rows: {successes} in, {} out, {} documented differences",
        rows.len(),
        same.len() - successes,
        documented.len()
    );
    assert!(rows.len() >= LEAST_ROWS, "{}", rows.len());
    let failures = same.len() - successes;
    assert!(successes > LEAST_ROWS / 4 && failures > LEAST_ROWS / 4);
}
