//! What is asked of a Docker daemon: bollard, over the pool.

use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use ssh_pool::Host;
use tokio::io::{AsyncRead, AsyncWriteExt as _};

/// How long bollard waits for the head of a response, in seconds.
const TIMEOUT: u64 = 120;

/// A piece of output, and whether it is standard error.
pub(crate) type Piece = (bool, Vec<u8>);

/// bollard, with the pool as its transport. It asks the daemon for its version.
pub(crate) async fn connect(host: &Host, socket: Option<&Path>) -> anyhow::Result<Docker> {
    let transport = match socket {
        Some(path) => ssh_pool::docker::Docker::at(host, path)?,
        None => ssh_pool::docker::Docker::new(host),
    };
    let docker = Docker::connect_with_custom_transport(
        move |request: BollardRequest| {
            let response = transport.request(request);
            async move {
                response
                    .await
                    .map_err(|error| io::Error::from(error).into())
            }
        },
        Some("http://docker"),
        TIMEOUT,
        API_DEFAULT_VERSION,
    )?;
    Ok(docker.negotiate_version().await?)
}

/// All containers: id, image, state.
pub(crate) async fn list(docker: &Docker) -> anyhow::Result<Vec<[String; 3]>> {
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let found = docker.list_containers(Some(options)).await?;
    let row = |one: bollard::models::ContainerSummary| {
        let status = one.status.unwrap_or_default();
        [one.id, one.image]
            .map(Option::unwrap_or_default)
            .into_iter()
            .chain([status])
    };
    let rows = found.into_iter().map(|one| {
        let mut words = row(one);
        std::array::from_fn(|_| words.next().unwrap_or_default())
    });
    Ok(rows.collect())
}

/// Starts a container without a network, and says its id.
pub(crate) async fn start(
    docker: &Docker,
    image: &str,
    command: &[String],
) -> anyhow::Result<String> {
    let made = docker
        .create_container(
            None,
            ContainerCreateBody {
                image: Some(image.to_owned()),
                cmd: (!command.is_empty()).then(|| command.to_vec()),
                host_config: Some(HostConfig {
                    network_mode: Some("none".to_owned()),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            },
        )
        .await?;
    docker.start_container(&made.id, None).await?;
    Ok(made.id)
}

/// Waits for the end of a container, and says its exit code.
pub(crate) async fn wait(docker: &Docker, id: &str) -> anyhow::Result<i64> {
    let mut ends = std::pin::pin!(docker.wait_container(id, None));
    match ends.next().await.context("no answer to wait")? {
        Ok(end) => Ok(end.status_code),
        // What it calls an error is an exit code that is not 0.
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => Ok(code),
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn remove(docker: &Docker, id: &str) -> anyhow::Result<()> {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    Ok(docker.remove_container(id, Some(options)).await?)
}

/// The output of a container, from its start.
pub(crate) fn logs(
    docker: &Docker,
    id: &str,
    follow: bool,
) -> impl Stream<Item = anyhow::Result<Piece>> + Send + use<> {
    let options = LogsOptionsBuilder::new()
        .follow(follow)
        .stdout(true)
        .stderr(true)
        .build();
    pieces(docker.logs(id, Some(options)))
}

fn pieces(
    output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send,
) -> impl Stream<Item = anyhow::Result<Piece>> + Send {
    output.map_err(anyhow::Error::from).map_ok(|piece| {
        let is_error = matches!(piece, LogOutput::StdErr { .. });
        (is_error, piece.into_bytes().to_vec())
    })
}

/// Runs a command in a container: `input` goes to it, its output to `show`. Its exit code.
pub(crate) async fn exec(
    docker: &Docker,
    id: &str,
    command: &[String],
    mut input: impl AsyncRead + Unpin,
    mut show: impl FnMut(Piece) -> anyhow::Result<()>,
) -> anyhow::Result<i64> {
    let made = docker
        .create_exec(
            id,
            CreateExecOptions {
                cmd: Some(command.to_vec()),
                attach_stdin: Some(true),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                ..CreateExecOptions::default()
            },
        )
        .await?;
    let started = docker.start_exec(&made.id, None).await?;
    let StartExecResults::Attached {
        output,
        input: mut stdin,
    } = started
    else {
        bail!("the command has no streams");
    };
    let mut output = std::pin::pin!(pieces(output));
    // It may end without reading all of its input.
    let feed = async {
        if tokio::io::copy(&mut input, &mut stdin).await.is_ok() {
            stdin.shutdown().await.ok();
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        while let Some(piece) = output.try_next().await? {
            show(piece)?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        read = read => read?,
        () = feed => {}
    }
    let ended = docker.inspect_exec(&made.id).await?;
    ended.exit_code.context("the command has not ended")
}

/// Unpacks a tar archive in a folder of a container.
pub(crate) async fn copy_in(
    docker: &Docker,
    id: &str,
    folder: &str,
    archive: Vec<u8>,
) -> anyhow::Result<()> {
    let options = UploadToContainerOptionsBuilder::new().path(folder).build();
    let body = bollard::body_full(archive.into());
    Ok(docker.upload_to_container(id, Some(options), body).await?)
}

/// A tar archive of a file or a folder of a container.
pub(crate) async fn copy_out(docker: &Docker, id: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let options = DownloadFromContainerOptionsBuilder::new()
        .path(path)
        .build();
    let mut archive = Vec::new();
    let mut pieces = std::pin::pin!(docker.download_from_container(id, Some(options)));
    while let Some(piece) = pieces.try_next().await? {
        archive.extend_from_slice(&piece);
    }
    Ok(archive)
}
