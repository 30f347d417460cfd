//! forwarding: forwards of every kind, chained through each other, and what becomes of them when
//! there is nobody at their end.

use ssh_pool::{Address, Error, Forward, Host};
use ssh_pool_tests::{eventually_async, free_address};

use crate::data::{Folder, assert_same, noise};
use crate::echo::{Echo, ask_at};
use crate::{SOON, server};

/// Which side listens, and on what.
#[derive(Clone, Copy, Debug)]
enum Hop {
    LocalTcp,
    LocalUnix,
    RemoteTcp,
    RemoteUnix,
}

async fn forward(host: &Host, hop: Hop, folder: &Folder, number: usize, to: &Address) -> Forward {
    let tcp = Address::from(("127.0.0.1", 0));
    let unix = Address::from(folder.path(&number.to_string()));
    let made = match hop {
        Hop::LocalTcp => host.forward_local(tcp, to.clone()).await,
        Hop::LocalUnix => host.forward_local(unix, to.clone()).await,
        Hop::RemoteTcp => host.forward_remote(tcp, to.clone()).await,
        Hop::RemoteUnix => host.forward_remote(unix, to.clone()).await,
    };
    made.unwrap()
}

/// Each forward goes to where the one before it listens.
async fn chain(host: &Host, hops: &[Hop], folder: &Folder, to: &Address) -> Vec<Forward> {
    let mut all: Vec<Forward> = Vec::new();
    for (number, hop) in hops.iter().enumerate() {
        let to = all.last().map_or(to, Forward::address).clone();
        all.push(forward(host, *hop, folder, number, &to).await);
        if let Address::Unix(path) = all[number].address()
            && matches!(hop, Hop::LocalUnix)
        {
            // The server's end of the next hop runs as whoever logs in.
            let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(path, anybody).unwrap();
        }
    }
    all
}

/// What goes in at the last comes back unchanged, for several at once and of several sizes.
async fn carries(forwards: &[Forward]) {
    let entry = forwards.last().unwrap().address();
    for size in [0, 1, 1_000, 3_000_000] {
        let (left, right) = (noise(1, size), noise(2, size + 1));
        let both = tokio::join!(ask_at(entry, &left), ask_at(entry, &right));
        assert_same(&both.0.unwrap(), &left, entry);
        assert_same(&both.1.unwrap(), &right, entry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_forward_carries_bytes_unchanged() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let echoes = [Echo::tcp().await, Echo::unix(&folder.path("echo"))];
    let mut number = 0;
    for hop in [
        Hop::LocalTcp,
        Hop::LocalUnix,
        Hop::RemoteTcp,
        Hop::RemoteUnix,
    ] {
        for echo in &echoes {
            number += 1;
            carries(&[forward(&host, hop, &folder, number, &echo.address).await]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_and_remote_forwards_chained_through_each_other_carry_bytes_unchanged() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let echo = Echo::tcp().await;
    let hops = [
        Hop::LocalTcp,
        Hop::RemoteTcp,
        Hop::LocalTcp,
        Hop::RemoteTcp,
        Hop::LocalTcp,
    ];
    carries(&chain(&host, &hops, &folder, &echo.address).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_of_sockets_and_ports_chained_through_each_other_carry_bytes_unchanged() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let echo = Echo::unix(&folder.path("echo"));
    let hops = [
        Hop::LocalUnix,
        Hop::RemoteUnix,
        Hop::LocalTcp,
        Hop::RemoteTcp,
        Hop::LocalUnix,
    ];
    carries(&chain(&host, &hops, &folder, &echo.address).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_the_client_sees_a_close_and_the_forward_lives_on() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    for hop in [
        Hop::LocalTcp,
        Hop::LocalUnix,
        Hop::RemoteTcp,
        Hop::RemoteUnix,
    ] {
        let port = free_address().port();
        let to = Address::from(("127.0.0.1", port));
        let number = usize::from(port);
        let forward = forward(&host, hop, &folder, number, &to).await;
        for _ in 0..3 {
            // Accepted and closed. What was written before that may make it a reset.
            if let Ok(back) = ask_at(forward.address(), b"hello").await {
                assert_eq!(back, b"", "{hop:?}");
            }
        }
        let echo = Echo::at(port).await;
        let back = ask_at(forward.address(), b"hello").await.unwrap();
        assert_eq!(back, b"hello", "{hop:?}");
        drop(echo);
    }
    assert!(host.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_or_socket_that_is_taken_is_an_error_of_the_side_that_listens() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let (tcp, unix) = (Echo::tcp().await, Echo::unix(&folder.path("taken")));
    for taken in [&tcp.address, &unix.address] {
        let error = host.forward_local(taken.clone(), ("127.0.0.1", 1)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Listen { .. }), "{error:?}");
        let error = host.forward_remote(taken.clone(), ("127.0.0.1", 1)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::ForwardRefused { .. }), "{error:?}");
        // Whoever was there first is still there.
        assert_eq!(ask_at(taken, b"still").await.unwrap(), b"still");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_that_is_dropped_frees_its_connections() {
    let (_sshd, _pool, host) = server();
    let folder = Folder::new();
    let echo = Echo::tcp().await;
    let hops = [
        Hop::LocalTcp,
        Hop::RemoteTcp,
        Hop::LocalUnix,
        Hop::RemoteUnix,
    ];
    let all = chain(&host, &hops, &folder, &echo.address).await;
    carries(&all).await;
    assert!(host.status().isolated_busy >= 2, "{:?}", host.status());
    drop(all);
    let free = || host.status().isolated_busy == 0;
    assert!(eventually_async(SOON, free).await, "{:?}", host.status());
}
