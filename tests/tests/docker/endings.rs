//! Daemons and connections that end, and callers who do not wait.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;
use ssh_pool::CommandState;
use ssh_pool::docker::Error;
use ssh_pool_tests::{Rate, eventually_async, moment};
use tokio::task::JoinSet;

use crate::api::{self, Said};
use crate::{SOON, TestHost};

/// A container that says a word and then nothing, and its log, of which the word has been read.
async fn quiet_log(test_host: &TestHost) -> (String, hyper::body::Incoming) {
    let id = api::start(&test_host.docker, "echo word; sleep 1000").await;
    let mut body = api::follow(&test_host.docker, &id).await;
    let mut said = Said::default();
    while said.stdout != b"word\n" {
        said.push(body.frame().await.unwrap().unwrap().data_ref().unwrap());
    }
    (id, body)
}

async fn restarted(test_host: &TestHost) {
    let id = api::create(&test_host.docker, "true").await;
    for _ in 0..3 {
        // Connections are kept, and end with the daemon.
        assert_eq!(api::list(&test_host.docker).await.unwrap().len(), 1);
        test_host.dockerd.stop();
        let error = api::list(&test_host.docker).await.unwrap_err();
        let Error::Unreachable { dial_stdio, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(dial_stdio.contains("exit status: 1"), "{dial_stdio}");
        assert_eq!(error.command_state(), CommandState::NotStarted);
        test_host.dockerd.restart();
        let path = format!("/containers/{id}/rename?name=x{}", fastrand::u32(..));
        let renamed = api::post(&test_host.docker, &path, &Value::Null)
            .await
            .unwrap();
        assert!(renamed.status().is_success(), "{renamed:?}");
        assert_eq!(api::list(&test_host.docker).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_down_is_an_error_and_one_that_is_up_again_is_found() {
    let test_host = TestHost::direct();
    restarted(&test_host).await;
    assert_eq!(
        test_host.sshd().accepted(),
        1,
        "{:?}",
        test_host.pool.status()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dial_stdio_finds_a_daemon_that_is_up_again() {
    restarted(&TestHost::dial_stdio()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_no_longer_opens_streams_is_reached_by_dial_stdio() {
    let test_host = TestHost::direct();
    assert!(api::list(&test_host.docker).await.unwrap().is_empty());
    let sshd = test_host.sshd();
    let config = sshd.dir().join("sshd_config");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("AllowStreamLocalForwarding no\n{text}")).unwrap();
    sshd.restart();
    sshd.kill_connections();
    assert!(api::list(&test_host.docker).await.unwrap().is_empty());
    std::fs::write(&config, text).unwrap();
    sshd.restart();
    sshd.kill_connections();
    assert!(api::list(&test_host.docker).await.unwrap().is_empty());
    // A stream again, and so no process.
    let gone = || test_host.processes() == 0;
    assert!(eventually_async(SOON, gone).await);
}

async fn killed_under_a_log(test_host: &TestHost) {
    let (id, mut body) = quiet_log(test_host).await;
    test_host.sshd().kill_connections();
    let frame = tokio::time::timeout(SOON, body.frame())
        .await
        .expect("it hangs");
    let error = frame.expect("no end of a log").expect_err("no word");
    let lost = Error::find::<ssh_pool::Error>(&error);
    assert!(
        matches!(lost, Some(ssh_pool::Error::ConnectionLost { .. })),
        "{error:?}"
    );
    assert_eq!(api::list(&test_host.docker).await.unwrap(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_killed_under_a_followed_log_is_an_error_and_the_next_call_redials() {
    killed_under_a_log(&TestHost::direct()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_killed_under_dial_stdio_is_an_error_and_the_next_call_redials() {
    killed_under_a_log(&TestHost::dial_stdio()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_on_a_killed_connection_is_unknown_and_typed() {
    for test_host in [TestHost::direct(), TestHost::dial_stdio()] {
        let id = api::start(&test_host.docker, "sleep 1000").await;
        // Its only process takes no notice of SIGTERM, so the answer takes its time.
        let path = format!("/containers/{id}/stop?t=600");
        let docker = test_host.docker.clone();
        let waiting = tokio::spawn(async move { api::post(&docker, &path, &Value::Null).await });
        let asked = || test_host.dockerd.log().contains("/stop?t=600");
        assert!(eventually_async(SOON, asked).await);
        test_host.sshd().kill_connections();
        let ended = tokio::time::timeout(SOON, waiting).await.expect("it hangs");
        let error = ended.unwrap().unwrap_err();
        assert!(matches!(error, Error::CutOff { .. }), "{error:?}");
        assert_eq!(error.command_state(), CommandState::Unknown);
    }
}

/// A stream whose other side does not end it is closed after five seconds: much longer than that.
const LONG: Duration = Duration::from_secs(60);

async fn dropped(test_host: &TestHost) {
    let (id, body) = quiet_log(test_host).await;
    assert_eq!(test_host.host.status().isolated_busy, 1);
    drop(body);
    let idle = || {
        let status = test_host.host.status();
        status.isolated_busy + status.running + status.streams == 0 && test_host.processes() == 0
    };
    assert!(
        eventually_async(LONG, idle).await,
        "{:?}",
        test_host.host.status()
    );

    // Requests that are given up while the daemon thinks.
    let path = format!("/containers/{id}/stop?t=600");
    for _ in 0..3 {
        let wait = api::post(&test_host.docker, &path, &Value::Null);
        let begun = || {
            let status = test_host.host.status();
            status.streams + status.isolated_busy > 0
        };
        tokio::select! {
            answer = wait => panic!("{answer:?}"),
            begun = eventually_async(SOON, begun) => assert!(begun),
        }
        assert!(
            eventually_async(LONG, idle).await,
            "{:?}",
            test_host.host.status()
        );
    }

    // An upgraded connection whose command goes on.
    let (_, upgraded) = api::exec(&test_host.docker, &id, &["sleep", "1000"]).await;
    drop(upgraded);
    assert!(
        eventually_async(LONG, idle).await,
        "{:?}",
        test_host.host.status()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_closes_its_stream() {
    dropped(&TestHost::direct()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_ends_its_dial_stdio() {
    dropped(&TestHost::dial_stdio()).await;
}

/// Lists and starts, each given up at some moment.
async fn given_up(test_host: &TestHost, within: Duration) {
    let id = api::create(&test_host.docker, "true").await;
    let mut running = JoinSet::new();
    let mut answers = 0;
    for number in 0..300 {
        if running.len() == 20 {
            answers += usize::from(running.join_next().await.unwrap().unwrap());
        }
        let (docker, id) = (test_host.docker.clone(), id.clone());
        let within = moment(within);
        running.spawn(async move {
            let call = async {
                if number % 3 == 0 {
                    let path = format!("/containers/{id}/update");
                    api::post(&docker, &path, &serde_json::json!({}))
                        .await
                        .unwrap();
                } else {
                    api::list(&docker).await.unwrap();
                }
            };
            tokio::time::timeout(within, call).await.is_ok()
        });
    }
    while let Some(answered) = running.join_next().await {
        answers += usize::from(answered.unwrap());
    }
    println!("{answers} of 300 answered");
    assert!(answers < 300, "none was given up");
    let idle = || {
        let status = test_host.host.status();
        status.isolated_busy + status.running + status.streams == 0 && test_host.processes() == 0
    };
    assert!(
        eventually_async(LONG, idle).await,
        "{:?}",
        test_host.host.status()
    );
    assert_eq!(api::list(&test_host.docker).await.unwrap(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_given_up_at_any_moment_leave_no_stream() {
    given_up(&TestHost::direct(), Duration::from_millis(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_given_up_at_any_moment_leave_no_dial_stdio() {
    given_up(&TestHost::dial_stdio(), Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_cut_off_with_their_connection() {
    let test_host = TestHost::direct();
    let (proxy, pool, docker) = test_host.through_proxy();
    let id = api::create(&docker, "true").await;
    // It would take a minute.
    proxy.throttle(Rate {
        from_client: Some(256 << 10),
        ..Rate::default()
    });
    let path = format!("/containers/{id}/archive");
    let content = vec![b'x'; 16 << 20];
    let to = format!("{path}?path=/tmp");
    let put = api::request(Method::PUT, &to, api::tar("big", &content));
    let put = tokio::spawn(docker.request(put));
    let uploading = || {
        let status = pool.status();
        let isolated = status.hosts.iter().any(|host| host.isolated_busy > 0);
        isolated && test_host.dockerd.log().contains(&path)
    };
    assert!(eventually_async(SOON, uploading).await);
    proxy.reset();
    proxy.throttle(Rate::default());
    let ended = tokio::time::timeout(SOON, put).await.expect("it hangs");
    let error = ended.unwrap().expect_err("cut off");
    assert!(
        Error::find::<ssh_pool::Error>(&error).is_some(),
        "{error:?}"
    );
    assert_eq!(api::list(&docker).await.unwrap(), [id]);
}
