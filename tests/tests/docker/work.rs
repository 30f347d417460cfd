//! What a deploy tool does all day, on each way to the daemon.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ssh_pool::docker::Error;
use ssh_pool_tests::eventually_async;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::{self, Said};
use crate::{SOON, TestHost};

/// List, run, logs, exec, archives in and out.
async fn a_days_work(test_host: &TestHost) {
    let docker = &test_host.docker;
    assert_eq!(api::list(docker).await.unwrap(), Vec::<String>::new());

    // Run to the end, and its output.
    let id = api::start(docker, "echo out; echo err >&2; exit 3").await;
    assert_eq!(api::wait(docker, &id).await, 3);
    let said = api::read(api::follow(docker, &id).await).await.unwrap();
    assert_eq!(
        (said.stdout, said.stderr),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );
    assert_eq!(api::list(docker).await.unwrap(), vec![id.clone()]);
    api::remove(docker, &id).await;

    // Logs that are followed while they are written.
    let id = api::start(docker, "cat; sleep 60").await;
    let id2 = api::start(
        docker,
        "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two",
    )
    .await;
    let mut body = api::follow(docker, &id2).await;
    let mut said = Said::default();
    while said.stdout != b"one\n" {
        said.push(body.frame().await.unwrap().unwrap().data_ref().unwrap());
    }

    // An archive in, byte by byte, which also lets the other go on; and out again.
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (name, bytes) in [("data", content.as_slice()), ("go", b"")] {
        let path = format!("/containers/{id2}/archive?path=/tmp");
        let put = api::request(Method::PUT, &path, api::tar(name, bytes));
        api::body(docker.request(put).await.unwrap()).await;
    }
    let path = format!("/containers/{id2}/archive?path=/tmp/data");
    let archive = api::body(api::get(docker, &path).await.unwrap()).await;
    assert!(
        api::untar(&archive) == content,
        "the archive has other bytes"
    );
    let rest = api::read(body).await.unwrap();
    assert_eq!(rest.stdout, b"two\n");

    // A command with input, both outputs and an exit code.
    let script = "echo ready; sha256sum; echo warned >&2; exit 7";
    let (exec, upgraded) = api::exec(docker, &id, &["sh", "-c", script]).await;
    let (mut output, mut input) = tokio::io::split(TokioIo::new(upgraded));
    let feed = async {
        input.write_all(&content).await.unwrap();
        input.shutdown().await.unwrap(); // the end of its input, and not of its output
    };
    let mut bytes = Vec::new();
    let (read, ()) = tokio::join!(output.read_to_end(&mut bytes), feed);
    read.unwrap();
    let mut said = Said::default();
    said.push(&bytes);
    let wanted = format!("ready\n{}  -\n", sha256(&content));
    assert_eq!(String::from_utf8(said.stdout).unwrap(), wanted);
    assert_eq!(said.stderr, b"warned\n");
    assert_eq!(api::exit_code(docker, &exec).await, 7);

    for id in api::list(docker).await.unwrap() {
        api::remove(docker, &id).await;
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_work_over_a_stream_to_the_socket_starts_no_process() {
    let test_host = TestHost::direct();
    a_days_work(&test_host).await;
    assert_eq!(test_host.processes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_work_through_dial_stdio_leaves_no_process() {
    let test_host = TestHost::dial_stdio();
    a_days_work(&test_host).await;
    let gone = || test_host.processes() == 0;
    assert!(
        eventually_async(SOON, gone).await,
        "{} are left",
        test_host.processes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_work_through_dial_stdio_on_dropbear_leaves_no_process() {
    let test_host = TestHost::dropbear();
    a_days_work(&test_host).await;
    let gone = || test_host.processes() == 0;
    assert!(
        eventually_async(SOON, gone).await,
        "{} are left",
        test_host.processes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hyper_util_client_of_ones_own_works_over_the_connector() {
    for test_host in [TestHost::direct(), TestHost::dial_stdio()] {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build::<_, Full<Bytes>>(test_host.docker.connector());
        for _ in 0..3 {
            let uri = Uri::from_static("http://docker/v1.41/containers/json");
            let response = client.get(uri).await.unwrap();
            assert_eq!(api::json(response).await, serde_json::json!([]));
        }
        test_host.dockerd.stop();
        let uri = Uri::from_static("http://docker/v1.41/containers/json");
        let error = client.get(uri).await.unwrap_err();
        let found = Error::find::<Error>(&error);
        assert!(
            matches!(found, Some(Error::Unreachable { .. })),
            "{error:?}"
        );
    }
}
