//! A known_hosts file trusts what its lines say, each by itself, and nothing more.
//!
//! The first line of the input is the host, as a target names it; the rest is the file, in which
//! `$A` to `$D` stand for public keys.

use std::fs;
use std::mem::{Discriminant, discriminant};

use ssh_pool::{HostKeyProblem, Target};
use ssh_pool_core::internals::{KnownHostsDecision, host_key_decision, remember};

/// What `$A` and so on stand for.
pub const KEYS: [(&str, &str); 4] = [
    (
        "$A",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
    ),
    (
        "$B",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE",
    ),
    (
        "$C",
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAfYBtFkbMAJ/JTI6qn40eb0AJgBg/KuTOoj9umLquuCbkJdZCt33UVJvhmKg1qBrzfvz1uXiMiZsZKTUkrnicI=",
    ),
    (
        "$D",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCp/ZJmEY9eJpaetqxkMrVrelTAvgnMj4LNLhK3bOB7bdSOctDnQN4YHfneD1txLBDKynCRvjV2zGN0jfUhOEIOkWyv+vdhFELhLviZkcDLNt6TF2ZQy0ita20y4SqSkdTx8g5DdHEdR1bJyQ3nEKy3Ut0m9JwQtNKZY8/XUmLtpAEQjJJESzyeQs3jhaxzfNKv/zbZrQc1TomPUgHSVkZ9ufVa9ND1DvSA3xUjtSsIk5u5Mqdfbjd0O4RUAMBYpsP6eH+zrTvkyMi+pRPJ2LUokBDwoC/4F6CFXTjqAAc16BoXcGGFlajMIyNLMgfYI3RCUHRTyXwqMQnfq7/+Vucl",
    ),
];
/// The keys that a server shows here.
const SHOWN: usize = 2;
/// Each line is looked at by itself: more only takes longer.
const MOST_LINES: usize = 24;

const LONGEST: usize = 16 << 10;

/// The host and the file that an input means.
#[must_use]
pub fn parse(data: &[u8]) -> Option<(Target, Vec<u8>)> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let host = std::str::from_utf8(&data[..end]).ok()?;
    // No host has any other name; only with these is a byte of a pattern one of the file.
    let target: Target = format!("me@{host}")
        .parse()
        .ok()
        .filter(|_| host.is_ascii())?;
    let mut file = Vec::new();
    let mut rest = &data[end + 1..];
    while let Some((first, after)) = rest.split_first() {
        match KEYS
            .iter()
            .find(|(name, _)| rest.starts_with(name.as_bytes()))
        {
            Some((name, key)) => {
                file.extend_from_slice(key.as_bytes());
                rest = &rest[name.len()..];
            }
            None => {
                file.push(*first);
                rest = after;
            }
        }
    }
    Some((target, file))
}

pub fn check(data: &[u8]) {
    let Some((target, file)) = parse(data).filter(|(_, file)| file.len() <= LONGEST) else {
        return;
    };
    for (_, key) in &KEYS[..SHOWN] {
        Question {
            target: &target,
            key,
        }
        .check(&file);
    }
}

type Kind = (
    Discriminant<KnownHostsDecision>,
    Option<Discriminant<HostKeyProblem>>,
);

/// Without the words.
fn kind(host_key_decision: &KnownHostsDecision) -> Kind {
    let problem = match host_key_decision {
        KnownHostsDecision::Refused(problem) => Some(discriminant(problem)),
        KnownHostsDecision::Trusted | KnownHostsDecision::TrustedNew => None,
    };
    (discriminant(host_key_decision), problem)
}

fn is_revoked(host_key_decision: &KnownHostsDecision) -> bool {
    matches!(
        host_key_decision,
        KnownHostsDecision::Refused(HostKeyProblem::Revoked { .. })
    )
}

fn is_changed(host_key_decision: &KnownHostsDecision) -> bool {
    matches!(
        host_key_decision,
        KnownHostsDecision::Refused(HostKeyProblem::Changed { .. })
    )
}

