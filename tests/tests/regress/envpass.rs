//! envpass: variables that the server takes go by a request of the protocol, the others through
//! the shell, and nobody can tell from the inside.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ssh_pool::{CommandState, Error, Host, Pool};
use ssh_pool_tests::{Release, Sshd, SshdBuilder, TempDir, eventually_async};

use crate::gate::Gate;
use crate::way::{ALL, WITH_OUTPUT};
use crate::{SOON, on};

const PATTERNS: &str = "AcceptEnv TAKEN _XXX_* ONE_?";

fn accepting() -> SshdBuilder {
    Sshd::builder().option(PATTERNS)
}

/// A server that writes down each command line, and a file with them. Each command shows first what
/// the server has taken.
fn showing(name: &str) -> ((Sshd, TempDir), Pool, Host, PathBuf) {
    let dir = TempDir::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let seen = dir.path().join("seen");
    let forced = format!(
        "printf '%s\\n' \"$SSH_ORIGINAL_COMMAND\" >> {}; printenv {name}; \
         exec sh -c \"$SSH_ORIGINAL_COMMAND\"",
        seen.display()
    );
    let server = accepting().option(format!("ForceCommand {forced}"));
    let (sshd, pool, host) = on(server.start());
    ((sshd, dir), pool, host, seen)
}

