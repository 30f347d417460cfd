//! The stock `docker` command over the pool.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ssh_pool_core::{Pool, Target};
use tempfile::TempDir;

use super::connector::{Connector, Sharing};
use crate::shim::{self, Command, Duplex, Error, Hosts, Redirect, SetUpShim, ShimSetup};

/// What docker asks its ssh to run.
const DIAL_STDIO: &str = "docker system dial-stdio";

/// As which docker knows its ssh.
const SSH: &str = "ssh";

/// Runs the stock `docker` of this machine against the daemon of a host: `DOCKER_HOST` is set, and
/// its `ssh` is the pool. Cheap to clone.
///
/// docker finds its ssh by name. So there is a temporary folder with a link called `ssh` to the
/// shim in it, which comes first in docker's `PATH`, and which goes away with the command. A
/// process that is killed leaves the link behind, unused.
///
/// Each docker gets streams of its own to the daemon's socket, as [`Connector`] opens them, and
/// may reach this one host. They are one [`StreamGroup`](crate::StreamGroup): `docker compose up` holds
/// one or two for each service, and gets the next whatever it holds. Where the server opens streams to the socket, no `docker` is needed on
/// it.
///
/// ```no_run
/// use ssh_pool::docker::Cli;
///
/// # async fn list(pool: &ssh_pool::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// // At the top of `main`: ssh_pool::docker::run_shim_if_asked();
/// let docker = Cli::new(pool, "deploy@web-1")?;
/// let output = docker.command().args(["ps", "--quiet"]).output().await?;
/// println!("{}", String::from_utf8_lossy(&output.stdout));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cli {
    hosts: Arc<Hosts>,
    url: String,
    shim: Option<PathBuf>,
}

impl Cli {
    /// For the daemon at `/var/run/docker.sock`.
    ///
    /// # Errors
    ///
    /// [`CliError::Ssh`](super::CliError::Ssh): those of [`Pool::host`].
    pub fn new<T>(pool: &Pool, target: T) -> Result<Self, Error>
    where
        T: TryInto<Target>,
        T::Error: Into<ssh_pool_core::Error>,
    {
        let target = target.try_into().map_err(Into::into)?;
        let host = pool.host(target.clone())?;
        Self::over(pool, target, Connector::new(&host))
    }

    /// For a daemon at another socket.
    ///
    /// # Errors
    ///
    /// As for [`new`](Cli::new), and [`CliError::Stream`](super::CliError::Stream) with
    /// [`docker::Error::InvalidSocket`](super::Error::InvalidSocket) for a path that no socket can
    /// have.
    pub fn at<T>(pool: &Pool, target: T, socket: impl AsRef<Path>) -> Result<Self, Error>
    where
        T: TryInto<Target>,
        T::Error: Into<ssh_pool_core::Error>,
    {
        let target = target.try_into().map_err(Into::into)?;
        let host = pool.host(target.clone())?;
        let connector = Connector::at(&host, socket).map_err(failed)?;
        Self::over(pool, target, connector)
    }

    fn over(pool: &Pool, target: Target, connector: Connector) -> Result<Self, Error> {
        let url = format!("ssh://{target}");
        let mut hosts = Hosts::new(pool);
        hosts.allow(None, target)?;
        hosts.set_redirect(Redirect {
            line: DIAL_STDIO,
            open: Arc::new(move |group| {
                let connector = connector.in_group(group);
                Box::pin(async move {
                    // docker reads logs and archives at its own pace.
                    let alone = Sharing {
                        direct: false,
                        dial_stdio: false,
                    };
                    let stream = connector.connect(alone).await.map_err(failed)?;
                    Ok(Box::new(stream.into_io()) as Box<dyn Duplex>)
                })
            }),
        });
        Ok(Self {
            hosts: Arc::new(hosts),
            url,
            shim: None,
        })
    }

    /// The program that docker runs as its ssh: one that calls
    /// [`run_shim_if_asked`](super::run_shim_if_asked). Default: this program.
    #[must_use]
    pub fn shim(mut self, program: impl AsRef<Path>) -> Self {
        self.shim = Some(program.as_ref().to_owned());
        self
    }

    /// A docker command, without arguments yet. `DOCKER_CONTEXT` and what else of the environment
    /// would lead it to another daemon does not reach it.
    #[must_use]
    pub fn command(&self) -> Command {
        let (shim, url) = (self.shim.clone(), self.url.clone());
        let set_up_shim: SetUpShim = Arc::new(move |command| {
            let folder = link(&shim::file(shim.as_ref())?)?;
            command.env("DOCKER_HOST", &url);
            for name in ["DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY"] {
                command.env_remove(name);
            }
            let path = first(folder.path(), path_of(command))?;
            command.env("PATH", path);
            Ok(ShimSetup {
                name: SSH.into(),
                keep: Some(Box::new(folder)),
            })
        });
        Command::new("docker", self.hosts.clone(), set_up_shim)
    }
}

fn failed(error: super::Error) -> Error {
    Error::Stream {
        source: Box::new(error),
    }
}

/// A folder with a link to the shim.
fn link(shim: &Path) -> Result<TempDir, Error> {
    let made = tempfile::Builder::new().prefix("ssh-pool-").tempdir();
    let made = made.and_then(|folder| {
        std::os::unix::fs::symlink(shim, folder.path().join(SSH))?;
        Ok(folder)
    });
    made.map_err(|source| Error::Prepare { source })
}

/// Where the command would look for programs.
fn path_of(command: &std::process::Command) -> OsString {
    let mut set = command.get_envs().filter(|(name, _)| *name == "PATH");
    let path = match set.next() {
        Some((_, path)) => path.map(OsStr::to_owned),
        None => env::var_os("PATH"),
    };
    path.unwrap_or_default()
}

/// That list of folders, with one more before the others.
fn first(folder: &Path, path: OsString) -> Result<OsString, Error> {
    let all = std::iter::once(folder.to_owned()).chain(env::split_paths(&path));
    env::join_paths(all).map_err(|error| Error::Prepare {
        source: std::io::Error::other(error),
    })
}
