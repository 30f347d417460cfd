//! The stock `ssh` client, told to know nothing but what it is given.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// `ssh … user@address`, without anybody's configuration, agent or known hosts. Add the command to
/// run; add options before it.
#[must_use]
pub fn ssh(addr: SocketAddr, user: &str, key: &Path, known_hosts: &Path) -> Command {
    let mut command = Command::new("ssh");
    command
        .args([
            "-F",
            "none",
            "-o",
            "IdentityAgent=none",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args([
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "StrictHostKeyChecking=yes",
        ])
        .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o"])
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .arg("-i")
        .arg(key)
        .args(["-p", &addr.port().to_string(), "-l", user])
        .arg(addr.ip().to_string());
    command
}

/// A line of a known_hosts file for a server on a port of its own.
pub(crate) fn known_hosts_line(addr: SocketAddr, public_key: &str) -> String {
    format!(
        "[{}]:{} {}\n",
        addr.ip(),
        addr.port(),
        public_key.trim_end()
    )
}
