//! Docker on a remote host: list, run, logs, exec and copy, through bollard and the pool.
//!
//! ```text
//! docker_runner deploy@web-1 ps
//! docker_runner deploy@web-1 run alpine sh -c 'echo hello'
//! docker_runner deploy@web-1 logs --follow CONTAINER
//! docker_runner deploy@web-1 exec CONTAINER sh -c 'cat > /tmp/input' < file
//! docker_runner deploy@web-1 cp file CONTAINER:/tmp
//! docker_runner deploy@web-1 cp CONTAINER:/etc/hosts .
//! docker_runner deploy@web-1 docker compose ps      the stock docker of this machine
//! docker_runner --dockerd                      a dockerd and an sshd of its own, and a tour
//! docker_runner --dockerd run base echo hello  one command there
//! docker_runner --self-test                    checks itself, on servers of its own
//! ```
//!
//! Nothing is needed on this machine, no `docker` and no `ssh`, but for the stock `docker`, whose ssh
//! is this program: see the first line of `main`. On the host it needs a daemon whose socket the
//! account may use. Containers run without a network. The exit code is that of the container or the
//! command.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bollard::Docker;
use clap::{Parser, Subcommand};
use futures_util::{Stream, TryStreamExt as _};
use ssh_pool::docker::Cli;
use ssh_pool::{Limits, Timeouts};
use ssh_pool_examples::{Fleet, Interrupts};
use ssh_pool_tests::Dockerd;

mod cli;
mod engine;
mod self_test;
mod test_host;

use engine::Piece;
use test_host::{TestHost, Way};

