//! What OpenSSH's own programs make of the same inputs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use ssh_pool::HostKeyProblem;
use ssh_pool::internals::parse_arguments;
use ssh_pool_core::internals::{KnownHostsDecision, host_key_decision};
use ssh_pool_fuzz::inputs::inputs;
use ssh_pool_fuzz::known_hosts;

/// Each of them is a process.
const MADE: usize = 600;

/// What a program of OpenSSH says; `None` if it does not want this.
fn says(program: &str, arguments: &[&OsStr]) -> Option<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// The fingerprints that a file lists for a name, as ssh-keygen finds them: those that are revoked,
/// and the others.
fn listed(file: &Path, name: &str) -> (Vec<String>, Vec<String>) {
    let arguments = ["-l", "-F", name, "-f"].map(OsStr::new);
    let arguments = [arguments.as_slice(), &[file.as_os_str()]].concat();
    let text = says("ssh-keygen", &arguments).unwrap_or_default();
    let (mut revoked, mut plain) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let (Some(found), Some(key)) = (lines.next(), lines.next()) {
        let key = key.split(' ').find(|word| word.starts_with("SHA256:"));
        let key = key.unwrap_or_else(|| panic!("no key: {text}")).to_owned();
        match found.rsplit(' ').next() {
            Some("CA") => {}
            Some("REVOKED") => revoked.push(key),
            _ => plain.push(key),
        }
    }
    (revoked, plain)
}

fn fingerprint(key: &str) -> String {
    let Some(KnownHostsDecision::Refused(HostKeyProblem::Unknown { fingerprint, .. })) =
        host_key_decision(b"", "h", 22, key)
    else {
        panic!("{key} is known without a file");
    };
    fingerprint
}

#[test]
fn a_file_lists_what_ssh_keygen_finds_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("known_hosts");
    let key = known_hosts::KEYS[0].1;
    let shown = fingerprint(key);
    let (mut trusted, mut refused) = (0, 0);
    for input in inputs("known_hosts", MADE) {
        // ssh-keygen reads no further than a NUL byte of a line.
        let parsed = known_hosts::parse(&input).filter(|(_, file)| !file.contains(&0));
        let Some((target, file)) = parsed else {
            continue;
        };
        fs::write(&path, &file).expect("written");
        let (host, port) = (target.host().to_ascii_lowercase(), target.port());
        let name = match port {
            22 => host.clone(),
            _ => format!("[{host}]:{port}"),
        };
        let (revoked, plain) = listed(&path, &name);
        let expected = if revoked.contains(&shown) {
            "revoked"
        } else if plain.contains(&shown) {
            "trusted"
        } else if !plain.is_empty() {
            "changed"
        } else {
            let (revoked, plain) = listed(&path, &host);
            match (revoked.contains(&shown), plain.contains(&shown)) {
                (true, _) => "revoked",
                (false, true) => "trusted",
                (false, false) => "unknown",
            }
        };
        let judged = match host_key_decision(&file, target.host(), port, key).expect("a key") {
            KnownHostsDecision::Trusted => "trusted",
            KnownHostsDecision::Refused(HostKeyProblem::Revoked { .. }) => "revoked",
            KnownHostsDecision::Refused(HostKeyProblem::Changed { .. }) => "changed",
            KnownHostsDecision::Refused(HostKeyProblem::Unknown { .. }) => "unknown",
            other => panic!("{other:?}"),
        };
        trusted += usize::from(expected == "trusted");
        refused += usize::from(expected != "trusted");
        assert_eq!(judged, expected, "{target}: {}", file.escape_ascii());
    }
    assert!(
        trusted > 20 && refused > 20,
        "{trusted} and {refused}: too few to mean anything"
    );
}

/// An address has one spelling for ssh, and may have another here: `0` for `0.0.0.0`.
fn same_host(host: &str, hostname: &str) -> bool {
    let address = hostname.parse::<IpAddr>().ok();
    let same_address = |address| {
        let resolved = (host, 22).to_socket_addrs();
        resolved.is_ok_and(|mut found| found.any(|found| found.ip() == address))
    };
    host == hostname || address.is_some_and(same_address)
}

#[test]
fn arguments_mean_what_ssh_says_they_mean() {
    let mut understood = 0;
    for input in inputs("invocation", MADE) {
        let arguments: Vec<OsString> = (input.split(|byte| *byte == 0))
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect();
        let Ok(asked) = parse_arguments(&arguments) else {
            continue;
        };
        // -G says what it would do, and does nothing.
        let all = ["-F", "none", "-G"].map(OsStr::new);
        let all = [
            &all[..],
            &arguments
                .iter()
                .map(OsString::as_os_str)
                .collect::<Vec<_>>(),
        ];
        // Names that ssh has doubts about are for the allowed hosts to refuse.
        let Some(text) = says("ssh", &all.concat()) else {
            continue;
        };
        let said = |name: &str| {
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{text}: no {name}"))
        };
        let host = asked.host.to_ascii_lowercase();
        let hostname = said("hostname").to_ascii_lowercase();
        assert!(same_host(&host, &hostname), "{arguments:?}: {hostname}");
        assert_eq!(
            said("port"),
            asked.port.unwrap_or(22).to_string(),
            "{arguments:?}"
        );
        if let Some(user) = &asked.user {
            assert_eq!(said("user"), user, "{arguments:?}");
        }
        let empty = if asked.no_input { "yes" } else { "no" };
        assert_eq!(said("stdinnull"), empty, "{arguments:?}");
        understood += 1;
    }
    assert!(understood > 20, "{understood}: too few to mean anything");
}