fn is_unknown(host_key_decision: &KnownHostsDecision) -> bool {
    matches!(
        host_key_decision,
        KnownHostsDecision::Refused(HostKeyProblem::Unknown { .. })
    )
}

/// Whether a host may be trusted with a key.
struct Question<'a> {
    target: &'a Target,
    key: &'a str,
}

impl Question<'_> {
    fn ask(&self, file: &[u8]) -> KnownHostsDecision {
        let (host, port) = (self.target.host(), self.target.port());
        host_key_decision(file, host, port, self.key).expect("a key")
    }

    fn check(&self, file: &[u8]) {
        let host_key_decision = self.ask(file);
        let why = || {
            format!(
                "{} for {} in:\n{}",
                self.key,
                self.target,
                file.escape_ascii()
            )
        };
        let lines: Vec<&[u8]> = file.split(|byte| *byte == b'\n').collect();

        if lines.len() <= MOST_LINES {
            assert_eq!(
                kind(&host_key_decision),
                kind(&self.model(&lines)),
                "{}",
                why()
            );
            let without = |left_out: usize| {
                let mut lines = lines.clone();
                // The number of each line stays what it is.
                lines[left_out] = b"";
                self.ask(&lines.join(&b'\n'))
            };
            for (index, line) in lines.iter().enumerate() {
                // What says nothing by itself says nothing beside others.
                if is_unknown(&self.ask(line)) {
                    assert_eq!(without(index), host_key_decision, "line {index}: {}", why());
                }
            }
        }
        let mut reversed = lines.clone();
        reversed.reverse();
        for same in [reversed.join(&b'\n'), [file, b"\n", file].concat()] {
            assert_eq!(
                kind(&self.ask(&same)),
                kind(&host_key_decision),
                "{}",
                why()
            );
        }
        let stranger = format!("\nzz.invalid,[zz.invalid]:* {}\n", self.key);
        let with_stranger = [file, stranger.as_bytes()].concat();
        let unrelated = self.target.host() != "zz.invalid";
        assert!(
            !unrelated || self.ask(&with_stranger) == host_key_decision,
            "{}",
            why()
        );
        let revoked = [file, format!("\n@revoked * {}", self.key).as_bytes()].concat();
        let verdict_then = self.ask(&revoked);
        assert!(is_revoked(&verdict_then), "{verdict_then:?}: {}", why());

        self.stored(file, &host_key_decision);
    }

    /// Of a file that takes new keys.
    fn stored(&self, file: &[u8], before: &KnownHostsDecision) {
        // One for each time: what is `static` is never dropped.
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("known_hosts");
        fs::write(&path, file).expect("written");
        let (host, port) = (self.target.host(), self.target.port());
        let judged = remember(&path, host, port, self.key).expect("a key");
        let after = fs::read(&path).expect("read");
        if !is_unknown(before) {
            assert_eq!(kind(&judged), kind(before));
            assert_eq!(after, file, "nothing new, and the file has changed");
            return;
        }
        let why = after.escape_ascii().to_string();
        assert_eq!(judged, KnownHostsDecision::TrustedNew, "{why}");
        let line = after.strip_prefix(file).expect("appended");
        let line = line.strip_prefix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\n").expect("a whole line");
        assert!(!line.contains(&b'\n'), "more than a line: {why}");
        assert_eq!(self.ask(&after), KnownHostsDecision::Trusted, "{why}");
        for other in ["other.example", &format!("{host}x"), &format!("x{host}")] {
            let Ok(other) = Target::new("me", other, port) else {
                continue;
            };
            let other = Question {
                target: &other,
                key: self.key,
            };
            assert_eq!(
                other.ask(&after),
                other.ask(file),
                "{}: {why}",
                other.target
            );
        }
    }

    /// sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT", without haste.
    fn model(&self, lines: &[&[u8]]) -> KnownHostsDecision {
        let (host, port) = (self.target.host().to_ascii_lowercase(), self.target.port());
        let name = match port {
            22 => host.clone(),
            _ => format!("[{host}]:{port}"),
        };
        let said = |name: &str| -> Vec<Said> {
            let lines = lines.iter().map(|line| String::from_utf8_lossy(line));
            lines
                .filter_map(|line| says(&line, name, self.key))
                .collect()
        };
        let refused = |reversed: &str| self.ask(reversed.as_bytes());
        let (exact, portless) = (said(&name), said(&host));
        let a_line = |marker: &str| format!("{marker}{name} {}", self.key);
        if exact.contains(&Said::Revoked) {
            refused(&a_line("@revoked "))
        } else if exact.contains(&Said::This) {
            KnownHostsDecision::Trusted
        } else if exact.contains(&Said::Other) {
            let other = KEYS
                .iter()
                .find(|(_, key)| *key != self.key)
                .expect("four")
                .1;
            refused(&format!("{name} {other}"))
        } else if portless.contains(&Said::Revoked) {
            refused(&a_line("@revoked "))
        } else if portless.contains(&Said::This) {
            KnownHostsDecision::Trusted
        } else {
            refused("")
        }
    }
}

