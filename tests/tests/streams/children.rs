//! Children, with the manners of `std::process`.

use ssh_pool::{Error, Pty, Stdio, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{SOON, server};

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
    let mut stdout = child.stdout.take().unwrap();
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
