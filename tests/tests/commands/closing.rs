//! The end of a pool.

use ssh_pool::{CommandState, Error, Limits, Phase};
use ssh_pool_tests::{Sshd, eventually_async};

use crate::{Gate, Ledger, SECOND, SOON, builder, known, server};

fn is_closed(error: &Error) -> bool {
    error.command_state() == CommandState::NotStarted
        && error.phase() == Phase::Closed
        && matches!(error, Error::Closed { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_lets_running_commands_finish_and_nothing_else_begin() {
    let sshd = Sshd::start();
    let limits = Limits::default()
        .connections_per_host(1)
        .sessions_per_connection(1);
    let pool = builder(&sshd, known(&sshd)).limits(limits).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let (gate, ledger) = (Gate::new(), Ledger::new());
    let line = format!("{}; {}; echo done", ledger.enter("running"), gate.pass());
    let running = tokio::spawn(host.shell(line).output());
    ledger.has(1).await;
    let queued = tokio::spawn(host.shell(ledger.enter("queued")).output());
    let waits = || pool.status().hosts[0].waiting == 1;
    assert!(eventually_async(SOON, waits).await, "{:?}", pool.status());

    let closing = tokio::spawn(pool.close());
    assert!(is_closed(&queued.await.unwrap().unwrap_err()));
    let error = host.shell(ledger.enter("new")).output().await.unwrap_err();
    assert!(is_closed(&error), "{error:?}");
    assert!(is_closed(&host.warm().await.unwrap_err()));
    assert!(is_closed(&pool.host(sshd.target()).unwrap_err()));
    assert!(!closing.is_finished() && !running.is_finished());

    gate.open();
    let output = running.await.unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"done\n");
    tokio::time::timeout(SOON, closing).await.unwrap().unwrap();
    let gone = || sshd.open_connections() == 0;
    assert!(eventually_async(SOON, gone).await, "{}", sshd.log());
    assert_eq!(ledger.lines(), ["running"]);
    // The goodbye was one: sshd heard it.
    assert!(
        sshd.log().contains("disconnected by user") || sshd.log().contains("Received disconnect"),
        "{}",
        sshd.log()
    );
    assert_eq!(sshd.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_never_dialled_closes_at_once_and_twice() {
    let (sshd, pool, host) = server();
    pool.close().await;
    pool.close().await;
    assert!(is_closed(&host.command("true").output().await.unwrap_err()));
    assert_eq!(sshd.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_everything_leaves_no_connection_behind() {
    let (sshd, pool, host) = server();
    let commands: Vec<_> = (0..20)
        .map(|_| tokio::spawn(host.command("true").status()))
        .collect();
    for command in commands {
        assert!(command.await.unwrap().unwrap().success());
    }
    assert!(sshd.open_connections() > 0);
    drop((pool, host));
    let gone = || sshd.open_connections() == 0;
    assert!(eventually_async(SOON, gone).await, "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_commands_and_not_for_idle_handles() {
    let (sshd, pool, host) = server();
    let (gate, ledger) = (Gate::new(), Ledger::new());
    let subsystem = host.subsystem("sftp").await.unwrap();
    let shared = host.subsystem("sftp").shared().await.unwrap();
    let stream = host.connect_tcp("127.0.0.1", sshd.port()).await.unwrap();
    let mut detached = host.shell(format!("{}; sleep 40", ledger.enter("detached")));
    let detached = detached.detach().spawn().await.unwrap();
    let line = format!("{}; {}; echo done", ledger.enter("running"), gate.pass());
    let running = tokio::spawn(host.shell(line).output());
    ledger.has(2).await;
    let mut closing = tokio::spawn(pool.close());
    // Longer than what is quiet is waited for.
    let early = tokio::time::timeout(3 * SECOND, &mut closing).await;
    assert!(early.is_err() && !running.is_finished());
    gate.open();
    let output = running.await.unwrap().unwrap();
    assert_eq!(output.stdout, b"done\n");
    // Sooner than `Timeouts::drain`.
    tokio::time::timeout(SOON, closing).await.unwrap().unwrap();
    let gone = || sshd.open_connections() == 0;
    assert!(eventually_async(SOON, gone).await, "{}", sshd.log());
    drop((subsystem, shared, stream, detached));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_lets_a_stream_that_moves_come_to_its_end() {
    let (_sshd, pool, host) = server();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        for _ in 0..30 {
            std::io::Write::write_all(&mut tcp, b"x").unwrap();
            std::thread::sleep(SECOND / 10);
        }
    });
    let mut stream = host.connect_tcp("127.0.0.1", port).await.unwrap();
    let closing = tokio::spawn(pool.close());
    let mut said = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut said)
        .await
        .unwrap();
    assert_eq!(said.len(), 30);
    tokio::time::timeout(SOON, closing).await.unwrap().unwrap();
}
