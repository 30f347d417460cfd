//! User names as ssh takes them after `-l`, beside ssh itself.

use ssh_pool::{Error, Identity, Target};
use ssh_pool_tests::{Sshd, ssh};

use crate::{builder, known};

/// What becomes of a user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    In,
    /// The server got it, and lets nobody of that name in.
    Refused,
    NotSent,
}

fn ssh_says(sshd: &Sshd, user: &str) -> Fate {
    let mut client = ssh(sshd.addr(), user, sshd.client_key(), &sshd.known_hosts());
    let output = client.arg("true").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Fate::In
    } else if said.contains("Permission denied") {
        Fate::Refused
    } else {
        assert!(said.contains("remote username contains invalid"), "{said}");
        Fate::NotSent
    }
}

async fn pool_says(sshd: &Sshd, user: &str) -> Fate {
    let Ok(target) = Target::new(user, sshd.addr().ip().to_string(), sshd.port()) else {
        return Fate::NotSent;
    };
    let text = target.to_string();
    assert_eq!(text.parse::<Target>().unwrap(), target, "{text}");
    let pool = builder(sshd, known(sshd)).build().unwrap();
    let target = target.identity(Identity::key_file(sshd.client_key()));
    let result = pool.host(target).unwrap().command("true").status().await;
    pool.close().await;
    match result {
        Ok(status) => {
            assert!(status.success());
            Fate::In
        }
        Err(Error::AuthRejected { .. }) => Fate::Refused,
        Err(other) => panic!("{user:?}: {other:?}"),
    }
}

/// The user names that sshd did not know, in order.
fn strangers(sshd: &Sshd) -> Vec<String> {
    let log = sshd.log();
    let name = |line: &str| {
        let (_, rest) = line.split_once("Invalid user ")?;
        Some(rest.split_once(" from 127.0.0.1 port ")?.0.to_owned())
    };
    let mut names: Vec<_> = log.lines().filter_map(name).collect();
    // Each login has two such lines.
    names.dedup();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_name_is_sent_where_ssh_sends_it() {
    let sshd = Sshd::start();
    let me = sshd.user();
    // sshd itself takes what follows ':' for a style of authentication, and lets the rest in.
    let style = format!("{me}:style");
    let role = format!("{me}/role");
    for user in [
        me,
        &style,
        &role,
        "admin:port3",
        "a/b",
        "a b",
        " ab",
        "ab ",
        "a@b",
        "@ab",
        "ab@",
        "corp\\deploy",
        "a$b",
        "a%b",
        "a%41b",
        "a#b",
        "a*?[]b",
        "a,b",
        "a!b",
        "a=b",
        "~ab",
        ":",
        "/",
        "\u{e4}\u{a0}b",
        "-ab",
        "a\tb",
        "a\nb",
        "a\u{7f}b",
    ] {
        let before = strangers(&sshd).len();
        let theirs = ssh_says(&sshd, user);
        let seen = strangers(&sshd).split_off(before);
        let ours = pool_says(&sshd, user).await;
        assert_eq!(ours, theirs, "{user:?}");
        // The pool's line is the same, and one with it.
        assert_eq!(strangers(&sshd).split_off(before), seen, "{user:?}");
    }
    assert_eq!(ssh_says(&sshd, &style), Fate::In);
}

/// Where the two differ: the documentation of `Target::new` says so.
#[tokio::test(flavor = "multi_thread")]
async fn no_shell_sees_a_user_name_and_none_is_empty() {
    let sshd = Sshd::start();
    for user in [
        "a'b", "a\"b", "a`b", "a;b", "a&b", "a|b", "a<b>", "a(b)", "a{b}", "a\\", "a -b",
    ] {
        assert_eq!(ssh_says(&sshd, user), Fate::NotSent, "{user:?}");
        assert_eq!(pool_says(&sshd, user).await, Fate::Refused, "{user:?}");
    }
    assert_eq!(ssh_says(&sshd, ""), Fate::Refused);
    assert_eq!(pool_says(&sshd, "").await, Fate::NotSent);
}
