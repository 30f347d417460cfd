//! The log file of a server.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::wait::eventually;

#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Everything so far; empty while there is no file.
    pub(crate) fn text(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn count(&self, matches: impl Fn(&str) -> bool) -> usize {
        self.text().lines().filter(|line| matches(line)).count()
    }

    pub(crate) fn wait_for(&self, pattern: &str, count: usize, timeout: Duration) -> bool {
        eventually(timeout, || {
            self.count(|line| line.contains(pattern)) >= count
        })
    }
}

/// The connections in a log of sshd that have tried to log in, and have not (LogLevel VERBOSE).
pub(crate) fn auth_failures(log: &str) -> usize {
    let mut failed = 0;
    // By port of the client, and a later connection may come from the port of an earlier one.
    let mut trying: HashMap<&str, bool> = HashMap::new();
    for line in log.lines() {
        let Some(port) = client_port(line) else {
            continue;
        };
        if line.starts_with("Connection from ") {
            failed += usize::from(trying.insert(port, false) == Some(true));
        } else if line.starts_with("Failed ") && !line.starts_with("Failed none ") {
            trying.insert(port, true);
        } else if line.starts_with("Accepted ") && line.contains(" ssh2") {
            trying.insert(port, false);
        }
    }
    failed + trying.values().filter(|failed| **failed).count()
}

/// The port in `… from 127.0.0.1 port 40000 …`.
fn client_port(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(" from ")?;
    let (_, rest) = rest.split_once(" port ")?;
    rest.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::auth_failures;

    #[test]
    fn a_port_that_is_used_again_counts_again() {
        let failure = "\
            Connection from 127.0.0.1 port 40000 on 127.0.0.1 port 22 rdomain \"\"\n\
            Failed publickey for me from 127.0.0.1 port 40000 ssh2: ED25519 SHA256:a\n\
            Failed publickey for me from 127.0.0.1 port 40000 ssh2: ED25519 SHA256:b\n";
        let login = "Accepted publickey for me from 127.0.0.1 port 40000 ssh2: ED25519 SHA256:c\n";
        assert_eq!(auth_failures(failure), 1);
        assert_eq!(auth_failures(&failure.repeat(2)), 2);
        assert_eq!(auth_failures(&format!("{failure}{login}")), 0);
        assert_eq!(auth_failures(&format!("{failure}{failure}{login}")), 1);
    }
}
