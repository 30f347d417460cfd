//! Standard input, scripts, and input that cannot be sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ssh_pool::{Command, CommandState, Error, Host, Phase, Stdio};
use tokio::time::timeout;

use crate::{Ledger, SOON, server};

const LARGE: usize = 5 << 20;

/// Bytes of every value, in an order that repeats nowhere within a packet or a window.
fn large() -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..LARGE).map(next).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_mebibytes_of_stdin_arrive_whole() {
    let (_sshd, _pool, host) = server();
    let sent = large();
    let output = host
        .command("cat")
        .stdin(sent.clone())
        .output()
        .await
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    // Not assert_eq: nobody reads five mebibytes of difference.
    assert_eq!(output.stdout.len(), sent.len());
    assert!(output.stdout == sent, "same length, other bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_five_mebibytes_arrives_whole_and_runs_to_its_end() {
    let (_sshd, _pool, host) = server();
    let mut script = String::from("read_by_shell=yes\n");
    let mut lines = 0;
    while script.len() < LARGE {
        script.push_str("count=$((count + 1)) # ");
        script.push_str(&"x".repeat(2_000));
        script.push('\n');
        lines += 1;
    }
    script.push_str("echo $count $read_by_shell");
    let output = host.script(script.clone()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("{lines} yes\n")
    );

    let output = host.script(large()).interpreter("cat").output().await;
    assert!(output.unwrap().stdout == large());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_its_arguments() {
    let (_sshd, _pool, host) = server();
    let script = "printf '%s\\0' $# \"$@\"";
    let args = ["-x", "", "a b", "it's", "*", "--", "$HOME", "line\nline"];
    let wanted = |count: usize| format!("{count}\0{}\0", args.join("\0"));
    let output = host.script(script).args(args).output().await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        wanted(args.len()),
        "{output:?}"
    );
    let mut command = host.script(script);
    let output = command.interpreter("sh -s --").args(args).output().await;
    assert_eq!(
        String::from_utf8_lossy(&output.unwrap().stdout),
        wanted(args.len())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_stops_at_its_first_failure_unless_its_interpreter_goes_on() {
    let (_sshd, _pool, host) = server();
    let script = "echo before\n(exit 3)\necho after\n";
    let output = host.script(script).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(output.stdout, b"before\n");
    let output = host.script(script).interpreter("sh -s").output().await;
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"before\nafter\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_script_and_an_empty_stdin_are_nothing_special() {
    let (_sshd, _pool, host) = server();
    let output = host.script("").output().await.unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    for stdin in [Stdio::null(), Stdio::from("")] {
        let output = host.command("cat").stdin(stdin).output().await.unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_need_not_read_its_stdin() {
    let (_sshd, pool, host) = server();
    let eight_mebibytes = vec![b'x'; 8 << 20];
    for line in [
        "true",
        "sleep 1",
        "exec <&-; sleep 0.2; exit 7",
        "head -c 1; exit 7",
    ] {
        let mut command = host.shell(line);
        let running = command.stdin(eight_mebibytes.clone()).output();
        let output = timeout(SOON, running).await.expect(line).expect(line);
        let wanted = if line.contains('7') { 7 } else { 0 };
        assert_eq!(output.status.code(), Some(wanted), "{line}: {output:?}");
    }
    // Neither does it do harm to those that come after it.
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(crate::dials(&pool), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_cannot_be_sent_is_an_error_before_anything_is_dialled() {
    let (sshd, pool, host) = server();
    let ledger = Ledger::new();
    let nul = OsStr::from_bytes(b"a\0b");
    let entry = ledger.enter("ran");
    let line = |change: fn(&mut Command) -> &mut Command| {
        let mut command = host.shell(&entry);
        change(&mut command);
        command
    };
    let nul_in = |host: &Host| {
        let mut all = vec![host.command(nul), host.shell(nul)];
        let mut argument = host.command("true");
        argument.arg(nul);
        let mut raw = host.command("true");
        raw.raw_arg(nul);
        let mut dir = host.shell(&entry);
        dir.current_dir(nul);
        let mut env = host.shell(&entry);
        env.env("NAME", nul);
        let mut script = host.script("true");
        script.arg(nul);
        all.extend([argument, raw, dir, env, script]);
        all
    };
    let mut impossible = nul_in(&host);
    impossible.extend([
        host.shell(""),
        host.shell("#".repeat(128 << 10)),
        host.command("x".repeat(128 << 10)),
        line(|command| command.env("", "x")),
        line(|command| command.env("1A", "x")),
        line(|command| command.env("A=B", "x")),
        line(|command| command.env("A B", "x")),
        line(|command| command.env("$(id)", "x")),
        line(|command| command.env("A;id", "x")),
        line(|command| command.interpreter("bash")),
    ]);
    let mut twice = host.script("true");
    twice.stdin("data");
    impossible.push(twice);
    for mut command in impossible {
        let error = command.output().await.unwrap_err();
        let told = command.status().await.unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        assert!(matches!(told, Error::InvalidInput { .. }), "{told:?}");
        assert_eq!(error.phase(), Phase::Input);
        assert_eq!(error.command_state(), CommandState::NotStarted);
        assert!(!error.is_transient());
    }
    assert_eq!((crate::dials(&pool), sshd.connections()), (0, 0));
    assert!(ledger.lines().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_line_that_a_shell_takes_is_sent() {
    let (_sshd, _pool, host) = server();
    // Linux takes 128 KiB with the NUL that ends it as one argument.
    let start = "echo ok #";
    let line = format!("{start}{}", "x".repeat((128 << 10) - 1 - start.len()));
    let output = host.shell(&line).output().await.unwrap();
    assert_eq!(output.stdout, b"ok\n", "{output:?}");
    let error = host.shell(line + "x").output().await.unwrap_err();
    assert!(error.to_string().contains("Host::script"), "{error}");
}
