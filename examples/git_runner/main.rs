//! The stock git over pooled connections, for deploys: clone, fetch, push and the rest.
//!
//! ```text
//! git_runner clone demo:app.git /tmp/app          a private server, with a repository made on the spot
//! git_runner ls-remote demo:app.git
//! git_runner --allow git@web-1:22 clone ssh://git@web-1/srv/app.git
//! git_runner --self-test                          checks itself, beside ssh with ControlMaster
//! ```
//!
//! This program is git's ssh too: see the first line of `main`. The exit code is git's own.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use ssh_pool::git::{Command, Error, Git};
use ssh_pool::{HostKeyPolicy, Identity, Pool};
use ssh_pool_examples::explain;

mod checks;
mod demo;
mod race;
mod self_test;
mod trace;

use demo::Demo;

/// Runs git with pooled connections in the place of ssh. Without --allow it starts a server of its
/// own, with a repository demo:app.git.
#[derive(Debug, Parser)]
#[command(name = "git_runner")]
struct Options {
    /// A host of yours that git may reach, as user@host:port.
    #[arg(long, value_name = "TARGET")]
    allow: Vec<String>,
    /// Check itself, on a server of its own.
    #[arg(long, conflicts_with = "git")]
    self_test: bool,
    /// Only measure, beside ssh with ControlMaster.
    #[arg(long, conflicts_with_all = ["git", "self_test"])]
    race: bool,
    /// The part of the self-test that is watched from outside.
    #[arg(long, hide = true, requires = "self_test")]
    watched: bool,
    /// What git is to do.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "GIT ARGUMENT"
    )]
    #[arg(required_unless_present_any = ["self_test", "race"])]
    git: Vec<OsString>,
}

fn main() -> anyhow::Result<ExitCode> {
    // git runs this program again, as its ssh: then it ends here.
    ssh_pool::git::run_shim_if_asked();
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    if options.watched {
        checks::run_all().await?;
    } else if options.race {
        race::run().await?;
    } else if options.self_test {
        self_test::run_all().await?;
    } else if options.allow.is_empty() {
        let demo = Demo::start()?;
        demo.repos.create("app", 20);
        let mut git = demo.git.command();
        // `demo:` is where the repositories are.
        let base = demo.repos.url(&demo.server.target(), "");
        let base = base.trim_end_matches(".git").to_owned();
        git.args(["-c", &format!("url.{base}.insteadOf=demo:")]);
        return finish(git.args(&options.git)).await;
    } else {
        let pool = Pool::builder(HostKeyPolicy::known_hosts()) // an unknown host key is refused
            .identity(Identity::like_ssh()) // the agent, then the default key files
            .build()?;
        let mut git = Git::new(&pool);
        for target in &options.allow {
            git = git.allow(target.as_str())?;
        }
        let code = finish(git.command().args(&options.git)).await;
        pool.close().await;
        return code;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs git on this terminal.
async fn finish(git: &mut Command) -> anyhow::Result<ExitCode> {
    let mut child = git.spawn()?;
    let status = child.wait().await?;
    // git has said what it knows. This is what a program would decide by.
    for trouble in child.troubles() {
        if let Error::Ssh(error) = &trouble {
            eprintln!("git_runner: {}", explain(error));
        }
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(255)))
}
