//! stderr-data, stderr-after-eof: standard error is complete, apart from standard output, and does
//! not end with it.

use ssh_pool::Stdio;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::data::{Folder, assert_same, noise};
use crate::gate::Gate;
use crate::way::{SPAWNED, WITH_OUTPUT};
use crate::{SOON, server};

/// More than fits into a window.
const LONG: usize = 5_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_word_on_stderr_arrives_there_and_nowhere_else() {
    let (_sshd, _pool, host) = server();
    for way in WITH_OUTPUT {
        for close in ["", "exec >/dev/null; ", "exec >&-; "] {
            let mut command = host.shell(format!("{close}echo 1234 >&2"));
            let output = way.output(&mut command).await.unwrap();
            assert_eq!(
                (&*output.stdout, &*output.stderr),
                (&b""[..], &b"1234\n"[..])
            );
            assert!(output.status.success());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_stderr_after_stdout_has_ended_is_complete() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let bytes = noise(1, LONG);
    let file = folder.put("data", &bytes);
    for way in WITH_OUTPUT {
        for close in ["exec >/dev/null", "exec >&-"] {
            let mut command = host.shell(format!("echo first; {close}; cat {file} >&2; exit 3"));
            let output = way.output(&mut command).await.unwrap();
            assert_eq!(output.stdout, b"first\n", "{way:?} {close}");
            assert_same(&output.stderr, &bytes, (way, close));
            assert_eq!(output.status.code(), Some(3));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stderr_lives_on_while_stdout_has_long_ended() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let bytes = noise(2, LONG);
    let file = folder.put("data", &bytes);
    for way in SPAWNED {
        // With input that ends at once, as by ssh's -n, and with one that stays open.
        for stdin in [Stdio::null(), Stdio::piped()] {
            let gate = Gate::new();
            let line = format!("exec >&-; echo on >&2; {}; cat {file} >&2", gate.pass());
            let mut command = way.shell(&host, line);
            let mut child = command.stdin(stdin).spawn().await.unwrap();
            let mut stderr = child.stderr.take().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let mut said = [0; 3];
            timeout(SOON, stderr.read_exact(&mut said))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(&said, b"on\n");
            gate.open();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let read = async {
                tokio::try_join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err))
            };
            timeout(SOON, read).await.unwrap().unwrap();
            assert_same(&out, b"", way);
            assert_same(&err, &bytes, way);
            let status = timeout(SOON, child.wait()).await.unwrap();
            assert!(status.unwrap().success());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_at_once_are_complete_and_apart() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let (left, right) = (noise(3, LONG), noise(4, LONG + 1));
    let (out, err) = (folder.put("out", &left), folder.put("err", &right));
    for way in WITH_OUTPUT {
        let mut command = host.shell(format!("cat {out} & cat {err} >&2; wait"));
        let output = way.output(&mut command).await.unwrap();
        assert_same(&output.stdout, &left, way);
        assert_same(&output.stderr, &right, way);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_input_a_command_reads_its_end_at_once() {
    let (_sshd, _pool, host) = server();
    for way in WITH_OUTPUT {
        let mut command = host.shell("cat; echo 1234 >&2");
        let output = way.output(command.stdin(Stdio::null())).await.unwrap();
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b""[..], &b"1234\n"[..])
        );
    }
}