/// What a line says of a host's key.
#[derive(PartialEq)]
enum Said {
    This,
    Other,
    Revoked,
}

fn says(line: &str, name: &str, key: &str) -> Option<Said> {
    let blank = [' ', '\t'];
    let mut line = line.trim_end_matches('\r').trim_start_matches(blank);
    let mut word = || {
        let (word, rest) = line.split_at(line.find(blank).unwrap_or(line.len()));
        line = rest.trim_start_matches(blank);
        word
    };
    let first = word();
    let revoked = first == "@revoked";
    let patterns = match revoked {
        true => word(),
        false => first,
    };
    // A comment begins a line, and a second marker makes it invalid.
    if first.starts_with('#') || patterns.starts_with('@') || !covers(patterns, name) {
        return None;
    }
    let (algorithm, blob) = (word(), word());
    // Which texts are keys is not for here.
    let lone = format!("h {algorithm} {blob} a comment");
    let listed = host_key_decision(lone.as_bytes(), "h", 22, key).expect("a key");
    match (revoked, is_changed(&listed), listed) {
        (true, _, KnownHostsDecision::Trusted) => Some(Said::Revoked),
        (false, _, KnownHostsDecision::Trusted) => Some(Said::This),
        (false, true, _) => Some(Said::Other),
        _ => None,
    }
}

fn covers(patterns: &str, name: &str) -> bool {
    if patterns.starts_with('|') {
        // A sum that anybody can check, who has the name and a key.
        let line = format!("{patterns} {}", KEYS[0].1);
        let (host, port) = match name
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]:"))
        {
            Some((host, port)) => (host, port.parse().expect("a port")),
            None => (name, 22),
        };
        // The name without its port vouches for a key, and forbids no other.
        let other = host_key_decision(line.as_bytes(), host, port, KEYS[1].1);
        return other.is_some_and(|host_key_decision| is_changed(&host_key_decision));
    }
    let mut covered = false;
    for pattern in patterns.split(',') {
        let bare = pattern.strip_prefix('!').unwrap_or(pattern);
        if bare.len() >= 1023 {
            return false;
        }
        if glob(bare.to_ascii_lowercase().as_bytes(), name.as_bytes()) {
            if bare != pattern {
                return false;
            }
            covered = true;
        }
    }
    covered
}

/// For every beginning of the name, whether the pattern so far can have taken it.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let mut taken = vec![false; name.len() + 1];
    taken[0] = true;
    for want in pattern {
        let before = std::mem::replace(&mut taken, vec![false; name.len() + 1]);
        for length in 0..=name.len() {
            taken[length] = match want {
                b'*' => before[length] || length > 0 && taken[length - 1],
                b'?' => length > 0 && before[length - 1],
                byte => length > 0 && before[length - 1] && name[length - 1] == *byte,
            };
        }
    }
    taken[name.len()]
}
