//! The repository, on the server: a mirror that is cloned once and then kept up to date by git
//! there. Nothing of it comes here.

use std::time::Duration;

use ssh_pool::{Command, Host, Output};

use crate::app::App;
use crate::failure::{Failure, Said};

const FETCH: Duration = Duration::from_secs(300);

/// Fetches the repository into `dir` on the host, and gives the commit that is wanted.
///
/// A mirror without files: `git archive` takes a revision out of it as it is, so no checkout can be
/// half done. Nothing is tried twice: when it fails, nothing has changed but the mirror, and the
/// next deploy fetches what is missing. Dropped in the middle, the pool ends git on the server.
pub(crate) async fn fetch(host: &Host, dir: &str, app: &App) -> Result<String, Failure> {
    let git = |arguments: &[&str]| {
        let mut git = host.command("git");
        // Nobody is there to answer.
        git.env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
            .args(arguments)
            .timeout(FETCH);
        git
    };
    let known = host.command("test").args(["-d", dir]).status().await?;
    if !known.success() {
        // A clone that was cut off is not one: it gets its name when it is whole.
        let part = format!("{dir}.part");
        let clone = git(&["clone", "--quiet", "--mirror", "--", &app.repo, &part]);
        run("clone", host.command("rm").args(["-rf", "--", &part])).await?;
        run("clone", &mut { clone }).await?;
        let mut rename = host.command("mv");
        run("clone", rename.args(["-T", "--", &part, dir])).await?;
    }
    let fetch = ["-C", dir, "fetch", "--quiet", "--prune", "--force", "--"];
    let mut fetch = git(&fetch);
    run("fetch", fetch.args([&app.repo, "+refs/*:refs/*"])).await?;
    // A revision that begins with a dash is no option.
    let find = ["-C", dir, "rev-parse", "--verify", "--end-of-options"];
    let mut find = git(&find);
    let found = run(
        "rev-parse",
        find.arg(format!("{}^{{commit}}", app.revision)),
    );
    let found = String::from_utf8_lossy(&found.await?.stdout).into_owned();
    Ok(found.lines().last().unwrap_or_default().to_owned())
}

async fn run(doing: &'static str, command: &mut Command) -> Result<Output, Failure> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(output);
    }
    let mut said = Said::default();
    said.add(&output.stderr).await;
    Err(Failure::Git {
        doing,
        status: output.status,
        said: said.last(),
    })
}
