//! The known_hosts format (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"), read the way OpenSSH's
//! `hostfile.c` and `match.c` read it.
//!
//! The parser that comes with the key library is stricter than ssh: it fails on tabs, on double
//! spaces and on the first bad line of a file. A file that ssh reads must not fail here, so lines
//! are split here and only keys and hashes are left to the library.

use std::borrow::Cow;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_encoding::base64::{Base64, Encoding};
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey, parse_public_key_base64};
use sha1::Sha1;

use crate::wildcard::matches_pattern;

/// The port whose hosts are written without one (RFC 4253, section 4.1).
pub(super) const DEFAULT_PORT: u16 = 22;

/// ssh's buffer for one pattern, including its end: a list with a longer one matches nothing.
const PATTERN_LIMIT: usize = 1023;

/// One line that applies to the host.
#[derive(Debug, Clone)]
pub(super) struct KnownHostsEntry {
    pub(super) kind: EntryKind,
    pub(super) key: PublicKey,
    /// `file:line`, for messages.
    pub(super) location: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// The host has this key.
    Plain,
    /// `@revoked`: the key must not be trusted.
    Revoked,
}

impl KnownHostsEntry {
    /// Whether this line lists `key`. Comments do not count. A line with a certificate lists no plain
    /// key, and yet the host is known by it.
    pub(super) fn is_for(&self, key: &PublicKey) -> bool {
        self.key.key_data() == key.key_data()
    }
}

/// How known_hosts names a host: `host` on port 22, `[host]:port` elsewhere.
pub(super) fn host_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == DEFAULT_PORT {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

/// The lines of a file that apply to `name`, in order.
///
/// Malformed lines, key types unknown to us and `@cert-authority` lines are skipped, as ssh skips
/// them where no certificate was offered. A line that ssh honours must not be: it may revoke the key.
pub(super) fn matching(text: &[u8], path: &Path, name: &str) -> Vec<KnownHostsEntry> {
    text.split(|byte| *byte == b'\n')
        .map(String::from_utf8_lossy)
        .enumerate()
        .filter_map(|(index, line)| {
            let (kind, key) = parse_line(&line, name)?;
            let location = format!("{}:{}", path.display(), index + 1);
            Some(KnownHostsEntry {
                kind,
                key,
                location,
            })
        })
        .collect()
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// Splits off the first word; `None` when nothing follows it.
fn split_word(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(is_blank)?;
    let rest = rest.trim_start_matches(is_blank);
    (!rest.is_empty()).then_some((word, rest))
}

fn parse_line(line: &str, name: &str) -> Option<(EntryKind, PublicKey)> {
    let line = line.trim_end_matches('\r').trim_start_matches(is_blank);
    if line.starts_with('#') {
        return None;
    }
    let (kind, line) = if line.starts_with('@') {
        let (marker, rest) = split_word(line)?;
        // A second marker makes the line invalid: "@revoked @revoked".
        if marker != "@revoked" || rest.starts_with('@') {
            return None;
        }
        (EntryKind::Revoked, rest)
    } else {
        (EntryKind::Plain, line)
    };
    // A NUL ends a line, but for one that ends the hosts.
    let (hosts, rest) = line.split_once(|c| is_blank(c) || c == '\0')?;
    if !applies(hosts, name) {
        return None;
    }
    let rest = rest.trim_start_matches(is_blank).split('\0').next()?;
    let key = match parse_key_data(rest)? {
        // Revoking a certificate revokes its key.
        KeyData::Certificate(certificate) if kind == EntryKind::Revoked => {
            certificate.public_key().clone()
        }
        key => key,
    };
    Some((kind, key.into()))
}

/// A public key from `type base64 comment`, when it is a plain key of a type we know.
pub(super) fn parse_key(text: &str) -> Option<PublicKey> {
    parse_key_data(text)
        .filter(|key| !key.is_certificate())
        .map(PublicKey::from)
}

/// The same, or a certificate.
fn parse_key_data(text: &str) -> Option<KeyData> {
    let (name, rest) = split_word(text)?;
    // `b64_pton`, and with it ssh, passes over white space of every kind.
    let blob = rest.split(is_blank).next()?.replace(is_space, "");
    let key = parse_public_key_base64(&blob).ok()?;
    // The type inside the blob is the one that counts; a line that says another is malformed. So is
    // one that says more than the key.
    let whole = Base64::encode_string(&key.to_bytes().ok()?) == blob;
    let key = KeyData::from(key);
    (whole && is_named(&key, name)).then_some(key)
}

/// Whether a line may call the key that: by the name of its type, or of the signatures that are made
/// with it (sshkey.c, `peek_type_nid`). Short names (`RSA`) are not read in a file.
fn is_named(key: &KeyData, name: &str) -> bool {
    let algorithm = key.algorithm();
    let (own, others): (_, &[&str]) = match (&algorithm, key.is_certificate()) {
        (Algorithm::Other(_), _) => return false,
        (Algorithm::Rsa { .. }, false) => ("ssh-rsa".into(), &["rsa-sha2-256", "rsa-sha2-512"]),
        (Algorithm::Rsa { .. }, true) => (
            "ssh-rsa-cert-v01@openssh.com".into(),
            &[
                "rsa-sha2-256-cert-v01@openssh.com",
                "rsa-sha2-512-cert-v01@openssh.com",
            ],
        ),
        (Algorithm::SkEcdsaSha2NistP256, false) => (
            algorithm.to_string(),
            &["webauthn-sk-ecdsa-sha2-nistp256@openssh.com"],
        ),
        (plain, false) => (plain.to_string(), &[]),
        (certified, true) => (certified.to_certificate_type(), &[]),
    };
    name == own || others.contains(&name)
}

/// C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ')
}

fn applies(hosts: &str, name: &str) -> bool {
    if hosts.starts_with('|') {
        return matches_hash(hosts, name);
    }
    matches_list(hosts, name)
}

/// `|1|salt|hash`: HMAC-SHA1 of the name, keyed with the salt.
fn matches_hash(hosts: &str, name: &str) -> bool {
    let Ok(HostPatterns::HashedName { salt, hash }) = hosts.parse() else {
        return false;
    };
    // ssh takes only salts as long as the hash.
    if salt.len() != hash.len() {
        return false;
    }
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&salt) else {
        return false;
    };
    mac.update(name.as_bytes());
    mac.verify_slice(&hash).is_ok()
}

