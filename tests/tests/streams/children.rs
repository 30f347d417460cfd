//! Children, with the manners of `std::process`.

use std::time::Duration;

use ssh_pool::{CommandState, Error, Limits, Phase, Pty, Stdio, Stream, Timeouts};
use ssh_pool_tests::{Sshd, TempDir, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{SOON, builder, known, on, server};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_a_child_comes_back_while_it_runs() {
    let (_sshd, _pool, host) = server();
    let mut child = host
        .command("cat")
        .stdin(Stdio::piped())
        .spawn()
        .await
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    for line in ["one\n", "two\n"] {
        stdin.write_all(line.as_bytes()).await.unwrap();
        let mut back = vec![0; line.len()];
        stdout.read_exact(&mut back).await.unwrap();
        assert_eq!(back, line.as_bytes());
    }
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    assert!(child.wait().await.unwrap().success());
    assert!(child.wait().await.unwrap().success(), "the same again");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_closes_stdin() {
    let (_sshd, _pool, host) = server();
    let mut child = host
        .shell("cat; exit 3")
        .stdin(Stdio::piped())
        .spawn()
        .await
        .unwrap();
    let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_comes_after_the_readers_have_gone() {
    let (_sshd, _pool, host) = server();
    for shared in [false, true] {
        let mut command = host.shell("head -c 20000000 /dev/zero; exit 5");
        if shared {
            command.shared();
        }
        let mut child = command.spawn().await.unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(5), "shared: {shared}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_with_output_collects_both_streams() {
    let (_sshd, _pool, host) = server();
    let line = "head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2; exit 1";
    let child = host.shell(line).spawn().await.unwrap();
    let output = timeout(SOON, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        (output.stdout.len(), output.stderr.len()),
        (5_000_000, 5_000_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_child_that_is_not_read_ends_with_an_overrun() {
    let (sshd, pool, host) = server();
    let mut child = host.command("yes").shared().spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let error = timeout(SOON, child.wait()).await.unwrap().unwrap_err();
    assert!(
        matches!(
            &error,
            Error::OutputLimit {
                stream: Stream::Stdout,
                ..
            }
        ),
        "{error:?}"
    );
    let mut kept = Vec::new();
    let cut = stdout.read_to_end(&mut kept).await.unwrap_err();
    assert!(
        kept.len() > 3 << 20 && kept.len() <= 4 << 20,
        "{}",
        kept.len()
    );
    let inner = cut.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert!(matches!(inner, Error::OutputLimit { .. }), "{inner:?}");
    let dials = pool.status().hosts[0].dials;
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(pool.status().hosts[0].dials, dials, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_on_a_terminal_sees_its_size_and_the_new_one() {
    let (_sshd, _pool, host) = server();
    let line = "stty size; read line; stty size; test -t 0 && echo $TERM";
    let mut child = host
        .shell(line)
        .pty(Pty::new(100, 30).term("dumb").mode(53, 0))
        .stdin(Stdio::piped())
        .spawn()
        .await
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 8];
    stdout.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"30 100\r\n");
    child.resize(120, 40).await;
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"\n")
        .await
        .unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "40 120\r\ndumb\r\n");
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_connection_is_used_again() {
    let (_sshd, _pool, host) = server();
    for _ in 0..5 {
        let mut child = host.command("true").spawn().await.unwrap();
        assert!(child.wait().await.unwrap().success());
    }
    let status = host.status();
    assert_eq!(
        (status.dials, status.isolated, status.connections),
        (1, 1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_grace_a_command_ends_with_its_shell_and_its_background_lives_on() {
    let (sshd, pool, host) = server();
    let line = "sleep 4741 & echo started";
    let grace = Duration::from_millis(300);
    let output = host.shell(line).exit_grace(grace).output();
    let output = timeout(SOON, output).await.unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"started\n");

    let mut child = host.shell(line).exit_grace(grace).spawn().await.unwrap();
    assert!(
        timeout(SOON, child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    drop(child);
    let child = host.shell(line).exit_grace(grace).spawn().await.unwrap();
    let output = timeout(SOON, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.stdout, b"started\n");

    // Their sessions are free, on connections that are still good.
    let free = || {
        let status = host.status();
        status.running + status.isolated_busy == 0
    };
    assert!(eventually_async(SOON, free).await, "{:?}", pool.status());
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(host.status().retiring, 0);
    let living = sshd.session_processes();
    let living = living.iter().filter(|(_, line)| line == "sleep 4741");
    assert_eq!(living.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_to_give_the_server_says_so_and_nothing_starts() {
    let (_sshd, pool, host) = on(Sshd::builder().option("PermitTTY no").start());
    let dir = TempDir::new();
    let file = dir.path().join("ran");
    let mut command = host.shell(format!("touch {}", file.display()));
    let error = command.pty(Pty::default()).output().await.unwrap_err();
    assert!(matches!(error, Error::PtyRefused { .. }), "{error:?}");
    assert!(!file.exists());
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(pool.status().hosts[0].dials, 1);
    let unknown = host
        .command("true")
        .pty(Pty::default().mode(200, 1))
        .output()
        .await;
    assert!(matches!(unknown, Err(Error::InvalidInput { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_goes_by_the_protocol_where_the_server_takes_it() {
    let (_sshd, _pool, host) = on(Sshd::builder().option("AcceptEnv TAKEN_*").start());
    let value = "it's\n \"two\" lines; $HOME `id`";
    // The command line of the login shell is what a server's other users can see.
    let line = "printf '%s|%s|' \"$TAKEN_ONE\" \"$OTHER\"; tr '\\0' ' ' </proc/$$/cmdline";
    for round in 0..3 {
        let mut command = host.shell(line);
        command.env("TAKEN_ONE", value).env("OTHER", value);
        let output = command.output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let parts: Vec<_> = text.splitn(3, '|').collect();
        assert_eq!(parts[..2], [value, value], "{round}");
        let seen = parts[2];
        assert!(
            seen.contains("export OTHER=") && !seen.contains("TAKEN_ONE="),
            "{seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inherited_streams_are_those_of_this_process() {
    const VARIABLE: &str = "SSH_POOL_TEST_INHERIT";
    if let Ok(word) = std::env::var(VARIABLE) {
        // The process that is looked at from outside, see below.
        let (sshd, _pool, host) = server();
        let line = format!("read line; echo {word} $line; echo {word} >&2");
        let mut child = host
            .shell(line)
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .spawn()
            .await
            .unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
        assert!(child.wait().await.unwrap().success());
        // What holds these open in the background is not waited for either.
        let mut command = host.shell("sleep 4743 & echo left");
        command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        command.exit_grace(Duration::from_millis(300));
        let mut child = command.spawn().await.unwrap();
        assert!(child.wait().await.unwrap().success());
        // Reading our own standard input cannot be cancelled, and this process is to end, which drops
        // nothing.
        drop(sshd);
        std::process::exit(0);
    }
    let mut process = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("children::inherited_streams_are_those_of_this_process")
        .env(VARIABLE, "inherited")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"word\n").await.unwrap();
    let output = timeout(SOON, process.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    drop(stdin);
    let (stdout, stderr) = (output.stdout, output.stderr);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(stdout.contains("inherited word\n"), "{stdout} {stderr}");
    assert!(stdout.contains("left\n"), "{stdout} {stderr}");
    assert!(stderr.contains("inherited\n"), "{stdout} {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_an_isolated_connection_ends_with_the_time_for_it() {
    let sshd = Sshd::start();
    // Each of the logins has to be done in that time as well.
    let acquire = Duration::from_secs(5);
    let pool = builder(&sshd, known(&sshd))
        .limits(Limits::default().isolated_per_host(2))
        .timeouts(Timeouts::default().acquire(acquire))
        .build()
        .unwrap();
    let host = pool.host(sshd.target()).unwrap();
    host.warm().await.unwrap();
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut command = host.command("cat");
        running.push(command.stdin(Stdio::piped()).spawn().await.unwrap());
    }
    let error = host.command("true").spawn().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Queue);
    assert_eq!(error.command_state(), CommandState::NotStarted);
    let status = host.status();
    assert_eq!(
        (status.isolated, status.isolated_busy, status.isolated_limit),
        (2, 2, 2)
    );
    // Nobody else waits, and whoever shares does not either.
    assert!(host.command("true").status().await.unwrap().success());
    assert!(running.pop().unwrap().wait().await.unwrap().success());
    assert!(
        host.command("true")
            .spawn()
            .await
            .unwrap()
            .wait()
            .await
            .unwrap()
            .success()
    );
}
