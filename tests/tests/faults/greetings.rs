//! What a server may say before it identifies itself, and what is said of one that says something else.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use ssh_pool::{Error, Host, HostKeyPolicy, Identity, Phase, Pool, Timeouts};
use ssh_pool_tests::{Greeting, Proxy, Sshd, TempDir, ssh};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

#[tokio::test(flavor = "multi_thread")]
async fn lines_before_the_identification_are_read_as_far_as_ssh_reads_them() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.addr());
    let dir = TempDir::new();
    let known_hosts = dir.path().join("known_hosts");
    let line = proxy.known_hosts_line(&sshd.host_public_key("ed25519"));
    std::fs::write(&known_hosts, format!("{line}\n")).unwrap();
    let short = |count| vec!["welcome to this host".to_owned(); count];
    let long = |length| vec!["w".repeat(length)];
    for (lines, refused) in [
        (short(21), None),
        (short(1023), None),
        (short(1024), Some("1024 lines before its identification")),
        (long(254), None),
        (long(8192), None),
        (long(8193), Some("a line of more than 8192 bytes")),
        (vec![String::new(), "SSH-".into(), "SSH".into()], None),
    ] {
        let what = format!("{} lines, the first of {}", lines.len(), lines[0].len());
        proxy.greet(Greeting::Preamble(lines));
        let mut client = ssh(proxy.addr(), sshd.user(), sshd.client_key(), &known_hosts);
        let output = client.arg("true").stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), refused.is_none(), "{what}: {said}");

        let pool = Pool::builder(HostKeyPolicy::known_hosts_file(&known_hosts))
            .identity(Identity::key_file(sshd.client_key()))
            .build()
            .unwrap();
        let host = pool.host(format!("{}@{}", sshd.user(), proxy.addr()));
        let result = host.unwrap().command("true").status().await;
        match (result, refused) {
            (Ok(status), None) => assert!(status.success(), "{what}"),
            (Err(error), Some(reason)) => is_refused(&error, reason),
            (result, _) => panic!("{what}: {result:?}"),
        }
        pool.close().await;
    }
}

fn is_refused(error: &Error, reason: &str) {
    assert!(matches!(error, Error::NotSsh { .. }), "{error}");
    assert!(error.to_string().contains(reason), "{error}");
    assert!(!error.is_transient(), "{error}");
}

/// A host that says this to each who connects, and waits.
async fn says(text: &'static str, timeouts: Timeouts) -> (SocketAddr, Host, Pool, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(text.as_bytes()).await.unwrap();
            streams.push(stream);
        }
    });
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any())
        .identity(Identity::password("not a secret"))
        .timeouts(timeouts)
        .build()
        .unwrap();
    let host = pool.host(format!("tester@{addr}")).unwrap();
    (addr, host, pool, task.abort_handle())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_protocol_is_refused_at_once() {
    for text in ["SSH-1.5-old\r\n", "SSH-3.0-new\r\n", "SSH-2.0\r\n"] {
        let (addr, host, pool, server) = says(text, Timeouts::default()).await;
        let file = TempDir::new().path().join("none");
        let mut client = ssh(addr, "tester", &file, &file);
        let output = client.arg("true").stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        let refused = [
            "banner exchange",
            "versions differ",
            "version identification",
        ];
        let refused = refused.iter().any(|words| said.contains(words));
        assert!(refused, "{text:?}: {said}");

        let error = host.command("true").status().await.unwrap_err();
        is_refused(
            &error,
            "an identification that does not begin with SSH-2.0-",
        );
        assert!(error.to_string().contains(text.trim_end()), "{error}");
        assert_eq!(host.status().failed_dials, 1);
        pool.close().await;
        server.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_server_that_says_something_else_and_waits_the_words_are_shown() {
    let greeting = "220 ftp.example.org \u{1b}ready\r\n";
    let dial = Timeouts::default().connect(Duration::from_secs(1));
    for (timeouts, limit) in [
        (dial, Duration::MAX),
        (Timeouts::default(), Duration::from_secs(1)),
    ] {
        let (_, host, pool, server) = says(greeting, timeouts).await;
        let error = host
            .command("true")
            .timeout(limit)
            .status()
            .await
            .unwrap_err();
        assert_eq!((error.phase(), error.is_timeout()), (Phase::Banner, true));
        let text = error.to_string();
        let shown = r#"the server had said "220 ftp.example.org \u{1b}ready"; it accepted"#;
        assert!(text.contains(shown), "{text}");
        pool.close().await;
        server.abort();
    }
}
