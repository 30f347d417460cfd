//! Many calls at once, and what they do to each other.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use ssh_pool_tests::eventually_async;
use tokio::task::JoinSet;

use crate::api::{self, Said};
use crate::{SOON, TestHost};

/// So many lists, some at once; how long each took.
async fn lists(test_host: &TestHost, count: usize, at_once: usize, wanted: usize) -> Vec<Duration> {
    let mut running = JoinSet::new();
    let mut times = Vec::new();
    for _ in 0..count {
        if running.len() == at_once {
            times.push(running.join_next().await.unwrap().unwrap());
        }
        let docker = test_host.docker.clone();
        running.spawn(async move {
            let started = Instant::now();
            assert_eq!(api::list(&docker).await.unwrap().len(), wanted);
            started.elapsed()
        });
    }
    while let Some(time) = running.join_next().await {
        times.push(time.unwrap());
    }
    times.sort_unstable();
    times
}

async fn two_hundred_lists(test_host: &TestHost) {
    api::create(&test_host.docker, "true").await;
    let started = Instant::now();
    let times = lists(test_host, 200, 50, 1).await;
    println!(
        "200 lists, 50 at once: {:?}, median {:?}, last {:?}",
        started.elapsed(),
        times[100],
        times[199]
    );
    let idle = || {
        let status = test_host.host.status();
        status.streams + status.running == 0 && test_host.processes() == 0
    };
    assert!(
        eventually_async(SOON, idle).await,
        "{:?}",
        test_host.host.status()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_lists_fifty_at_once_need_one_login() {
    let test_host = TestHost::direct();
    two_hundred_lists(&test_host).await;
    assert_eq!(
        test_host.sshd().accepted(),
        1,
        "{:?}",
        test_host.pool.status()
    );
    assert_eq!(test_host.processes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_lists_through_dial_stdio_need_few_logins() {
    let test_host = TestHost::dial_stdio();
    two_hundred_lists(&test_host).await;
    assert!(
        test_host.sshd().accepted() <= 4,
        "{:?}",
        test_host.pool.status()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_through_dial_stdio_leave_sessions_to_commands() {
    let test_host = TestHost::dial_stdio();
    let id = api::start(&test_host.docker, "sleep 1000").await;
    // A reading takes the daemon a second or two.
    let path = format!("/containers/{id}/stats?stream=false");
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (docker, path) = (test_host.docker.clone(), path.clone());
        calls.spawn(async move { api::body(api::get(&docker, &path).await.unwrap()).await });
    }
    let mut most = 0;
    let mut watch = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            call = calls.join_next() => match call {
                Some(reading) => assert!(!reading.unwrap().is_empty()),
                None => break,
            },
            _ = watch.tick() => most = most.max(test_host.host.status().running),
        }
    }
    // Ten sessions on each of four connections, and commands want some of them. Eight requests wait
    // for the heads of their answers, and eight that have theirs hand their sessions over, or keep
    // them for a moment.
    assert!((5..=16).contains(&most), "{most} sessions at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_lists_on_dropbear_take_turns() {
    let test_host = TestHost::dropbear();
    two_hundred_lists(&test_host).await;
    // Its one session at a time and connection comes back to commands.
    let command = test_host.host.command("true").status();
    assert!(
        tokio::time::timeout(SOON, command)
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}

/// A container writes a number every few milliseconds until it is told to stop; whoever follows it
/// gets each of them, whatever else goes on.
async fn followed(test_host: &TestHost) {
    let script = "i=0; while [ ! -e /tmp/stop ]; do for n in 1 2 3 4 5 6 7 8 9 10; do \
                  i=$((i+1)); echo $i; done; sleep 0.01; done";
    let id = api::start(&test_host.docker, script).await;
    let body = api::follow(&test_host.docker, &id).await;
    let follower = tokio::spawn(api::read(body));
    lists(test_host, 100, 10, 1).await;
    assert!(!follower.is_finished());
    let path = format!("/containers/{id}/archive?path=/tmp");
    let stop = api::request(hyper::Method::PUT, &path, api::tar("stop", b""));
    api::body(test_host.docker.request(stop).await.unwrap()).await;
    let said = follower.await.unwrap().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    let count = text.lines().count();
    let wanted: String = (1..=count).map(|i| format!("{i}\n")).collect();
    assert!(count >= 10 && text == wanted, "{count} lines: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_loses_no_line_while_a_hundred_calls_run() {
    followed(&TestHost::direct()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_through_dial_stdio_loses_no_line_while_a_hundred_calls_run() {
    followed(&TestHost::dial_stdio()).await;
}

/// Lines, and how long each is.
const LINES: usize = 3000;

/// A log of some 27 MB that nobody reads holds up nobody, and is there when it is read.
async fn unread(test_host: &TestHost) {
    let script = format!(
        "line=$(seq -s x 1 2000); i=0; while [ $i -lt {LINES} ]; do echo $i $line; i=$((i+1)); done"
    );
    let id = api::start(&test_host.docker, &script).await;
    assert_eq!(api::wait(&test_host.docker, &id).await, 0);
    let mut body = api::follow(&test_host.docker, &id).await;
    let mut said = Said::default();
    // It flows, and then nobody reads on.
    said.push(body.frame().await.unwrap().unwrap().data_ref().unwrap());
    // That of the call before it may take a moment to end.
    let status = || test_host.host.status();
    let alone = || status().isolated_busy == 1;
    assert!(eventually_async(SOON, alone).await, "{:?}", status());

    let times = lists(test_host, 100, 10, 1).await;
    println!(
        "beside an unread log: median {:?}, last {:?}",
        times[50], times[99]
    );
    assert!(
        test_host
            .host
            .command("true")
            .status()
            .await
            .unwrap()
            .success()
    );
    assert!(times[99] < SOON);

    while let Some(frame) = body.frame().await {
        said.push(frame.unwrap().data_ref().unwrap());
    }
    let line: Vec<String> = (1..=2000).map(|i| i.to_string()).collect();
    let line = line.join("x");
    let text = String::from_utf8(said.stdout).unwrap();
    println!("{} bytes", text.len());
    assert_eq!(text.lines().count(), LINES);
    let whole = (text.lines().enumerate()).all(|(i, it)| *it == format!("{i} {line}"));
    assert!(whole, "a line is not what was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_harms_nobody_and_is_not_lost() {
    unread(&TestHost::direct()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_through_dial_stdio_harms_nobody_and_is_not_lost() {
    unread(&TestHost::dial_stdio()).await;
}
