//! known_hosts files under strict checking.

use std::process::Command;

use ssh_pool::{HostKeyPolicy, HostKeyProblem};
use ssh_pool_tests::{Sshd, TempDir};

use crate::Verdict::{Accepted, Changed, Revoked, Unknown};
use crate::{
    KnownHosts, Strictness, Verdict, key, known, name, pool_answers, pool_says, ssh_says, stranger,
};

/// Both clients come to that decision under that file, and neither touches it.
pub(crate) async fn both_say(sshd: &Sshd, text: impl AsRef<[u8]>, wanted: Verdict) {
    let text = text.as_ref();
    let file = KnownHosts::new(text);
    let show = text.escape_ascii().to_string().replace("\\n", "\n");
    assert_eq!(
        ssh_says(sshd, &file.path(), Strictness::Yes),
        wanted,
        "ssh, with\n{show}"
    );
    let policy = HostKeyPolicy::known_hosts_file(file.path());
    assert_eq!(pool_says(sshd, policy).await, wanted, "pool, with\n{show}");
    assert_eq!(std::fs::read(file.path()).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_key_is_accepted() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    both_say(&sshd, format!("{name} {key}\n"), Accepted).await;
    both_say(
        &sshd,
        format!("other,{name},another {key} comment\n"),
        Accepted,
    )
    .await;
    assert_eq!(pool_says(&sshd, known(&sshd)).await, Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_nobody_is_unknown() {
    let sshd = Sshd::start();
    let key = key(&sshd);
    both_say(&sshd, "", Unknown).await;
    both_say(&sshd, format!("elsewhere.example {key}\n"), Unknown).await;
    both_say(&sshd, format!("# {} {key}\n", name(&sshd)), Unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_exist_lists_nothing() {
    let sshd = Sshd::start();
    let file = KnownHosts::missing();
    let policy = HostKeyPolicy::known_hosts_file(file.path());
    assert_eq!(ssh_says(&sshd, &file.path(), Strictness::Yes), Unknown);
    assert_eq!(pool_says(&sshd, policy).await, Unknown);
    assert!(!file.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_has_changed_also_when_it_is_of_another_kind() {
    let sshd = Sshd::start();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let line = format!("{} {}\n", name(&sshd), stranger(kind));
        both_say(&sshd, line, Changed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_revoked_wherever_else_it_is_listed() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    both_say(&sshd, format!("@revoked {name} {key}\n"), Revoked).await;
    both_say(&sshd, format!("@revoked * {key}\n"), Revoked).await;
    both_say(
        &sshd,
        format!("{name} {key}\n@revoked {name} {key}\n"),
        Revoked,
    )
    .await;
    both_say(
        &sshd,
        format!("@revoked {name} {key}\n{name} {key}\n"),
        Revoked,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_one_key_leaves_the_others_alone() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let revoked = format!("@revoked {name} {}\n", stranger("ed25519"));
    both_say(&sshd, format!("{revoked}{name} {key}\n"), Accepted).await;
    both_say(&sshd, revoked, Unknown).await;
    let elsewhere = format!("@revoked elsewhere.example {key}\n{name} {key}\n");
    both_say(&sshd, elsewhere, Accepted).await;
}

/// Three lines in every order.
fn orders(lines: [&str; 3]) -> impl Iterator<Item = String> {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    orders
        .into_iter()
        .map(move |order| order.map(|n| lines[n]).concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_servers_several_keys_one_that_is_not_revoked_is_asked_for() {
    let sshd = Sshd::builder().host_keys(&["ed25519", "rsa"]).start();
    let (name, ed25519) = (name(&sshd), key(&sshd));
    let (rsa, other) = (sshd.host_public_key("rsa"), stranger("ed25519"));
    let (good, bad) = (format!("{name} {rsa}\n"), format!("{name} {ed25519}\n"));
    let revoked = format!("@revoked {name} {ed25519}\n");
    for text in orders([&good, &bad, &revoked]) {
        both_say(&sshd, text, Accepted).await;
    }
    let wild = format!("[127.0.0.*]:{}", sshd.port());
    let authority = format!("@cert-authority * {other}\n");
    let by_hash = [b"@revoked ".as_slice(), &hashed(&bad)].concat();
    for lines in [
        [&*hashed(&good), &hashed(&bad), &by_hash],
        [&by_hash, &*hashed(&bad), good.as_bytes()],
        [
            format!("@revoked * {ed25519}\n").as_bytes(),
            bad.as_bytes(),
            good.as_bytes(),
        ],
        [
            format!("{wild} {ed25519}\n{wild} {rsa}\n").as_bytes(),
            b"",
            revoked.as_bytes(),
        ],
        [
            authority.as_bytes(),
            revoked.as_bytes(),
            format!("{bad}{good}").as_bytes(),
        ],
        [
            format!("{good}{bad}").as_bytes(),
            revoked.as_bytes(),
            authority.as_bytes(),
        ],
        // The key is also an authority, which is no reason to take it.
        [
            format!("@cert-authority {name} {ed25519}\n").as_bytes(),
            revoked.as_bytes(),
            good.as_bytes(),
        ],
    ] {
        both_say(&sshd, lines.concat(), Accepted).await;
    }
    // Only the first key of a kind counts for which kind is asked for.
    let (old, gone) = (
        format!("{name} {other}\n"),
        format!("@revoked {name} {other}\n"),
    );
    let stranger = format!("{name} {}\n", stranger("rsa"));
    for (lines, verdict) in [
        ([&*old, &bad, &gone], Accepted),
        ([&old, &gone, &format!("{bad}{good}")], Accepted),
        ([&old, &gone, &format!("{bad}{stranger}")], Changed),
        ([&bad, &old, &format!("{stranger}{gone}")], Accepted),
        ([&bad, &revoked, &stranger], Changed),
        ([&bad, &revoked, ""], Revoked),
        (
            [&bad, &format!("{good}@revoked * {rsa}\n"), &revoked],
            Revoked,
        ),
        (
            [
                &format!("@revoked elsewhere.example {ed25519}\n"),
                &bad,
                &good,
            ],
            Accepted,
        ),
    ] {
        both_say(&sshd, lines.concat(), verdict).await;
    }
}

/// The file with its names hashed, by the tool that people use.
fn hashed(text: &str) -> Vec<u8> {
    let file = KnownHosts::new(text);
    let mut keygen = Command::new("ssh-keygen");
    let output = keygen.arg("-H").arg("-f").arg(file.path()).output();
    assert!(output.unwrap().status.success());
    let text = file.text();
    assert!(text.contains("|1|"), "{text}");
    text.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn hashed_names_count_like_others() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let other = stranger("ed25519");
    both_say(&sshd, hashed(&format!("{name} {key}\n")), Accepted).await;
    both_say(&sshd, hashed(&format!("{name} {other}\n")), Changed).await;
    both_say(&sshd, hashed(&format!("[127.0.0.1]:9 {key}\n")), Unknown).await;
    // ssh-keygen leaves lines with a marker as they are: a hash of our making stands in for it.
    let hash = hashed(&format!("{name} {key}\n"));
    let revoked = [b"@revoked ".as_slice(), &hash].concat();
    both_say(&sshd, revoked, Revoked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_on_another_port_is_another_name_and_one_without_port_is_the_last_resort() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let other = stranger("ed25519");
    both_say(&sshd, format!("[127.0.0.1]:9 {key}\n"), Unknown).await;
    both_say(&sshd, format!("[127.0.0.1]:9 {other}\n"), Unknown).await;
    both_say(&sshd, format!("127.0.0.1 {key}\n"), Accepted).await;
    both_say(&sshd, format!("127.0.0.1 {other}\n"), Unknown).await;
    both_say(&sshd, format!("127.0.0.1 {key}\n{name} {other}\n"), Changed).await;
    both_say(
        &sshd,
        format!("127.0.0.1 {other}\n{name} {key}\n"),
        Accepted,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_listed_keys_one_has_to_match() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let others = ["ed25519", "ecdsa"].map(|kind| format!("{name} {}\n", stranger(kind)));
    let [ed25519, ecdsa] = others;
    both_say(&sshd, format!("{ed25519}{ecdsa}{name} {key}\n"), Accepted).await;
    both_say(&sshd, format!("{name} {key}\n{ed25519}"), Accepted).await;
    both_say(&sshd, format!("{ed25519}{ecdsa}"), Changed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_servers_several_keys_the_listed_one_is_asked_for() {
    let kinds = ["ed25519", "ecdsa", "rsa"];
    let sshd = Sshd::builder().host_keys(&kinds).start();
    for kind in kinds {
        let line = format!("{} {}\n", name(&sshd), sshd.host_public_key(kind));
        both_say(&sshd, line, Accepted).await;
    }
    let wrong_and_right = format!(
        "{0} {1}\n{0} {2}\n",
        name(&sshd),
        stranger("ed25519"),
        sshd.host_public_key("rsa")
    );
    // The wrong line asks for the Ed25519 key first, and that one has no line that matches.
    both_say(&sshd, wrong_and_right, Changed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_and_negation_mean_what_they_mean_to_ssh() {
    let sshd = Sshd::start();
    let (name, key, port) = (name(&sshd), key(&sshd), sshd.port());
    let other = stranger("ed25519");
    for patterns in [
        "*".to_owned(),
        format!("[127.0.0.*]:{port}"),
        format!("[127.?.0.1]:{port}"),
        "[127.0.0.1]:*".to_owned(),
        "127.0.*".to_owned(),
        format!("!elsewhere.example,{name}"),
        format!("nothing,*,!\u{5b}::1]:{port}"),
    ] {
        both_say(&sshd, format!("{patterns} {key}\n"), Accepted).await;
    }
    both_say(&sshd, format!("[127.0.0.*]:{port} {other}\n"), Changed).await;
    for patterns in [
        format!("*,!{name},!127.0.0.1"),
        format!("!{name},!127.0.0.1,*"),
        format!("!{name}"),
        "!*,*".to_owned(),
        "127.0.1.*".to_owned(),
        "[127.0.0.1]:?".to_owned(),
    ] {
        both_say(&sshd, format!("{patterns} {key}\n"), Unknown).await;
    }
    // Negation is about one line, not about the file.
    both_say(&sshd, format!("!{name} {other}\n{name} {key}\n"), Accepted).await;
    // On the last resort, without the port, this line does match.
    both_say(&sshd, format!("*,!{name} {key}\n"), Accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_and_white_space_of_other_systems_are_no_part_of_a_key() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let bare: Vec<_> = key.split(' ').take(2).collect();
    let bare = bare.join(" ");
    both_say(&sshd, format!("{name} {key}\r\n"), Accepted).await;
    both_say(&sshd, format!("{name} {bare}\r\n"), Accepted).await;
    both_say(&sshd, format!("# CRLF\r\n\r\n{name} {bare}\r\n"), Accepted).await;
    both_say(&sshd, format!("@revoked {name} {bare}\r\n"), Revoked).await;
    both_say(&sshd, format!("{name} {bare}"), Accepted).await;
    both_say(&sshd, format!("\n  \t{name} \t {bare}  \n"), Accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_nobody_can_read_are_passed_over() {
    let sshd = Sshd::start();
    let (name, key) = (name(&sshd), key(&sshd));
    let torn = &key[..30];
    let junk = format!(
        "{name}\n{name} {torn}\n{name} ssh-future AAAA\n@future {name} {key}\n\u{0}\u{1}\n\
         {name} ssh-ed25519\n{name} ssh-rsa {}\n",
        key.split(' ').nth(1).unwrap()
    );
    both_say(&sshd, &junk, Unknown).await;
    let mut bytes = junk.into_bytes();
    bytes.extend_from_slice(b"\xff\xfe \x80\n");
    bytes.extend_from_slice(format!("{name} {key}\n").as_bytes());
    both_say(&sshd, bytes, Accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_authority_vouches_for_no_plain_key() {
    let sshd = Sshd::start();
    let line = format!("@cert-authority {} {}\n", name(&sshd), key(&sshd));
    both_say(&sshd, line, Unknown).await;
}

/// ssh takes an unreadable file for an empty one. Here it is an error of its own, because the
/// file may revoke the key: still nobody is let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_lets_nobody_in_and_asks_nobody() {
    let sshd = Sshd::start();
    // Also for root: a folder in its place.
    let folder = TempDir::new();
    assert_eq!(ssh_says(&sshd, folder.path(), Strictness::Yes), Unknown);
    for policy in [
        HostKeyPolicy::known_hosts_file(folder.path()),
        HostKeyPolicy::accept_new_file(folder.path()),
    ] {
        let before = sshd.connections();
        let problem = pool_answers(&sshd, policy).await.unwrap_err();
        let HostKeyProblem::Unreadable { path, reason } = &problem else {
            panic!("{problem:?}")
        };
        assert_eq!(path, folder.path());
        assert!(!reason.is_empty());
        assert_eq!(sshd.connections(), before);
    }
    assert_eq!(sshd.accepted(), 0, "{}", sshd.log());
}
