//! broken-pipe: either side may go before the other has said everything.

use std::io::ErrorKind;

use ssh_pool::Stdio;
use ssh_pool_tests::eventually_async;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::data::{Folder, assert_same, noise};
use crate::gate::Gate;
use crate::way::SPAWNED;
use crate::{SOON, server};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_early_holds_up_neither_the_command_nor_the_next_one() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let bytes = noise(1, 5_000_000);
    let file = folder.put("data", &bytes);
    for way in SPAWNED {
        for round in 0..4 {
            let mut command = way.shell(&host, format!("cat {file}; cat {file} >&2; exit {round}"));
            let mut child = command.spawn().await.unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let mut few = vec![0; round * 1_000];
            stdout.read_exact(&mut few).await.unwrap();
            assert_same(&few, &bytes[..few.len()], way);
            drop(stdout);
            let output = timeout(SOON, child.wait_with_output()).await.unwrap();
            let output = output.unwrap();
            // Standard error has a reader still.
            assert_same(&output.stderr, &bytes, way);
            assert_eq!(output.status.code(), i32::try_from(round).ok());
        }
    }
    let free = || {
        let status = host.status();
        status.running + status.isolated_busy == 0 && status.connections == 1
    };
    assert!(eventually_async(SOON, free).await, "{:?}", host.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_learns_that_the_command_has_ended() {
    let (_sshd, _pool, host) = server();
    for way in SPAWNED {
        for line in [
            "exit 7",
            "head -c 100000 >/dev/null; exit 7",
            "exec <&-; exit 7",
        ] {
            let mut command = way.shell(&host, line);
            let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let endless = async {
                loop {
                    if let Err(error) = stdin.write_all(&[0; 10_000]).await {
                        return error;
                    }
                }
            };
            let error = timeout(SOON, endless).await.unwrap();
            assert_eq!(
                error.kind(),
                ErrorKind::BrokenPipe,
                "{way:?} {line}: {error}"
            );
            // And it stays like that; closing what is closed is none.
            let again = stdin.write_all(b"x").await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::BrokenPipe);
            stdin.shutdown().await.unwrap();
            let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
            assert_eq!(status.code(), Some(7), "{way:?} {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_waits_for_room_is_woken_by_the_end_of_the_command() {
    let (_sshd, _pool, host) = server();
    for way in SPAWNED {
        let gate = Gate::new();
        let mut command = way.shell(&host, format!("{}; exit 7", gate.pass()));
        let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = vec![0; 64 << 20];
        let write = stdin.write_all(&bytes);
        tokio::pin!(write);
        // Nobody reads: the window, the pipe and what lies between are full, or will be.
        let early = timeout(std::time::Duration::from_millis(500), &mut write).await;
        assert!(early.is_err(), "{way:?}: {early:?}");
        gate.open();
        let error = timeout(SOON, write).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{way:?}: {error}");
        let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_closes_its_stdin_and_lives_on_does_not_hang_its_writer() {
    let (_sshd, _pool, host) = server();
    for way in SPAWNED {
        let gate = Gate::new();
        let line = format!("exec <&-; echo closed; {}; exit 7", gate.pass());
        let mut command = way.shell(&host, line);
        let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 7]).await.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than fits anywhere: sshd throws away what its command does not take, and says so
        // only to clients that know its own "eow" message.
        let written = timeout(SOON, stdin.write_all(&vec![0; 16 << 20])).await;
        if let Err(error) = written.unwrap() {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{way:?}: {error}");
        }
        gate.open();
        let status = timeout(SOON, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_a_collected_command_does_not_read_is_no_error() {
    let (_sshd, _pool, host) = server();
    let bytes = noise(2, 10_000_000);
    for line in [
        "exit 7",
        "head -c 5; exit 7",
        "exec <&-; echo 12345; exit 7",
    ] {
        let mut command = host.shell(line);
        let output = timeout(SOON, command.stdin(&bytes).output()).await.unwrap();
        assert_eq!(output.unwrap().status.code(), Some(7), "{line}");
    }
}
