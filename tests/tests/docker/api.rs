//! The little of the Docker Engine API that is needed here.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use ssh_pool::docker::{Docker, Error};
use ssh_pool_tests::Dockerd;

/// The API of dockerd 20.10.
const VERSION: &str = "/v1.41";

/// The output of a container or a command, taken apart: stdout and stderr.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    rest: Vec<u8>,
}

impl Said {
    /// Frames as they come: a byte for the stream, three of zero, four for the length.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(header) = self.rest.first_chunk::<8>() {
            let [stream, 0, 0, 0, length @ ..] = *header else {
                panic!("no header of a frame: {header:?}");
            };
            let end = 8 + u32::from_be_bytes(length) as usize;
            if self.rest.len() < end {
                return;
            }
            let content = &self.rest[8..end];
            match stream {
                1 => self.stdout.extend_from_slice(content),
                2 => self.stderr.extend_from_slice(content),
                other => panic!("stream {other}"),
            }
            self.rest.drain(..end);
        }
    }
}

pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("{VERSION}{path}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

pub(crate) async fn get(docker: &Docker, path: &str) -> Result<Response<Incoming>, Error> {
    docker.request(request(Method::GET, path, "")).await
}

pub(crate) async fn post(
    docker: &Docker,
    path: &str,
    body: &Value,
) -> Result<Response<Incoming>, Error> {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    docker.request(request(Method::POST, path, body)).await
}

/// The whole of a good answer.
pub(crate) async fn body(response: Response<Incoming>) -> Bytes {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(
        status.is_success(),
        "{status}: {}",
        String::from_utf8_lossy(&bytes)
    );
    bytes
}

pub(crate) async fn json(response: Response<Incoming>) -> Value {
    serde_json::from_slice(&body(response).await).unwrap()
}

/// All containers, by id.
pub(crate) async fn list(docker: &Docker) -> Result<Vec<String>, Error> {
    let found = json(get(docker, "/containers/json?all=1").await?).await;
    let ids = found.as_array().unwrap().iter();
    Ok(ids
        .map(|one| one["Id"].as_str().unwrap().to_owned())
        .collect())
}

/// A container that is not started yet, without a network.
pub(crate) async fn create(docker: &Docker, script: &str) -> String {
    let spec = json!({
        "Image": Dockerd::IMAGE,
        "Cmd": ["sh", "-c", script],
        "HostConfig": { "NetworkMode": "none" },
    });
    let made = json(post(docker, "/containers/create", &spec).await.unwrap()).await;
    made["Id"].as_str().unwrap().to_owned()
}

/// A container that runs.
pub(crate) async fn start(docker: &Docker, script: &str) -> String {
    let id = create(docker, script).await;
    body(
        post(docker, &format!("/containers/{id}/start"), &Value::Null)
            .await
            .unwrap(),
    )
    .await;
    id
}

/// Waits for its end.
pub(crate) async fn wait(docker: &Docker, id: &str) -> i64 {
    let ended = post(docker, &format!("/containers/{id}/wait"), &Value::Null).await;
    json(ended.unwrap()).await["StatusCode"].as_i64().unwrap()
}

pub(crate) async fn remove(docker: &Docker, id: &str) {
    let path = format!("/containers/{id}?force=1");
    let gone = docker
        .request(request(Method::DELETE, &path, ""))
        .await
        .unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
}

/// Its output, to be followed.
pub(crate) async fn follow(docker: &Docker, id: &str) -> Incoming {
    let path = format!("/containers/{id}/logs?follow=1&stdout=1&stderr=1");
    let response = get(docker, &path).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}

/// Reads it to the end.
pub(crate) async fn read(mut body: Incoming) -> Result<Said, hyper::Error> {
    let mut said = Said::default();
    while let Some(frame) = body.frame().await {
        said.push(frame?.data_ref().unwrap());
    }
    Ok(said)
}

/// Starts a command in a container; its streams are those of the upgraded connection.
pub(crate) async fn exec(
    docker: &Docker,
    id: &str,
    command: &[&str],
) -> (String, hyper::upgrade::Upgraded) {
    let spec = json!({
        "Cmd": command, "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
    });
    let made = post(docker, &format!("/containers/{id}/exec"), &spec)
        .await
        .unwrap();
    let exec = json(made).await["Id"].as_str().unwrap().to_owned();
    let mut start = request(Method::POST, &format!("/exec/{exec}/start"), "{}");
    start
        .headers_mut()
        .insert(CONNECTION, "Upgrade".parse().unwrap());
    start.headers_mut().insert(UPGRADE, "tcp".parse().unwrap());
    let response = docker.request(start).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    (exec, hyper::upgrade::on(response).await.unwrap())
}

pub(crate) async fn exit_code(docker: &Docker, exec: &str) -> i64 {
    let found = json(get(docker, &format!("/exec/{exec}/json")).await.unwrap()).await;
    found["ExitCode"].as_i64().unwrap()
}

/// A tar archive (POSIX ustar) with one file.
pub(crate) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [&header, content, &vec![0; padding + 1024]].concat()
}

/// The content of the first file of an archive.
pub(crate) fn untar(archive: &[u8]) -> &[u8] {
    let size = std::str::from_utf8(&archive[124..135]).unwrap();
    let size = usize::from_str_radix(size, 8).unwrap();
    &archive[512..512 + size]
}
