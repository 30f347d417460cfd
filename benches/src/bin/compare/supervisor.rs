//! The servers, and the lines to them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use ssh_pool_tests::{Greeting, Proxy, Sshd, TempDir, TestUser};

use crate::place::Place;

/// One private sshd with stock settings, reached directly or over lines with a delay.
pub(crate) struct Supervisor {
    // Before the server, whose connections they hold.
    lines: BTreeMap<(Duration, bool), Proxy>,
    sshd: Sshd,
    user: TestUser,
    folder: TempDir,
    folders: usize,
}

/// Servers that are hosts of their own.
pub(crate) struct Fleet {
    servers: Vec<Sshd>,
    known_hosts: PathBuf,
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        let user = TestUser::plain();
        Self {
            lines: BTreeMap::new(),
            sshd: Sshd::builder().user(user.clone()).start(),
            user,
            folder: TempDir::new(),
            folders: 0,
        }
    }

    pub(crate) fn sshd(&self) -> &Sshd {
        &self.sshd
    }

    /// The server as it is.
    pub(crate) fn place(&mut self) -> anyhow::Result<Place> {
        Ok(Place {
            addr: self.sshd.addr(),
            user: self.sshd.user().to_owned(),
            key: self.sshd.client_key().to_owned(),
            known_hosts: self.sshd.known_hosts(),
            folder: self.folder()?,
            same_cipher: false,
        })
    }

    /// The server behind a line of that round trip; with zero, as it is. A TCP handshake with a
    /// proxy ends at the proxy: `from_scratch` adds the round trip that it takes on a real line.
    pub(crate) fn behind(
        &mut self,
        round_trip: Duration,
        from_scratch: bool,
    ) -> anyhow::Result<Place> {
        if round_trip.is_zero() {
            return self.place();
        }
        let addr = self.sshd.addr();
        let line = self
            .lines
            .entry((round_trip, from_scratch))
            .or_insert_with(|| {
                let proxy = Proxy::to(addr);
                proxy.delay(round_trip / 2);
                if from_scratch {
                    proxy.greet(Greeting::HoldBanner(round_trip));
                }
                proxy
            });
        let addr = line.addr();
        self.at(addr)
    }

    /// The server behind something that listens there.
    pub(crate) fn at(&mut self, addr: SocketAddr) -> anyhow::Result<Place> {
        let key = self.sshd.host_public_key("ed25519");
        let mut place = self.place()?;
        place.addr = addr;
        place.known_hosts = place.folder.join("known_hosts");
        fs::write(&place.known_hosts, known_hosts_line(addr, &key))?;
        Ok(place)
    }

    /// An empty folder for one worker, so that none finds a socket of another one.
    pub(crate) fn folder(&mut self) -> anyhow::Result<PathBuf> {
        self.folders += 1;
        let folder = self.folder.path().join(self.folders.to_string());
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(folder)
    }

    /// One server under many addresses, which are hosts of their own to any client: all of
    /// 127.0.0.0/8 is this machine (Linux).
    pub(crate) fn crowd(&mut self, hosts: u8) -> anyhow::Result<Vec<Place>> {
        let port = ssh_pool_tests::free_address().port();
        self.sshd = Sshd::builder()
            .user(self.user.clone())
            .option(format!("ListenAddress 0.0.0.0:{port}"))
            .start();
        let key = self.sshd.host_public_key("ed25519");
        let mut places = Vec::new();
        let mut lines = String::new();
        let known_hosts = self.folder.path().join("crowd");
        for last in 1..=hosts {
            let addr = SocketAddr::from(([127, 0, 1, last], port));
            lines += &known_hosts_line(addr, &key);
            let mut place = self.place()?;
            (place.addr, place.known_hosts) = (addr, known_hosts.clone());
            places.push(place);
        }
        fs::write(&known_hosts, lines)?;
        Ok(places)
    }

    /// That many servers beside this one, each with stock settings, which let the same key in.
    pub(crate) fn fleet(&mut self, hosts: usize) -> anyhow::Result<Fleet> {
        let public = fs::read_to_string(self.sshd.client_key().with_extension("pub"))?;
        let known_hosts = self.folder.path().join("fleet");
        let mut servers = Vec::new();
        let mut lines = String::new();
        for _ in 0..hosts {
            let sshd = Sshd::builder().user(self.user.clone()).start();
            sshd.authorize(&public);
            lines += &known_hosts_line(sshd.addr(), &sshd.host_public_key("ed25519"));
            servers.push(sshd);
        }
        fs::write(&known_hosts, lines)?;
        Ok(Fleet {
            servers,
            known_hosts,
        })
    }

    /// All the servers of a fleet, for one worker.
    pub(crate) fn places(&mut self, fleet: &Fleet) -> anyhow::Result<Vec<Place>> {
        let mut place = self.place()?;
        place.known_hosts.clone_from(&fleet.known_hosts);
        let places = fleet.servers.iter().map(|sshd| Place {
            addr: sshd.addr(),
            ..place.clone()
        });
        Ok(places.collect())
    }
}

/// What the figures depend on.
pub(crate) fn machine() -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let shell = if TestUser::plain().is_current() {
        "yourself: this run made no user, and your shell and its start-up files are in the figures"
    } else {
        "a user of its own, with a plain /bin/sh"
    };
    [
        ("date", first_line(Command::new("date").args(["-u", "+%F"]))),
        ("kernel", format!("Linux {}", kernel.trim())),
        ("processors", format!("{cores}, {}", processor())),
        ("ssh", version(Command::new("ssh").arg("-V"))),
        ("sshd", version(Command::new("/usr/sbin/sshd").arg("-V"))),
        ("logs in as", shell.to_owned()),
        ("crates", crates()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// As ssh writes hosts on a port of their own.
fn known_hosts_line(addr: SocketAddr, key: &str) -> String {
    format!("[{}]:{} {}\n", addr.ip(), addr.port(), key.trim_end())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn output(command: &mut Command) -> String {
    command.output().map_or_else(
        |error| error.to_string(),
        |output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        },
    )
}

fn first_line(command: &mut Command) -> String {
    let text = output(command);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The line that begins with OpenSSH: older servers know no `-V`, and say it beside their usage.
fn version(command: &mut Command) -> String {
    let text = output(command);
    let line = text.lines().find(|line| line.starts_with("OpenSSH"));
    line.unwrap_or("unknown").trim().to_owned()
}

/// What is compared, as this program was built with it.
fn crates() -> String {
    let lock = include_str!("../../../../Cargo.lock");
    let names = ["ssh-pool", "openssh", "async-ssh2-tokio", "russh"];
    let listed = names.map(|name| format!("{name} {}", locked(lock, name)));
    listed.join(", ")
}

/// The versions of a crate in a lock file. async-ssh2-tokio brings a russh of its own.
fn locked(lock: &str, name: &str) -> String {
    let header = format!("name = \"{name}\"");
    let mut lines = lock.lines();
    let mut versions = Vec::new();
    while lines.any(|line| line == header) {
        if let Some(line) = lines.next() {
            versions.push(line.trim_start_matches("version = ").trim_matches('"'));
        }
    }
    versions.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file_by_whole_names() {
        let lock = "[[package]]\nname = \"russh\"\nversion = \"0.62.7\"\n\n[[package]]\n\
                    name = \"russh\"\nversion = \"0.65.1\"\n\n[[package]]\n\
                    name = \"russh-util\"\nversion = \"9.9.9\"\n";
        assert_eq!(locked(lock, "russh"), "0.62.7 and 0.65.1");
        assert_eq!(locked(lock, "ssh"), "");
    }
}
