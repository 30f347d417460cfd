//! Streams through the server, and many of them.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ssh_pool::{ChannelStream, Error, Limits, Phase, Refusal, Stdio, StreamGroup};
use ssh_pool_tests::{Dropbear, Sshd, TempDir, TestUser, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{SOON, builder, known, on, server};

/// Sends back what it gets, on a Unix socket that everybody may connect to.
struct Echo {
    _dir: TempDir,
    path: PathBuf,
    open: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let path = dir.path().join("echo");
        let listener = UnixListener::bind(&path).unwrap();
        let anybody = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(dir.path(), anybody.clone()).unwrap();
        std::fs::set_permissions(&path, anybody).unwrap();
        let open = Arc::new(AtomicUsize::new(0));
        let count = open.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = count.clone();
                tokio::spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    let (mut read, mut write) = stream.split();
                    // The other side may go at any moment.
                    tokio::io::copy(&mut read, &mut write).await.ok();
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            _dir: dir,
            path,
            open,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_sockets_share_a_connection_with_ten_commands() {
    let (_sshd, pool, host) = on(Sshd::builder().user(TestUser::plain()).start());
    let echo = Echo::start();
    host.warm().await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(host.connect_unix(&echo.path).shared().await.unwrap());
    }
    let all = || echo.open.load(Ordering::SeqCst) == 300;
    assert!(eventually_async(SOON, all).await);
    let mut commands = JoinSet::new();
    for number in 0..10 {
        // All ten at once: each waits for the others.
        let dir = echo.path.with_file_name("gate");
        let dir = dir.display();
        let line = format!(
            "mkdir -p {dir}; touch {dir}/{number}; \
             until test $(ls {dir} | wc -l) = 10; do sleep 0.01; done"
        );
        commands.spawn(host.shell(line).timeout(SOON).status());
    }
    while let Some(status) = commands.join_next().await {
        assert!(status.unwrap().unwrap().success());
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&number.to_be_bytes()).await.unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; 8];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(usize::from_be_bytes(back), number);
    }
    let status = host.status();
    assert_eq!((status.dials, status.streams, status.isolated), (1, 300, 0));
    drop(streams);
    let none = || host.status().streams == 0 && echo.open.load(Ordering::SeqCst) == 0;
    assert!(eventually_async(SOON, none).await, "{:?}", pool.status());
    assert!(host.command("true").status().await.unwrap().success());
    assert_eq!(host.status().dials, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_side_says_first_is_not_lost() {
    let (_sshd, _pool, host) = server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 hello\r\n").await.unwrap();
        }
    });
    for shared in [false, true] {
        for _ in 0..20 {
            let connect = host.connect_tcp("127.0.0.1", port);
            let connect = if shared { connect.shared() } else { connect };
            let mut said = String::new();
            let mut stream = connect.await.unwrap();
            stream.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "220 hello\r\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_stream_can_be_shut() {
    let (_sshd, _pool, host) = server();
    let echo = Echo::start();
    let mut stream = host.connect_unix(&echo.path).await.unwrap();
    stream.write_all(b"all of it").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "all of it");
    stream.write_all(b"more").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_stream_that_is_not_read_holds_up_its_sender_alone() {
    let (_sshd, _pool, host) = server();
    let echo = Echo::start();
    let stream = host.connect_unix(&echo.path).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sender = tokio::spawn(async move {
        write.write_all(&vec![7; 32 << 20]).await.unwrap();
        write.shutdown().await.unwrap();
    });
    for _ in 0..50 {
        assert!(host.command("true").status().await.unwrap().success());
    }
    assert!(!sender.is_finished(), "nobody reads");
    let mut all = Vec::new();
    timeout(SOON, read.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all.len(), 32 << 20);
    sender.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_whether_the_server_or_the_target_refused() {
    let refusal = |error: Error| match error {
        Error::StreamRefused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    };
    let (_sshd, _pool, host) = server();
    let nobody = host.connect_tcp("127.0.0.1", 1).await.unwrap_err();
    assert_eq!(refusal(nobody), Refusal::Unreachable);
    let nobody = host.connect_unix("/no/such/socket").await.unwrap_err();
    assert_eq!(refusal(nobody), Refusal::Unreachable);

    let (_sshd, _pool, host) = on(Sshd::builder().option("AllowTcpForwarding no").start());
    let denied = host.connect_tcp("127.0.0.1", 22).await.unwrap_err();
    assert_eq!(refusal(denied), Refusal::Denied);
    let (_sshd, _pool, host) = on(Sshd::builder().option("PermitOpen 127.0.0.1:1").start());
    let denied = host.connect_tcp("127.0.0.1", 22).await.unwrap_err();
    assert_eq!(refusal(denied), Refusal::Denied);

    let dropbear = Dropbear::start();
    let policy = ssh_pool::HostKeyPolicy::known_hosts_file(dropbear.known_hosts());
    let pool = ssh_pool::Pool::builder(policy)
        .identity(ssh_pool::Identity::key_file(dropbear.client_key()))
        .build()
        .unwrap();
    let host = pool.host(dropbear.target()).unwrap();
    let unknown = host.connect_unix("/run/x").await.unwrap_err();
    assert_eq!(refusal(unknown), Refusal::Unsupported);
    // What was refused left its connection in order.
    assert!(host.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_names_the_option_that_refuses_it_and_no_other() {
    const TCP: [&str; 2] = ["AllowTcpForwarding", "PermitOpen"];
    const UNIX: [&str; 1] = ["AllowStreamLocalForwarding"];
    const LISTEN: [&str; 2] = ["AllowTcpForwarding", "PermitListen"];
    let all = [
        "AllowTcpForwarding",
        "PermitOpen",
        "PermitListen",
        "AllowStreamLocalForwarding",
    ];
    let names = |error: &Error, expected: &[&str]| {
        let text = error.to_string();
        for option in all {
            let is_named = text.contains(option);
            assert_eq!(is_named, expected.contains(&option), "{option}: {text}");
        }
    };
    let free = || ("127.0.0.1", 0);
    let socket = TempDir::new().path().join("no-such");
    for option in [
        "AllowTcpForwarding no",
        "PermitOpen 127.0.0.1:1",
        "DisableForwarding yes",
    ] {
        let (_sshd, _pool, host) = on(Sshd::builder().option(option).start());
        let refused = host.connect_tcp("127.0.0.1", 22).await.unwrap_err();
        names(&refused, &TCP);
    }
    for option in [
        "AllowTcpForwarding no",
        "PermitListen 127.0.0.1:1",
        "DisableForwarding yes",
    ] {
        let (_sshd, _pool, host) = on(Sshd::builder().option(option).start());
        let refused = host.forward_remote(free(), socket.clone()).await;
        names(&refused.unwrap_err(), &LISTEN);
    }
    for option in ["AllowStreamLocalForwarding no", "DisableForwarding yes"] {
        let (_sshd, _pool, host) = on(Sshd::builder().option(option).start());
        // sshd says no more than that it could not connect.
        names(&host.connect_unix(&socket).await.unwrap_err(), &UNIX);
        let refused = host.forward_remote(socket.clone(), free()).await;
        names(&refused.unwrap_err(), &UNIX);
    }
    let (_sshd, _pool, host) = server();
    names(&host.connect_tcp("127.0.0.1", 1).await.unwrap_err(), &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subsystem_is_a_stream_and_a_missing_one_is_an_error() {
    let server = Sshd::builder().option("Subsystem echo cat").start();
    let (_sshd, _pool, host) = on(server);
    for shared in [false, true] {
        let connect = host.subsystem("echo");
        let connect = if shared { connect.shared() } else { connect };
        let mut stream = connect.await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "hello");
    }
    let error = host.subsystem("no-such").await.unwrap_err();
    assert!(
        matches!(&error, Error::SubsystemRefused { name, .. } if name == "no-such"),
        "{error:?}"
    );
    assert!(host.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_addresses_are_refused_before_anything_is_dialled() {
    let (_sshd, _pool, host) = server();
    for error in [
        host.connect_unix("").await.unwrap_err(),
        host.connect_unix("a\0b").await.unwrap_err(),
        host.connect_tcp("a\0b", 1).await.unwrap_err(),
        host.subsystem("").await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    }
    assert_eq!(host.status().dials, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_pool_ends_its_forwards_and_waits_for_their_streams() {
    let (sshd, pool, host) = server();
    let echo = Echo::start();
    let loopback = || ("127.0.0.1", 0);
    let local = host
        .forward_local(loopback(), echo.path.clone())
        .await
        .unwrap();
    let remote = host
        .forward_remote(loopback(), echo.path.clone())
        .await
        .unwrap();
    let mut streams = Vec::new();
    for forward in [&local, &remote] {
        let port = forward.address().port().unwrap();
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        streams.push(stream);
    }
    let closing = tokio::spawn(pool.close());
    for forward in [&local, &remote] {
        let port = forward.address().port().unwrap();
        let free = || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        assert!(eventually_async(SOON, free).await, "{forward:?}");
    }
    assert!(!closing.is_finished());
    for stream in &mut streams {
        stream.write_all(b"late").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
    }
    drop(streams);
    timeout(SOON, closing).await.unwrap().unwrap();
    let gone = || sshd.open_connections() == 0;
    assert!(eventually_async(SOON, gone).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_beyond_the_limit_waits_for_the_end_of_another() {
    let sshd = Sshd::start();
    let pool = builder(&sshd, known(&sshd))
        .limits(Limits::default().streams_per_connection(2))
        .build()
        .unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let echo = Echo::start();
    let connect = || host.connect_unix(&echo.path).shared();
    let first = connect().await.unwrap();
    let _second = connect().await.unwrap();
    let short = Duration::from_millis(300);
    let error = connect().timeout(short).await.unwrap_err();
    assert!(
        error.is_timeout() && error.phase() == Phase::Queue,
        "{error:?}"
    );
    let third = tokio::spawn(connect().into_future());
    assert!(host.command("true").status().await.unwrap().success());
    assert!(!third.is_finished());
    drop(first);
    timeout(SOON, third).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_and_child_can_tell_that_its_connection_is_retired() {
    let (_sshd, _pool, host) = server();
    let echo = Echo::start();
    let grouped = host.in_group(&StreamGroup::new());
    let streams = [
        host.connect_unix(&echo.path).await.unwrap(),
        host.connect_unix(&echo.path).shared().await.unwrap(),
        host.subsystem("sftp").await.unwrap(),
        grouped.connect_unix(&echo.path).await.unwrap(),
        // On the connections for groups.
        grouped.connect_unix(&echo.path).await.unwrap(),
        grouped.subsystem("sftp").await.unwrap(),
    ];
    let children = [
        host.command("cat").stdin(Stdio::piped()).spawn().await,
        (host.command("cat").stdin(Stdio::piped()).shared())
            .spawn()
            .await,
        grouped.command("cat").stdin(Stdio::piped()).spawn().await,
    ];
    assert!(host.status().grouped >= 3, "{:?}", host.status());
    let handles: Vec<_> = streams
        .iter()
        .map(ChannelStream::connection)
        .chain(
            children
                .iter()
                .map(|child| child.as_ref().unwrap().connection()),
        )
        .collect();
    for (place, handle) in handles.iter().enumerate() {
        assert!(!handle.is_retiring(), "{place}");
    }
    host.evict();
    for (place, handle) in handles.iter().enumerate() {
        assert!(handle.is_retiring(), "{place}");
    }
    let fresh = host.connect_unix(&echo.path).await.unwrap().connection();
    assert!(!fresh.is_retiring());
    drop((streams, children, _pool, host, grouped));
    // It keeps no connection open, and one that has ended takes nothing.
    let ended = || fresh.is_retiring();
    assert!(eventually_async(SOON, ended).await);
}