/// Docker on a remote host.
#[derive(Debug, Parser)]
#[command(name = "docker_runner", subcommand_precedence_over_arg = true)]
struct Options {
    /// The host as user@host:port.
    target: Option<String>,
    /// The socket of its Docker daemon. Default: /var/run/docker.sock.
    #[arg(long, requires = "target")]
    socket: Option<PathBuf>,
    /// Start a dockerd and an sshd, and work there. Its image is called `base`.
    #[arg(long, conflicts_with = "target")]
    dockerd: bool,
    /// Check itself, on servers of its own.
    #[arg(long, conflicts_with_all = ["target", "dockerd"])]
    self_test: bool,
    /// What to do; without it, and with --dockerd, a bit of everything.
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists all containers.
    Ps,
    /// Runs a container to its end, shows its output and removes it.
    Run {
        /// The image, which must be there.
        image: String,
        /// Its command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Shows the output of a container.
    Logs {
        /// Its id or name.
        container: String,
        /// Go on until it ends.
        #[arg(long, short)]
        follow: bool,
    },
    /// Runs a command in a container, with what is read from standard input.
    Exec {
        /// Its id or name.
        container: String,
        /// The command.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Copies a file or a folder; one of the two is CONTAINER:PATH.
    Cp {
        /// What to copy.
        from: String,
        /// The folder it goes to.
        to: String,
    },
    /// Runs the stock docker command against this host.
    Docker {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    // docker runs this program again, as its ssh: then it ends here.
    ssh_pool::docker::run_shim_if_asked();
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(until_interrupted(options))
}

async fn until_interrupted(options: Options) -> anyhow::Result<ExitCode> {
    // Before anything is started that would have to be ended.
    let mut interrupts = Interrupts::new()?;
    tokio::select! {
        code = work(options) => code,
        // What is dropped closes its streams, and ends its servers.
        code = interrupts.next() => Ok(ExitCode::from(code)),
    }
}

async fn work(options: Options) -> anyhow::Result<ExitCode> {
    if options.self_test {
        self_test::run_all().await?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.dockerd {
        let test_host = TestHost::start(Way::Stream)?;
        let socket = test_host.dockerd.socket();
        return on(&test_host.fleet, Some(&socket), options.action).await;
    }
    let (Some(target), Some(action)) = (options.target, options.action) else {
        bail!("name a host and what to do there, or see --help");
    };
    let fleet = Fleet::of(&[target], Limits::default(), Timeouts::default())?;
    on(&fleet, options.socket.as_deref(), Some(action)).await
}

/// Does it on the one host of the fleet.
async fn on(
    fleet: &Fleet,
    socket: Option<&Path>,
    action: Option<Action>,
) -> anyhow::Result<ExitCode> {
    let member = fleet.members.first().context("no host")?;
    let code = if let Some(Action::Docker { words }) = action {
        let target = member.target.clone();
        let cli = match socket {
            Some(socket) => Cli::at(&fleet.pool, target, socket)?,
            None => Cli::new(&fleet.pool, target)?,
        };
        cli::run(&cli, &words).await?
    } else {
        let docker = engine::connect(&member.host, socket).await?;
        match action {
            Some(action) => act(&docker, action).await?,
            None => tour(&docker).await?,
        }
    };
    fleet.pool.close().await;
    Ok(exit_code(code))
}

/// As a shell sees it.
fn exit_code(code: i64) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

async fn act(docker: &Docker, action: Action) -> anyhow::Result<i64> {
    match action {
        Action::Ps => {
            for [id, image, state] in engine::list(docker).await? {
                println!("{id:.12}  {image}  {state}");
            }
            Ok(0)
        }
        Action::Run { image, command } => {
            let id = engine::start(docker, &image, &command).await?;
            let ran = async {
                show(engine::logs(docker, &id, true)).await?;
                engine::wait(docker, &id).await
            };
            let ran = ran.await;
            engine::remove(docker, &id).await?;
            ran
        }
        Action::Logs { container, follow } => {
            show(engine::logs(docker, &container, follow)).await?;
            Ok(0)
        }
        Action::Exec { container, command } => {
            engine::exec(docker, &container, &command, tokio::io::stdin(), print).await
        }
        Action::Cp { from, to } => {
            match (from.split_once(':'), to.split_once(':')) {
                (Some((container, path)), None) => {
                    let archive = engine::copy_out(docker, container, path).await?;
                    tar::Archive::new(archive.as_slice()).unpack(&to)?;
                }
                (None, Some((container, folder))) => {
                    engine::copy_in(docker, container, folder, pack(Path::new(&from))?).await?;
                }
                _ => bail!("one of {from} and {to} must be CONTAINER:PATH"),
            }
            Ok(0)
        }
        Action::Docker { .. } => bail!("that is not for the API"),
    }
}

/// A tar archive of a local file or folder.
fn pack(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.file_name().context("it has no name")?;
    let mut archive = tar::Builder::new(Vec::new());
    if path.is_dir() {
        archive.append_dir_all(name, path)?;
    } else {
        archive.append_path_with_name(path, name)?;
    }
    Ok(archive.into_inner()?)
}

async fn show(output: impl Stream<Item = anyhow::Result<Piece>>) -> anyhow::Result<()> {
    let mut output = std::pin::pin!(output);
    while let Some(piece) = output.try_next().await? {
        print(piece)?;
    }
    Ok(())
}

fn print((is_error, bytes): Piece) -> anyhow::Result<()> {
    if is_error {
        io::stderr().write_all(&bytes)?;
    } else {
        io::stdout().write_all(&bytes)?;
    }
    Ok(())
}

/// A bit of everything, on a daemon of its own.
async fn tour(docker: &Docker) -> anyhow::Result<i64> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    println!("run: its output, and its exit code");
    let run = Action::Run {
        image: Dockerd::IMAGE.to_owned(),
        command: [words("sh -c"), vec!["echo hello; exit 3".to_owned()]].concat(),
    };
    println!("{}", act(docker, run).await?);

    println!("exec, with input");
    let id = engine::start(docker, Dockerd::IMAGE, &words("sleep 60")).await?;
    let sum = words("sha256sum");
    let code = engine::exec(docker, &id, &sum, b"hello\n".as_slice(), print).await?;
    println!("{code}");

    println!("a file in, and out again");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    archive.append_data(&mut header, "greeting", b"hello\n".as_slice())?;
    engine::copy_in(docker, &id, "/tmp", archive.into_inner()?).await?;
    let back = engine::copy_out(docker, &id, "/tmp/greeting").await?;
    println!("{} bytes of archive", back.len());

    println!("ps");
    act(docker, Action::Ps).await?;
    engine::remove(docker, &id).await?;
    Ok(0)
}