/// What looks harmless to nobody.
fn weird() -> Vec<OsString> {
    let mut all: Vec<OsString> = [
        "it's",
        "\"quoted\"",
        "two\nlines",
        "ends with newline\n",
        "$HOME $(id) `id`",
        "a\\b",
        "",
        " ",
        "\u{e4}\u{1f512}",
        "\u{1}\u{7f}",
    ]
    .map(OsString::from)
    .to_vec();
    all.push(OsString::from_vec(vec![0xff, 0xfe, b'\'', 0x81]));
    all.push(OsString::from_vec((1..=u8::MAX).collect()));
    all.push(OsString::from("long".repeat(10_000)));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_takes_is_not_in_the_command_line() {
    for name in ["TAKEN", "_XXX_", "_XXX_1", "ONE_A"] {
        let (_sshd, _pool, host, lines) = showing(name);
        for way in WITH_OUTPUT {
            // The second time nothing is asked any more.
            for value in ["it's $secret", "a secret\nline"] {
                let mut command = host.shell(format!("printenv {name}"));
                let output = way.output(command.env(name, value)).await.unwrap();
                let seen = String::from_utf8(output.stdout).unwrap();
                assert_eq!(seen, format!("{value}\n{value}\n"), "{way:?}");
            }
        }
        let lines = fs::read_to_string(lines).unwrap();
        assert!(lines.contains(name) && !lines.contains("secret"), "{lines}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_take_is_in_the_command_line_alone() {
    for name in ["OTHER", "TAKEN_NOT", "XXX_1", "ONE_AB", "ONE_"] {
        let (_sshd, _pool, host, lines) = showing(name);
        for way in WITH_OUTPUT {
            let mut command = host.shell(format!("printenv {name}"));
            let output = way.output(command.env(name, "value")).await.unwrap();
            assert_eq!(output.stdout, b"value\n", "{way:?}");
        }
        let lines = fs::read_to_string(lines).unwrap();
        let exports = lines.matches(&format!("export {name}=value; ")).count();
        assert_eq!(exports, WITH_OUTPUT.len(), "{lines}");
    }
}

/// `UID` in zsh, as root, changes the user; in bash it is read-only; compose files use it.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_of_login_shells_is_refused_unless_the_server_takes_it() {
    let (_sshd, _pool, host) = on(Sshd::start());
    let ran = host.command("true").output().await;
    assert!(ran.unwrap().status.success());
    for name in ["UID", "USERNAME", "status"] {
        let error = host.command("true").env(name, "7").output().await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        assert_eq!(error.command_state(), CommandState::NotStarted);
        assert!(error.to_string().contains("AcceptEnv"), "{error}");
    }
    let (_sshd, _pool, host) = on(Sshd::builder().option("AcceptEnv UID").start());
    for _ in 0..2 {
        let output = host.command("printenv").arg("UID").env("UID", "7").output();
        let output = output.await.unwrap();
        // bash takes its own instead, and does not hand it on.
        assert!(matches!(&*output.stdout, b"7\n" | b""), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_list_shows_no_value_that_the_server_has_taken() {
    let (sshd, _pool, host) = on(accepting().start());
    let shown = |value: &str| {
        let all = sshd.session_processes();
        all.iter().any(|(_, line)| line.contains(value))
    };
    let gate = Gate::new();
    let mut command = host.shell(format!("echo $TAKEN $OTHER; {}", gate.pass()));
    command
        .env("TAKEN", "in-the-request")
        .env("OTHER", "in-the-line");
    let mut child = command.spawn().await.unwrap();
    assert!(eventually_async(SOON, || shown("in-the-line")).await);
    assert!(!shown("in-the-request"), "{:?}", sshd.session_processes());
    gate.open();
    drop(child.stdin.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, b"in-the-request in-the-line\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_kind_reach_the_program_both_ways() {
    for release in [Release::Installed, Release::Trixie] {
        let (_sshd, _pool, host) = on(accepting().release(release).start());
        for value in weird() {
            for name in ["TAKEN", "OTHER"] {
                for way in WITH_OUTPUT {
                    let mut command = host.command("printenv");
                    let output = way
                        .output(command.arg(name).env(name, &value))
                        .await
                        .unwrap();
                    let seen = output.stdout.strip_suffix(b"\n");
                    let seen = seen.unwrap_or_else(|| panic!("{name}={value:?}: {output:?}"));
                    assert_eq!(OsStr::from_bytes(seen), value, "{name} {way:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_was_set_for_one_command_is_not_set_for_the_next() {
    let (_sshd, _pool, host) = on(accepting().start());
    for way in ALL {
        let mut with = host.shell("test \"$TAKEN\" = 1 && test \"$OTHER\" = 1");
        let status = way.status(with.env("TAKEN", "1").env("OTHER", "1")).await;
        assert!(status.unwrap().success(), "{way:?}");
        let mut without = host.shell("test -z \"${TAKEN+x}${OTHER+x}\"");
        assert!(way.status(&mut without).await.unwrap().success(), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_values_the_last_one_wins_whichever_way_each_goes() {
    let (_sshd, _pool, host) = on(accepting().start());
    let text = OsString::from("text");
    let bytes = OsString::from_vec(vec![0xff, b'x']);
    for name in ["TAKEN", "OTHER"] {
        for (first, last) in [(&text, &bytes), (&bytes, &text)] {
            for way in WITH_OUTPUT {
                let mut command = host.command("printenv");
                command.arg(name).env(name, first).env(name, last);
                let output = way.output(&mut command).await.unwrap();
                let seen = OsStr::from_bytes(output.stdout.strip_suffix(b"\n").unwrap());
                assert_eq!(seen, last, "{name} {way:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_variables_than_a_server_takes_for_one_session_all_arrive() {
    // sshd takes 128 in a session, and throws away the others.
    let (_sshd, _pool, host) = on(accepting().start());
    let names = |from: usize, to: usize| (from..to).map(|number| format!("_XXX_{number}"));
    for way in WITH_OUTPUT {
        for (from, to) in [(0, 100), (100, 200), (0, 200), (0, 300)] {
            let mut command = host.shell("printenv | grep -c ^_XXX_");
            command.envs(names(from, to).map(|name| (name, "x")));
            let output = way.output(&mut command).await.unwrap();
            let seen = String::from_utf8(output.stdout).unwrap();
            assert_eq!(seen, format!("{}\n", to - from), "{way:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_sets_itself_wins_over_what_it_takes() {
    let (_sshd, _pool, host) = on(accepting().option("SetEnv TAKEN=server").start());
    for way in WITH_OUTPUT {
        let mut command = host.command("printenv");
        let command = command.arg("TAKEN").env("TAKEN", "client");
        let output = way.output(command).await.unwrap();
        assert_eq!(output.stdout, b"server\n", "{way:?}");
    }
}
