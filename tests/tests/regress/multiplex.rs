//! multiplex: many of everything over one connection, and forwards that are cancelled.

use std::io::ErrorKind;

use ssh_pool::{Address, Host, Limits, Pool, Stdio};
use ssh_pool_tests::Sshd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::data::{Folder, assert_same, noise};
use crate::echo::{Echo, ask, ask_at};
use crate::{SOON, builder, known, on, server};

/// A pool that has one shared connection to its host, and no more.
fn one_connection(sshd: Sshd) -> (Sshd, Pool, Host) {
    let limits = Limits::default().connections_per_host(1);
    let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    (sshd, pool, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_and_streams_at_once_over_one_connection_are_all_complete() {
    const EACH: usize = 12;
    const LENGTH: usize = 1_000_000;
    let (sshd, _pool, host) = one_connection(Sshd::start());
    let folder = std::sync::Arc::new(Folder::new());
    let (tcp, _unix) = (Echo::tcp().await, Echo::unix(&folder.path("echo")));
    let mut all = JoinSet::new();
    for number in 0..EACH {
        let bytes = noise(number as u64, LENGTH + number);
        let (down, up) = (folder.put(&format!("down{number}"), &bytes), number);
        let (mut get, mut put) = (host.command("cat"), host.command("tee"));
        get.arg(down);
        put.arg(folder.file(&format!("up{up}"))).stdin(&bytes);
        let mut child = host.command("cat");
        child.stdin(&bytes).shared();
        let (port, path) = (tcp.port(), folder.path("echo"));
        let (host, folder) = (host.clone(), folder.clone());
        all.spawn(async move {
            let child = async { child.spawn().await.unwrap().wait_with_output().await };
            let by_tcp = async {
                let stream = host.connect_tcp("127.0.0.1", port).shared().await;
                ask(stream.unwrap(), &bytes).await
            };
            let by_unix = async {
                let stream = host.connect_unix(path).shared().await;
                ask(stream.unwrap(), &bytes).await
            };
            let (get, put, child, by_tcp, by_unix) =
                tokio::join!(get.output(), put.output(), child, by_tcp, by_unix);
            for output in [get.unwrap(), put.unwrap(), child.unwrap()] {
                assert!(output.status.success());
                assert_same(&output.stdout, &bytes, number);
            }
            assert_same(&by_tcp.unwrap(), &bytes, number);
            assert_same(&by_unix.unwrap(), &bytes, number);
            assert_same(&folder.read(&format!("up{number}")), &bytes, number);
        });
    }
    let work = async {
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    };
    timeout(SOON * 3, work).await.unwrap();
    let status = host.status();
    assert_eq!((status.dials, status.isolated), (1, 0), "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_variables_of_commands_at_once_are_not_mixed_up() {
    let (_sshd, _pool, host) = one_connection(Sshd::builder().option("AcceptEnv TAKEN").start());
    let mut all = JoinSet::new();
    for number in 0..60 {
        let host = host.clone();
        all.spawn(async move {
            let code = [0, 1, 4, 5, 44][number % 5];
            let mut command =
                host.shell(format!("echo $TAKEN $OTHER; sleep 0.0{code}; exit {code}"));
            command
                .env("TAKEN", number.to_string())
                .env("OTHER", number.to_string());
            let output = match number % 2 {
                0 => command.output().await.unwrap(),
                _ => {
                    let child = command.shared().spawn().await.unwrap();
                    child.wait_with_output().await.unwrap()
                }
            };
            assert_eq!(output.status.code(), Some(code));
            assert_eq!(output.stdout, format!("{number} {number}\n").into_bytes());
        });
    }
    while let Some(done) = timeout(SOON, all.join_next()).await.unwrap() {
        done.unwrap();
    }
    assert_eq!(host.status().dials, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_forwards_at_once_carry_their_own_bytes() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let echo = Echo::tcp().await;
    let mut forwards = Vec::new();
    for number in 0..3 {
        let socket = |side| folder.path(&format!("{side}{number}"));
        for local in [Address::from(("", 0)), socket("local").into()] {
            forwards.push(
                host.forward_local(local, echo.address.clone())
                    .await
                    .unwrap(),
            );
        }
        for remote in [Address::from(("127.0.0.1", 0)), socket("remote").into()] {
            forwards.push(
                host.forward_remote(remote, echo.address.clone())
                    .await
                    .unwrap(),
            );
        }
    }
    let asked = forwards
        .iter()
        .enumerate()
        .map(|(number, forward)| async move {
            let bytes = noise(number as u64, 500_000);
            let back = ask_at(forward.address(), &bytes).await.unwrap();
            assert_same(&back, &bytes, forward);
        });
    futures_util::future::join_all(asked).await;
}

/// Whether anybody accepts there.
async fn is_open(address: &Address) -> bool {
    let connected = match address {
        Address::Tcp { port, .. } => TcpStream::connect(("127.0.0.1", *port)).await.map(drop),
        Address::Unix(path) => tokio::net::UnixStream::connect(path).await.map(drop),
        other => panic!("{other}"),
    };
    let closed = [ErrorKind::ConnectionRefused, ErrorKind::NotFound];
    // Anything else is the way in which it goes.
    connected.map_or_else(|error| !closed.contains(&error.kind()), |()| true)
}

async fn closes(address: &Address) {
    let closed = async {
        while is_open(address).await {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(SOON, closed).await.is_ok(), "{address} is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_forward_listens_no_more_and_its_place_is_free() {
    // Without that sshd does not listen where it has left its socket file, and it leaves it.
    let sshd = Sshd::builder().option("StreamLocalBindUnlink yes");
    let (_sshd, _pool, host) = on(sshd.start());
    let folder = Folder::new();
    let echo = Echo::tcp().await;
    let to = &echo.address;
    let places = [Address::from(("127.0.0.1", 0)), folder.path("on").into()];
    for place in places {
        let mut address = place.clone();
        for round in 0..3 {
            let forward = host.forward_local(address.clone(), to.clone()).await;
            let forward = forward.unwrap();
            // From the second round on the place is the one of the first.
            address = forward.address().clone();
            assert_eq!(ask_at(&address, b"x").await.unwrap(), b"x", "round {round}");
            drop(forward);
            closes(&address).await;
        }
        // The same one on the other side: it is free for everybody.
        for round in 0..3 {
            let forward = host.forward_remote(address.clone(), to.clone()).await;
            let forward = forward.unwrap();
            assert_eq!(*forward.address(), address);
            assert_eq!(ask_at(&address, b"x").await.unwrap(), b"x", "round {round}");
            drop(forward);
            closes(&address).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_forward_cuts_its_streams_and_no_others() {
    let (_sshd, _pool, host) = server();
    let echo = Echo::tcp().await;
    let to = &echo.address;
    for remote in [false, true] {
        let make = || async {
            let on = ("127.0.0.1", 0);
            if remote {
                host.forward_remote(on, to.clone()).await.unwrap()
            } else {
                host.forward_local(on, to.clone()).await.unwrap()
            }
        };
        let (kept, cancelled) = (make().await, make().await);
        let connect =
            |address: &Address| TcpStream::connect(("127.0.0.1", address.port().unwrap()));
        let mut on_kept = connect(kept.address()).await.unwrap();
        let mut on_cancelled = connect(cancelled.address()).await.unwrap();
        on_kept.write_all(b"before ").await.unwrap();
        on_cancelled.write_all(b"before ").await.unwrap();
        // Both are through: the server behind the other ones has answered.
        for forward in [&kept, &cancelled] {
            assert_eq!(ask_at(forward.address(), b"x").await.unwrap(), b"x");
        }
        drop(cancelled);
        let mut rest = Vec::new();
        let cut = timeout(SOON, on_cancelled.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(cut.is_err() || rest.is_empty(), "remote {remote}: {rest:?}");
        on_kept.write_all(b"after").await.unwrap();
        on_kept.shutdown().await.unwrap();
        timeout(SOON, on_kept.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(rest, b"before after", "remote {remote}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_not_read_holds_up_nobody_on_its_connection() {
    let (_sshd, _pool, host) = one_connection(Sshd::start());
    let mut quiet = host.command("cat");
    let mut quiet = quiet.stdin(Stdio::piped()).shared().spawn().await.unwrap();
    // Less than its share of memory, more than a window.
    let bytes = noise(1, 3_000_000);
    let mut stdin = quiet.stdin.take().unwrap();
    timeout(SOON, stdin.write_all(&bytes))
        .await
        .unwrap()
        .unwrap();
    for _ in 0..5 {
        let output = timeout(SOON, host.command("cat").stdin(&bytes).output()).await;
        assert_same(&output.unwrap().unwrap().stdout, &bytes, "beside it");
    }
    drop(stdin);
    let output = timeout(SOON, quiet.wait_with_output()).await.unwrap();
    assert_same(&output.unwrap().stdout, &bytes, "itself");
    assert_eq!(host.status().dials, 1);
}
