//! exit-status, exit-status-signal: how a command ended comes back, whichever way it was run.

use ssh_pool::{Pty, Stdio};
use tokio::io::AsyncReadExt;

use crate::gate::Gate;
use crate::server;
use crate::way::{ALL, SPAWNED};

const CODES: [i32; 8] = [0, 1, 4, 5, 44, 127, 128, 255];

#[tokio::test(flavor = "multi_thread")]
async fn a_code_comes_back_every_way_with_and_without_a_terminal() {
    let (_sshd, _pool, host) = server();
    for way in ALL {
        for code in CODES {
            let mut plain = host.shell(format!("exit {code}"));
            let mut on_terminal = plain.clone();
            on_terminal.pty(Pty::default());
            for command in [&mut plain, &mut on_terminal] {
                let status = way.status(command).await.unwrap();
                assert_eq!(status.code(), Some(code), "{way:?}");
                assert_eq!((status.signal(), status.success()), (None, code == 0));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_comes_back_after_the_command_has_closed_its_streams() {
    let (_sshd, _pool, host) = server();
    for way in ALL {
        for code in CODES {
            // What is closed first, and whether a child outlives its shell's streams.
            for line in [
                format!("exec >/dev/null 2>&1 </dev/null; exit {code}"),
                format!("exec >&- 2>&- <&-; exit {code}"),
                format!("(exec >&- 2>&-; sleep 0.05); exec >&- 2>&-; exit {code}"),
            ] {
                let status = way.status(&mut host.shell(&line)).await.unwrap();
                assert_eq!(status.code(), Some(code), "{way:?} {line}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_comes_long_after_the_end_of_the_output_is_waited_for() {
    let (_sshd, _pool, host) = server();
    for way in SPAWNED {
        let gate = Gate::new();
        let line = format!("exec >&- 2>&- <&-; {}; exit 44", gate.pass());
        let mut command = way.shell(&host, line);
        let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
        let (done, running) = {
            let wait = child.wait();
            tokio::pin!(wait);
            // The output has ended, or soon will; the command has not.
            let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut wait);
            let running = early.await.is_err();
            gate.open();
            let done = tokio::time::timeout(crate::SOON, wait).await.unwrap();
            (done.unwrap(), running)
        };
        assert!(running, "{way:?}");
        assert_eq!(done.code(), Some(44), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signal_that_ended_a_command_comes_back_every_way() {
    let (_sshd, _pool, host) = server();
    for way in ALL {
        for name in ["TERM", "KILL", "HUP", "USR1", "SEGV"] {
            let mut plain = host.shell(format!("ulimit -c 0; kill -{name} $$; exit 9"));
            let mut on_terminal = plain.clone();
            on_terminal.pty(Pty::default());
            for command in [&mut plain, &mut on_terminal] {
                let status = way.status(command).await.unwrap();
                assert_eq!(status.signal(), Some(name), "{way:?}");
                assert_eq!((status.code(), status.success()), (None, false));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_signalled_from_here_says_which_signal_ended_it() {
    let (_sshd, _pool, host) = server();
    for way in SPAWNED {
        for name in ["TERM", "KILL", "INT", "USR2"] {
            // exec: the shell's own process is the one that ends. And not before it is there: sshd
            // has accepted a command a moment before there is a group to signal.
            let mut command = way.shell(&host, "echo on; exec sleep 600");
            let mut child = command.spawn().await.unwrap();
            let mut said = [0; 3];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut said)
                .await
                .unwrap();
            child.signal(name).await.unwrap();
            let status = tokio::time::timeout(crate::SOON, child.wait()).await;
            let status = status.unwrap().unwrap();
            assert_eq!(status.signal(), Some(name), "{way:?}");
        }
    }
}
