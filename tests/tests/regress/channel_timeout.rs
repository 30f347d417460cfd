//! channel-timeout: sshd closes channels that are idle, and the end says of which kind it is.

use std::time::Duration;

use ssh_pool::{CommandState, Error, Stdio};
use ssh_pool_tests::{Release, Sshd, SshdBuilder, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::data::Folder;
use crate::gate::Gate;
use crate::way::ALL;
use crate::{SOON, on};

const RELEASES: [Release; 2] = [Release::Installed, Release::Trixie];

fn idle(release: Release, what: &str) -> SshdBuilder {
    let line = format!("ChannelTimeout {what}");
    Sshd::builder().release(release).option(line)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_command_ends_without_a_status_every_way() {
    for release in RELEASES {
        for what in ["session:command=3s", "session:*=3s"] {
            let (_sshd, _pool, host) = on(idle(release, what).start());
            let ended = ALL.map(|way| {
                let host = host.clone();
                async move {
                    // A reader, so that it ends when sshd closes its pipes.
                    let mut command = host.shell("cat <&0; sleep 600");
                    let error = way.status(&mut command).await.unwrap_err();
                    let typed = matches!(error, Error::ClosedWithoutStatus { .. });
                    assert!(typed, "{way:?} {what}: {error:?}");
                    assert_eq!(error.command_state(), CommandState::Unknown);
                    assert!(!error.is_transient());
                }
            });
            futures_util::future::join_all(ended).await;
            assert!(host.command("true").status().await.unwrap().success());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_of_an_idle_command_end_with_what_they_had() {
    let (_sshd, _pool, host) = on(idle(Release::Installed, "session:command=3s").start());
    let mut command = host.shell("echo out; echo err >&2; exec sleep 600");
    let mut child = command.stdin(Stdio::piped()).spawn().await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = async {
        tokio::try_join!(
            stdout.read_to_string(&mut out),
            stderr.read_to_string(&mut err)
        )
    };
    timeout(SOON, read).await.unwrap().unwrap();
    assert_eq!((&*out, &*err), ("out\n", "err\n"));
    let error = timeout(SOON, child.wait()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::ClosedWithoutStatus { .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_says_something_now_and_then_is_not_idle() {
    // OpenSSH 9.2 counts from the beginning of a command, whatever it says, for every client.
    let (_sshd, _pool, host) = on(idle(Release::Trixie, "session:command=2s").start());
    let gate = Gate::new();
    let line = format!("while {}; do echo .; sleep 0.1; done", gate.is_shut());
    let busy = host.shell(line).spawn().await.unwrap();
    // The proof that the time has passed, and more than once.
    for _ in 0..2 {
        let error = timeout(SOON, host.shell("sleep 600").output()).await;
        let error = error.unwrap().unwrap_err();
        let typed = matches!(error, Error::ClosedWithoutStatus { .. });
        assert!(typed, "{error:?}");
    }
    gate.open();
    let output = timeout(SOON, busy.wait_with_output()).await.unwrap();
    assert!(output.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_comes_to_a_clean_end() {
    let folder = Folder::new();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = folder.path("silent");
    let unix = tokio::net::UnixListener::bind(&path).unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&path, anybody).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        let mut all = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                accepted = tcp.accept() => all.0.push(accepted.unwrap().0),
                accepted = unix.accept() => all.1.push(accepted.unwrap().0),
            }
        }
    });
    let what = "direct-tcpip=1s direct-streamlocal@openssh.com=1s";
    for release in RELEASES {
        let (_sshd, _pool, host) = on(idle(release, what).start());
        // Commands are none of it: this one is as quiet, and lives.
        let gate = Gate::new();
        let mut quiet = host.shell(gate.pass());
        let quiet = quiet.spawn().await.unwrap();
        for shared in [false, true] {
            let connects = [
                host.connect_tcp("127.0.0.1", port),
                host.connect_unix(&path),
            ];
            for connect in connects {
                let connect = if shared { connect.shared() } else { connect };
                let mut stream = connect.await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                let mut rest = Vec::new();
                let read = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
                read.unwrap();
                assert_eq!(rest, b"");
                // Nor does it take anything any more.
                let refused = async { while stream.write_all(&[0; 10_000]).await.is_ok() {} };
                timeout(SOON, refused).await.unwrap();
            }
        }
        gate.open();
        let status = timeout(SOON, quiet.wait_with_output()).await.unwrap();
        assert!(status.unwrap().status.success());
    }
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_subsystem_comes_to_a_clean_end() {
    for release in RELEASES {
        let server = idle(release, "session:subsystem:sftp=1s").start();
        let (_sshd, _pool, host) = on(server);
        let gate = Gate::new();
        let quiet = host.shell(gate.pass()).spawn().await.unwrap();
        for shared in [false, true] {
            let connect = host.subsystem("sftp");
            let mut stream = if shared { connect.shared() } else { connect }
                .await
                .unwrap();
            let mut rest = Vec::new();
            let read = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
            read.unwrap();
            assert_eq!(rest, b"");
        }
        gate.open();
        let status = timeout(SOON, quiet.wait_with_output()).await.unwrap();
        assert!(
            status.unwrap().status.success(),
            "a command is no subsystem"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_forwarded_connection_is_closed_and_the_forward_lives_on() {
    let to = crate::echo::Echo::tcp().await;
    for release in RELEASES {
        let (_sshd, _pool, host) = on(idle(release, "forwarded-tcpip=1s direct-tcpip=1s").start());
        let on = ("127.0.0.1", 0);
        let forwards = [
            host.forward_remote(on, to.address.clone()).await.unwrap(),
            host.forward_local(on, to.address.clone()).await.unwrap(),
        ];
        for forward in &forwards {
            let port = forward.address().port().unwrap();
            let mut client = tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .unwrap();
            let mut rest = Vec::new();
            // A clean end or a reset: it does not stay open.
            let ended = timeout(SOON, client.read_to_end(&mut rest)).await;
            assert!(ended.is_ok() && rest.is_empty(), "{rest:?}");
            let back = crate::echo::ask_at(forward.address(), b"on").await;
            assert_eq!(back.unwrap(), b"on");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_idle_commands_than_a_connection_holds_leave_room_for_others() {
    // sshd keeps the session of a process whose channel it has given up.
    let (_sshd, _pool, host) = on(idle(Release::Installed, "session:command=3s").start());
    let all = (0..15).map(|_| host.shell("trap '' HUP PIPE; exec sleep 600").output());
    for ended in timeout(SOON, futures_util::future::join_all(all))
        .await
        .unwrap()
    {
        let error = ended.unwrap_err();
        assert!(
            matches!(error, Error::ClosedWithoutStatus { .. }),
            "{error:?}"
        );
    }
    for _ in 0..15 {
        let status = timeout(SOON, host.command("true").status()).await.unwrap();
        assert!(status.unwrap().success());
    }
    let free = || host.status().running == 0;
    assert!(
        eventually_async(Duration::from_secs(20), free).await,
        "{:?}",
        host.status()
    );
}
