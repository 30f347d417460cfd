//! What a command's streams are connected to, and that no stream without a reader holds it up.

use ssh_pool::{Error, Host, Limits, Stdio};
use ssh_pool_tests::Sshd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use crate::{SOON, builder, known, server};

/// Runs the test of this name once more, in a process whose streams can be looked at, with this on
/// its standard input. Returns what it said on standard output and standard error.
async fn seen_from_outside(test: &str, variable: &str, input: &[u8]) -> (String, String) {
    let mut process = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(variable, "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    let output = timeout(SOON, process.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    drop(stdin);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    (stdout, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_output_show_what_is_inherited() {
    const VARIABLE: &str = "SSH_POOL_TEST_INHERITED";
    if std::env::var_os(VARIABLE).is_some() {
        let (sshd, _pool, host) = server();
        let status = host
            .shell("echo status out; echo status err >&2; exit 4")
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .status();
        assert_eq!(status.await.unwrap().code(), Some(4));
        let status = host
            .shell("echo half out; echo hidden >&2")
            .stdout(Stdio::inherit())
            .status();
        assert!(status.await.unwrap().success());
        assert!(host.shell("echo hidden").status().await.unwrap().success());

        let mut command = host.shell("echo output out; echo kept >&2");
        let output = command.stdout(Stdio::inherit()).output().await.unwrap();
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b""[..], &b"kept\n"[..])
        );
        let mut command = host.shell("read line; echo got $line");
        let output = command.stdin(Stdio::inherit()).output().await.unwrap();
        assert_eq!(output.stdout, b"got word\n");
        // Reading our own standard input cannot be cancelled.
        drop(sshd);
        std::process::exit(0);
    }
    let test = "stdio::status_and_output_show_what_is_inherited";
    let (stdout, stderr) = seen_from_outside(test, VARIABLE, b"word\n").await;
    for shown in ["status out\n", "half out\n", "output out\n"] {
        assert!(stdout.contains(shown), "{stdout}\n{stderr}");
    }
    assert!(stderr.contains("status err\n"), "{stdout}\n{stderr}");
    for hidden in ["hidden", "kept", "got"] {
        assert!(!stdout.contains(hidden), "{stdout}\n{stderr}");
        assert!(!stderr.contains(hidden), "{stdout}\n{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_leaves_out_what_is_null() {
    let (_sshd, pool, host) = server();
    // More than may be kept, so it is not.
    let line = "head -c 80000000 /dev/zero; echo err >&2";
    let mut command = host.shell(line);
    let output = command.stdout(Stdio::null()).output().await.unwrap();
    assert_eq!(
        (&*output.stdout, &*output.stderr),
        (&b""[..], &b"err\n"[..])
    );
    let mut command = host.shell("echo out; echo err >&2");
    let output = command.stderr(Stdio::null()).output().await.unwrap();
    assert_eq!(
        (&*output.stdout, &*output.stderr),
        (&b"out\n"[..], &b""[..])
    );
    let mut command = host.shell("echo out; exit 3");
    let status = command.stdout(Stdio::piped()).status().await.unwrap();
    assert_eq!(status.code(), Some(3));
    let status = pool.status();
    assert_eq!(status.hosts[0].isolated, 0, "nothing here needs a reader");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_connected_is_refused_before_anything_is_dialled() {
    let (_sshd, pool, host) = server();
    let refused = |error: Error| match error {
        Error::InvalidInput { what, reason } => (what, reason),
        error => panic!("{error:?}"),
    };
    for (what, error) in [
        (
            "output stream",
            with(&host, "bytes".into()).output().await.err(),
        ),
        (
            "output stream",
            with(&host, "bytes".into()).status().await.err(),
        ),
        (
            "output stream",
            with(&host, "bytes".into()).spawn().await.err(),
        ),
        (
            "spawn",
            with(&host, Stdio::inherit())
                .idempotent()
                .output()
                .await
                .err(),
        ),
        (
            "spawn",
            with(&host, Stdio::inherit())
                .idempotent()
                .status()
                .await
                .err(),
        ),
        (
            "stdin",
            host.command("cat")
                .stdin(Stdio::piped())
                .output()
                .await
                .err(),
        ),
        (
            "stdin",
            host.command("cat")
                .stdin(Stdio::piped())
                .status()
                .await
                .err(),
        ),
    ] {
        let (named, reason) = refused(error.expect("refused"));
        assert_eq!(named, what, "{reason}");
    }
    assert_eq!(pool.status().hosts[0].dials, 0);
}

/// A command whose standard output goes there.
fn with(host: &Host, stdout: Stdio) -> ssh_pool::Command {
    let mut command = host.command("true");
    command.stdout(stdout);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_child_ends_though_nobody_reads_its_streams() {
    let (_sshd, _pool, host) = server();
    let line = "head -c 8000000 /dev/zero; head -c 8000000 /dev/zero >&2; echo end; exit 5";
    for shared in [false, true] {
        let mut command = host.shell(line);
        if shared {
            command.shared();
        }
        let mut child = command.spawn().await.unwrap();
        let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(5), "shared: {shared}");
        // Nothing of it is lost.
        let mut stdout = Vec::new();
        let mut reader = child.stdout.take().unwrap();
        reader.read_to_end(&mut stdout).await.unwrap();
        assert_eq!(stdout.len(), 8_000_004, "shared: {shared}");
        assert!(stdout.ends_with(b"\0end\n"), "shared: {shared}");
        let output = timeout(SOON, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(output.stderr.len(), 8_000_000, "shared: {shared}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_dropped_loses_nothing_of_what_it_kept() {
    let (_sshd, _pool, host) = server();
    let mut child = host.command("seq").arg("600000").spawn().await.unwrap();
    for _ in 0..3 {
        // However far it comes.
        drop(timeout(Duration::from_millis(20), child.wait()).await);
        let mut piece = [0; 2];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut piece).await.unwrap();
        assert_eq!(piece[1], b'\n', "{piece:?}");
    }
    let output = timeout(SOON, child.wait_with_output()).await;
    let output = output.unwrap().unwrap();
    let wanted: String = (4..=600_000).map(|number| format!("{number}\n")).collect();
    assert!(
        output.stdout == wanted.as_bytes(),
        "{}",
        output.stdout.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_told_what_a_wait_could_not_keep() {
    let sshd = Sshd::start();
    let limits = Limits::default().output_bytes(1 << 20);
    let policy = known(&sshd);
    let pool = builder(&sshd, policy).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let line = "head -c 8000000 /dev/zero; echo done >&2";
    let mut child = host.shell(line).spawn().await.unwrap();
    // The command itself is not affected.
    assert!(
        timeout(SOON, child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    let mut kept = Vec::new();
    let stdout = child.stdout.as_mut().unwrap();
    let cut = stdout.read_to_end(&mut kept).await.unwrap_err();
    assert_eq!(kept.len(), 1 << 20);
    let inner = cut.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert!(
        matches!(inner, Error::OutputLimit { limit, .. } if *limit == 1 << 20),
        "{inner:?}"
    );

    let mut child = host.shell(line).spawn().await.unwrap();
    assert!(
        timeout(SOON, child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    let error = child.wait_with_output().await.unwrap_err();
    assert!(matches!(error, Error::OutputLimit { .. }), "{error:?}");
}
