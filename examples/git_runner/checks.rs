//! Everything that git does with a server, on a repository of a size that people have.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ssh_pool::git::{Command, Error, Git, Output};
use ssh_pool::{CommandState, HostKeyPolicy, Target};
use ssh_pool_tests::{Cut, OBJECTS_PER_COMMIT, Proxy, Step, TempDir, eventually_async, git_env};

use crate::demo::Demo;

/// 72,000 objects.
const COMMITS: usize = 24_000;

/// For whatever takes longer than this something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long git may take to end when its connection has gone, on a busy machine too. One that hangs
/// takes for ever.
const AT_ONCE: Duration = Duration::from_secs(10);

/// A server, and a folder for clones.
struct Place {
    demo: Demo,
    dir: TempDir,
}

pub(crate) async fn run_all() -> anyhow::Result<()> {
    let place = Place {
        demo: Demo::start()?,
        dir: TempDir::new(),
    };
    place.demo.repos.create("big", COMMITS);
    for module in ["sub-1", "sub-2", "sub-3", "sub-4"] {
        place.demo.repos.create(module, 100);
    }
    let repos = &place.demo.repos;
    repos.create_with_modules("nested", &["sub-4"]);
    repos.create_with_modules("super", &["sub-1", "sub-2", "sub-3", "nested"]);

    place
        .clone_fetch_push()
        .await
        .context("clone, fetch, push")?;
    place.submodules().await.context("submodules")?;
    place.partial().await.context("a partial clone")?;
    place.archive().await.context("archive --remote")?;
    place.missing().await.context("a missing repository")?;
    place.lost().await.context("a lost connection")?;
    let status = place.demo.pool.status();
    let logins: u64 = status.hosts.iter().map(|host| host.dials).sum();
    println!("ok  all of it with {logins} logins");
    Ok(())
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<String> {
        let output = run(&self.demo.git, arguments).await?;
        good(output)
    }

    async fn run_in(&self, clone: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = plain(&self.demo.git);
        command.current_dir(self.path(clone)).args(arguments);
        good(bounded(&mut command).await?)
    }

    async fn clone(&self, name: &str, into: &Path, options: &[&str]) -> anyhow::Result<()> {
        let url = self.demo.url(name);
        let words = ["clone", "--quiet"]
            .into_iter()
            .chain(options.iter().copied());
        let words = words
            .map(OsStr::new)
            .chain([OsStr::new(&url), into.as_os_str()]);
        self.run(words).await?;
        Ok(())
    }

    async fn objects(&self, clone: &str) -> anyhow::Result<usize> {
        let listed = self
            .run_in(clone, &["rev-list", "--objects", "--all", "--count"])
            .await?;
        Ok(listed.trim().parse()?)
    }

    async fn clone_fetch_push(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.clone("big", &self.path("big"), &[]).await?;
        let took = begun.elapsed();
        let objects = self.objects("big").await?;
        let expected = COMMITS * OBJECTS_PER_COMMIT;
        ensure!(objects >= expected, "{objects} of {expected} objects");
        println!("ok  clone: {objects} objects in {took:.1?}");

        self.demo.repos.grow("big", 100);
        self.run_in("big", &["pull", "--quiet", "--ff-only"])
            .await?;
        let fetched = self.objects("big").await? - objects;
        ensure!(fetched == 100 * OBJECTS_PER_COMMIT, "{fetched} new objects");
        println!("ok  fetch: {fetched} new objects");

        std::fs::write(self.path("big").join("new"), "pushed\n")?;
        self.run_in("big", &["add", "new"]).await?;
        self.run_in("big", &["commit", "--quiet", "-m", "New"])
            .await?;
        self.run_in("big", &["push", "--quiet", "origin", "HEAD:main"])
            .await?;
        let arrived = self.demo.repos.git("big", &["show", "main:new"]);
        ensure!(arrived == "pushed\n", "\"{arrived}\" has arrived");
        println!("ok  push");
        Ok(())
    }

    async fn submodules(&self) -> anyhow::Result<()> {
        let options = ["--recurse-submodules", "--jobs=4"];
        self.clone("super", &self.path("super"), &options).await?;
        for module in ["sub-1", "sub-2", "sub-3", "nested/sub-4"] {
            let file = self.path("super").join(module).join("file-9");
            ensure!(file.exists(), "{} is not there", file.display());
        }
        println!("ok  recursive submodules, four at once");
        Ok(())
    }

    async fn partial(&self) -> anyhow::Result<()> {
        let options = ["--filter=blob:none", "--no-checkout"];
        self.clone("big", &self.path("partial"), &options).await?;
        let missing = async || -> anyhow::Result<usize> {
            let all = ["rev-list", "--objects", "--missing=print", "--all"];
            let listed = self.run_in("partial", &all).await?;
            Ok(listed.lines().filter(|line| line.starts_with('?')).count())
        };
        let before = missing().await?;
        self.run_in("partial", &["cat-file", "-p", "HEAD:new"])
            .await?;
        let one_less = missing().await?;
        self.run_in("partial", &["checkout", "--quiet", "main"])
            .await?;
        let after = missing().await?;
        ensure!(
            before >= COMMITS && one_less == before - 1 && after < one_less,
            "{before}, then {one_less}, then {after} blobs are missing"
        );
        println!(
            "ok  partial clone: {before} blobs left out, {} fetched later",
            before - after
        );
        Ok(())
    }

    async fn archive(&self) -> anyhow::Result<()> {
        let url = self.demo.url("sub-1");
        let archive = ["archive", "--format=tar", "--remote", &url, "main"];
        let output = run(&self.demo.git, archive).await?;
        ensure!(output.status.success(), "{output:?}");
        let local = self
            .demo
            .repos
            .git("sub-1", &["archive", "--format=tar", "main"]);
        ensure!(output.stdout == local.as_bytes(), "it is another archive");
        println!("ok  archive --remote: {} bytes", output.stdout.len());
        Ok(())
    }

    async fn missing(&self) -> anyhow::Result<()> {
        let url = self.demo.url("nowhere");
        let output = run(&self.demo.git, ["clone", &url]).await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(128),
            "{}: {told}",
            output.status
        );
        let words = "does not appear to be a git repository";
        ensure!(told.contains(words), "git says only: {told}");
        ensure!(output.troubles.is_empty(), "{:?}", output.troubles);
        println!("ok  a missing repository: exit code 128, and git's own words");
        Ok(())
    }

    /// The connection is cut in the middle of a clone.
    async fn lost(&self) -> anyhow::Result<()> {
        let proxy = Proxy::to(self.demo.server.addr());
        let target: Target = format!("{}@{}", self.demo.server.user(), proxy.addr()).parse()?;
        let key = HostKeyPolicy::pinned(self.demo.server.host_public_key("ed25519"));
        let target = target.host_key_policy(key);
        let url = self.demo.repos.url(&target.to_string(), "big");
        let git = Git::new(&self.demo.pool).allow(target)?;
        proxy.script([Step::from_server(1_000_000, Cut::Reset)]);
        let (into, again) = (self.path("lost"), self.path("again"));
        let clone = |into: &Path| {
            ["clone", "--quiet", &url]
                .map(OsStr::new)
                .into_iter()
                .chain([into.as_os_str()])
                .map(OsStr::to_owned)
                .collect::<Vec<_>>()
        };
        let cut = async {
            let cut = eventually_async(PATIENCE, || {
                proxy.connections() == 1 && proxy.open_connections() == 0
            });
            ensure!(cut.await, "the connection was not cut");
            Ok(Instant::now())
        };
        let ended = async {
            let output = run(&git, clone(&into)).await?;
            Ok((output, Instant::now()))
        };
        let (cut, (output, ended)) = tokio::try_join!(cut, ended)?;
        ensure!(output.status.code() == Some(128), "{}", output.status);
        let [Error::Ssh(error)] = output.troubles.as_slice() else {
            bail!("{:?}", output.troubles)
        };
        let state = error.command_state();
        ensure!(state == CommandState::Unknown, "{error}: {state:?}");
        let took = ended.saturating_duration_since(cut);
        ensure!(took <= AT_ONCE, "git ended {took:?} after its connection");
        proxy.script([]);
        good(run(&git, clone(&again)).await?).context("the next clone")?;
        println!(
            "ok  a connection cut in a clone: git ended within {took:.0?}; the next clone works"
        );
        Ok(())
    }
}

fn plain(git: &Git) -> Command {
    let mut command = git.command();
    for (name, value) in git_env() {
        command.env(name, value);
    }
    command
}

async fn run(
    git: &Git,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<Output> {
    bounded(plain(git).args(arguments)).await
}

async fn bounded(command: &mut Command) -> anyhow::Result<Output> {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    Ok(output.with_context(|| format!("{command:?} hangs"))??)
}

fn good(output: Output) -> anyhow::Result<String> {
    let told = String::from_utf8_lossy(&output.stderr);
    let (status, troubles) = (output.status, &output.troubles);
    ensure!(status.success(), "{status}: {told} {troubles:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
