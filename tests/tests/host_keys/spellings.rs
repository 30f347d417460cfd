//! Lines of a known_hosts file that are seldom written so, beside ssh: a key by another name, white
//! space inside it, a NUL, a certificate. One that ssh honours and the pool passes over may be the one
//! that revokes the key.

use std::process::Command;

use ssh_pool_tests::{KeyFormat, Sshd, TempDir, generate};

use crate::Verdict::{self, Accepted, Changed, Revoked, Unknown};
use crate::{accept_new, files, key, name, stranger};

/// The verdict under strict checking, and that where new keys are taken.
async fn both_say(sshd: &Sshd, text: String, wanted: Verdict) {
    files::both_say(sshd, &text, wanted).await;
    if wanted != Unknown {
        accept_new::both_say(sshd, &text, wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_go_by_the_name_of_its_signatures() {
    let sshd = Sshd::builder().host_keys(&["rsa"]).start();
    let (name, key) = (name(&sshd), sshd.host_public_key("rsa"));
    let other = stranger("rsa");
    for called in ["rsa-sha2-512", "rsa-sha2-256"] {
        let by_name = |key: &str| key.replacen("ssh-rsa", called, 1);
        let (same, other) = (by_name(&key), by_name(&other));
        both_say(&sshd, format!("{name} {same}\n"), Accepted).await;
        both_say(&sshd, format!("@cert-authority {name} {same}\n"), Unknown).await;
        both_say(&sshd, format!("@revoked {name} {same}\n"), Revoked).await;
        let later = format!("{name} {key}\n@revoked * {same}\n");
        both_say(&sshd, later, Revoked).await;
        both_say(&sshd, format!("{name} {other}\n"), Changed).await;
    }
    // A short name, or one in capitals, is the name of nothing.
    for called in ["RSA", "rsa", "SSH-RSA", "RSA-SHA2-512", "ssh-ed25519"] {
        let same = key.replacen("ssh-rsa", called, 1);
        both_say(&sshd, format!("{name} {same}\n"), Unknown).await;
        let not_revoked = format!("{name} {key}\n@revoked * {same}\n");
        both_say(&sshd, not_revoked, Accepted).await;
    }
    let security_key = "AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBAfY\
                        BtFkbMAJ/JTI6qn40eb0AJgBg/KuTOoj9umLquuCbkJdZCt33UVJvhmKg1qBrzfvz1uXiMiZsZKT\
                        UkrnicIAAAAEc3NoOg==";
    for called in ["sk-ecdsa-sha2", "webauthn-sk-ecdsa-sha2"] {
        let line = format!("{name} {called}-nistp256@openssh.com {security_key}\n");
        both_say(&sshd, line, Changed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nul_ends_a_line_but_for_one_behind_the_hosts() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let key = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let (start, end) = key.split_at(40);
    for (rest, counts) in [
        (format!("{name} {key}\0"), true),
        (format!("{name} {key}\0more"), true),
        (format!("{name} {key} a\0comment"), true),
        (format!("{name}\0{key}"), true),
        (format!("{name}\0 {key}\0more"), true),
        (format!("{name}\0\0{key}"), false),
        (format!("{name} \0{key}"), false),
        (format!("{name} {start}\0{end}"), false),
        (format!("\0{name} {key}"), false),
        (format!("elsewhere.example\0,{name} {key}"), false),
        (format!("elsewhere.example\0x {name} {key}"), false),
    ] {
        let verdicts = match counts {
            true => (Accepted, Revoked),
            false => (Unknown, Accepted),
        };
        both_say(&sshd, format!("{rest}\n"), verdicts.0).await;
        let revoked = format!("{name} {key}\n@revoked {rest}\n");
        both_say(&sshd, revoked, verdicts.1).await;
    }
    let marker = format!("{name} {key}\n@revoked\0 {name} {key}\n");
    both_say(&sshd, marker, Accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn white_space_of_other_kinds_is_no_part_of_a_key_and_no_separator() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let (start, end) = key.split_at(40);
    let (kind, blob) = key.split_once(' ').unwrap();
    for (rest, counts) in [
        (format!("{name} {start}\r{end}"), true),
        (format!("{name} {start}\u{b}\u{c}{end}"), true),
        (format!("{name} {kind} \u{b}{blob}\r comment"), true),
        (format!("{name} {kind}\u{b}{blob}"), false),
        (format!("{name}\u{b}{key}"), false),
        (format!("{name} \r{key}"), false),
        (format!("\r{name} {key}"), false),
        (format!("{name} {start}\u{a0}{end}"), false),
    ] {
        let verdicts = match counts {
            true => (Accepted, Revoked),
            false => (Unknown, Accepted),
        };
        both_say(&sshd, format!("{rest}\n"), verdicts.0).await;
        let revoked = format!("{name} {key}\n@revoked {rest}\n");
        both_say(&sshd, revoked, verdicts.1).await;
    }
}

/// The certificate of that public key, of an authority of its own.
fn certificate(key: &str) -> String {
    let dir = TempDir::new();
    let authority = generate(dir.path(), "ca", "ed25519", None, KeyFormat::OpenSsh);
    let public = dir.path().join("host.pub");
    std::fs::write(&public, key).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-h", "-I", "host", "-s"]);
    let status = keygen.arg(authority.private()).arg(public).status();
    assert!(status.unwrap().success());
    let text = std::fs::read_to_string(dir.path().join("host-cert.pub")).unwrap();
    text.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_another_key_and_to_revoke_it_revokes_its_own() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let sshd = Sshd::builder().host_keys(&[kind]).start();
        let (name, key) = (name(&sshd), sshd.host_public_key(kind));
        let (same, other) = (certificate(&key), certificate(&stranger(kind)));
        let by_signature = same.replacen("ssh-rsa-", "rsa-sha2-512-", 1);
        for same in [&same, &by_signature] {
            both_say(&sshd, format!("{name} {same}\n"), Changed).await;
            both_say(&sshd, format!("{name} {same}\n{name} {key}\n"), Accepted).await;
            let revoked = format!("{name} {key}\n@revoked {name} {same}\n");
            both_say(&sshd, revoked, Revoked).await;
        }
        both_say(&sshd, format!("{name} {other}\n"), Changed).await;
        let revoked = format!("{name} {key}\n@revoked {name} {other}\n");
        both_say(&sshd, revoked, Accepted).await;
        let by_a_plain_name = same.replacen("-cert-v01@openssh.com", "", 1);
        both_say(&sshd, format!("{name} {by_a_plain_name}\n"), Unknown).await;
    }
}
