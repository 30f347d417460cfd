//! How often a daemon is asked, counted by one that answers as it is told to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use hyper::StatusCode;
use serde_json::Value;
use ssh_pool::docker::{Docker, Error};
use ssh_pool::{CommandState, Host, Pool};
use ssh_pool_tests::{Sshd, TempDir, eventually_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::{SOON, api, builder, known};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Answer,
    AnswerAndEnd,
    End,
}
use Reply::{Answer, AnswerAndEnd, End};

/// No daemon at all, but it listens, and counts.
struct Counter {
    docker: Docker,
    host: Host,
    /// The method of each request, and the number of its connection.
    asked: Arc<Mutex<Vec<(String, usize)>>>,
    _pool: Pool,
    _sshd: Sshd,
    _dir: TempDir,
}

impl Counter {
    /// What it does with the requests of each connection, by the number of both.
    fn start(reply: impl Fn(usize, usize) -> Reply + Send + Sync + 'static) -> Self {
        let dir = TempDir::new();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, reply) = (asked.clone(), Arc::new(reply));
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, reply) = (log.clone(), reply.clone());
                let reply = move |request| reply(number, request);
                tokio::spawn(serve(stream, number, log, reply));
            }
        });
        let sshd = Sshd::start();
        let pool = builder(&sshd, known(&sshd)).build().unwrap();
        let host = pool.host(sshd.target()).unwrap();
        Self {
            docker: Docker::at(&host, path).unwrap(),
            host,
            asked,
            _pool: pool,
            _sshd: sshd,
            _dir: dir,
        }
    }

    fn asked(&self) -> Vec<(String, usize)> {
        self.asked.lock().unwrap().clone()
    }

    async fn get(&self) -> Result<StatusCode, Error> {
        let response = api::get(&self.docker, "/containers/json").await?;
        let status = response.status();
        api::body(response).await;
        Ok(status)
    }

    async fn post(&self) -> Result<StatusCode, Error> {
        let response = api::post(&self.docker, "/containers/x/start", &Value::Null).await?;
        let status = response.status();
        api::body(response).await;
        Ok(status)
    }
}

async fn serve(
    mut stream: UnixStream,
    number: usize,
    log: Arc<Mutex<Vec<(String, usize)>>>,
    reply: impl Fn(usize) -> Reply,
) {
    for request in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else {
                return;
            };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let method = head.split(' ').next().unwrap().to_owned();
        log.lock().unwrap().push((method, number));
        let reply = reply(request);
        if reply == End {
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
        if stream.write_all(answer).await.is_err() || reply == AnswerAndEnd {
            return;
        }
    }
}

fn asked(all: &[(&str, usize)]) -> Vec<(String, usize)> {
    all.iter()
        .map(|(method, connection)| ((*method).to_owned(), *connection))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_may_have_been_made_is_not_asked_for_again() {
    let counter = Counter::start(|_, _| End);
    let error = counter.post().await.unwrap_err();
    assert!(matches!(error, Error::Http { .. }), "{error:?}");
    assert_eq!(error.command_state(), CommandState::Unknown);
    assert_eq!(counter.asked(), asked(&[("POST", 0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_on_a_kept_connection_that_ends_is_repeated() {
    let counter = Counter::start(|_, request| if request == 0 { Answer } else { End });
    for _ in 0..20 {
        assert_eq!(counter.get().await.unwrap(), 200);
    }
    let asked = counter.asked().len();
    assert!((21..40).contains(&asked), "{asked}: no connection was kept");
}

/// It would keep the SSH connection for as long as looks come, and that may lead to another machine.
#[tokio::test(flavor = "multi_thread")]
async fn no_look_goes_out_on_a_kept_connection_once_its_ssh_connection_is_retired() {
    let counter = Counter::start(|_, _| Answer);
    let mut earlier = Vec::new();
    for _ in 0..4 {
        let before = counter.asked().len();
        for _ in 0..3 {
            assert_eq!(counter.get().await.unwrap(), 200);
        }
        let all = counter.asked();
        let used: Vec<_> = all[before..].iter().map(|(_, on)| *on).collect();
        assert!(!used.iter().any(|on| earlier.contains(on)), "{all:?}");
        earlier = all.into_iter().map(|(_, on)| on).collect();
        counter.host.evict();
    }
    let gone = || counter.host.status().retiring == 0;
    assert!(
        eventually_async(SOON, gone).await,
        "{:?}",
        counter.host.status()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_on_a_fresh_connection_is_not_repeated() {
    let counter = Counter::start(|_, _| End);
    let error = counter.get().await.unwrap_err();
    assert_eq!(error.command_state(), CommandState::Unknown);
    assert_eq!(counter.asked(), asked(&[("GET", 0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_is_repeated_once() {
    let counter = Counter::start(|connection, request| match (connection, request) {
        (0, 0) => Answer,
        _ => End,
    });
    assert_eq!(counter.get().await.unwrap(), 200);
    counter.get().await.unwrap_err();
    assert!(counter.asked().len() <= 3, "{:?}", counter.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_never_goes_out_on_a_connection_that_lay_idle() {
    let counter = Counter::start(|_, request| if request == 0 { Answer } else { End });
    for _ in 0..20 {
        assert_eq!(counter.get().await.unwrap(), 200);
        assert_eq!(counter.post().await.unwrap(), 200);
    }
    let posts = counter
        .asked()
        .iter()
        .filter(|(method, _)| method == "POST")
        .count();
    assert_eq!(posts, 20, "{:?}", counter.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_every_connection_is_no_trouble() {
    let counter = Counter::start(|_, _| AnswerAndEnd);
    for _ in 0..50 {
        assert_eq!(counter.get().await.unwrap(), 200);
        assert_eq!(counter.post().await.unwrap(), 200);
    }
    let posts = counter
        .asked()
        .iter()
        .filter(|(method, _)| method == "POST")
        .count();
    assert_eq!(posts, 50);
}
