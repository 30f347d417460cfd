//! forward-control: what sshd forbids is an error that says so, and what it allows works.

use ssh_pool::{Address, Error, Host, Pool, Refusal};
use ssh_pool_tests::{Release, Sshd};

use crate::data::Folder;
use crate::echo::{Echo, ask, ask_at};
use crate::on;

const RELEASES: [Release; 2] = [Release::Installed, Release::Trixie];

fn with(release: Release, options: &[&str]) -> (Sshd, Pool, Host) {
    let start = Sshd::builder().release(release);
    let all = options.iter().fold(start, |sshd, line| sshd.option(*line));
    on(all.start())
}

/// A stream both ways there are, and what came of it.
async fn connects(host: &Host, to: &Address, allowed: bool) {
    for shared in [false, true] {
        let connect = match to {
            Address::Tcp { host: name, port } => host.connect_tcp(name, *port),
            Address::Unix(path) => host.connect_unix(path),
            other => panic!("{other}"),
        };
        let opened = if shared { connect.shared() } else { connect }.await;
        if allowed {
            let back = ask(opened.unwrap(), b"through").await.unwrap();
            assert_eq!(back, b"through", "{to}");
            continue;
        }
        // sshd gives no reason of its own for a socket.
        let wanted = match to {
            Address::Tcp { .. } => Refusal::Denied,
            _ => Refusal::Unreachable,
        };
        let error = opened.unwrap_err();
        let Error::StreamRefused {
            refusal, to: at, ..
        } = &error
        else {
            panic!("{to}: {error:?}");
        };
        assert_eq!((*refusal, at), (wanted, to), "{error}");
    }
}

/// A remote forward to `to`, and what came of it.
async fn listens(host: &Host, on: Address, to: &Address, allowed: bool) {
    let forward = host.forward_remote(on.clone(), to.clone()).await;
    if allowed {
        let forward = forward.unwrap();
        let back = ask_at(forward.address(), b"back").await.unwrap();
        assert_eq!(back, b"back", "{on}");
        return;
    }
    let error = forward.unwrap_err();
    let Error::ForwardRefused { on: at, .. } = &error else {
        panic!("{on}: {error:?}");
    };
    assert_eq!(*at, on);
}

/// Denied or not, commands run, on the connections that are there.
async fn still_works(host: &Host) {
    assert!(host.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn allow_tcp_forwarding_decides_each_direction() {
    let echo = Echo::tcp().await;
    for release in RELEASES {
        for (value, local, remote) in [
            ("yes", true, true),
            ("all", true, true),
            ("local", true, false),
            ("remote", false, true),
            ("no", false, false),
        ] {
            let line = format!("AllowTcpForwarding {value}");
            let (_sshd, _pool, host) = with(release, &[&line]);
            connects(&host, &echo.address, local).await;
            listens(&host, ("127.0.0.1", 0).into(), &echo.address, remote).await;
            still_works(&host).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn allow_stream_local_forwarding_decides_each_direction() {
    let folder = Folder::new();
    let echo = Echo::unix(&folder.path("echo"));
    for release in RELEASES {
        for (value, local, remote) in [
            ("yes", true, true),
            ("all", true, true),
            ("local", true, false),
            ("remote", false, true),
            ("no", false, false),
        ] {
            let line = format!("AllowStreamLocalForwarding {value}");
            let (_sshd, _pool, host) = with(release, &[&line]);
            connects(&host, &echo.address, local).await;
            let on = folder.path(&format!("{release:?}-{value}"));
            listens(&host, on.into(), &echo.address, remote).await;
            still_works(&host).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_may_be_forbidden_and_ports_not_but_not_the_other_way_round() {
    let folder = Folder::new();
    let (tcp, unix) = (Echo::tcp().await, Echo::unix(&folder.path("echo")));
    let lines = ["AllowStreamLocalForwarding no", "AllowTcpForwarding no"];
    for release in RELEASES {
        for (line, ports) in lines.into_iter().zip([true, false]) {
            let (_sshd, _pool, host) = with(release, &[line]);
            connects(&host, &tcp.address, ports).await;
            listens(&host, ("", 0).into(), &tcp.address, ports).await;
            // Without ports sshd does no sockets either.
            connects(&host, &unix.address, false).await;
            listens(&host, folder.path("on").into(), &tcp.address, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disable_forwarding_forbids_everything_whatever_is_allowed() {
    let folder = Folder::new();
    let (tcp, unix) = (Echo::tcp().await, Echo::unix(&folder.path("echo")));
    for release in RELEASES {
        let lines = ["DisableForwarding yes", "AllowTcpForwarding yes"];
        let (_sshd, _pool, host) = with(release, &lines);
        connects(&host, &tcp.address, false).await;
        connects(&host, &unix.address, false).await;
        listens(&host, ("127.0.0.1", 0).into(), &tcp.address, false).await;
        listens(&host, folder.path("on").into(), &tcp.address, false).await;
        still_works(&host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permit_open_decides_where_to() {
    let (yes, no) = (Echo::tcp().await, Echo::tcp().await);
    for release in RELEASES {
        for (value, first, second) in [
            ("any".to_owned(), true, true),
            ("none".to_owned(), false, false),
            (yes.address.to_string(), true, false),
            ("127.0.0.1:*".to_owned(), true, true),
            ("localhost:*".to_owned(), false, false),
            (format!("127.0.0.1:1 {}", yes.address), true, false),
        ] {
            let line = format!("PermitOpen {value}");
            let (_sshd, _pool, host) = with(release, &[&line]);
            connects(&host, &yes.address, first).await;
            connects(&host, &no.address, second).await;
            // Nor does it say anything about what this side may be sent.
            listens(&host, ("127.0.0.1", 0).into(), &no.address, true).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permit_listen_decides_where_on() {
    let echo = Echo::tcp().await;
    for release in RELEASES {
        // Ports of this moment: below those that the kernel gives away, so they stay free.
        let (yes, no) = (free_port(), free_port());
        for (value, first, second) in [
            ("any".to_owned(), true, true),
            ("none".to_owned(), false, false),
            (yes.to_string(), true, false),
            (format!("127.0.0.1:{yes}"), true, false),
            ("127.0.0.1:*".to_owned(), true, true),
            (format!("localhost:{yes}"), false, false),
        ] {
            let line = format!("PermitListen {value}");
            let (_sshd, _pool, host) = with(release, &[&line]);
            listens(&host, ("127.0.0.1", yes).into(), &echo.address, first).await;
            listens(&host, ("127.0.0.1", no).into(), &echo.address, second).await;
            connects(&host, &echo.address, true).await;
            still_works(&host).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_listens_on_is_unreachable_and_not_denied() {
    let folder = Folder::new();
    for release in RELEASES {
        let (_sshd, _pool, host) = with(release, &[]);
        for to in [
            Address::from(("127.0.0.1", free_port())),
            folder.path("nobody").into(),
        ] {
            for _ in 0..3 {
                let connect = match &to {
                    Address::Tcp { host: name, port } => host.connect_tcp(name, *port),
                    _ => host.connect_unix(folder.path("nobody")),
                };
                let error = connect.await.unwrap_err();
                let Error::StreamRefused { refusal, .. } = &error else {
                    panic!("{to}: {error:?}");
                };
                assert_eq!(*refusal, Refusal::Unreachable, "{error}");
            }
        }
        still_works(&host).await;
    }
}

fn free_port() -> u16 {
    ssh_pool_tests::free_address().port()
}