/// `match_hostname`: any pattern may match, but one negated match forbids the line.
fn matches_list(list: &str, name: &str) -> bool {
    let mut found = false;
    for pattern in list.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        if pattern.len() >= PATTERN_LIMIT {
            return false;
        }
        if matches_pattern(&lower(pattern), name) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

fn lower(pattern: &str) -> Cow<'_, str> {
    if pattern.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(pattern.to_ascii_lowercase())
    } else {
        Cow::Borrowed(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn locations(text: &str, name: &str) -> Vec<String> {
        matching(text.as_bytes(), Path::new("f"), name)
            .into_iter()
            .map(|entry| format!("{:?} {}", entry.kind, entry.location))
            .collect()
    }

    #[test]
    fn a_host_on_another_port_is_named_with_it() {
        assert_eq!(host_name("Web-1", 22), "web-1");
        assert_eq!(host_name("Web-1", 2222), "[web-1]:2222");
        assert_eq!(host_name("::1", 22), "::1");
        assert_eq!(host_name("::1", 2222), "[::1]:2222");
    }

    #[test]
    fn one_bad_line_does_not_spoil_the_file() {
        let text = format!(
            "\n# comment\n   \nweb-1\nweb-1 ssh-ed25519\nweb-1 ssh-ed25519 AAAA\n\
             web-1 ssh-rsa {}\nweb-1 future-key@example.org AAAAE2Z1dHVyZQ==\n@web-1 {A}\n\
             \u{fffd}\u{0} {A}\nweb-1 {A}\n",
            A.trim_start_matches("ssh-ed25519 ")
        );
        assert_eq!(locations(&text, "web-1"), ["Plain f:11"]);
        let mut bytes = b"web-1\xff\xfe junk\n".to_vec();
        bytes.extend_from_slice(format!("web-1 {A}").as_bytes());
        assert_eq!(matching(&bytes, Path::new("f"), "web-1").len(), 1);
    }

    #[test]
    fn tabs_spaces_comments_and_crlf_are_tolerated() {
        let tabs = A.replace(' ', "\t  ");
        for line in [
            format!("web-1 {A}\r"),
            format!("web-1 {A} a comment # really\r"),
            format!("web-1 {A} "),
            format!("  web-1\t \t{tabs}\tcomment"),
        ] {
            assert_eq!(
                locations(&format!("\r\n{line}\n\r\n"), "web-1"),
                ["Plain f:2"],
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_key_with_bytes_after_it_is_none() {
        // The blob of A ends where its base64 does.
        for more in ["AAAA", "AAA=", "AA=="] {
            assert!(parse_key(A).is_some() && parse_key(&format!("{A}{more}")).is_none());
        }
    }

    #[test]
    fn patterns_are_matched_as_ssh_does() {
        for (list, name, matched) in [
            ("web-1", "web-1", true),
            ("WEB-1", "web-1", true),
            ("web-1", "web-10", false),
            ("a,web-1,b", "web-1", true),
            ("*", "web-1", true),
            ("*", "[web-1]:2222", true),
            ("web-?", "web-1", true),
            ("web-?", "web-", false),
            ("web-?", "web-12", false),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*,!web-1", "web-1", false),
            ("!web-1,*", "web-1", false),
            ("!web-1,*", "web-2", true),
            ("!web-1", "web-2", false),
            ("!*.bad,*.org", "x.org", true),
            ("[web-1]:2222", "[web-1]:2222", true),
            ("[web-1]:2222", "web-1", false),
            ("[web-1]:*", "[web-1]:2222", true),
            ("[*]:2222", "[web-1]:2222", true),
            ("web-1", "[web-1]:2222", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
            ("a**b", "ab", true),
            ("", "web-1", false),
            (",", "web-1", false),
        ] {
            assert_eq!(applies(list, name), matched, "{list} {name}");
        }
    }

    #[test]
    fn a_list_with_an_oversized_pattern_matches_nothing() {
        let long = "x".repeat(PATTERN_LIMIT);
        assert!(!applies(&format!("web-1,{long}"), "web-1"));
        assert!(!applies(&format!("{long},web-1"), "web-1"));
        assert!(applies(&format!("web-1,{}", &long[1..]), "web-1"));
        let huge = format!("{} {A}\nweb-1 {A}\n", "web-2,".repeat(200_000));
        assert_eq!(locations(&huge, "web-1"), ["Plain f:2"]);
    }

    #[test]
    fn a_hostile_pattern_is_matched_in_time() {
        let pattern = "*a".repeat(400);
        assert!(!matches_pattern(&pattern, &"a".repeat(399)));
        assert!(matches_pattern(&pattern, &"a".repeat(400)));
    }

    #[test]
    fn hashed_names_match_their_host_only() {
        // Written by `ssh-keygen -H` for web-1 and [web-1]:2222.
        let plain = "|1|QAWj6q+i37gKQ9Z/w+Umuuu5SKg=|5eoC4n/0iy+sfgSBkgQmr7g9v4U=";
        let ported = "|1|jhdijW8Oi+Kk6bci5/YHeuR5fkA=|C8Jys/LZh3GeURhVBL5qJabncIM=";
        assert!(applies(plain, "web-1") && !applies(plain, "web-2"));
        assert!(applies(ported, "[web-1]:2222") && !applies(ported, "web-1"));
        for broken in [
            "|1|",
            "|1|AAAA|AAAA",
            "|2|x|y",
            "|1|x",
            &format!("{plain},web-1"),
        ] {
            assert!(!applies(broken, "web-1"), "{broken}");
        }
    }

    #[test]
    fn markers_are_honoured() {
        let text = format!(
            "@revoked * {A}\n@cert-authority * {B}\n@revoked @revoked * {A}\n@unknown * {A}\n\
             @revoked\t web-1 {B}\nweb-1 {A}\n"
        );
        assert_eq!(
            locations(&text, "web-1"),
            ["Revoked f:1", "Revoked f:5", "Plain f:6"]
        );
    }

    #[test]
    fn keys_are_compared_without_their_comment() {
        let entries = matching(format!("h {A} one").as_bytes(), Path::new("f"), "h");
        assert!(entries[0].is_for(&parse_key(&format!("{A} two")).unwrap()));
        assert!(!entries[0].is_for(&parse_key(B).unwrap()));
    }
}
