//! Waiting for a machine that is being set up, on real servers that start late, are silent at first,
//! or learn of a key late.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests are named after what they show, and fail by panicking"
)]

use std::fs;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use ssh_pool::{
    Breaker, Error, EventKind, Events, Host, HostKeyPolicy, HostKeyProblem, Identity, Phase, Pool,
    Timeouts,
};
use ssh_pool_tests::{
    BlackHole, Greeting, KeyFormat, Proxy, Release, Sshd, TempDir, eventually_async, generate,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[path = "support/mod.rs"]
mod support;

use support::{RELEASES, SOON, builder, known};

/// Longer than any of these machines takes.
const WAIT: Duration = Duration::from_secs(120);
/// Failures are remembered for up to 30 s, a refused login for a minute. A host that is waited for is
/// tried about once a second; the rest is for a busy machine.
const LATE: Duration = Duration::from_secs(12);
const SECOND: Duration = Duration::from_secs(1);
/// For so long a pool remembers a refused login.
const COOL_DOWN: Duration = Duration::from_secs(60);
/// For so long a pool waits for a server that is silent, when nobody waits for the machine.
const PATIENT: Duration = Duration::from_secs(60);

fn waiting(host: &Host) -> JoinHandle<Result<(), Error>> {
    tokio::spawn(host.wait_until_ready(WAIT).into_future())
}

/// Waits until this number of dials have failed.
async fn fails(events: &mut Events, count: usize) {
    let mut failed = 0;
    while failed < count {
        let event = tokio::time::timeout(WAIT, events.next()).await;
        if let EventKind::DialFailed { .. } = event.expect("a failure").expect("a pool").kind {
            failed += 1;
        }
    }
}

/// It was ready then.
async fn assert_in_soon(what: &str, ready: Instant, waiting: JoinHandle<Result<(), Error>>) {
    waiting.await.unwrap().unwrap();
    let late = ready.elapsed();
    eprintln!("{what}: in {late:?} after it was ready");
    assert!(late < LATE, "{what}: {late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_late_is_found_soon_whatever_is_remembered() {
    for release in RELEASES {
        let sshd = Sshd::builder().release(release).start();
        sshd.stop();
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        host.command("true").output().await.unwrap_err();
        let mut events = pool.events();
        let waiting = waiting(&host);
        // Enough failures for a pause that is longer than that, were they remembered.
        fails(&mut events, 8).await;
        let ready = Instant::now();
        sshd.restart();
        assert_in_soon("refused", ready, waiting).await;
        let output = host.command("true").output().await.unwrap();
        assert!(output.status.success());
        assert_eq!(sshd.accepted(), 1);
        sshd.assert_no_penalty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_authorised_late_gets_in_soon_and_no_server_bans_for_it() {
    for release in RELEASES {
        let sshd = Sshd::builder().release(release).start();
        let line = fs::read_to_string(sshd.dir().join("authorized_keys")).unwrap();
        let dir = TempDir::new();
        let other = generate(dir.path(), "other", "ed25519", None, KeyFormat::OpenSsh);
        sshd.authorize_only(&other.public_line());
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let refused = host.command("true").output().await.unwrap_err();
        assert!(matches!(refused, Error::AuthRejected { .. }), "{refused}");
        let mut events = pool.events();
        let began = Instant::now();
        let waiting = waiting(&host);
        fails(&mut events, 3).await;
        let took = began.elapsed();
        let ready = Instant::now();
        sshd.authorize(&line);
        assert_in_soon("authorised", ready, waiting).await;
        let failures = sshd.auth_failures();
        eprintln!("{release:?}: 3 tries in {took:?}, {failures} refused logins");
        // As often as a person would, at most; and what was refused before is no reason to wait.
        assert!(took > 2 * SECOND && took < COOL_DOWN, "{took:?}");
        let most = 2 + usize::try_from(took.as_secs() + LATE.as_secs()).unwrap();
        assert!(failures <= most, "{failures}");
        sshd.assert_not_banned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_silent_at_first_is_found_soon() {
    let sshd = Sshd::start();
    sshd.stop();
    let hole = BlackHole::at(sshd.addr());
    let timeouts = Timeouts::default().connect(PATIENT);
    let pool = builder(&sshd, known(&sshd)).timeouts(timeouts);
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let mut events = pool.events();
    let waiting = waiting(&host);
    fails(&mut events, 2).await;
    let ready = Instant::now();
    drop(hole);
    sshd.restart();
    assert_in_soon("silent", ready, waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_says_nothing_at_first_is_found_soon() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.addr());
    proxy.greet(Greeting::Silence);
    let timeouts = Timeouts::default().connect(PATIENT);
    let pool = builder(&sshd, HostKeyPolicy::dangerous_accept_any());
    let pool = pool.timeouts(timeouts).build().unwrap();
    let host = pool
        .host(format!("{}@{}", sshd.user(), proxy.addr()))
        .unwrap();
    let mut events = pool.events();
    let waiting = waiting(&host);
    fails(&mut events, 1).await;
    // It becomes ready while another connection waits for what it will never say there.
    assert!(eventually_async(SOON, || proxy.connections() == 2).await);
    let ready = Instant::now();
    proxy.greet(Greeting::Pass);
    assert_in_soon("no banner", ready, waiting).await;
}

/// What is in front of a machine that is not there yet: it answers in the place of an SSH server, and
/// hangs up.
async fn answers(sshd: &Sshd, answer: &'static [u8]) -> JoinHandle<()> {
    let listener = TcpListener::bind(sshd.addr()).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            // The client may have gone.
            stream.write_all(answer).await.ok();
            stream.shutdown().await.ok();
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_in_the_place_of_the_server_at_first_is_waited_for() {
    const ANSWERS: &[&[u8]] = &[
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"no backend\n",
        // A TLS alert: handshake_failure.
        &[0x15, 3, 1, 0, 2, 2, 40],
        b"",
    ];
    let sshd = Sshd::start();
    for answer in ANSWERS {
        let what = String::from_utf8_lossy(answer);
        sshd.stop();
        let front = answers(&sshd, answer).await;
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        let mut events = pool.events();
        let mut waiting = waiting(&host);
        tokio::select! {
            () = fails(&mut events, 2) => {}
            ended = &mut waiting => panic!("{what}: {ended:?}"),
        }
        front.abort();
        front.await.unwrap_err();
        let ready = Instant::now();
        sshd.restart();
        assert_in_soon(&what, ready, waiting).await;
    }
    // In the end the answer is in the error.
    sshd.stop();
    let front = answers(&sshd, ANSWERS[0]).await;
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let wait = host.wait_until_ready(Duration::from_millis(2500));
    let error = wait.await.unwrap_err();
    front.abort();
    assert!(matches!(error, Error::NotSsh { .. }), "{error}");
    assert!(error.to_string().contains("HTTP/1.1 503"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_that_becomes_known_late_is_waited_for_by_choice() {
    let sshd = Sshd::start();
    let dir = TempDir::new();
    let file = dir.path().join("known_hosts");
    fs::write(&file, "").unwrap();
    let policy = HostKeyPolicy::known_hosts_file(&file);
    let pool = builder(&sshd, policy).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let unknown = |error: &Error| {
        matches!(
            error,
            Error::HostKey {
                reason: HostKeyProblem::Unknown { .. },
                ..
            }
        )
    };
    let at_once = tokio::time::timeout(SOON, host.wait_until_ready(WAIT).into_future());
    let error = at_once.await.expect("at once").unwrap_err();
    assert!(unknown(&error), "{error}");

    let mut events = pool.events();
    let wait = host.wait_until_ready(WAIT).for_host_key();
    let waiting = tokio::spawn(wait.into_future());
    fails(&mut events, 2).await;
    let ready = Instant::now();
    fs::copy(sshd.known_hosts(), &file).unwrap();
    assert_in_soon("host key", ready, waiting).await;

    // Not one that has changed.
    let other = generate(dir.path(), "other", "ed25519", None, KeyFormat::OpenSsh);
    let lines = fs::read_to_string(&file).unwrap();
    let (name, _) = lines.split_once(' ').unwrap();
    fs::write(&file, format!("{name} {}\n", other.public_line())).unwrap();
    host.evict();
    let wait = host.wait_until_ready(WAIT).for_host_key().into_future();
    let error = tokio::time::timeout(SOON, wait).await.expect("at once");
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::HostKey { .. }) && !unknown(&error),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_the_last_failure_is_the_answer() {
    let sshd = Sshd::start();
    sshd.stop();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let wait = host.wait_until_ready(Duration::from_millis(2500));
    let wait = tokio::time::timeout(SOON, wait.into_future());
    let error = wait.await.expect("in time").unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.waited().total() > Duration::ZERO, "{error:?}");

    let hole = BlackHole::new();
    let host = pool.host(format!("{}@{}", sshd.user(), hole.addr()));
    let host = host.unwrap();
    let wait = host.wait_until_ready(Duration::from_secs(3)).into_future();
    let error = tokio::time::timeout(SOON, wait).await.expect("in time");
    let error = error.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.phase(), Phase::Connect, "{error}");
}

/// Also while a try is under way, of which nothing is known.
#[tokio::test]
async fn at_the_deadline_a_silent_try_does_not_hide_the_failure_before_it() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let serve = async {
        drop(server.accept().await.unwrap());
        let mut silent = Vec::new();
        loop {
            silent.push(server.accept().await.unwrap());
        }
    };
    let pool = Pool::builder(HostKeyPolicy::dangerous_accept_any()).identity(Identity::none());
    let host = pool.build().unwrap().host(format!("me@{address}")).unwrap();
    let wait = host.wait_until_ready(Duration::from_millis(1900));
    let error = tokio::select! {
        ready = wait.into_future() => ready.unwrap_err(),
        never = serve => never,
    };
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waiting_does_not_mend_is_told_at_once() {
    let sshd = Sshd::start();
    let missing = Identity::key_file(sshd.dir().join("no such key"));
    let pool = builder(&sshd, known(&sshd)).identity(missing);
    let pool = pool.build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let wait = tokio::time::timeout(SOON, host.wait_until_ready(WAIT).into_future());
    let error = wait.await.expect("at once").unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error}");
    pool.close().await;
    let wait = tokio::time::timeout(SOON, host.wait_until_ready(WAIT).into_future());
    let error = wait.await.expect("at once").unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_given_up_leaves_the_usual_pauses() {
    let sshd = Sshd::builder().release(Release::Installed).start();
    sshd.stop();
    let pool = builder(&sshd, known(&sshd)).build().unwrap();
    let host = pool.host(sshd.target()).unwrap();
    let mut events = pool.events();
    let waiting = waiting(&host);
    fails(&mut events, 2).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let begun = Instant::now();
    while begun.elapsed() < WAIT {
        host.command("true").output().await.unwrap_err();
        match host.status().breaker {
            Breaker::Open { retry_in } if retry_in > Duration::from_secs(1) => return,
            Breaker::Open { retry_in } => tokio::time::sleep(retry_in).await,
            _ => {}
        }
    }
    panic!("{:?}", host.status());
}
